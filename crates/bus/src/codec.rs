//! Batches as payloads: protobuf, zstd.

use std::{cell::RefCell, io::Read as _};

use prost::Message as _;
use weir_proto::{Batch, batch::field};
use zstd::{bulk::Compressor, zstd_safe};

use crate::names::{DEAD_LETTER_HEADER, ENCODING_HEADER, VERSION_HEADER};

/// The largest batch after decompression. A batch holds a few thousand records of some 200 bytes; this bounds what a hostile
/// payload can make a reader allocate.
pub const MAX_DECODED_BYTES: usize = 64 << 20;

/// More records of a kind than a batch has of those that come in thousands: who sends more has no room made before.
const MAX_ROOM: usize = 4096;

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

thread_local! {
    /// Making one takes as long as it takes to compress a small batch.
    static COMPRESSOR: RefCell<Compressor<'static>> =
        RefCell::new(Compressor::new(LEVEL).expect("the level is one of zstd's"));
}

/// The payload of a batch.
#[must_use]
pub fn encode_batch(batch: &Batch) -> Vec<u8> {
    compress(&batch.encode_to_vec())
}

/// A batch that was encoded record by record.
#[derive(Debug)]
pub struct PlainBatch {
    /// Its producer.
    pub producer: uuid::Uuid,
    /// Its number among those of its producer.
    pub sequence: u64,
    /// The message `weir.v1.Batch`, in which both stand as well.
    pub bytes: Vec<u8>,
}

/// The payload of an encoded batch.
pub(crate) fn compress(plain: &[u8]) -> Vec<u8> {
    COMPRESSOR
        .with_borrow_mut(|compressor| compressor.compress(plain))
        .expect("a buffer in memory can always be compressed")
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
        Some("zstd") => decode(&decompress(payload)?)?,
        Some(other) => return Err(DecodeError::Encoding(other.to_owned())),
        None => decode(payload)?,
    };
    if batch.producer.len() == 16 && batch.sequence > 0 { Ok(batch) } else { Err(DecodeError::Unnamed) }
}

fn decode(plain: &[u8]) -> Result<Batch, prost::DecodeError> {
    let mut batch = with_room(plain);
    batch.merge(plain)?;
    Ok(batch)
}

/// An empty batch with room for the records that a message has: lists that grow are copied again and again.
fn with_room(plain: &[u8]) -> Batch {
    let (mut flows, mut dns, mut tls, mut http) = (0, 0, 0, 0);
    let mut rest = plain;
    // Key and length of each field; what is no message ends it, and is told by who reads it.
    while let Ok(key) = prost::decode_length_delimiter(&mut rest)
        && let Ok(length) = prost::decode_length_delimiter(&mut rest)
    {
        match (key >> 3, key & 7) {
            (_, 0) => continue,
            (field::FLOWS, 2) => flows += 1,
            (field::DNS, 2) => dns += 1,
            (field::TLS, 2) => tls += 1,
            (field::HTTP, 2) => http += 1,
            (_, 2) => {}
            _ => break,
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    Batch {
        flows: Vec::with_capacity(flows.min(MAX_ROOM)),
        dns: Vec::with_capacity(dns.min(MAX_ROOM)),
        tls: Vec::with_capacity(tls.min(MAX_ROOM)),
        http: Vec::with_capacity(http.min(MAX_ROOM)),
        ..Batch::default()
    }
}

fn decompress(payload: &[u8]) -> Result<Vec<u8>, DecodeError> {
    // What the sender says of its size is believed up to the limit.
    let told = zstd_safe::get_frame_content_size(payload).ok().flatten().unwrap_or(0);
    let mut plain = Vec::with_capacity(told.min(MAX_DECODED_BYTES as u64) as usize + 1);
    let reader = zstd::Decoder::with_buffer(payload).map_err(DecodeError::Zstd)?;
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
    fn room_is_made_for_the_records_that_come_and_for_no_more_than_a_batch_has() {
        let flow = weir_proto::Flow { flow_id: 7, src_name: "name".into(), ..Default::default() };
        let mut batch = batch();
        batch.flows = vec![flow; 300];
        batch.dns = vec![weir_proto::Dns::default(); 3];
        batch.tls = vec![weir_proto::Tls::default(); 2];
        batch.http = vec![weir_proto::Http::default(); 5000];
        let plain = batch.encode_to_vec();
        let room = with_room(&plain);
        let capacities = [room.flows.capacity(), room.dns.capacity(), room.tls.capacity(), room.http.capacity()];
        assert_eq!(capacities, [300, 3, 2, MAX_ROOM]);
        assert_eq!(decode(&plain).unwrap(), batch);
        // Of what is damaged or no batch no more than the list of its fields.
        for damaged in [&plain[..plain.len() / 2], b"\xff\xff\xff", b"\x52", b"\x52\xff\xff\xff\xff\x0f", b"\x55"] {
            assert!(with_room(damaged).flows.capacity() <= 300);
            assert!(decode(damaged).is_err());
        }
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
