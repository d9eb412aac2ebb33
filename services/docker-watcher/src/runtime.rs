//! One model of all runtimes: what is asked of one, and how its answers are stamped. Nothing behind this knows which runtime it is.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::BoxStream};
use weir_proto::{Container, ContainerStats, Ip};

use crate::{
    Error, cgroup, containerd, cri, docker, interfaces,
    lives::{Event, Inspected},
};

/// Where containers are told about.
#[derive(Clone, Debug)]
pub enum Address {
    /// The Docker engine's API, and whatever is compatible with it.
    Docker(docker::Endpoint),
    /// The socket of Podman's service, which speaks Docker's API.
    Podman(PathBuf),
    /// The socket of containerd, and whose containers.
    Containerd(containerd::Address),
    /// The socket of a runtime as Kubernetes speaks with it.
    Cri(PathBuf),
    /// The control groups of this host, for containers that nobody else tells about.
    Cgroup(cgroup::Served),
}

impl Address {
    /// One word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Docker(_) => "docker",
            Self::Podman(_) => "podman",
            Self::Containerd(_) => "containerd",
            Self::Cri(_) => "cri",
            Self::Cgroup(_) => "cgroup",
        }
    }

    /// Which tier of knowledge this is: `api`, `cri` or `cgroup`.
    #[must_use]
    pub fn tier(&self) -> &'static str {
        match self {
            Self::Docker(_) | Self::Podman(_) | Self::Containerd(_) => "api",
            Self::Cri(_) => "cri",
            Self::Cgroup(_) => cgroup::TIER,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Docker(endpoint) => endpoint.host.fmt(f),
            Self::Podman(path) | Self::Cri(path) => write!(f, "unix://{}", path.display()),
            Self::Containerd(address) => write!(f, "unix://{}", address.socket.display()),
            Self::Cgroup(_) => f.write_str("/sys/fs/cgroup"),
        }
    }
}

/// Counters as they were read: a record without the rates, which need the sample before, and without what inspection knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When they were read, nanoseconds since 1970, by the clock of who read them.
    pub read_ns: i64,
    /// The record.
    pub record: ContainerStats,
}

/// A connection to a runtime, cheap to clone.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Inner,
    stamp: Arc<Stamp>,
}

#[derive(Clone, Debug)]
enum Inner {
    Docker(docker::Engine),
    Containerd(containerd::Engine),
    Cri(cri::Engine),
    Cgroup(cgroup::Engine),
}

/// What every record of this connection says about where it comes from.
#[derive(Debug)]
struct Stamp {
    /// Empty = the record knows better.
    runtime: String,
    tier: &'static str,
    source: String,
}

impl Engine {
    /// Connects, and asks what must be known of the runtime.
    pub async fn connect(address: &Address, timeout: Duration) -> Result<Self, Error> {
        let inner = match address {
            Address::Docker(endpoint) => Inner::Docker(docker::Engine::connect(endpoint, timeout).await?),
            Address::Podman(path) => {
                let endpoint = docker::Endpoint::new(docker::DockerHost::Unix(path.clone()));
                Inner::Docker(docker::Engine::connect(&endpoint, timeout).await?)
            }
            Address::Containerd(address) => Inner::Containerd(containerd::Engine::connect(address, timeout).await?),
            Address::Cri(path) => Inner::Cri(cri::Engine::connect(path, timeout).await?),
            Address::Cgroup(served) => Inner::Cgroup(cgroup::Engine::connect(served.clone()).await?),
        };
        let runtime = match &inner {
            Inner::Docker(engine) => engine.runtime().to_owned(),
            Inner::Containerd(_) => containerd::RUNTIME.to_owned(),
            Inner::Cri(engine) => engine.runtime().to_owned(),
            Inner::Cgroup(_) => String::new(),
        };
        let stamp = Stamp { runtime, tier: address.tier(), source: source_name(address) };
        Ok(Self { inner, stamp: Arc::new(stamp) })
    }

    /// What `runtime` says in the records; empty = the records know better.
    #[must_use]
    pub fn runtime(&self) -> &str {
        &self.stamp.runtime
    }

    /// The runtime's clock, nanoseconds since 1970; its host need not be this one.
    #[must_use]
    pub fn clock_ns(&self) -> i64 {
        match &self.inner {
            Inner::Docker(engine) => engine.clock_ns(),
            Inner::Containerd(_) | Inner::Cri(_) | Inner::Cgroup(_) => docker::now_ns(),
        }
    }

    /// Whether the runtime answers.
    pub async fn ping(&self) -> Result<(), Error> {
        match &self.inner {
            Inner::Docker(engine) => engine.ping().await,
            Inner::Containerd(engine) => engine.ping().await,
            Inner::Cri(engine) => engine.ping().await,
            Inner::Cgroup(_) => Ok(()),
        }
    }

    /// The ids of all containers, running or not.
    pub async fn list(&self) -> Result<Vec<String>, Error> {
        match &self.inner {
            Inner::Docker(engine) => engine.list().await,
            Inner::Containerd(engine) => engine.list().await,
            Inner::Cri(engine) => engine.list().await,
            Inner::Cgroup(engine) => engine.list().await,
        }
    }

    /// What the runtime knows of a container, and its cgroup where it runs on this host.
    pub async fn inspect(&self, id: &str) -> Result<Inspected, Error> {
        let mut inspected = match &self.inner {
            Inner::Docker(engine) => engine.inspect(id).await?,
            Inner::Containerd(engine) => engine.inspect(id).await?,
            Inner::Cri(engine) => engine.inspect(id).await?,
            Inner::Cgroup(engine) => engine.inspect(id).await?,
        };
        let container = &mut inspected.container;
        self.stamp_runtime(&mut container.runtime);
        self.stamp.tier.clone_into(&mut container.tier);
        container.source.clone_from(&self.stamp.source);
        // A cgroup was found: its process is a process of this host.
        if inspected.running && container.cgroup_id != 0 && !container.host_network {
            container.interfaces = interfaces::host_ends(container.pid);
            if container
                .ports
                .iter()
                .any(|port| Ip::new(port.host_ip_high, port.host_ip_low).canonical().is_unspecified())
            {
                container.host_addresses = interfaces::host_addresses();
            }
        }
        Ok(inspected)
    }

    /// The counters of a container at this moment. `None` = it does not run.
    pub async fn stats(&self, life: &Container) -> Result<Option<Sample>, Error> {
        let mut sample = match &self.inner {
            Inner::Docker(engine) => engine.stats(life).await?,
            Inner::Cri(engine) => engine.stats(life).await?,
            Inner::Containerd(_) | Inner::Cgroup(_) => cgroup::sample(life).await?,
        };
        if let Some(Sample { record, .. }) = &mut sample {
            record.runtime.clone_from(&life.runtime);
            if record.tier.is_empty() {
                self.stamp.tier.clone_into(&mut record.tier);
            }
        }
        Ok(sample)
    }

    /// What happens to containers, from `since_ns` (inclusive) on, as far as the runtime remembers. `None` = of no container.
    #[must_use]
    pub fn events(&self, since_ns: i64) -> BoxStream<'static, Result<Option<Event>, Error>> {
        let events = match &self.inner {
            Inner::Docker(engine) => engine.events(since_ns).boxed(),
            Inner::Containerd(engine) => engine.events().boxed(),
            Inner::Cri(engine) => engine.events().boxed(),
            Inner::Cgroup(engine) => engine.events().boxed(),
        };
        let this = self.clone();
        events
            .map(move |event| {
                let mut event = event?;
                if let Some(Event { record, .. }) = &mut event {
                    this.stamp_runtime(&mut record.runtime);
                    this.stamp.tier.clone_into(&mut record.tier);
                }
                Ok(event)
            })
            .boxed()
    }

    fn stamp_runtime(&self, runtime: &mut String) {
        if !self.stamp.runtime.is_empty() {
            runtime.clone_from(&self.stamp.runtime);
        }
    }
}

/// What an identity says about who told it.
#[must_use]
pub fn source_name(address: &Address) -> String {
    format!("{} {address}", address.kind())
}

/// The counters of a container by its cgroup alone, for a time in which its runtime does not answer.
pub async fn sample_without_engine(life: &Container) -> Result<Option<Sample>, Error> {
    let mut sample = cgroup::sample(life).await?;
    if let Some(Sample { record, .. }) = &mut sample {
        record.runtime.clone_from(&life.runtime);
    }
    Ok(sample)
}
