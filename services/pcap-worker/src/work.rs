//! The analysis of a job: a thread that reads and makes records, and beside it what sends them, tells how far it is, and keeps the job.

use std::time::Duration;

use anyhow::anyhow;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{Instrument as _, debug, warn};
use weir_bus::{Error, Message, PlainBatch, names};
use weir_flow::findings::Thresholds;

use crate::analysis::{Analysis, Cancelled, Failure, Live, analyse};
use crate::batches::Batcher;
use crate::job::{Ended, Worker};
use crate::metrics;
use crate::source::BlockingSource;
use crate::state::{CaptureState, Names};

/// Batches between the analysis and the stream; when they wait, the analysis waits.
const QUEUE: usize = 4;
/// Batches that are on their way to the stream at one time.
const ON_THE_WAY: usize = 4;
/// How long a cancelled analysis is waited for.
const LAST_PACKET: Duration = Duration::from_secs(2);
/// Pause between two statements of progress.
const PROGRESS: Duration = Duration::from_millis(500);

/// Analyses the capture of a job and publishes its records.
pub(crate) async fn run(
    worker: &Worker,
    message: &Message,
    state: &CaptureState,
    names: &Names,
    thresholds: Box<Thresholds>,
) -> Result<Analysis, Ended> {
    let object = match worker.uploads.chunks(&names.capture_id.to_string()).await {
        Ok(object) => object,
        Err(Error::NoObject { .. }) => return Err(Ended::Permanent(anyhow!("the uploaded file is gone"))),
        Err(error) => return Err(error.into()),
    };
    let source = BlockingSource::new(object, worker.config.read_timeout());
    let live = Live::default();
    let _stop = StopOnDrop(live.clone());
    let (sender, receiver) = mpsc::channel(QUEUE);
    let analysis = tokio::task::spawn_blocking({
        let (live, names) = (live.clone(), names.clone());
        let limits = worker.config.limits();
        let mut config = worker.config.analyzer(*names.analysis_id.as_bytes());
        config.thresholds = thresholds;
        let span = tracing::Span::current();
        move || {
            let _entered = span.entered();
            analyse_into(source, limits, config, &live, &names, &sender)
        }
    });
    metrics::busy(true);
    let ended = tokio::select! {
        biased;
        () = worker.shutdown.cancelled() => Err(Ended::Stopping),
        ended = keep(worker, message, state, &live) => Err(ended),
        sent = send(worker, receiver).in_current_span() => sent,
    };
    metrics::busy(false);
    metrics::analysed(live.packets(), live.bytes());
    if let Err(ended) = ended {
        live.cancel();
        // It ends at its next packet or batch; one that waits for the store is left to its own timeout.
        let _late = tokio::time::timeout(LAST_PACKET, analysis).await;
        return Err(ended);
    }
    match analysis.await {
        Ok(Ok(analysis)) => Ok(analysis),
        Ok(Err(failure)) => Err(failure.into()),
        Err(panic) => Err(Ended::Transient(anyhow!("the analysis failed unexpectedly: {panic}"))),
    }
}

/// The thread of the analysis.
fn analyse_into(
    source: impl std::io::Read + Send + 'static,
    limits: crate::capture_file::Limits,
    config: weir_flow::Config,
    live: &Live,
    names: &Names,
    sender: &mpsc::Sender<PlainBatch>,
) -> Result<Analysis, Failure> {
    let mut batcher = Batcher::new(names.analysis_id, names.capture_id);
    let pass_on = |batch: Option<PlainBatch>| match batch {
        Some(batch) => sender.blocking_send(batch).map_err(|_| Cancelled),
        None => Ok(()),
    };
    let analysis = analyse(source, limits, config, live, |record| pass_on(batcher.push(record)))?;
    pass_on(batcher.finish()).map_err(|Cancelled| Failure::Cancelled)?;
    Ok(analysis)
}

/// Ends the analysis when nobody waits for it any more.
struct StopOnDrop(Live);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Sends batches until there are no more, a few at a time: the ingester's window per producer is larger, so their order does not matter.
async fn send(worker: &Worker, mut batches: mpsc::Receiver<PlainBatch>) -> Result<(), Ended> {
    let batches = stream::poll_fn(|context| batches.poll_recv(context));
    batches.map(Ok).try_for_each_concurrent(ON_THE_WAY, |batch| send_one(worker, batch)).await
}

/// Sends a batch. What the stream does not take is sent again for as long as it takes: the job is kept meanwhile, and the analysis waits.
async fn send_one(worker: &Worker, batch: PlainBatch) -> Result<(), Ended> {
    let mut pause = Duration::from_millis(100);
    while let Err(error) = worker.bus.send_plain(names::RECORDS_PCAP, &batch).await {
        if matches!(error, Error::TooLarge { .. }) {
            return Err(Ended::Permanent(error.into()));
        }
        metrics::send_retried();
        debug!(error = format!("{:#}", anyhow::Error::from(error)), sequence = batch.sequence, "a batch waits");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
    metrics::batch_sent();
    Ok(())
}

/// Keeps the job and tells how far it is; ends when the capture is no longer wanted.
async fn keep(worker: &Worker, message: &Message, state: &CaptureState, live: &Live) -> Ended {
    let mut keep = interval(worker.config.ack_wait() / 3);
    let mut progress = interval(PROGRESS);
    for timer in [&mut keep, &mut progress] {
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    loop {
        let result = tokio::select! {
            _ = keep.tick() => message.in_progress().await,
            _ = progress.tick() => match state_progress(state, live).await {
                Ok(None) => Ok(()),
                Ok(Some(ended)) => return ended,
                Err(error) => Err(error),
            },
        };
        // A bus that is away comes back, and the job with it, here or at another worker.
        if let Err(error) = result {
            warn!(error = format!("{:#}", anyhow::Error::from(error)), "cannot tell how far the analysis is");
        }
    }
}

/// States the progress, if there is any. Why the analysis is to end, if it is.
async fn state_progress(state: &CaptureState, live: &Live) -> Result<Option<Ended>, Error> {
    let now = (live.packets(), live.bytes(), live.bytes_read());
    let Some((stated, _)) = state.get().await? else { return Ok(Some(Ended::Obsolete)) };
    if stated.cancel {
        return Ok(Some(Ended::Cancelled));
    }
    if (stated.packets, stated.bytes, stated.bytes_read) == now {
        return Ok(None);
    }
    let changed = state.change(|capture| (capture.packets, capture.bytes, capture.bytes_read) = now).await?;
    Ok(changed.is_none().then_some(Ended::Obsolete))
}
