//! Who had which address: the containers that docker-watcher keeps in the bucket of identities.

mod known;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::StreamExt as _;
use tracing::debug;
use weir_bus::{Bus, names};
use weir_proto::Container;
use weir_service::Shutdown;

pub(crate) use known::Known;

/// Pause before the bucket is watched again after an error.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a start waits for the containers that exist.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// A watch that is quiet for so long has said all that exists.
const QUIET: Duration = Duration::from_millis(100);

/// The containers that are known, kept up to date in the background.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identities {
    known: Arc<RwLock<Known>>,
}

impl Identities {
    /// Starts to watch, and waits a moment for what exists.
    pub(crate) async fn watch(bus: &Bus, shutdown: &Shutdown) -> Self {
        let identities = Self::default();
        let (ready, looked) = tokio::sync::oneshot::channel();
        let watching = identities.clone().keep(bus.clone(), ready);
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = watching => {}
            }
        });
        // Err = it takes longer: records do not wait for names.
        let _elapsed = tokio::time::timeout(FIRST_LOOK, looked).await;
        identities
    }

    /// Lends what is known.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn keep(self, bus: Bus, ready: tokio::sync::oneshot::Sender<()>) {
        let mut ready = Some(ready);
        loop {
            if let Err(error) = self.follow(&bus, &mut ready).await {
                debug!(error = &error as &dyn std::error::Error, "containers are not watched at the moment");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn follow(
        &self,
        bus: &Bus,
        ready: &mut Option<tokio::sync::oneshot::Sender<()>>,
    ) -> Result<(), weir_bus::Error> {
        let mut changes = bus.bucket::<Container>(names::IDENTITIES).await?.watch(">").await?;
        loop {
            let change = if let Ok(change) = tokio::time::timeout(QUIET, changes.next()).await {
                change
            } else {
                if let Some(ready) = ready.take() {
                    // The one who waited may have gone on.
                    let _gone = ready.send(());
                }
                changes.next().await
            };
            match change {
                Some(Ok(change)) => self.known.write().unwrap_or_else(PoisonError::into_inner).apply(change, now()),
                // A value that is no container concerns that container alone.
                Some(Err(weir_bus::Error::Decode { .. })) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            }
        }
    }
}

/// Microseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
