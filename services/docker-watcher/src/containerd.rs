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
use weir_proto::Container;

use crate::{
    Error, cgroup,
    grpc::Client,
    lives::{Event, Inspected},
    metrics, text,
};
use messages::{
    CONTAINER, Containers, EVENTS, Empty, Envelope, Filters, LIST, NAMESPACES, Named, Namespaces, OneContainer,
    OneTask, TASK, Task, VERSION,
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
        Ok(inspected(Path::new("/proc"), id, container, task.as_ref()))
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
    Ok(found.container.ok_or(Error::NotFound)?.labels)
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
}

fn inspected(proc: &Path, id: &str, container: messages::Container, task: Option<&Task>) -> Inspected {
    let spec: Option<Spec> = container.spec.as_ref().and_then(|spec| serde_json::from_slice(&spec.value).ok());
    let (labels, cut) = text::labels(container.labels);
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
        host_network: spec.is_some_and(|spec| spec.host_network()),
        labels,
        ..Container::default()
    };
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
}
