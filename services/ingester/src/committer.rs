//! Commits blocks: cut, inserts, deletes, announcements, acks; in this order, each step safe to repeat.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tracing::{Instrument as _, Span, debug, warn};
use uuid::Uuid;
use weir_bus::Bus;
use weir_proto::Cut;
use weir_service::Shutdown;
use weir_store::{Options, Writer, rows::Table, schema};

use crate::{
    announcer::Announcer,
    block::{Block, Identity},
    error::Error,
    failpoint::{self, Failpoint},
    ledger::Ledger,
    metrics,
    watchdog::Status,
};

/// The longest pause between two tries of an insert that may work next time.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The pause when somebody has to do something first.
const REFUSED_PAUSE: Duration = Duration::from_secs(15);
/// How long an insert may go on after the order to stop; what is not acked then comes again.
const GRACE: Duration = Duration::from_secs(10);
/// The table, or the whole database, does not exist any more.
const MISSING: [u32; 2] = [60, 81];

/// Commits one block after the other.
pub(crate) struct Committer {
    ledger: Ledger,
    announcer: Announcer,
    inserter: Inserter,
    fail_after: Option<Failpoint>,
    done: Arc<AtomicU64>,
}

impl Committer {
    pub(crate) fn new(
        writer: Writer,
        options: Options,
        status: Status,
        shutdown: Shutdown,
        fail_after: Option<Failpoint>,
    ) -> Self {
        let inserter = Inserter { writer, options, status, shutdown };
        Self { ledger: Ledger::default(), announcer: Announcer::default(), inserter, fail_after, done: Arc::default() }
    }

    /// Begins a session: the stored cut. `done` is told the highest sequence whose block is done.
    pub(crate) async fn begin(&mut self, bus: &Bus, done: Arc<AtomicU64>) -> Result<Cut, Error> {
        self.done = done;
        self.announcer.begin(bus).await?;
        self.ledger.take(bus).await
    }

    /// Commits a block. After an error its messages are not all acked, and come again.
    pub(crate) async fn commit(&mut self, mut block: Block) -> Result<(), Error> {
        match std::mem::take(&mut block.identity) {
            Identity::Nothing => {}
            Identity::New(cut) => {
                let token = Block::token(cut.first, cut.last, cut.stream_created);
                self.ledger.write(cut).await?;
                failpoint::reached(self.fail_after, Failpoint::Cut);
                self.insert(&block, token, false).await?;
            }
            Identity::Planned { first, last, stream_created } => {
                let token = Block::token(first, last, stream_created);
                self.insert(&block, token, true).await?;
            }
        }
        self.announcer.announce(&block.rows.captures).await?;
        self.ack(&block).await?;
        metrics::done(&block);
        Ok(())
    }

    async fn insert(&self, block: &Block, token: String, repeated: bool) -> Result<(), Error> {
        let at = weir_store::Block { token, repeated };
        let rows = &block.rows;
        let inserter = &self.inserter;
        let first_done = || failpoint::reached(self.fail_after, Failpoint::Insert);
        // Before the inserts, so that at no time the rows of two analyses of one capture are there.
        for &(capture_id, before) in &rows.purged {
            inserter.purge_capture(capture_id, before).await?;
        }
        // Numbers as in Rows::counts; first what somebody may wait for.
        inserter.insert(5, &rows.container_events, block, at.clone(), first_done).await?;
        // The largest beside the others: the server has more than one core, and what is sent to it waits for neither.
        let flows = inserter.insert(0, &rows.flows, block, at.clone(), first_done);
        let exchanges = async {
            inserter.insert(1, &rows.dns, block, at.clone(), first_done).await?;
            inserter.insert(2, &rows.tls, block, at.clone(), first_done).await?;
            inserter.insert(3, &rows.http, block, at.clone(), first_done).await
        };
        tokio::try_join!(flows, exchanges)?;
        inserter.insert(4, &rows.container_stats, block, at.clone(), first_done).await?;
        inserter.insert(6, &rows.containers, block, at.clone(), first_done).await?;
        inserter.insert(7, &rows.captures, block, at.clone(), first_done).await?;
        inserter.insert(8, &rows.findings, block, at.clone(), first_done).await?;
        inserter.insert(9, &rows.dead_letters, block, at.clone(), first_done).await?;
        inserter.insert(10, &rows.capture_ledger, block, at.clone(), first_done).await?;
        inserter.insert(11, &rows.audit, block, at, first_done).await?;
        failpoint::reached(self.fail_after, Failpoint::Inserts);
        for capture_id in &rows.deleted {
            inserter.delete_capture(*capture_id).await?;
        }
        failpoint::reached(self.fail_after, Failpoint::Deletes);
        Ok(())
    }

    /// Acks in stream order, so that what is left after a crash is the end of the block. The last ack is confirmed, and with it those
    /// before it, which went the same way.
    async fn ack(&self, block: &Block) -> Result<(), Error> {
        let Some((last, others)) = block.messages.split_last() else { return Ok(()) };
        for message in others {
            message.ack().await?;
            if self.fail_after == Some(Failpoint::Ack) {
                message.ack_confirmed().await?;
                failpoint::reached(self.fail_after, Failpoint::Ack);
            }
        }
        last.ack_confirmed().await?;
        failpoint::reached(self.fail_after, Failpoint::Acks);
        self.done.store(last.stream_sequence, Ordering::Release);
        Ok(())
    }
}

/// Inserts for as long as it takes.
struct Inserter {
    writer: Writer,
    options: Options,
    status: Status,
    shutdown: Shutdown,
}

impl Inserter {
    /// Inserts the rows of the n-th table.
    async fn insert<'a, T: Table + 'a>(
        &self,
        n: usize,
        rows: impl IntoIterator<Item = &'a T> + Copy + Send,
        block: &Block,
        mut at: weir_store::Block,
        done: impl Fn(),
    ) -> Result<(), Error> {
        if rows.into_iter().next().is_none() {
            return Ok(());
        }
        let spans: Vec<Span> = block.traced.iter().filter_map(|traced| traced.insert(n, T::TABLE)).collect();
        let mut failures = 0;
        loop {
            let started = Instant::now();
            match self.attempt(self.writer.insert(rows, &at)).await? {
                Ok(()) => {
                    metrics::inserted(T::TABLE, started.elapsed());
                    break;
                }
                Err(error) => {
                    failures += 1;
                    at.repeated = true;
                    self.failed(T::TABLE, &error, failures).await?;
                }
            }
        }
        self.status.inserted();
        drop(spans);
        done();
        Ok(())
    }

    /// Deletes the rows of a capture.
    async fn delete_capture(&self, capture_id: Uuid) -> Result<(), Error> {
        let mut failures = 0;
        while let Err(error) = self.attempt(self.writer.delete_capture(capture_id)).await? {
            failures += 1;
            self.failed("captures", &error, failures).await?;
        }
        self.status.inserted();
        Ok(())
    }

    /// Deletes the rows of a capture that came before a message of the stream.
    async fn purge_capture(&self, capture_id: Uuid, stream_sequence: u64) -> Result<(), Error> {
        let mut failures = 0;
        while let Err(error) = self.attempt(self.writer.delete_capture_before(capture_id, stream_sequence)).await? {
            failures += 1;
            self.failed("captures", &error, failures).await?;
        }
        self.status.inserted();
        Ok(())
    }

    /// Makes one attempt, unless it is time to stop.
    async fn attempt(
        &self,
        operation: impl Future<Output = Result<(), weir_store::Error>>,
    ) -> Result<Result<(), weir_store::Error>, Error> {
        tokio::select! {
            // The client's own spans belong to no message.
            result = operation.instrument(Span::none()) => Ok(result),
            () = self.grace() => Err(Error::Stopped),
        }
    }

    /// Reports a failure and waits before the next attempt, unless it is time to stop.
    async fn failed(&self, table: &'static str, error: &weir_store::Error, failures: u32) -> Result<(), Error> {
        metrics::insert_failed(table, error);
        self.status.insert_failed(table, error);
        warn!(table, failures, error = error as &dyn std::error::Error, "a block waits");
        if MISSING.contains(&error.code())
            && let Err(error) = schema::migrate(&self.options).await
        {
            debug!(error = &error as &dyn std::error::Error, "cannot make the missing table");
        }
        tokio::select! {
            () = self.shutdown.cancelled() => Err(Error::Stopped),
            () = tokio::time::sleep(pause(error, failures)) => Ok(()),
        }
    }

    async fn grace(&self) {
        self.shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    }
}

/// 0.1 s, 0.2 s, ... up to [`MAX_PAUSE`].
fn pause(error: &weir_store::Error, failures: u32) -> Duration {
    if error.is_transient() {
        Duration::from_millis(100 << failures.saturating_sub(1).min(10)).min(MAX_PAUSE)
    } else {
        REFUSED_PAUSE.min(Duration::from_secs(u64::from(failures)))
    }
}
