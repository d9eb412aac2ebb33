//! What is used of the Container Runtime Interface (Kubernetes, `cri-api/pkg/apis/runtime/v1/api.proto`).

#![expect(missing_docs, reason = "the fields are those of the .proto file")]

use std::collections::BTreeMap;

use crate::grpc::{Label, Method};

pub(crate) const VERSION: Method = Method { path: "/runtime.v1.RuntimeService/Version", name: "version" };
pub(crate) const LIST: Method = Method { path: "/runtime.v1.RuntimeService/ListContainers", name: "list" };
pub(crate) const STATUS: Method = Method { path: "/runtime.v1.RuntimeService/ContainerStatus", name: "inspect" };
pub(crate) const POD_STATUS: Method = Method { path: "/runtime.v1.RuntimeService/PodSandboxStatus", name: "pod" };
pub(crate) const EVENTS: Method = Method { path: "/runtime.v1.RuntimeService/GetContainerEvents", name: "events" };
pub(crate) const STATS: Method = Method { path: "/runtime.v1.RuntimeService/ContainerStats", name: "stats" };

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Version {
    #[prost(string, tag = "2")]
    pub runtime_name: String,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct ListRequest {
    #[prost(message, optional, tag = "1")]
    pub filter: Option<Filter>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Filter {
    #[prost(string, tag = "1")]
    pub id: String,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct List {
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub pod_sandbox_id: String,
    /// As in [`Status`].
    #[prost(int32, tag = "6")]
    pub state: i32,
}

#[derive(Clone, Copy, PartialEq, ::prost::Message)]
pub struct EventsRequest {}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct ContainerEvent {
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// 0 created, 1 started, 2 stopped, 3 deleted.
    #[prost(int32, tag = "2")]
    pub kind: i32,
    #[prost(int64, tag = "3")]
    pub created_at: i64,
    #[prost(message, optional, tag = "4")]
    pub pod: Option<Pod>,
    #[prost(message, repeated, tag = "5")]
    pub containers: Vec<Status>,
}

/// A request about one container or pod.
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct About {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(bool, tag = "2")]
    pub verbose: bool,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Status>,
    /// With `info`, JSON that each runtime writes in its own way.
    #[prost(btree_map = "string, string", tag = "2")]
    pub info: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Metadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Image {
    #[prost(string, tag = "1")]
    pub image: String,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Status {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<Metadata>,
    /// 0 created, 1 running, 2 exited, 3 unknown.
    #[prost(int32, tag = "3")]
    pub state: i32,
    #[prost(int64, tag = "4")]
    pub created_at: i64,
    #[prost(int64, tag = "5")]
    pub started_at: i64,
    #[prost(int64, tag = "6")]
    pub finished_at: i64,
    #[prost(int32, tag = "7")]
    pub exit_code: i32,
    #[prost(message, optional, tag = "8")]
    pub image: Option<Image>,
    #[prost(string, tag = "9")]
    pub image_ref: String,
    #[prost(string, tag = "10")]
    pub reason: String,
    #[prost(message, repeated, tag = "12")]
    pub labels: Vec<Label>,
    #[prost(message, optional, tag = "16")]
    pub resources: Option<Resources>,
    #[prost(string, tag = "17")]
    pub image_id: String,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Resources {
    #[prost(message, optional, tag = "1")]
    pub linux: Option<LinuxResources>,
}

#[derive(Clone, Copy, PartialEq, ::prost::Message)]
pub struct LinuxResources {
    #[prost(int64, tag = "1")]
    pub cpu_period: i64,
    #[prost(int64, tag = "2")]
    pub cpu_quota: i64,
    #[prost(int64, tag = "4")]
    pub memory_limit_in_bytes: i64,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct PodResponse {
    #[prost(message, optional, tag = "1")]
    pub status: Option<Pod>,
    /// With `info`, as that of a container.
    #[prost(btree_map = "string, string", tag = "2")]
    pub info: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Pod {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<PodMetadata>,
    #[prost(message, optional, tag = "5")]
    pub network: Option<PodNetwork>,
    #[prost(message, optional, tag = "6")]
    pub linux: Option<PodLinux>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct PodMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct PodNetwork {
    #[prost(string, tag = "1")]
    pub ip: String,
    #[prost(message, repeated, tag = "2")]
    pub additional_ips: Vec<PodIp>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct PodIp {
    #[prost(string, tag = "1")]
    pub ip: String,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct PodLinux {
    #[prost(message, optional, tag = "1")]
    pub namespaces: Option<PodNamespaces>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct PodNamespaces {
    #[prost(message, optional, tag = "2")]
    pub options: Option<NamespaceOptions>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct NamespaceOptions {
    /// 0 of the pod, 2 of the node.
    #[prost(int32, tag = "1")]
    pub network: i32,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct StatsResponse {
    #[prost(message, optional, tag = "1")]
    pub stats: Option<Stats>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Stats {
    #[prost(message, optional, tag = "2")]
    pub cpu: Option<Cpu>,
    #[prost(message, optional, tag = "3")]
    pub memory: Option<Memory>,
    #[prost(message, optional, tag = "5")]
    pub swap: Option<Swap>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Value {
    #[prost(uint64, tag = "1")]
    pub value: u64,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Cpu {
    #[prost(int64, tag = "1")]
    pub timestamp: i64,
    #[prost(message, optional, tag = "2")]
    pub usage_core_nano_seconds: Option<Value>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Memory {
    #[prost(message, optional, tag = "2")]
    pub working_set_bytes: Option<Value>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Swap {
    #[prost(message, optional, tag = "3")]
    pub swap_usage_bytes: Option<Value>,
}
