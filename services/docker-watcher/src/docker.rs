//! The Docker engine's API as Weir asks it: every request has a deadline, every answer becomes one of Weir's messages.

pub mod endpoint;
pub mod event;
pub mod identity;
pub mod inspect;
pub mod stats;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    query_parameters::{EventsOptions, ListContainersOptions, StatsOptions},
};
use futures::{Stream, StreamExt as _};
use tokio::net::{TcpStream, UnixStream};

use weir_proto::Container;

use crate::{
    Error, cgroup,
    lives::{Event, Inspected},
    runtime::Sample,
    text,
};
pub use endpoint::{DockerHost, Endpoint, EndpointError, OptionalHost, Options, Tls};

/// What `runtime` says in the records.
const RUNTIME: &str = "docker";
/// The same for the engine that is compatible with Docker's, and names itself among its components.
const PODMAN: (&str, &str) = ("podman", "Podman Engine");

/// How many images are remembered with their digests.
const MAX_DIGESTS: usize = 1024;

/// A connection to an engine, cheap to clone. Requests are connections of their own on the engine's socket, so none waits for another.
#[derive(Clone, Debug)]
pub struct Engine {
    client: Docker,
    timeout: Duration,
    runtime: &'static str,
    /// Whether the engine's processes are processes of this host.
    local: bool,
    /// The host's memory: a limit that is not below it is none.
    memory_total: Option<u64>,
    /// The engine's clock when this connected, nanoseconds since 1970.
    connected_at_ns: i64,
    connected: Instant,
    /// Of the images that were asked for.
    digests: Arc<Mutex<HashMap<String, String>>>,
}

impl Engine {
    /// Connects, agrees on a version of the API, and asks what must be known of the host.
    pub async fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<Self, Error> {
        let mut client = deadline("connect", timeout, open(endpoint, timeout)).await??;
        if endpoint.version.is_none() {
            client = answer("version", timeout, client.negotiate_version()).await?;
        }
        let version = answer("version", timeout, client.version()).await?;
        let info = answer("info", timeout, client.info()).await?;
        let is_podman = version.components.unwrap_or_default().iter().any(|component| component.name == PODMAN.1);
        Ok(Self {
            client,
            timeout,
            runtime: if is_podman { PODMAN.0 } else { RUNTIME },
            local: matches!(endpoint.host, DockerHost::Unix(_)),
            memory_total: info.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0),
            connected_at_ns: info.system_time.as_deref().and_then(nanoseconds).unwrap_or_else(now_ns),
            connected: Instant::now(),
            digests: Arc::default(),
        })
    }

    /// What `runtime` says in the records.
    #[must_use]
    pub fn runtime(&self) -> &'static str {
        self.runtime
    }

    /// The engine's clock, nanoseconds since 1970; its host need not be this one.
    #[must_use]
    pub fn clock_ns(&self) -> i64 {
        self.connected_at_ns + i64::try_from(self.connected.elapsed().as_nanos()).unwrap_or(0)
    }

    /// Whether the engine answers.
    pub async fn ping(&self) -> Result<(), Error> {
        answer("ping", self.timeout, self.client.ping()).await.map(drop)
    }

    /// The ids of all containers, running or not.
    pub async fn list(&self) -> Result<Vec<String>, Error> {
        let options = ListContainersOptions { all: true, ..ListContainersOptions::default() };
        let containers = answer("list", self.timeout, self.client.list_containers(Some(options))).await?;
        Ok(containers.into_iter().filter_map(|container| container.id).collect())
    }

    /// What the engine knows of a container, and its cgroup where it runs on this host.
    pub async fn inspect(&self, id: &str) -> Result<Inspected, Error> {
        let response = answer("inspect", self.timeout, self.client.inspect_container(id, None)).await?;
        let mut inspected = inspect::inspected(response).ok_or(Error::NotFound)?;
        let container = &mut inspected.container;
        if self.local
            && inspected.running
            && let Some(cgroup) = cgroup::find(container.pid, id)
        {
            (container.cgroup_path, container.cgroup_id) = (cgroup.path, cgroup.id);
        }
        container.image_digest = self.digest(&container.image_id).await?;
        Ok(inspected)
    }

    /// The digest of the repository that an image came from; empty = it was made here, or is gone.
    async fn digest(&self, image_id: &str) -> Result<String, Error> {
        let known = || self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(digest) = known().get(image_id) {
            return Ok(digest.clone());
        }
        let digests = match answer("image", self.timeout, self.client.inspect_image(image_id)).await {
            Ok(image) => image.repo_digests.unwrap_or_default(),
            Err(Error::NotFound | Error::Refused { .. }) => Vec::new(),
            Err(error) => return Err(error),
        };
        let digest = digests.iter().find_map(|reference| Some(reference.rsplit_once('@')?.1));
        let digest = text::cut(digest.unwrap_or_default(), text::MAX_NETWORK_VALUE).to_owned();
        let mut known = known();
        if known.len() >= MAX_DIGESTS {
            known.clear();
        }
        known.insert(image_id.to_owned(), digest.clone());
        Ok(digest)
    }

    /// The counters of a container at this moment. `None` = it does not run.
    ///
    /// One-shot: the engine reads the counters for this answer alone. Engine 20.10 does so at its next full second, so an answer takes up to a
    /// second in which nobody works; later ones answer at once. A stream per container would be one request for ever, but the engine then
    /// reads and sends all counters every second, ten times what is asked for here.
    pub async fn stats(&self, life: &Container) -> Result<Option<Sample>, Error> {
        let options = StatsOptions { stream: false, one_shot: true };
        let mut stream = std::pin::pin!(self.client.stats(&life.container_id, Some(options)));
        match deadline("stats", self.timeout, stream.next()).await? {
            Some(Ok(response)) => {
                let mut sample = stats::sample(&response, self.memory_total);
                if let Some(sample) = &mut sample {
                    cgroup::add_pressure(life, &mut sample.record);
                }
                Ok(sample)
            }
            Some(Err(error)) => Err(Error::request("stats", self.timeout, error)),
            None => Ok(None),
        }
    }

    /// What happens to containers, from `since_ns` (inclusive) on. The engine remembers its last 256 events.
    pub fn events(&self, since_ns: i64) -> impl Stream<Item = Result<Option<Event>, Error>> + use<> {
        let filters = HashMap::from([(
            "type".to_owned(),
            ["container", "network", "image", "volume"].map(str::to_owned).to_vec(),
        )]);
        let options = EventsOptions {
            since: Some(format!("{}.{:09}", since_ns.div_euclid(1_000_000_000), since_ns.rem_euclid(1_000_000_000))),
            until: None,
            filters: Some(filters),
        };
        let timeout = self.timeout;
        let client = self.client.clone();
        let events = client.events(Some(options));
        events.map(move |event| event.map(event::event).map_err(|error| Error::request("events", timeout, error)))
    }
}

/// Opens a connection once by itself, for an error that says what is wrong, and then the client.
async fn open(endpoint: &Endpoint, timeout: Duration) -> Result<Docker, Error> {
    let seconds = timeout.as_secs().max(1);
    let version = endpoint.client_version();
    let version = version.as_ref().unwrap_or(API_DEFAULT_VERSION);
    let client = match &endpoint.host {
        DockerHost::Unix(path) => {
            UnixStream::connect(path).await.map_err(|error| Error::socket(path, error))?;
            Docker::connect_with_unix(&path.display().to_string(), seconds, version)
        }
        DockerHost::Tcp(address) => {
            TcpStream::connect(address)
                .await
                .map_err(|source| Error::Unreachable { address: address.clone(), source })?;
            let address = format!("tcp://{address}");
            match &endpoint.tls {
                Some(Tls { authority, certificate, key }) => {
                    Docker::connect_with_ssl(&address, key, certificate, authority, seconds, version)
                }
                None => Docker::connect_with_http(&address, seconds, version),
            }
        }
    };
    client.map_err(|error| Error::request("connect", timeout, error))
}

async fn answer<T>(
    operation: &'static str,
    timeout: Duration,
    request: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, Error> {
    deadline(operation, timeout, request).await?.map_err(|error| Error::request(operation, timeout, error))
}

async fn deadline<T>(operation: &'static str, timeout: Duration, request: impl Future<Output = T>) -> Result<T, Error> {
    let elapsed = |_| Error::Timeout { operation, seconds: timeout.as_secs() };
    tokio::time::timeout(timeout, request).await.map_err(elapsed)
}

/// RFC 3339 as nanoseconds since 1970; Go's zero time and what is no time are `None`.
pub(crate) fn nanoseconds(text: &str) -> Option<i64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok().filter(|nanoseconds| *nanoseconds > 0)
}

/// RFC 3339 as microseconds since 1970; 0 = no time.
pub(crate) fn microseconds(text: Option<&str>) -> u64 {
    text.and_then(nanoseconds).map_or(0, |nanoseconds| nanoseconds as u64 / 1000)
}

pub(crate) fn now_ns() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_zero_time_is_no_time() {
        assert_eq!(microseconds(Some("0001-01-01T00:00:00Z")), 0);
        assert_eq!(microseconds(Some("")), 0);
        assert_eq!(microseconds(None), 0);
        assert_eq!(microseconds(Some("1970-01-01T00:00:01.000002999Z")), 1_000_002);
        assert_eq!(nanoseconds("1970-01-01T01:00:00.000000001+01:00"), Some(1));
    }
}
