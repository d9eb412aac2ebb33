//! What every request shares.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;
use weir_bus::{Bucket, Bus, Objects, names};
use weir_proto::Capture;
use weir_service::{Context, Health, Shutdown};
use weir_store::Reader;

use crate::{Config, Error, captures::Rates, feed::Feed, routes};

/// The service behind the requests.
pub(crate) struct App {
    pub(crate) config: Arc<Config>,
    pub(crate) health: Health,
    pub(crate) shutdown: Shutdown,
    pub(crate) reader: Reader,
    /// Where the API is answered, with the port that the kernel chose.
    pub(crate) address: SocketAddr,
    /// What happens to containers.
    pub(crate) events: Feed,
    /// What containers use.
    pub(crate) stats: Feed,
    /// How often clients upload.
    pub(crate) rates: Rates,
    /// One capture after the other is let in where clients have limits.
    pub(crate) admission: Mutex<()>,
    /// What goes on without a request.
    pub(crate) tasks: TaskTracker,
    bus: Bus,
    queries: Arc<Semaphore>,
    uploads: Arc<Semaphore>,
    recordings: Arc<Semaphore>,
    requests: Arc<Semaphore>,
}

/// Recordings that may go on at one time; of each host one.
const MAX_RECORDINGS: usize = 8;

impl App {
    /// A service that listens on `address`.
    pub(crate) fn new(config: Arc<Config>, context: &Context, bus: Bus, reader: Reader, address: SocketAddr) -> Self {
        let places = |count: usize| Arc::new(Semaphore::new(count.clamp(1, Semaphore::MAX_PERMITS)));
        let followers = places(config.max_followers);
        Self {
            events: Feed::new("container_events", routes::EVENT_COLUMNS, ", action", Arc::clone(&followers)),
            stats: Feed::new("container_stats", routes::STATS_COLUMNS, "", followers),
            queries: places(config.max_queries),
            uploads: places(config.max_uploads),
            recordings: places(MAX_RECORDINGS),
            admission: Mutex::default(),
            tasks: TaskTracker::new(),
            requests: places(config.max_requests),
            rates: Rates::new(config.uploads_per_hour),
            config,
            health: context.health.clone(),
            shutdown: context.shutdown.clone(),
            bus,
            reader,
            address,
        }
    }

    /// The bus, when it is there at this moment.
    pub(crate) fn bus(&self) -> Result<&Bus, Error> {
        if self.bus.is_connected() { Ok(&self.bus) } else { Err(Error::NatsAway(None)) }
    }

    /// The bus, whether it is there or not.
    pub(crate) fn any_bus(&self) -> &Bus {
        &self.bus
    }

    /// The states of the captures.
    pub(crate) async fn captures(&self) -> Result<Bucket<Capture>, Error> {
        Ok(self.bus()?.bucket(names::CAPTURES).await?)
    }

    /// The captures by the hash of their bytes; values are the 16 bytes of the id.
    pub(crate) async fn hashes(&self) -> Result<Bucket<Vec<u8>>, Error> {
        Ok(self.bus()?.bucket(names::CAPTURES).await?)
    }

    /// A store of objects.
    pub(crate) async fn objects(&self, name: &'static str) -> Result<Objects, Error> {
        Ok(self.bus()?.objects(name).await?)
    }

    /// A place for a query; given back when it is dropped.
    pub(crate) fn query_place(&self) -> Result<OwnedSemaphorePermit, Error> {
        place(&self.queries, "queries")
    }

    /// A place for an upload.
    pub(crate) fn upload_place(&self) -> Result<OwnedSemaphorePermit, Error> {
        place(&self.uploads, "uploads")
    }

    /// A place for a recording.
    pub(crate) fn recording_place(&self) -> Result<OwnedSemaphorePermit, Error> {
        place(&self.recordings, "recordings")
    }

    /// A place for a request.
    pub(crate) fn request_place(&self) -> Result<OwnedSemaphorePermit, Error> {
        place(&self.requests, "requests")
    }
}

fn place(places: &Arc<Semaphore>, what: &'static str) -> Result<OwnedSemaphorePermit, Error> {
    Arc::clone(places).try_acquire_owned().map_err(|_| Error::Overloaded { what })
}
