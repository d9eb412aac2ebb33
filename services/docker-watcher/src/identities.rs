//! Brings the key-value bucket of identities to what the lives are, in its own time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, oneshot};
use tracing::warn;
use weir_bus::{Bucket, Bus, names};
use weir_proto::Container;
use weir_service::{Health, Shutdown, chain};

use crate::metrics;

/// How often the connection is looked at, and a write that failed is tried again.
const CHECK: Duration = Duration::from_secs(1);

/// What the bucket should hold. Cheap to clone; setting never waits, and only the newest value of a key is kept until it is written.
#[derive(Clone, Debug)]
pub struct Identities {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    prefix: String,
    pending: Mutex<HashMap<String, Option<Container>>>,
    arrived: Notify,
}

impl Identities {
    /// The identities of a host.
    #[must_use]
    pub fn new(host: &str) -> Self {
        let prefix = format!("{}.", names::key(host));
        Self { shared: Arc::new(Shared { prefix, pending: Mutex::default(), arrived: Notify::new() }) }
    }

    /// The container's identity is this now.
    pub fn put(&self, container: Container) {
        self.set(container.container_id.clone(), Some(container));
    }

    /// The container is gone.
    pub fn forget(&self, container_id: &str) {
        self.set(container_id.to_owned(), None);
    }

    fn set(&self, container_id: String, value: Option<Container>) {
        self.pending().insert(container_id, value);
        self.shared.arrived.notify_one();
    }

    fn pending(&self) -> MutexGuard<'_, HashMap<String, Option<Container>>> {
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for NATS, tells what an earlier process left in the bucket, and then writes until told to stop; what is pending then is written
    /// first if NATS is there.
    pub async fn run(self, bus: Bus, health: Health, earlier: oneshot::Sender<Vec<Container>>, shutdown: Shutdown) {
        let report = |error: &weir_bus::Error| health.unmet("nats", chain(error));
        if bus.ready(&shutdown, report).await.is_err() {
            return;
        }
        let Some(bucket) = self.open(&bus, earlier, &shutdown).await else { return };
        loop {
            if bus.is_connected() {
                health.met("nats");
            } else {
                health.unmet("nats", "the connection to NATS is lost: records wait in the spool");
            }
            let failed = !self.write_pending(&bucket).await;
            if shutdown.is_cancelled() {
                return;
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = self.shared.arrived.notified(), if !failed => {}
                () = tokio::time::sleep(CHECK) => {}
            }
        }
    }

    async fn open(
        &self,
        bus: &Bus,
        earlier: oneshot::Sender<Vec<Container>>,
        shutdown: &Shutdown,
    ) -> Option<Bucket<Container>> {
        loop {
            match self.read_earlier(bus).await {
                Ok((bucket, found)) => {
                    // The watcher ends only with the process.
                    let _sent = earlier.send(found);
                    return Some(bucket);
                }
                Err(error) => warn!(error = chain(&error), "cannot read the identities, trying again"),
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(CHECK) => {}
            }
        }
    }

    async fn read_earlier(&self, bus: &Bus) -> Result<(Bucket<Container>, Vec<Container>), weir_bus::Error> {
        let bucket = bus.bucket::<Container>(names::IDENTITIES).await?;
        let found = match bucket.list(&self.shared.prefix).await {
            Ok(entries) => entries.into_iter().map(|(_, entry)| entry.value).collect(),
            Err(error @ weir_bus::Error::Decode { .. }) => {
                warn!(error = chain(&error), "an identity cannot be read: those of earlier processes are left alone");
                Vec::new()
            }
            Err(error) => return Err(error),
        };
        Ok((bucket, found))
    }

    /// Writes what is pending. Returns whether all of it was.
    async fn write_pending(&self, bucket: &Bucket<Container>) -> bool {
        let batch = std::mem::take(&mut *self.pending());
        let mut batch = batch.into_iter();
        while let Some((id, value)) = batch.next() {
            let key = format!("{}{}", self.shared.prefix, names::key(&id));
            let written = match &value {
                Some(container) => bucket.put(&key, container).await.map(drop),
                None => bucket.delete(&key).await,
            };
            if let Err(error) = written {
                metrics::identity_failure();
                tracing::debug!(error = chain(&error), "an identity waits");
                let mut pending = self.pending();
                for (id, value) in std::iter::once((id, value)).chain(batch) {
                    // What came meanwhile is newer.
                    pending.entry(id).or_insert(value);
                }
                return false;
            }
        }
        true
    }
}
