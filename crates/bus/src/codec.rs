//! Batches as payloads: protobuf, zstd.

use std::io::Read as _;

use prost::Message as _;
use weir_proto::Batch;

use crate::names::{DEAD_LETTER_HEADER, ENCODING_HEADER, VERSION_HEADER};

/// The largest batch after decompression. A batch holds a few thousand records of some 200 bytes; this bounds what a hostile
/// payload can make a reader allocate.
pub const MAX_DECODED_BYTES: usize = 64 << 20;

/// zstd level: 1 is a third of the size at some 300 MB/s a core; higher ones cost more than they save here.
const LEVEL: i32 = 1;

/// Why a message is no batch that this version can read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not sent as a batch: something that could not be delivered, and why.
    #[error("{0}")]
    DeadLetter(String),
    /// No or no readable version header.
    #[error("header {VERSION_HEADER} is missing or not a number")]
    NoVersion,
    /// The sender is newer.
    #[error("schema version {version} is newer than {supported}, the newest that this ingester reads: update it", supported = weir_proto::VERSION)]
    Newer {
        /// The sender's version.
        version: u32,
    },
    /// An encoding that this version does not know.
    #[error("unknown {ENCODING_HEADER} {0:?}")]
    Encoding(String),
    /// The compressed data are damaged.
    #[error("not valid zstd")]
    Zstd(#[source] std::io::Error),
    /// It would decompress to more than a batch may have.
    #[error("larger than {MAX_DECODED_BYTES} bytes when decompressed")]
    TooLarge,
    /// Not the protobuf message `weir.v1.Batch`.
    #[error("not a weir.v1.Batch")]
    Protobuf(#[from] prost::DecodeError),
    /// Its producer is no UUID or its sequence is zero.
    #[error("a batch without producer or sequence")]
    Unnamed,
}

impl DecodeError {
    /// A stable word for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::DeadLetter(_) => "undeliverable",
            Self::NoVersion => "no_version",
            Self::Newer { .. } => "newer_version",
            Self::Encoding(_) => "unknown_encoding",
            Self::Zstd(_) => "bad_zstd",
            Self::TooLarge => "too_large",
            Self::Protobuf(_) => "bad_protobuf",
            Self::Unnamed => "unnamed",
        }
    }
}

/// The payload of a batch.
#[must_use]
pub fn encode_batch(batch: &Batch) -> Vec<u8> {
    let plain = batch.encode_to_vec();
    zstd::bulk::compress(&plain, LEVEL).expect("a buffer in memory can always be compressed")
}

/// Reads a payload with its headers; `header` looks one up.
pub fn decode_batch<'a>(payload: &[u8], header: impl Fn(&str) -> Option<&'a str>) -> Result<Batch, DecodeError> {
    if let Some(reason) = header(DEAD_LETTER_HEADER) {
        return Err(DecodeError::DeadLetter(reason.to_owned()));
    }
    let version: u32 = header(VERSION_HEADER).and_then(|value| value.parse().ok()).ok_or(DecodeError::NoVersion)?;
    if version > weir_proto::VERSION {
        return Err(DecodeError::Newer { version });
    }
    let batch = match header(ENCODING_HEADER) {
        Some("zstd") => Batch::decode(decompress(payload)?.as_slice())?,
        Some(other) => return Err(DecodeError::Encoding(other.to_owned())),
        None => Batch::decode(payload)?,
    };
    if batch.producer.len() == 16 && batch.sequence > 0 { Ok(batch) } else { Err(DecodeError::Unnamed) }
}

fn decompress(payload: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut plain = Vec::new();
    let reader = zstd::Decoder::new(payload).map_err(DecodeError::Zstd)?;
    reader.take(MAX_DECODED_BYTES as u64 + 1).read_to_end(&mut plain).map_err(DecodeError::Zstd)?;
    if plain.len() > MAX_DECODED_BYTES { Err(DecodeError::TooLarge) } else { Ok(plain) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch {
        Batch { producer: vec![7; 16], sequence: 1, host: "h".into(), ..Batch::default() }
    }

    fn headers<'a>(version: &'a str, encoding: Option<&'a str>) -> impl Fn(&str) -> Option<&'a str> {
        move |name| match name {
            VERSION_HEADER => Some(version),
            ENCODING_HEADER => encoding,
            _ => None,
        }
    }

    #[test]
    fn a_batch_survives_the_way() {
        let payload = encode_batch(&batch());
        assert_eq!(decode_batch(&payload, headers("1", Some("zstd"))).unwrap(), batch());
    }

    #[test]
    fn what_is_no_batch_is_refused_with_its_reason() {
        let payload = encode_batch(&batch());
        let reason =
            |payload: &[u8], version, encoding| decode_batch(payload, headers(version, encoding)).unwrap_err().reason();
        assert_eq!(reason(&payload, "", Some("zstd")), "no_version");
        assert_eq!(reason(&payload, "2", Some("zstd")), "newer_version");
        assert_eq!(reason(&payload, "1", Some("lz77")), "unknown_encoding");
        assert_eq!(reason(b"garbage", "1", Some("zstd")), "bad_zstd");
        assert_eq!(reason(b"\xff\xff\xff", "1", None), "bad_protobuf");
        assert_eq!(reason(b"", "1", None), "unnamed");
        let bomb = zstd::bulk::compress(&vec![0; MAX_DECODED_BYTES + 1], 1).unwrap();
        assert_eq!(reason(&bomb, "1", Some("zstd")), "too_large");
    }
}
