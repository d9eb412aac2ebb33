//! `captures` and `findings`.

use serde::Serialize;
use uuid::Uuid;
use weir_proto::{Capture, Finding};

use super::{Context, block_table, replacing_table};
use crate::text::hexadecimal;

/// One row of `captures`: what was stated of a capture at one time.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the .sql files say what each column is")]
pub struct CaptureRow {
    #[serde(with = "clickhouse::serde::uuid")]
    pub capture_id: Uuid,
    pub name: String,
    pub sha256: String,
    pub size_bytes: u64,
    pub state: i8,
    pub error: String,
    pub packets: u64,
    pub bytes: u64,
    pub first_packet: Option<i64>,
    pub last_packet: Option<i64>,
    pub uploaded_at: i64,
    pub finished_at: Option<i64>,
    pub expires_at: Option<i64>,
    pub observed_at: i64,
    pub deleted: u8,
}

replacing_table!(CaptureRow, "captures");

/// The id of a capture; nil where it has none.
pub(super) fn id(capture: &Capture) -> Uuid {
    Uuid::from_slice(&capture.capture_id).unwrap_or_default()
}

impl CaptureRow {
    pub(super) fn new(capture: Capture, context: &mut Context) -> Self {
        Self {
            capture_id: Uuid::from_slice(&capture.capture_id).unwrap_or_else(|_| context.alter(Uuid::nil())),
            name: capture.name,
            sha256: hexadecimal(&capture.sha256),
            size_bytes: capture.size_bytes,
            state: context.choice::<weir_proto::capture::State>(capture.state),
            error: capture.error,
            packets: capture.packets,
            bytes: capture.bytes,
            first_packet: context.time_or_null(capture.first_packet),
            last_packet: context.time_or_null(capture.last_packet),
            uploaded_at: context.time(capture.uploaded_at),
            finished_at: context.time_or_null(capture.finished_at),
            expires_at: context.time_or_null(capture.expires_at),
            observed_at: context.time(capture.observed_at),
            deleted: u8::from(capture.deleted),
        }
    }
}

/// One row of `findings`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the .sql files say what each column is")]
pub struct FindingRow {
    #[serde(with = "clickhouse::serde::uuid")]
    pub capture_id: Uuid,
    pub time: i64,
    pub recorded_at: u32,
    pub stream_sequence: u64,
    pub host: String,
    pub kind: String,
    pub severity: i8,
    pub flow_id: u64,
    pub summary: String,
    /// A JSON object as text.
    pub detail: String,
}

block_table!(FindingRow, "findings");

impl FindingRow {
    pub(super) fn new(finding: Finding, context: &mut Context) -> Self {
        Self {
            capture_id: context.capture_id,
            time: context.time(finding.time),
            recorded_at: context.recorded_at,
            stream_sequence: context.stream_sequence,
            host: context.host.clone(),
            kind: finding.kind,
            severity: severity(&finding.severity, context),
            flow_id: finding.flow_id,
            summary: finding.summary,
            detail: json_object(&finding.detail, context),
        }
    }
}

fn severity(text: &str, context: &mut Context) -> i8 {
    match text {
        "info" => 1,
        "warning" => 2,
        "critical" => 3,
        _ => context.alter(1),
    }
}

/// A JSON object that the column takes. `ClickHouse` would refuse the whole block for the sake of one bad text.
fn json_object(text: &str, context: &mut Context) -> String {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) if value.is_object() => value.to_string(),
        Ok(value) => context.alter(serde_json::json!({ "value": value }).to_string()),
        Err(_) if text.is_empty() => "{}".to_owned(),
        Err(_) => context.alter(serde_json::json!({ "text": text }).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use weir_proto::Batch;

    use super::super::Position;
    use super::*;

    #[test]
    fn a_detail_is_always_an_object() {
        let mut context = Context::new(&Batch::default(), &Position { stream_sequence: 1, stored_at: 0 });
        assert_eq!(json_object(r#"{"a": 1, "a": 2}"#, &mut context), r#"{"a":2}"#);
        assert_eq!(json_object("", &mut context), "{}");
        assert_eq!(context.altered, 0);
        assert_eq!(json_object("[1]", &mut context), r#"{"value":[1]}"#);
        assert_eq!(json_object("{", &mut context), r#"{"text":"{"}"#);
        assert_eq!(severity("panic", &mut context), 1);
        assert_eq!(context.altered, 3);
    }
}
