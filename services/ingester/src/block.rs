//! A block: the messages that are committed together, and their rows.

use tracing::{Span, info_span};
use weir_bus::{Message, names};
use weir_proto::Cut;
use weir_store::Rows;

/// What is committed at once.
#[derive(Debug, Default)]
pub(crate) struct Block {
    /// In stream order.
    pub(crate) messages: Vec<Message>,
    pub(crate) rows: Rows,
    pub(crate) traced: Vec<Traced>,
    /// Messages whose batches were taken before.
    pub(crate) duplicates: Vec<u64>,
    pub(crate) tally: Tally,
    pub(crate) identity: Identity,
}

/// Whether the block is known to the ledger.
#[derive(Debug, Default)]
pub(crate) enum Identity {
    /// Only duplicates: there is nothing to insert, and nothing to remember.
    #[default]
    Nothing,
    /// To be cut.
    New(Cut),
    /// It was cut before, by an earlier session or process.
    Planned { first: u64, last: u64, stream_created: u64 },
}

/// What became of messages; counted when the block is done.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) duplicate_batches: u64,
    pub(crate) too_old_batches: u64,
    pub(crate) dead_letters: Vec<&'static str>,
    pub(crate) deleted_records: u64,
    /// Producers that were remembered after it, and those that had to be forgotten in it.
    pub(crate) producers: usize,
    pub(crate) forgotten_producers: u64,
    /// Bytes of the records without compression.
    pub(crate) bytes: usize,
}

/// The span of a message whose sender is traced, from its arrival to its ack.
#[derive(Debug)]
pub(crate) struct Traced {
    span: Span,
    /// Bit n = the n-th table of [`Rows::counts`] has rows of it.
    tables: u16,
}

impl Traced {
    /// A span that continues the trace of the sender, if there is one.
    pub(crate) fn begin(message: &Message) -> Option<Self> {
        message.header("traceparent")?;
        let span = info_span!(
            "process records",
            otel.kind = "consumer",
            messaging.system = "nats",
            messaging.operation.type = "process",
            messaging.destination.name = message.subject(),
            messaging.message.body.size = message.payload().len(),
            weir.stream_sequence = message.stream_sequence,
        );
        message.continue_trace(&span);
        Some(Self { span, tables: 0 })
    }

    /// Notes which tables got rows between two looks.
    pub(crate) fn wrote(&mut self, before: &[(&'static str, usize); 11], after: &[(&'static str, usize); 11]) {
        for (n, (before, after)) in before.iter().zip(after).enumerate() {
            if after.1 > before.1 {
                self.tables |= 1 << n;
            }
        }
    }

    /// A span for the insert into the n-th table, if that has rows of the message.
    pub(crate) fn insert(&self, n: usize, table: &'static str) -> Option<Span> {
        (self.tables >> n & 1 == 1).then(|| {
            info_span!(
                parent: &self.span,
                "insert",
                otel.name = format!("INSERT weir.{table}"),
                otel.kind = "client",
                otel.status_code = tracing::field::Empty,
                db.system.name = "clickhouse",
                db.namespace = weir_store::DATABASE,
                db.operation.name = "INSERT",
                db.collection.name = table,
            )
        })
    }
}

impl Block {
    /// Names the block for ever. The stream's birth is in it: another stream of the same name counts from 1 again.
    pub(crate) fn token(first: u64, last: u64, stream_created: u64) -> String {
        format!("{}@{stream_created}:{first}-{last}", names::RECORDS)
    }

    /// First and last sequence of its messages.
    pub(crate) fn range(&self) -> Option<(u64, u64)> {
        Some((self.messages.first()?.stream_sequence, self.messages.last()?.stream_sequence))
    }
}
