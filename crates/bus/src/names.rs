//! The names on the bus. `ARCHITECTURE.md` lists them with what they hold.

use std::fmt::Write as _;

/// Stream of batches on their way to the ingester.
pub const RECORDS: &str = "WEIR_RECORDS";
/// All subjects of [`RECORDS`].
pub const RECORDS_SUBJECTS: &str = "weir.records.*";
/// Batches of the kernel's flows.
pub const RECORDS_EBPF: &str = "weir.records.ebpf";
/// Batches from uploaded captures.
pub const RECORDS_PCAP: &str = "weir.records.pcap";
/// Batches about containers.
pub const RECORDS_CONTAINERS: &str = "weir.records.containers";
/// What could not be delivered, with [`DEAD_LETTER_HEADER`]: the ingester makes dead letters of it.
pub const RECORDS_DEAD: &str = "weir.records.dead";
/// Batches with the state of captures.
pub const RECORDS_CAPTURES: &str = "weir.records.captures";

/// Stream of work for pcap-worker.
pub const JOBS: &str = "WEIR_JOBS";
/// Subject of captures to analyse.
pub const JOBS_PCAP: &str = "weir.jobs.pcap";

/// Subject of questions for packets of a capture, answered in pieces by one of the pcap-workers.
pub const CARVE: &str = "weir.carve";

/// Subject of questions for packets of a host's interfaces, answered in pieces by the host's capture.
#[must_use]
pub fn record(host: &str) -> String {
    format!("weir.record.{}", key(host))
}

/// Key-value bucket of the containers that exist: `<host>.<container_id>` (see [`key`]).
pub const IDENTITIES: &str = "weir-identities";
/// Key-value bucket of captures: `id.<uuid>` holds a `Capture`, `sha256.<hex>` the 16 bytes of the id, and so does `recording.<uuid>` for as
/// long as the capture is recorded; [`ADMISSION_KEY`] holds that of the capture that was admitted last, where clients have limits.
pub const CAPTURES: &str = "weir-captures";
/// Key-value bucket of the ingester.
pub const INGEST: &str = "weir-ingest";

/// Key-value bucket of webhooks: by name, the place of the last event that was delivered.
pub const WEBHOOKS: &str = "weir-webhooks";

/// Objects: uploaded bytes, named by the capture's UUID.
pub const UPLOADS: &str = "weir-uploads";
/// Objects: what the analysis made, `<uuid>/report.json`.
pub const ARTIFACTS: &str = "weir-artifacts";

/// Header with the version of the payload's schema.
pub const VERSION_HEADER: &str = "Weir-Version";
/// Header with the encoding of the payload: `zstd`.
pub const ENCODING_HEADER: &str = "Weir-Encoding";

/// Header of what could not be delivered: why.
pub const DEAD_LETTER_HEADER: &str = "Weir-Dead-Letter";

/// The key of a capture in [`CAPTURES`].
#[must_use]
pub fn capture_key(id: uuid::Uuid) -> String {
    format!("id.{id}")
}

/// The key in [`CAPTURES`] whose revision tells whether a capture was admitted since.
pub const ADMISSION_KEY: &str = "admission";

/// The key in [`CAPTURES`] that a capture has while it is recorded.
#[must_use]
pub fn recording_key(id: uuid::Uuid) -> String {
    format!("{RECORDING_KEYS}{id}")
}

/// What every [`recording_key`] begins with.
pub const RECORDING_KEYS: &str = "recording.";

/// A part of a key-value key out of a name that strangers chose: what a key may not hold becomes `=XX` (hexadecimal).
#[must_use]
pub fn key(name: &str) -> String {
    let mut key = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            key.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _written = write!(key, "={byte:02X}");
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_holds_no_character_that_nats_would_read_as_its_own() {
        assert_eq!(key("web-1"), "web-1");
        assert_eq!(key("a.b*c>d e"), "a=2Eb=2Ac=3Ed=20e");
        assert_ne!(key("a.b"), key("a=2Eb"));
    }
}
