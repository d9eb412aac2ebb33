//! containerd's own API: the containers of its namespaces, as `ctr` and `nerdctl` make them.
//!
//! Docker's containers are in its namespace `moby`, and those of Kubernetes in `k8s.io`: their own APIs know more of them, so these two are left
//! to them unless they are asked for by name.

pub mod event;
pub mod messages;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use futures::{Stream, TryStreamExt as _, stream};
use serde::Deserialize;
use weir_proto::{Container, PublishedPort};

use crate::{
    Error, cgroup,
    docker::identity,
    grpc::{self, Client},
    lives::{Event, Inspected},
    metrics, text,
};
use messages::{
    CONTAINER, Containers, EVENTS, Empty, Envelope, Filters, IMAGE, LIST, NAMESPACES, Named, Namespaces, OneContainer,
    OneImage, OneTask, TASK, Task, VERSION,
};

/// What `runtime` says in the records.
pub const RUNTIME: &str = "containerd";
/// What says where it listens.
pub(crate) const OPTION: &str = "CONTAINERD_SOCKET";
/// Namespaces of those who have an API of their own.
const LEFT_TO_OTHERS: [&str; 2] = ["moby", "k8s.io"];

/// Where containerd is, and which namespaces to watch.
#[derive(Clone, Debug)]
pub struct Address {
    /// Its socket.
    pub socket: PathBuf,
    /// Empty = all but those that others watch.
    pub namespaces: Vec<String>,
}

/// A connection, cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    client: Client,
    namespaces: Vec<String>,
}

impl Engine {
    /// Connects.
    pub async fn connect(address: &Address, timeout: Duration) -> Result<Self, Error> {
        let client = Client::connect(&address.socket, OPTION, timeout).await?;
        let engine = Self { client, namespaces: address.namespaces.clone() };
        engine.ping().await?;
        Ok(engine)
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.client.call::<_, Empty>(VERSION, "", Empty {}).await.map(drop)
    }

    /// The ids of all containers, `namespace/id`.
    pub async fn list(&self) -> Result<Vec<String>, Error> {
        let all: Namespaces = self.client.call(NAMESPACES, "", Filters::default()).await?;
        let mut ids = Vec::new();
        for namespace in all.namespaces.iter().filter(|namespace| watches(&self.namespaces, &namespace.name)) {
            let found: Containers = self.client.call(LIST, &namespace.name, Filters::default()).await?;
            ids.extend(found.containers.iter().map(|container| full_id(&namespace.name, &container.id)));
        }
        Ok(ids)
    }

    /// What containerd knows of a container and its task.
    pub async fn inspect(&self, id: &str) -> Result<Inspected, Error> {
        let (namespace, name) = id.split_once('/').ok_or(Error::NotFound)?;
        let named = Named { id: name.to_owned() };
        let found: OneContainer = self.client.call(CONTAINER, namespace, named.clone()).await?;
        let container = found.container.ok_or(Error::NotFound)?;
        let task = match self.client.call::<_, OneTask>(TASK, namespace, named).await {
            Ok(found) => found.process,
            // Created and not started, or ended and cleaned up.
            Err(Error::NotFound) => None,
            Err(error) => return Err(error),
        };
        let digest = self.digest(namespace, &container.image).await?;
        let mut inspected = inspected(Path::new("/proc"), id, &container, task.as_ref());
        inspected.container.image_digest = digest;
        Ok(inspected)
    }

    /// The digest of what an image's name leads to; empty = it leads nowhere any more.
    async fn digest(&self, namespace: &str, image: &str) -> Result<String, Error> {
        if image.is_empty() {
            return Ok(String::new());
        }
        match self.client.call::<_, OneImage>(IMAGE, namespace, Named { id: image.to_owned() }).await {
            Ok(found) => Ok(found
                .image
                .and_then(|image| image.target)
                .map(|target| text::value(&target.digest))
                .unwrap_or_default()),
            Err(Error::NotFound | Error::Unsupported { .. }) => Ok(String::new()),
            Err(error) => Err(error),
        }
    }

    /// What happens from now on: containerd remembers nothing.
    pub fn events(&self) -> impl Stream<Item = Result<Option<Event>, Error>> + use<> {
        let namespaces = self.namespaces.clone();
        subscribe(self.client.clone()).map_ok(move |envelope| {
            let mut event = event::event(&envelope).filter(|_| watches(&namespaces, &envelope.namespace))?;
            event.record.container_id = full_id(&envelope.namespace, &event.record.container_id);
            event.record.name = text::value(cgroup::own_name(&event.record.container_id));
            Some(event)
        })
    }
}

/// The labels of a container.
pub(crate) async fn labels(client: &Client, namespace: &str, id: &str) -> Result<BTreeMap<String, String>, Error> {
    let found: OneContainer = client.call(CONTAINER, namespace, Named { id: id.to_owned() }).await?;
    Ok(grpc::labels(&found.container.ok_or(Error::NotFound)?.labels))
}

/// The events of all namespaces.
pub(crate) fn subscribe(client: Client) -> impl Stream<Item = Result<Envelope, Error>> {
    stream::once(async move { client.subscribe::<_, Envelope>(EVENTS, Filters::default()).await }).try_flatten()
}

fn watches(namespaces: &[String], namespace: &str) -> bool {
    if namespaces.is_empty() {
        !LEFT_TO_OTHERS.contains(&namespace)
    } else {
        namespaces.iter().any(|watched| watched == namespace)
    }
}

/// An id is one within its namespace only.
fn full_id(namespace: &str, id: &str) -> String {
    format!("{namespace}/{id}")
}

/// What is read of the runtime's specification (opencontainers/runtime-spec, `config.md`, `config-linux.md`).
#[derive(Default, Deserialize)]
pub(crate) struct Spec {
    #[serde(default)]
    linux: Linux,
}

#[derive(Default, Deserialize)]
struct Linux {
    #[serde(default)]
    namespaces: Vec<Namespace>,
    #[serde(default)]
    resources: Resources,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resources {
    cpu: Cpu,
    memory: Limit,
    pids: Limit,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cpu {
    quota: Option<i64>,
    period: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Limit {
    limit: Option<i64>,
}

#[derive(Deserialize)]
struct Namespace {
    #[serde(rename = "type", default)]
    kind: String,
}

impl Spec {
    /// Whether the container has the network of the host: it is given no namespace of its own.
    pub(crate) fn host_network(&self) -> bool {
        !self.linux.namespaces.iter().any(|namespace| namespace.kind == "network")
    }

    /// Writes what the container may use.
    pub(crate) fn limit(&self, life: &mut Container) {
        let Resources { cpu, memory, pids } = &self.linux.resources;
        limit_cpu(life, cpu.quota.unwrap_or_default(), cpu.period.unwrap_or_default());
        life.memory_limit_bytes = positive(memory.limit);
        life.pids_limit = positive(pids.limit);
    }
}

/// Writes how many cores it may use; the period is the kernel's where it is 0.
pub(crate) fn limit_cpu(life: &mut Container, quota: i64, period: u64) {
    let period = if period == 0 { 100_000 } else { period };
    life.cpu_limit = positive(Some(quota)).map(|quota| quota as f64 / period as f64);
}

/// A limit that is one: 0 and -1 are none.
pub(crate) fn positive(limit: Option<i64>) -> Option<u64> {
    limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0)
}

/// What `nerdctl` notes of published ports.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Published {
    host_port: u16,
    container_port: u16,
    protocol: String,
    #[serde(rename = "HostIP", default)]
    host_ip: String,
}

fn ports(labels: &BTreeMap<String, String>) -> Vec<PublishedPort> {
    let noted = labels.get("nerdctl/ports").and_then(|json| serde_json::from_str::<Vec<Published>>(json).ok());
    let noted = noted.unwrap_or_default().into_iter().take(identity::MAX_PORTS);
    noted
        .filter_map(|one| identity::published(&one.host_ip, one.host_port, one.container_port, &one.protocol))
        .collect()
}

fn inspected(proc: &Path, id: &str, container: &messages::Container, task: Option<&Task>) -> Inspected {
    let spec: Option<Spec> = container.spec.as_ref().and_then(|spec| serde_json::from_slice(&spec.value).ok());
    let (labels, cut) = text::labels(grpc::labels(&container.labels));
    metrics::values_cut(cut);
    let name = labels.get("nerdctl/name").map_or(container.id.as_str(), String::as_str);
    let mut life = Container {
        container_id: id.to_owned(),
        name: text::value(name),
        image: text::value(&container.image),
        state: "created".to_owned(),
        created_at: container
            .created_at
            .and_then(messages::Timestamp::nanoseconds)
            .map_or(0, |time| time as u64 / 1000),
        host_network: spec.as_ref().is_some_and(Spec::host_network),
        ports: ports(&labels),
        labels,
        ..Container::default()
    };
    if let Some(spec) = &spec {
        spec.limit(&mut life);
    }
    let running = task.is_some_and(|task| matches!(task.status, 2 | 4 | 5));
    if let Some(task) = task.filter(|_| running) {
        life.pid = task.pid;
        if task.status == 2 { "running" } else { "paused" }.clone_into(&mut life.state);
        life.started_at = cgroup::process::started_at(proc, task.pid).unwrap_or_default();
        life.networks = own_addresses(proc, &life);
        if let Some(cgroup) = cgroup::find(task.pid, &container.id) {
            (life.cgroup_path, life.cgroup_id) = (cgroup.path, cgroup.id);
        }
    } else if let Some(task) = task.filter(|task| task.status == 3) {
        // When it began is not kept: only its events told.
        let finished_at =
            task.exited_at.and_then(messages::Timestamp::nanoseconds).map_or(0, |time| time as u64 / 1000);
        "exited".clone_into(&mut life.state);
        (life.finished_at, life.exit_code) = (finished_at, i32::try_from(task.exit_status).ok());
    }
    Inspected { running, previous_finished_at: 0, container: life }
}

/// The addresses of a container that has a network of its own.
pub(crate) fn own_addresses(proc: &Path, life: &Container) -> Vec<weir_proto::ContainerNetwork> {
    let is_host = life.host_network || cgroup::network::is_host(proc, life.pid).unwrap_or(true);
    if is_host { Vec::new() } else { cgroup::network::addresses(proc, life.pid) }
}

/// The labels that name a container's pod.
#[must_use]
pub fn pod_labels(namespace: &str, pod: &str, container: &str) -> BTreeMap<String, String> {
    [
        ("io.kubernetes.pod.namespace", namespace),
        ("io.kubernetes.pod.name", pod),
        ("io.kubernetes.container.name", container),
    ]
    .into_iter()
    .filter(|(_, value)| !value.is_empty())
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_with_an_api_of_their_own_are_watched_only_by_name() {
        assert!(watches(&[], "default"));
        assert!(!watches(&[], "moby") && !watches(&[], "k8s.io"));
        assert!(watches(&["k8s.io".to_owned()], "k8s.io") && !watches(&["k8s.io".to_owned()], "default"));
    }

    #[test]
    fn a_container_without_a_network_namespace_has_the_hosts_network() {
        let host: Spec = serde_json::from_str(r#"{"linux":{"namespaces":[{"type":"pid"}]}}"#).unwrap();
        let own: Spec = serde_json::from_str(r#"{"linux":{"namespaces":[{"type":"network","path":"/x"}]}}"#).unwrap();
        assert!(host.host_network() && !own.host_network());
    }

    #[test]
    fn limits_and_ports_are_those_that_were_set() {
        let spec: Spec = serde_json::from_str(
            r#"{"linux":{"resources":{"cpu":{"quota":50000},"memory":{"limit":1048576},"pids":{"limit":-1}}}}"#,
        )
        .unwrap();
        let mut life = Container::default();
        spec.limit(&mut life);
        assert_eq!((life.cpu_limit, life.memory_limit_bytes, life.pids_limit), (Some(0.5), Some(1 << 20), None));
        let noted = r#"[{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":"0.0.0.0"}]"#;
        let port = ports(&[("nerdctl/ports".to_owned(), noted.to_owned())].into())[0];
        assert_eq!((port.host_port, port.container_port, port.protocol), (8080, 80, 6));
        assert!(ports(&[("nerdctl/ports".to_owned(), "[{".to_owned())].into()).is_empty());
    }
}
