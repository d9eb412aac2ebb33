//! One struct a table, made from the records of a batch.
//!
//! What came over the bus was made by another program: times, ports and enums that a column cannot hold are brought into its range and
//! counted in [`Rows::altered`]; nothing here can fail.

mod address;
mod audit;
mod capture;
mod container;
mod context;
mod dead_letter;
mod flow;
mod ledger;
mod parts;
mod protocol;

use serde::Serialize;
use uuid::Uuid;
use weir_proto::{Batch, Ip};

pub use audit::AuditRow;
pub use capture::{CaptureRow, FindingRow};
pub use container::{ContainerEventRow, ContainerRow, ContainerStatsRow};
pub use context::Position;
pub use dead_letter::DeadLetterRow;
pub use flow::FlowRow;
pub use ledger::LedgerRow;
pub use parts::Parts;
pub use protocol::{DnsRow, HttpRow, TlsRow};

use context::Context;

/// A row that knows its table and the message it came with.
pub trait Table: Serialize + Send + Sync {
    /// The table.
    const TABLE: &'static str;
    /// The column that holds the position in the stream. None = a table whose rows replace each other by their key, so that a row
    /// that is there twice counts once.
    const SEQUENCE_COLUMN: Option<&'static str>;
    /// Position of the message in the stream.
    fn stream_sequence(&self) -> u64;
    /// When the stream stored the message, seconds since 1970.
    fn recorded_at(&self) -> u32;
}

/// Who had an address: the names that flows carry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerNames {
    /// Id in full.
    pub id: String,
    /// Name.
    pub name: String,
    /// Image.
    pub image: String,
}

/// One end of a flow, as its record shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// Address.
    pub address: Ip,
    /// Port.
    pub port: u16,
    /// cgroup v2 id; 0 = not known.
    pub cgroup: u64,
    /// Its address on its own side of the host's address translation; unspecified = not translated.
    pub nat: Ip,
}

/// What a record shows of its two ends.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The host that saw it; `None` = an uploaded capture, which does not say where it was made.
    pub host: Option<&'a str>,
    /// The interface that the record counts on.
    pub interface: &'a str,
    /// The other interfaces that saw the same packets.
    pub interfaces: &'a [String],
    /// IANA protocol number.
    pub protocol: u8,
    /// First packet, microseconds since 1970.
    pub from: u64,
    /// Last packet.
    pub to: u64,
    /// The addresses are those of a network namespace of a container, and may be others elsewhere: only cgroups tell who is there.
    pub apart: bool,
    /// The initiator.
    pub src: End,
    /// The responder.
    pub dst: End,
}

/// Finds containers by what traffic shows of them.
pub trait Containers {
    /// The containers at the two ends, initiator and responder, as they were at the time.
    fn find(&self, seen: &Seen<'_>) -> [Option<&ContainerNames>; 2];
}

/// No container is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoContainers;

impl Containers for NoContainers {
    fn find(&self, _: &Seen<'_>) -> [Option<&ContainerNames>; 2] {
        [None, None]
    }
}

/// The rows of some batches, by table.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "each field is the table of its name")]
pub struct Rows {
    pub flows: Parts<FlowRow>,
    pub dns: Parts<DnsRow>,
    pub tls: Parts<TlsRow>,
    pub http: Parts<HttpRow>,
    pub container_stats: Vec<ContainerStatsRow>,
    pub container_events: Vec<ContainerEventRow>,
    pub containers: Vec<ContainerRow>,
    pub captures: Vec<CaptureRow>,
    pub findings: Vec<FindingRow>,
    pub dead_letters: Vec<DeadLetterRow>,
    pub capture_ledger: Vec<LedgerRow>,
    pub audit: Vec<AuditRow>,
    /// Captures whose rows are to be deleted.
    pub deleted: Vec<Uuid>,
    /// Captures whose rows from before a message of the stream are to be deleted, and that message.
    pub purged: Vec<(Uuid, u64)>,
    /// Values that were brought into the range of their column.
    pub altered: u64,
}

impl Rows {
    /// Adds the records of a batch.
    pub fn push(&mut self, batch: Batch, position: &Position, containers: &impl Containers) {
        let mut context = Context::new(&batch, position);
        self.flows.push(batch.flows.into_iter().map(|flow| FlowRow::new(flow, &mut context, containers)).collect());
        self.dns.push(batch.dns.into_iter().map(|dns| DnsRow::new(dns, &mut context, containers)).collect());
        self.tls.push(batch.tls.into_iter().map(|tls| TlsRow::new(tls, &mut context, containers)).collect());
        self.http.push(batch.http.into_iter().map(|http| HttpRow::new(http, &mut context, containers)).collect());
        let stats = batch.container_stats.into_iter().map(|stats| ContainerStatsRow::new(stats, &mut context));
        self.container_stats.extend(stats);
        let events = batch.container_events.into_iter().map(|event| ContainerEventRow::new(event, &mut context));
        self.container_events.extend(events);
        let lives = batch.containers.into_iter().map(|container| ContainerRow::new(container, &mut context));
        self.containers.extend(lives);
        self.deleted.extend(batch.captures.iter().filter(|capture| capture.deleted).map(capture::id));
        for capture in &batch.captures {
            if capture.purge {
                self.purge(capture::id(capture), position.stream_sequence);
            }
        }
        let stated = batch.captures.into_iter().filter(|capture| !capture.purge);
        self.captures.extend(stated.map(|capture| CaptureRow::new(capture, &mut context)));
        self.findings.extend(batch.findings.into_iter().map(|finding| FindingRow::new(finding, &mut context)));
        let letters = batch.dead_letters.into_iter().map(|letter| DeadLetterRow::stated(letter, position));
        self.dead_letters.extend(letters);
        let entries = batch.capture_ledger.into_iter().map(|entry| LedgerRow::new(entry, &mut context));
        self.capture_ledger.extend(entries);
        self.audit.extend(batch.audits.into_iter().map(|audit| AuditRow::new(audit, &mut context)));
        self.altered += context.altered;
    }

    /// Notes that what the tables have of a capture is to be deleted, and drops what this block has of it so far.
    fn purge(&mut self, id: Uuid, stream_sequence: u64) {
        // Live traffic is no capture.
        if id.is_nil() {
            return;
        }
        self.flows.retain(|row| row.capture_id != id);
        self.dns.retain(|row| row.capture_id != id);
        self.tls.retain(|row| row.capture_id != id);
        self.http.retain(|row| row.capture_id != id);
        self.findings.retain(|row| row.capture_id != id);
        self.purged.push((id, stream_sequence));
    }

    /// Drops the rows of captures that are deleted by the same block: they would be deleted right after their insert. Returns how many.
    pub fn drop_deleted(&mut self) -> usize {
        self.deleted.sort_unstable();
        self.deleted.dedup();
        self.deleted.retain(|id| !id.is_nil());
        if self.deleted.is_empty() {
            return 0;
        }
        let before = self.len();
        let deleted = &self.deleted;
        let kept = |id: &Uuid| deleted.binary_search(id).is_err();
        self.flows.retain(|row| kept(&row.capture_id));
        self.dns.retain(|row| kept(&row.capture_id));
        self.tls.retain(|row| kept(&row.capture_id));
        self.http.retain(|row| kept(&row.capture_id));
        self.findings.retain(|row| kept(&row.capture_id));
        before - self.len()
    }

    /// How many rows each table gets.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, usize); 12] {
        [
            (FlowRow::TABLE, self.flows.len()),
            (DnsRow::TABLE, self.dns.len()),
            (TlsRow::TABLE, self.tls.len()),
            (HttpRow::TABLE, self.http.len()),
            (ContainerStatsRow::TABLE, self.container_stats.len()),
            (ContainerEventRow::TABLE, self.container_events.len()),
            (ContainerRow::TABLE, self.containers.len()),
            (CaptureRow::TABLE, self.captures.len()),
            (FindingRow::TABLE, self.findings.len()),
            (DeadLetterRow::TABLE, self.dead_letters.len()),
            (LedgerRow::TABLE, self.capture_ledger.len()),
            (AuditRow::TABLE, self.audit.len()),
        ]
    }

    /// All rows together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.counts().iter().map(|(_, count)| count).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Implements [`Table`] for a row with the fields `stream_sequence` and `recorded_at`.
macro_rules! block_table {
    ($row:ty, $table:literal) => {
        impl crate::rows::Table for $row {
            const TABLE: &'static str = $table;
            const SEQUENCE_COLUMN: Option<&'static str> = Some("stream_sequence");

            fn stream_sequence(&self) -> u64 {
                self.stream_sequence
            }

            fn recorded_at(&self) -> u32 {
                self.recorded_at
            }
        }
    };
}

/// Implements [`Table`] for a row that replaces others with its key.
macro_rules! replacing_table {
    ($row:ty, $table:literal) => {
        impl crate::rows::Table for $row {
            const TABLE: &'static str = $table;
            const SEQUENCE_COLUMN: Option<&'static str> = None;

            fn stream_sequence(&self) -> u64 {
                0
            }

            fn recorded_at(&self) -> u32 {
                0
            }
        }
    };
}

use {block_table, replacing_table};
