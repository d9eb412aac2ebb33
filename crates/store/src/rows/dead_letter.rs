//! `dead_letters`.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::{Position, Table};

/// How much of a payload is kept.
const PAYLOAD_BYTES: usize = 64 << 10;

/// One row of `dead_letters`: a message that is no batch.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the .sql files say what each column is")]
pub struct DeadLetterRow {
    pub recorded_at: u32,
    pub stream: String,
    pub sequence: u64,
    pub subject: String,
    pub reason: String,
    pub headers: BTreeMap<String, String>,
    pub size_bytes: u64,
    #[serde(serialize_with = "as_bytes")]
    pub payload: Vec<u8>,
}

impl Table for DeadLetterRow {
    const TABLE: &'static str = "dead_letters";
    const SEQUENCE_COLUMN: Option<&'static str> = Some("sequence");

    fn stream_sequence(&self) -> u64 {
        self.sequence
    }

    fn recorded_at(&self) -> u32 {
        self.recorded_at
    }
}

impl DeadLetterRow {
    /// The row of a message that stands at `position` in `stream` and cannot be read because of `reason`.
    #[must_use]
    pub fn new(
        position: &Position,
        stream: &str,
        subject: &str,
        reason: String,
        headers: Vec<(String, String)>,
        payload: &[u8],
    ) -> Self {
        Self {
            recorded_at: position.recorded_at(),
            stream: stream.to_owned(),
            sequence: position.stream_sequence,
            subject: subject.to_owned(),
            reason,
            headers: headers.into_iter().collect(),
            size_bytes: payload.len() as u64,
            payload: payload[..payload.len().min(PAYLOAD_BYTES)].to_vec(),
        }
    }

    /// The row of a letter that a service sent, in a batch that stands at `position`: its own place is in the headers, because repeated
    /// inserts find rows by the place of their batch.
    pub(super) fn stated(letter: weir_proto::DeadLetter, position: &Position) -> Self {
        let headers = vec![("sequence".to_owned(), letter.sequence.to_string())];
        Self::new(position, &letter.stream, &letter.subject, letter.reason, headers, &letter.payload)
    }
}

/// `String` of `ClickHouse` holds any bytes.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}
