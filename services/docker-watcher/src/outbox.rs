//! Records on their way to the publisher, gathered into batches.

use std::{path::PathBuf, time::Duration};

use prost::Message as _;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tracing::warn;
use weir_bus::Publisher;
use weir_proto::{Batch, Container, ContainerEvent, ContainerStats};

use crate::position::{Mark, Position};

/// How old a record may get here.
const FLUSH_AFTER: Duration = Duration::from_millis(250);
/// How old an event may get: somebody may wait for it.
const FLUSH_EVENTS_AFTER: Duration = Duration::from_millis(25);
/// How large a batch may get, before compression.
const FLUSH_BYTES: usize = 512 << 10;
/// How many records may wait for the batch before them to be written to disk; then their senders wait.
const QUEUE: usize = 1024;

/// Something to publish.
#[derive(Debug)]
pub enum Record {
    /// What a container used.
    Stats(Box<ContainerStats>),
    /// What happened to one.
    Event(Box<ContainerEvent>),
    /// A statement about a life.
    Container(Box<Container>),
    /// All records that come from this event are in front of this.
    Seen(Mark),
}

/// Where records go in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbox {
    sender: mpsc::Sender<Record>,
}

impl Outbox {
    /// An outbox, and what [`run`] reads.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Record>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { sender }, receiver)
    }

    /// Hands over a record; waits while the disk is slow.
    pub async fn send(&self, record: Record) {
        // The reader ends after all senders.
        let _sent = self.sender.send(record).await;
    }
}

/// Publishes until all senders are gone. Events that were handed to the publisher are remembered in `position_file`.
pub async fn run(
    mut records: mpsc::Receiver<Record>,
    publisher: &Publisher,
    mut position: Position,
    position_file: PathBuf,
) {
    while let Some(first) = records.recv().await {
        let mut due = Instant::now() + FLUSH_AFTER;
        let mut gathered = Gathered::default();
        gathered.add(first);
        while gathered.bytes < FLUSH_BYTES {
            if !gathered.batch.container_events.is_empty() {
                due = due.min(Instant::now() + FLUSH_EVENTS_AFTER);
            }
            tokio::select! {
                record = records.recv() => match record {
                    Some(record) => gathered.add(record),
                    None => break,
                },
                () = sleep_until(due) => break,
            }
        }
        if gathered.bytes > 0 {
            // What is not taken is counted by the publisher.
            let _taken = publisher.publish(gathered.batch);
        }
        if !gathered.seen.is_empty() {
            for mark in gathered.seen {
                position.see(mark);
            }
            if let Err(error) = position.save(&position_file) {
                warn!(%error, file = %position_file.display(), "cannot keep the place in the engine's events: a restart may repeat some");
            }
        }
    }
}

#[derive(Default)]
struct Gathered {
    batch: Batch,
    bytes: usize,
    seen: Vec<Mark>,
}

impl Gathered {
    fn add(&mut self, record: Record) {
        match record {
            Record::Stats(stats) => {
                self.bytes += stats.encoded_len();
                self.batch.container_stats.push(*stats);
            }
            Record::Event(event) => {
                self.bytes += event.encoded_len();
                self.batch.container_events.push(*event);
            }
            Record::Container(container) => {
                self.bytes += container.encoded_len();
                self.batch.containers.push(*container);
            }
            Record::Seen(mark) => self.seen.push(mark),
        }
    }
}
