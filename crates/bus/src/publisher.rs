//! Publishing for producers that must not wait: a batch is handed over, kept in the spool, and sent until the stream has it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, Span, info_span, warn};
use uuid::Uuid;
use weir_proto::Batch;

use crate::{
    Bus, Error,
    codec::encode_batch,
    connection::{backoff, message_id},
    spool::{Refused, Spool},
};

/// How many batches are on their way at one time. The ingester's window per producer is larger, so their order does not matter.
const IN_FLIGHT: usize = 32;

/// Where batches wait, and how many.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Spool")]
pub struct SpoolOptions {
    /// Directory where batches wait for NATS [default: `spool` and the service's name in the data directory]
    #[arg(long, env = "WEIR_SPOOL_DIR", value_name = "DIR")]
    pub spool_dir: Option<PathBuf>,
    /// Largest size of the spool; when it is full new batches are dropped, and counted
    #[arg(long, env = "WEIR_SPOOL_MAX_BYTES", value_name = "BYTES", default_value_t = 512 << 20)]
    pub spool_max_bytes: u64,
}

/// Numbers, keeps and publishes the batches of one producer. Cheap to clone.
#[derive(Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    subject: &'static str,
    host: String,
    producer: Uuid,
    state: Mutex<State>,
    arrived: Notify,
    waiting: watch::Sender<usize>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

struct State {
    spool: Spool,
    next_sequence: u64,
    /// Of the batches made in this life: the span that made each, so that its trace goes on when it is sent.
    spans: std::collections::HashMap<String, Span>,
}

impl Publisher {
    /// Opens the spool and starts to send what an earlier life left there. `directory` must belong to this service alone.
    pub fn open(
        bus: Bus,
        subject: &'static str,
        host: &str,
        directory: &std::path::Path,
        max_bytes: u64,
    ) -> Result<Self, Error> {
        let spool = Spool::open(directory, max_bytes)
            .map_err(|source| Error::Spool { path: directory.display().to_string(), source })?;
        let shared = Arc::new(Shared {
            subject,
            host: host.to_owned(),
            producer: Uuid::new_v4(),
            waiting: watch::Sender::new(spool.len()),
            state: Mutex::new(State { spool, next_sequence: 1, spans: std::collections::HashMap::new() }),
            arrived: Notify::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        gauges(&shared.state());
        shared.tasks.spawn(send_all(bus, Arc::clone(&shared)));
        Ok(Self { shared })
    }

    /// Takes a batch: gives it its name and host, keeps it, and has it sent. Returns whether it was taken; one that was not (the spool is
    /// full, the disk is full) is counted with its records.
    pub fn publish(&self, mut batch: Batch) -> bool {
        let span = info_span!(
            "publish records",
            otel.kind = "producer",
            messaging.system = "nats",
            messaging.destination.name = self.shared.subject
        );
        let _entered = span.enter();
        let mut state = self.shared.state();
        batch.producer = self.shared.producer.as_bytes().to_vec();
        batch.host.clone_from(&self.shared.host);
        batch.sequence = state.next_sequence;
        state.next_sequence += 1;
        let records = count(&batch);
        let id = message_id(&batch);
        let taken = state.spool.push(id.clone(), &encode_batch(&batch));
        gauges(&state);
        match taken {
            Ok(()) => {
                metrics::counter!("weir_publisher_records_total").increment(records);
                state.spans.insert(id, span.clone());
                self.shared.waiting.send_replace(state.spool.len());
                drop(state);
                self.shared.arrived.notify_one();
                true
            }
            Err(refused) => {
                let reason = match refused {
                    Refused::Full { .. } => "full",
                    Refused::Write(_) => "write_failed",
                };
                metrics::counter!("weir_spool_dropped_batches_total", "reason" => reason).increment(1);
                metrics::counter!("weir_spool_dropped_records_total", "reason" => reason).increment(records);
                warn!(records, error = &refused as &dyn std::error::Error, "records are lost");
                false
            }
        }
    }

    /// How many batches wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        *self.shared.waiting.borrow()
    }

    /// Stops: waits at most `deadline` until all is sent; the rest stays in the spool for the next life. Returns how many those are.
    pub async fn close(self, deadline: Duration) -> usize {
        let mut waiting = self.shared.waiting.subscribe();
        // Err = the deadline; what is left is returned.
        let _drained = tokio::time::timeout(deadline, waiting.wait_for(|count| *count == 0)).await.is_ok();
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        self.waiting()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends what waits, oldest first, until told to stop.
async fn send_all(bus: Bus, shared: Arc<Shared>) {
    let mut failures = 0;
    loop {
        let oldest = shared.state().spool.oldest(IN_FLIGHT);
        let pause = if oldest.is_empty() {
            None
        } else if send(&bus, &shared, oldest).await {
            failures = 0;
            continue;
        } else {
            failures += 1;
            Some(backoff(failures))
        };
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = shared.arrived.notified(), if pause.is_none() => {}
            () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
    }
}

/// Sends some batches side by side. Returns whether the stream has all of them.
async fn send(bus: &Bus, shared: &Shared, batches: Vec<crate::spool::Waiting>) -> bool {
    let mut sending: FuturesUnordered<_> = batches
        .into_iter()
        .map(|waiting| async move {
            let (payload, span) = {
                let state = shared.state();
                (
                    state.spool.read(&waiting.message_id),
                    state.spans.get(&waiting.message_id).cloned().unwrap_or_else(Span::none),
                )
            };
            let result = match payload {
                Ok(payload) => bus.send_encoded(shared.subject, &waiting.message_id, payload).instrument(span).await,
                Err(source) => Err(Error::Spool { path: waiting.message_id.clone(), source }),
            };
            (waiting, result)
        })
        .collect();
    let mut all = true;
    while let Some((waiting, result)) = sending.next().await {
        // What can never be sent must not hold up the rest: its file is gone, or it is larger than a message may be.
        let lost = match &result {
            Ok(()) => false,
            Err(Error::TooLarge { .. } | Error::Spool { .. }) => true,
            Err(error) => {
                metrics::counter!("weir_publisher_failures_total").increment(1);
                tracing::debug!(error = error as &dyn std::error::Error, "a batch waits in the spool");
                all = false;
                continue;
            }
        };
        if lost && let Err(error) = &result {
            metrics::counter!("weir_spool_dropped_batches_total", "reason" => "unsendable").increment(1);
            warn!(error = error as &dyn std::error::Error, batch = waiting.message_id, "a batch is lost");
        }
        let mut state = shared.state();
        state.spans.remove(&waiting.message_id);
        if let Err(error) = state.spool.remove(&waiting.message_id) {
            // It will be sent again by the next life; the ingester knows its name.
            warn!(%error, batch = waiting.message_id, "cannot remove a sent batch from the spool");
        }
        gauges(&state);
        shared.waiting.send_replace(state.spool.len());
    }
    all
}

fn gauges(state: &State) {
    metrics::gauge!("weir_spool_batches").set(state.spool.len() as f64);
    metrics::gauge!("weir_spool_bytes").set(state.spool.bytes() as f64);
}

fn count(batch: &Batch) -> u64 {
    let records = batch.flows.len()
        + batch.dns.len()
        + batch.tls.len()
        + batch.http.len()
        + batch.container_stats.len()
        + batch.container_events.len()
        + batch.containers.len()
        + batch.captures.len()
        + batch.findings.len()
        + batch.capture_ledger.len()
        + batch.audits.len();
    records as u64
}
