//! Wires reader, former and committer, session after session.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tokio::{
    pin,
    sync::Mutex,
    task::{JoinError, JoinSet},
};
use tracing::{info, warn};
use weir_bus::Bus;
use weir_service::Shutdown;
use weir_store::Writer;

use crate::{
    Config, block::Block, committer::Committer, config::Limits, cut, error::Error, former::Former,
    identities::Identities, metrics, watchdog::Status,
};

/// Pause before a session that follows a broken one.
const AGAIN: Duration = Duration::from_millis(500);

/// Runs sessions until told to stop.
pub(crate) async fn run(
    config: &Config,
    bus: &Bus,
    writer: Writer,
    status: Status,
    shutdown: &Shutdown,
) -> Result<(), Error> {
    let identities = Identities::watch(bus, shutdown).await;
    let committer =
        Committer::new(writer, config.clickhouse.clone(), status.clone(), shutdown.clone(), config.fail_after);
    let committer = Arc::new(Mutex::new(committer));
    loop {
        match session(bus, &committer, config.limits(), &identities, &status, shutdown).await {
            Ok(()) | Err(Error::Stopped) => return Ok(()),
            Err(Error::Bus(error)) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "reading is interrupted, beginning again where the tables are"
                );
                status.nats_away(&error);
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Reads from the oldest message that is not acked, until NATS goes away or it is time to stop.
async fn session(
    bus: &Bus,
    committer: &Arc<Mutex<Committer>>,
    limits: Limits,
    identities: &Identities,
    status: &Status,
    shutdown: &Shutdown,
) -> Result<(), Error> {
    metrics::session();
    let done = Arc::new(AtomicU64::new(0));
    // From here on another ingester has no reader, and from the next line on it cannot cut.
    let reader = bus.records().await?;
    let cut = committer.lock().await.begin(bus, done.clone()).await?;
    let memory = cut::decode(&cut, reader.stream_created())?;
    info!(cut = cut.last, producers = memory.1.len(), "reading records");
    status.reading();

    let mut former = Former::new(reader, limits, committer.clone(), identities.clone(), memory, done);
    // At most one block; dropping the set ends what it does.
    let mut committing = JoinSet::new();
    loop {
        let formed = form(&mut former, &mut committing, shutdown).await;
        let block = match formed {
            Ok(block) => block,
            Err(Error::Stopped) => {
                finished(committing.join_next().await)?;
                return Ok(());
            }
            Err(error) => {
                committing.shutdown().await;
                return Err(error);
            }
        };
        finished(committing.join_next().await)?;
        let mut committer = committer.clone().lock_owned().await;
        committing.spawn(async move { committer.commit(block).await });
    }
}

/// Forms the next block while the one before is committed; an error of either ends it.
async fn form(
    former: &mut Former,
    committing: &mut JoinSet<Result<(), Error>>,
    shutdown: &Shutdown,
) -> Result<Block, Error> {
    let forming = former.next(shutdown);
    pin!(forming);
    loop {
        tokio::select! {
            block = &mut forming => return block,
            Some(committed) = committing.join_next() => finished(Some(committed))?,
        }
    }
}

fn finished(committed: Option<Result<Result<(), Error>, JoinError>>) -> Result<(), Error> {
    match committed {
        None => Ok(()),
        Some(Ok(result)) => result,
        Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Some(Err(_)) => Err(Error::Stopped),
    }
}
