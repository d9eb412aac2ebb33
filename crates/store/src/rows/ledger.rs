//! `capture_ledger`.

use serde::Serialize;
use weir_proto::{LedgerEntry, ledger_entry::Outcome};

use super::{Context, block_table};

/// One row of `capture_ledger`: packets of one outcome in an interval.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the .sql files say what each column is")]
pub struct LedgerRow {
    pub start_time: i64,
    pub end_time: i64,
    pub recorded_at: u32,
    pub stream_sequence: u64,
    pub host: String,
    pub interface: String,
    pub outcome: i8,
    pub reason: String,
    pub packets: u64,
    pub bytes: u64,
}

block_table!(LedgerRow, "capture_ledger");

impl LedgerRow {
    pub(super) fn new(entry: LedgerEntry, context: &mut Context) -> Self {
        Self {
            start_time: context.time(entry.start_time),
            end_time: context.time(entry.end_time),
            recorded_at: context.recorded_at,
            stream_sequence: context.stream_sequence,
            host: context.host.clone(),
            interface: entry.interface,
            outcome: context.choice::<Outcome>(entry.outcome),
            reason: entry.reason,
            packets: entry.packets,
            bytes: entry.bytes,
        }
    }
}
