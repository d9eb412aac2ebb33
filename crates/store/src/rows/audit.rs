//! `audit`.

use serde::Serialize;
use uuid::Uuid;
use weir_proto::Audit;

use super::{Context, block_table};

/// One row of `audit`: who did what, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the .sql files say what each column is")]
pub struct AuditRow {
    pub time: i64,
    pub recorded_at: u32,
    pub stream_sequence: u64,
    pub action: String,
    pub outcome: String,
    #[serde(with = "clickhouse::serde::uuid")]
    pub capture_id: Uuid,
    pub client: String,
    pub host: String,
    pub filter: String,
    pub seconds: u32,
    pub max_bytes: u64,
    pub packets: u64,
    pub bytes: u64,
    pub lost: u64,
    pub detail: String,
}

block_table!(AuditRow, "audit");

impl AuditRow {
    pub(super) fn new(audit: Audit, context: &mut Context) -> Self {
        Self {
            time: context.time(audit.time),
            recorded_at: context.recorded_at,
            stream_sequence: context.stream_sequence,
            action: audit.action,
            outcome: audit.outcome,
            capture_id: Uuid::from_slice(&audit.capture_id).unwrap_or_else(|_| context.alter(Uuid::nil())),
            client: audit.client,
            host: audit.host,
            filter: audit.filter,
            seconds: audit.seconds,
            max_bytes: audit.max_bytes,
            packets: audit.packets,
            bytes: audit.bytes,
            lost: audit.lost,
            detail: audit.detail,
        }
    }
}
