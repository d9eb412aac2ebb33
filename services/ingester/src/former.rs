//! Forms blocks out of the messages of one session.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prost::Message as _;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};
use uuid::Uuid;
use weir_bus::{DecodeError, Message, RecordsReader, names};
use weir_proto::Batch;
use weir_service::Shutdown;
use weir_store::rows::{DeadLetterRow, Position};

use crate::{
    block::{Block, Identity, Traced},
    committer::Committer,
    config::Limits,
    cut::{self, Plan},
    error::Error,
    identities::Identities,
    metrics,
    windows::{Taken, Windows},
};

/// Reads messages and collects them into blocks.
pub(crate) struct Former {
    reader: RecordsReader,
    limits: Limits,
    /// Locked while a block is committed.
    committer: Arc<Mutex<Committer>>,
    identities: Identities,
    windows: Windows,
    /// The block that was cut and perhaps not finished.
    plan: Option<Plan>,
    /// A message that was read and belongs to the next block.
    ahead: Option<Message>,
    /// The highest sequence that was read.
    seen: u64,
    /// The highest sequence whose block is done.
    done: Arc<AtomicU64>,
}

impl Former {
    pub(crate) fn new(
        reader: RecordsReader,
        limits: Limits,
        committer: Arc<Mutex<Committer>>,
        identities: Identities,
        (plan, windows): (Option<Plan>, Windows),
        done: Arc<AtomicU64>,
    ) -> Self {
        Self { reader, limits, committer, identities, windows, plan, ahead: None, seen: 0, done }
    }

    /// The next block. First the one that was cut before, if any of its messages is left.
    pub(crate) async fn next(&mut self, shutdown: &Shutdown) -> Result<Block, Error> {
        if let Some(plan) = self.plan.take()
            && let Some(block) = self.planned(&plan, shutdown).await?
        {
            return Ok(block);
        }
        self.fresh(shutdown).await
    }

    /// Forms a planned block again out of those of its messages that are left.
    async fn planned(&mut self, plan: &Plan, shutdown: &Shutdown) -> Result<Option<Block>, Error> {
        let mut block = Block::default();
        loop {
            let message = self.read(shutdown).await?;
            let sequence = message.stream_sequence;
            if sequence < plan.first {
                // Its block is long done; only the ack got lost.
                metrics::redelivered();
                message.ack().await?;
            } else if sequence > plan.last {
                self.ahead = Some(message);
                break;
            } else {
                let nothing_follows = sequence == plan.last || message.pending == 0;
                if plan.takes(sequence) {
                    self.take(&mut block, &message, message.batch());
                } else {
                    block.tally.duplicate_batches += 1;
                }
                block.messages.push(message);
                if nothing_follows {
                    break;
                }
            }
        }
        if block.messages.is_empty() {
            return Ok(None);
        }
        self.finish(&mut block);
        block.identity =
            Identity::Planned { first: plan.first, last: plan.last, stream_created: self.reader.stream_created() };
        Ok(Some(block))
    }

    /// Collects new messages until the block is full, or one of them has waited long enough and the block before is committed: one that
    /// would wait for its turn takes more along instead.
    async fn fresh(&mut self, shutdown: &Shutdown) -> Result<Block, Error> {
        let mut block = Block::default();
        let mut message = self.read(shutdown).await?;
        let mut deadline = Instant::now() + self.limits.wait_of(message.subject());
        let committer = self.committer.clone();
        let due = async |deadline| {
            sleep_until(deadline).await;
            drop(committer.lock().await);
        };
        loop {
            self.add(&mut block, message);
            if block.rows.len() >= self.limits.rows
                || block.tally.bytes >= self.limits.bytes
                || block.messages.len() >= self.limits.messages
            {
                break;
            }
            let read = tokio::select! {
                biased;
                () = due(deadline) => break,
                read = self.read(shutdown) => read,
            };
            message = match read {
                Ok(message) => message,
                // What was collected is finished before the process stops.
                Err(Error::Stopped) => break,
                Err(error) => return Err(error),
            };
            deadline = deadline.min(Instant::now() + self.limits.wait_of(message.subject()));
        }
        self.finish(&mut block);
        if let Some((first, last)) = block.range()
            && block.duplicates.len() < block.messages.len()
        {
            let created = self.reader.stream_created();
            block.identity = Identity::New(cut::encode(first, last, &block.duplicates, &self.windows, created));
        }
        Ok(block)
    }

    /// The next message that was not read before in this session.
    async fn read(&mut self, shutdown: &Shutdown) -> Result<Message, Error> {
        if let Some(message) = self.ahead.take() {
            return Ok(message);
        }
        loop {
            let message = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(Error::Stopped),
                message = self.reader.next() => message?,
            };
            metrics::pending(message.pending);
            if message.stream_sequence > self.seen {
                self.seen = message.stream_sequence;
                metrics::read();
                return Ok(message);
            }
            metrics::redelivered();
            // A message of a block that is not done yet is acked with its block.
            if message.stream_sequence <= self.done.load(Ordering::Acquire) {
                message.ack().await?;
            }
        }
    }

    /// Adds a message that no block has yet.
    fn add(&mut self, block: &mut Block, message: Message) {
        let decoded = message.batch();
        let taken = match decoded.as_ref().ok().and_then(name) {
            Some((producer, sequence)) => self.windows.take(producer, sequence, message.stream_sequence),
            None => Taken::New,
        };
        match taken {
            Taken::New => self.take(block, &message, decoded),
            Taken::Duplicate => block.tally.duplicate_batches += 1,
            Taken::TooOld => block.tally.too_old_batches += 1,
        }
        if taken != Taken::New {
            block.duplicates.push(message.stream_sequence);
        }
        block.messages.push(message);
    }

    /// Makes rows of a message.
    fn take(&self, block: &mut Block, message: &Message, decoded: Result<Batch, DecodeError>) {
        let mut traced = Traced::begin(message);
        let before = block.rows.counts();
        let position = Position { stream_sequence: message.stream_sequence, stored_at: message.stored_at };
        match decoded {
            Ok(batch) => {
                block.tally.bytes += batch.encoded_len();
                self.identities.with(|containers| block.rows.push(batch, &position, containers));
            }
            Err(error) => {
                block.tally.bytes += message.payload().len();
                block.tally.dead_letters.push(error.reason());
                block.rows.dead_letters.push(dead_letter(message, &position, &error));
            }
        }
        if let Some(traced) = &mut traced {
            traced.wrote(&before, &block.rows.counts());
        }
        block.traced.extend(traced);
    }

    fn finish(&mut self, block: &mut Block) {
        block.tally.deleted_records = block.rows.drop_deleted() as u64;
        block.tally.producers = self.windows.len();
        block.tally.forgotten_producers = std::mem::take(&mut self.windows.forgotten);
    }
}

/// The name of a batch. One that is no UUID is refused by the decoder.
fn name(batch: &Batch) -> Option<(Uuid, u64)> {
    Some((Uuid::from_slice(&batch.producer).ok()?, batch.sequence))
}

fn dead_letter(message: &Message, position: &Position, error: &DecodeError) -> DeadLetterRow {
    DeadLetterRow::new(
        position,
        names::RECORDS,
        message.subject(),
        format!("{}: {}", error.reason(), weir_service::chain(error)),
        message.headers(),
        message.payload(),
    )
}
