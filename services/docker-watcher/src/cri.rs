//! The Container Runtime Interface: containers as Kubernetes has them, with their pods.

mod events;
pub mod messages;

use std::{collections::HashMap, net::IpAddr, path::Path, sync::Arc, time::Duration};

use futures::{
    Stream, StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use serde::Deserialize;
use tokio::{sync::Mutex, time::Interval};
use tracing::info;
use weir_proto::{Container, ContainerNetwork, ContainerStats, PublishedPort};

use crate::{
    Error, cgroup, containerd,
    docker::{identity, now_ns},
    grpc::{self, Client},
    lives::{Event, Inspected, Kind},
    metrics,
    runtime::Sample,
    text,
};
use messages::{
    About, EVENTS, EventsRequest, LIST, List, ListRequest, POD_STATUS, Pod, PodResponse, STATS, STATUS, StatsResponse,
    Status, StatusResponse, VERSION, Version,
};

/// What says where it listens.
const OPTION: &str = "CONTAINER_RUNTIME_ENDPOINT";
/// containerd's namespace of all that Kubernetes asked for.
const NAMESPACE: &str = "k8s.io";
/// The label that tells pods from containers there.
const KIND: &str = "io.cri-containerd.kind";
/// How often, and how many times, a status is asked for the start that an event told.
const NOTED_EVERY: Duration = Duration::from_millis(20);
const NOTED_TRIES: usize = 25;
/// How often the list is looked at where a runtime tells no events.
const LIST_EVERY: Duration = Duration::from_secs(1);
/// Of how many containers is remembered which they are.
const MAX_KNOWN: usize = 4096;

/// A connection, cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    client: Client,
    runtime: Arc<str>,
}

impl Engine {
    /// Connects and asks for the runtime's name.
    pub async fn connect(socket: &Path, timeout: Duration) -> Result<Self, Error> {
        let client = Client::connect(socket, OPTION, timeout).await?;
        let version: Version = client.call(VERSION, "", messages::Filter::default()).await?;
        Ok(Self { client, runtime: text::cut(&version.runtime_name, 64).into() })
    }

    /// What `runtime` says in the records: `containerd`, `cri-o`.
    #[must_use]
    pub fn runtime(&self) -> &str {
        &self.runtime
    }

    /// Whether it answers.
    pub async fn ping(&self) -> Result<(), Error> {
        self.client.call::<_, Version>(VERSION, "", messages::Filter::default()).await.map(drop)
    }

    /// The ids of all containers, running or not. Pods themselves are none.
    pub async fn list(&self) -> Result<Vec<String>, Error> {
        let list: List = self.client.call(LIST, "", ListRequest::default()).await?;
        Ok(list.containers.into_iter().map(|container| container.id).collect())
    }

    /// What the runtime knows of a container and its pod.
    pub async fn inspect(&self, id: &str) -> Result<Inspected, Error> {
        let about = About { id: id.to_owned(), verbose: true };
        let response: StatusResponse = self.client.call(STATUS, "", about).await?;
        let info: Info = response.info.get("info").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        let (pod, ports) = self.pod(id, &info).await?.unzip();
        let mut inspected = inspected(Path::new("/proc"), response.status.unwrap_or_default(), &info, pod.as_ref())
            .ok_or(Error::NotFound)?;
        inspected.container.ports = ports.unwrap_or_default();
        Ok(inspected)
    }

    /// Its pod, and the ports of the host that lead there.
    async fn pod(&self, id: &str, info: &Info) -> Result<Option<(Pod, Vec<PublishedPort>)>, Error> {
        let pod = if info.sandbox_id.is_empty() {
            let filter = Some(messages::Filter { id: id.to_owned() });
            let list: List = self.client.call(LIST, "", ListRequest { filter }).await?;
            list.containers.into_iter().next().map(|container| container.pod_sandbox_id)
        } else {
            Some(info.sandbox_id.clone())
        };
        let Some(id) = pod.filter(|id| !id.is_empty()) else { return Ok(None) };
        match self.client.call::<_, PodResponse>(POD_STATUS, "", About { id, verbose: true }).await {
            Ok(PodResponse { status, info }) => Ok(status.map(|status| (status, ports(&info)))),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The counters that the interface has, and the rest by the container's cgroup, where it can be seen.
    pub async fn stats(&self, life: &Container) -> Result<Option<Sample>, Error> {
        let about = About { id: life.container_id.clone(), verbose: false };
        let response: StatsResponse = self.client.call(STATS, "", about).await?;
        let Some(stats) = response.stats else { return Ok(None) };
        let mut sample = cgroup::sample(life).await?.unwrap_or_else(unseen);
        let record = &mut sample.record;
        record.tier.clear();
        let memory = stats.memory.and_then(|memory| memory.working_set_bytes);
        if let Some(bytes) = memory {
            record.memory_bytes = Some(bytes.value);
            record.missing.remove("memory_bytes");
        }
        if let Some(cpu) = stats.cpu
            && let Some(used) = cpu.usage_core_nano_seconds
            && cpu.timestamp > 0
        {
            (record.cpu_usage_ns, sample.read_ns) = (Some(used.value), cpu.timestamp);
            record.time = cpu.timestamp as u64 / 1000;
            record.missing.remove("cpu_usage_ns");
        }
        if let Some(swap) = stats.swap.and_then(|swap| swap.swap_usage_bytes) {
            record.memory_swap_bytes = Some(swap.value);
            record.missing.remove("memory_swap_bytes");
        }
        Ok(Some(sample))
    }

    /// What happens from now on: containerd's own events, on the same socket; else those of the interface; else what its list shows.
    #[must_use]
    pub fn events(&self) -> BoxStream<'static, Result<Option<Event>, Error>> {
        if *self.runtime == *containerd::RUNTIME {
            self.events_of_containerd().boxed()
        } else {
            self.events_of_interface().boxed()
        }
    }

    /// Those of pods are left out.
    fn events_of_containerd(&self) -> impl Stream<Item = Result<Option<Event>, Error>> + use<> {
        let engine = self.clone();
        let pods = Arc::new(Mutex::new(HashMap::new()));
        containerd::subscribe(self.client.clone())
            .try_filter(|envelope| std::future::ready(envelope.namespace == NAMESPACE))
            .and_then(move |envelope| {
                let (engine, pods) = (engine.clone(), Arc::clone(&pods));
                async move {
                    let Some(mut event) = containerd::event::event(&envelope) else { return Ok(None) };
                    let is_pod = engine.is_pod(&event, &mut *pods.lock().await).await?;
                    if is_pod {
                        return Ok(None);
                    }
                    if event.kind == Kind::Start {
                        engine.note_start(&mut event).await?;
                    }
                    Ok(Some(event))
                }
            })
    }

    fn events_of_interface(&self) -> impl Stream<Item = Result<Option<Event>, Error>> + use<> {
        let client = self.client.clone();
        let told = stream::once(async move { client.subscribe(EVENTS, EventsRequest {}).await }).try_flatten().boxed();
        let source = Source::Told { told, any: false };
        stream::unfold((self.clone(), source), |(engine, source)| async move {
            let (events, source) = engine.next(source).await?;
            let events: Vec<_> = match events {
                Ok(events) => events.into_iter().map(Some).map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            Some((events, (engine, source)))
        })
        .flat_map(stream::iter)
    }

    /// The next events of a source, and what comes after. `None` = it ended.
    async fn next(&self, source: Source) -> Option<(Result<Vec<Event>, Error>, Source)> {
        match source {
            Source::Told { mut told, any } => match told.next().await {
                Some(Ok(message)) => Some((Ok(events::told(message)), Source::Told { told, any: true })),
                Some(Err(error)) if any => Some((Err(error), Source::Told { told, any })),
                None if any => None,
                // If it is the connection that broke, the list will tell.
                nothing => {
                    let reason = nothing.and_then(Result::err).map(|error| error.chain()).unwrap_or_default();
                    info!(runtime = &*self.runtime, reason, "the runtime tells no events: its list is looked at");
                    let mut every = tokio::time::interval(LIST_EVERY);
                    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                    Some((Ok(Vec::new()), Source::Listed { before: None, every }))
                }
            },
            Source::Listed { before, mut every } => {
                every.tick().await;
                let events = match self.listed().await {
                    Ok(now) => (self.changes(before.as_ref(), &now).await, Some(now)),
                    Err(error) => (Err(error), before),
                };
                let (events, before) = events;
                Some((events, Source::Listed { before, every }))
            }
        }
    }

    async fn listed(&self) -> Result<events::Listed, Error> {
        let list: List = self.client.call(LIST, "", ListRequest::default()).await?;
        Ok(list.containers.into_iter().map(|container| (container.id, container.state)).collect())
    }

    async fn changes(&self, before: Option<&events::Listed>, now: &events::Listed) -> Result<Vec<Event>, Error> {
        let mut changes = before.map(|before| events::changes(before, now, now_ns())).unwrap_or_default();
        for event in &mut changes {
            let about = About { id: event.record.container_id.clone(), verbose: false };
            match self.client.call::<_, StatusResponse>(STATUS, "", about).await {
                Ok(StatusResponse { status: Some(status), .. }) => events::know(event, &status),
                Ok(_) | Err(Error::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(changes)
    }

    /// The start is noted after it was told, and what was noted names the life: waits for that, a moment at most.
    async fn note_start(&self, event: &mut Event) -> Result<(), Error> {
        let mut every = tokio::time::interval(NOTED_EVERY);
        for _ in 0..NOTED_TRIES {
            every.tick().await;
            let about = About { id: event.record.container_id.clone(), verbose: false };
            match self.client.call::<_, StatusResponse>(STATUS, "", about).await {
                Ok(StatusResponse { status: Some(Status { started_at, .. }), .. }) if started_at > 0 => {
                    (event.time_ns, event.record.time) = (started_at, started_at as u64 / 1000);
                    return Ok(());
                }
                Ok(_) => {}
                Err(Error::NotFound) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether an event is about the sandbox of a pod, which containerd keeps as a container with a label. `known` = what was asked before.
    async fn is_pod(&self, event: &Event, known: &mut HashMap<String, bool>) -> Result<bool, Error> {
        let id = &event.record.container_id;
        let is_pod = match known.get(id) {
            Some(is_pod) => *is_pod,
            None => match containerd::labels(&self.client, NAMESPACE, id).await {
                Ok(labels) => labels.get(KIND).is_some_and(|kind| kind == "sandbox"),
                // It is gone already. A pod outlives its containers, so it would be known.
                Err(Error::NotFound) => false,
                Err(error) => return Err(error),
            },
        };
        if event.kind == Kind::Destroy || known.len() >= MAX_KNOWN {
            known.remove(id);
        } else {
            known.insert(id.clone(), is_pod);
        }
        Ok(is_pod)
    }
}

/// Where events come from.
enum Source {
    /// The interface; whether it has told any.
    Told { told: BoxStream<'static, Result<messages::ContainerEvent, Error>>, any: bool },
    /// The list, as it was before.
    Listed { before: Option<events::Listed>, every: Interval },
}

/// A sample of a container whose cgroup cannot be seen from here.
fn unseen() -> Sample {
    let mut record = ContainerStats::default();
    let others = ["memory_swap_bytes", "pids", "block_read_bytes", "block_write_bytes", "cpu_usage_ns", "memory_bytes"];
    for field in others.iter().chain(&cgroup::network::FIELDS).chain(&cgroup::counters::PRESSURE_FIELDS) {
        record.missing.insert(
            (*field).to_owned(),
            "the runtime does not tell, and the container's cgroup cannot be seen".to_owned(),
        );
    }
    let read_ns = now_ns();
    record.time = read_ns as u64 / 1000;
    Sample { read_ns, record }
}

/// What containerd and CRI-O tell in words of their own.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Info {
    #[serde(rename = "sandboxID")]
    sandbox_id: String,
    pid: u32,
    #[serde(rename = "runtimeSpec")]
    spec: containerd::Spec,
}

/// What containerd tells of a pod in words of its own.
#[derive(Default, Deserialize)]
#[serde(default)]
struct PodInfo {
    config: PodConfig,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodConfig {
    port_mappings: Vec<PortMapping>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PortMapping {
    /// 0 TCP, 1 UDP, 2 SCTP.
    protocol: u8,
    container_port: u16,
    host_port: u16,
    host_ip: String,
}

fn ports(info: &std::collections::BTreeMap<String, String>) -> Vec<PublishedPort> {
    let info: PodInfo = info.get("info").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    let published = info.config.port_mappings.iter().filter(|mapping| mapping.host_port > 0).filter_map(|mapping| {
        let protocol = ["tcp", "udp", "sctp"].get(usize::from(mapping.protocol))?;
        identity::published(&mapping.host_ip, mapping.host_port, mapping.container_port, protocol)
    });
    published.take(identity::MAX_PORTS).collect()
}

fn inspected(proc: &Path, status: Status, info: &Info, pod: Option<&Pod>) -> Option<Inspected> {
    let microseconds = |nanoseconds: i64| u64::try_from(nanoseconds / 1000).unwrap_or_default();
    let metadata = status.metadata.unwrap_or_default();
    let (running, ended) = (status.state == 1, status.state == 2 && status.started_at > 0);
    let mut all = pod_labels(pod, &metadata.name);
    all.extend(grpc::labels(&status.labels));
    let (labels, cut) = text::labels(all);
    metrics::values_cut(cut);
    let name = labels.get("io.kubernetes.container.name").map_or(metadata.name.as_str(), String::as_str);
    let mut life = Container {
        container_id: Some(status.id).filter(|id| !id.is_empty())?,
        name: text::value(name),
        image: text::value(&status.image.unwrap_or_default().image),
        image_id: text::value(if status.image_id.is_empty() { &status.image_ref } else { &status.image_id }),
        image_digest: text::value(status.image_ref.rsplit_once('@').map_or("", |(_, digest)| digest)),
        labels,
        started_at: microseconds(status.started_at),
        finished_at: if ended { microseconds(status.finished_at).max(microseconds(status.started_at)) } else { 0 },
        exit_code: ended.then_some(status.exit_code),
        oom_killed: status.reason == "OOMKilled",
        state: if running {
            "running"
        } else if ended {
            "exited"
        } else {
            "created"
        }
        .to_owned(),
        created_at: microseconds(status.created_at),
        host_network: pod.is_some_and(host_network),
        restarts: Some(metadata.attempt.into()),
        ..Container::default()
    };
    info.spec.limit(&mut life);
    if let Some(limits) = status.resources.and_then(|resources| resources.linux) {
        containerd::limit_cpu(&mut life, limits.cpu_quota, u64::try_from(limits.cpu_period).unwrap_or_default());
        life.memory_limit_bytes = containerd::positive(Some(limits.memory_limit_in_bytes));
    }
    if running && info.pid > 0 {
        life.pid = info.pid;
        if let Some(cgroup) = cgroup::find(life.pid, &life.container_id) {
            (life.cgroup_path, life.cgroup_id) = (cgroup.path, cgroup.id);
        }
    }
    if !life.host_network {
        life.networks = pod
            .map(addresses)
            .filter(|addresses| !addresses.is_empty())
            .unwrap_or_else(|| if life.pid > 0 { containerd::own_addresses(proc, &life) } else { Vec::new() });
    }
    Some(Inspected { running, previous_finished_at: 0, container: life })
}

/// The labels that kubelet gives a container, for who does without kubelet.
fn pod_labels(pod: Option<&Pod>, container: &str) -> std::collections::BTreeMap<String, String> {
    let metadata = pod.and_then(|pod| pod.metadata.clone()).unwrap_or_default();
    containerd::pod_labels(&metadata.namespace, &metadata.name, container)
}

fn host_network(pod: &Pod) -> bool {
    let options = pod.linux.as_ref().and_then(|linux| linux.namespaces.as_ref()?.options.as_ref());
    options.is_some_and(|options| options.network == 2)
}

fn addresses(pod: &Pod) -> Vec<ContainerNetwork> {
    let Some(network) = &pod.network else { return Vec::new() };
    std::iter::once(&network.ip)
        .chain(network.additional_ips.iter().map(|additional| &additional.ip))
        .filter_map(|ip| ip.parse::<IpAddr>().ok())
        .take(text::MAX_NETWORKS)
        .map(|ip| cgroup::network::network(ip.into(), "pod".to_owned()))
        .collect()
}
