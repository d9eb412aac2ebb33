//! What is used of containerd's protocol (containerd, `api/services/*/v1/*.proto`, `api/types`, `api/events`).

#![expect(missing_docs, reason = "the fields are those of the .proto files")]

use crate::grpc::{Label, Method};

pub(crate) const VERSION: Method = Method { path: "/containerd.services.version.v1.Version/Version", name: "version" };
pub(crate) const NAMESPACES: Method =
    Method { path: "/containerd.services.namespaces.v1.Namespaces/List", name: "namespaces" };
pub(crate) const LIST: Method = Method { path: "/containerd.services.containers.v1.Containers/List", name: "list" };
pub(crate) const CONTAINER: Method =
    Method { path: "/containerd.services.containers.v1.Containers/Get", name: "container" };
pub(crate) const TASK: Method = Method { path: "/containerd.services.tasks.v1.Tasks/Get", name: "task" };
pub(crate) const IMAGE: Method = Method { path: "/containerd.services.images.v1.Images/Get", name: "image" };
pub(crate) const EVENTS: Method = Method { path: "/containerd.services.events.v1.Events/Subscribe", name: "events" };

/// The protocol's time.
#[derive(Clone, Copy, PartialEq, ::prost::Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// Nanoseconds since 1970; `None` = no time: Go's zero time is before.
    #[must_use]
    pub fn nanoseconds(self) -> Option<i64> {
        self.seconds.checked_mul(1_000_000_000)?.checked_add(i64::from(self.nanos)).filter(|time| *time > 0)
    }
}

/// A message of a type that is named beside it.
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, ::prost::Message)]
pub struct Empty {}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Namespaces {
    #[prost(message, repeated, tag = "1")]
    pub namespaces: Vec<Namespace>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Namespace {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Filters {
    #[prost(string, repeated, tag = "1")]
    pub filters: Vec<String>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Containers {
    #[prost(message, repeated, tag = "1")]
    pub containers: Vec<Container>,
}

/// A request that names a container, and an answer that holds one.
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Named {
    #[prost(string, tag = "1")]
    pub id: String,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct OneContainer {
    #[prost(message, optional, tag = "1")]
    pub container: Option<Container>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Container {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, repeated, tag = "2")]
    pub labels: Vec<Label>,
    #[prost(string, tag = "3")]
    pub image: String,
    #[prost(message, optional, tag = "5")]
    pub spec: Option<Any>,
    #[prost(message, optional, tag = "8")]
    pub created_at: Option<Timestamp>,
}

/// The answer to a request that names an image.
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct OneImage {
    #[prost(message, optional, tag = "1")]
    pub image: Option<Image>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Image {
    #[prost(message, optional, tag = "3")]
    pub target: Option<Descriptor>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Descriptor {
    #[prost(string, tag = "2")]
    pub digest: String,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct OneTask {
    #[prost(message, optional, tag = "1")]
    pub process: Option<Task>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Task {
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// 1 created, 2 running, 3 stopped, 4 paused, 5 pausing.
    #[prost(int32, tag = "4")]
    pub status: i32,
    #[prost(uint32, tag = "9")]
    pub exit_status: u32,
    #[prost(message, optional, tag = "10")]
    pub exited_at: Option<Timestamp>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Envelope {
    #[prost(message, optional, tag = "1")]
    pub timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub topic: String,
    #[prost(message, optional, tag = "4")]
    pub event: Option<Any>,
}

/// The events that name a container and nothing else that matters here.
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct About {
    #[prost(string, tag = "1")]
    pub container_id: String,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Created {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub image: String,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Exited {
    #[prost(string, tag = "1")]
    pub container_id: String,
    /// The process: the container itself, or something that was executed in it.
    #[prost(string, tag = "2")]
    pub id: String,
    #[prost(uint32, tag = "4")]
    pub exit_status: u32,
    #[prost(message, optional, tag = "5")]
    pub exited_at: Option<Timestamp>,
}

#[derive(Clone, PartialEq, ::prost::Message)]
pub struct Executed {
    #[prost(string, tag = "1")]
    pub container_id: String,
    #[prost(string, tag = "2")]
    pub exec_id: String,
}
