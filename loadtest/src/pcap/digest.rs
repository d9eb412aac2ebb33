//! A hash of all that an analysis says: two versions that must not differ are compared by it.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use weir_bus::PlainBatch;
use weir_flow::Config;
use weir_pcap_worker::analysis::{Live, analyse};
use weir_pcap_worker::batches::Batcher;
use weir_pcap_worker::capture_file::Limits;
use weir_pcap_worker::report::{About, report, to_json};
use weir_proto::Batch;

/// What to read.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Captures
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    for path in &options.files {
        let digest = digest(path).with_context(|| path.display().to_string())?;
        println!("{digest}  {}", path.display());
    }
    Ok(())
}

/// Of the batches as they are sent, and of the report. A file that is no capture has its failure in place of a hash.
fn digest(path: &Path) -> anyhow::Result<String> {
    let file = File::open(path)?;
    let about = About { capture_id: None, name: String::new(), size_bytes: 0, thresholds: String::new() };
    let mut batcher = Batcher::new(Uuid::from_u128(1), Uuid::from_u128(2));
    let mut hash = Sha256::new();
    let analysis = analyse(file, Limits::default(), Config::default(), &Live::default(), |record| {
        if let Some(batch) = batcher.push(record) {
            hash.update(canonical(&batch));
        }
        Ok(())
    });
    let analysis = match analysis {
        Ok(analysis) => analysis,
        Err(failure) => return Ok(format!("{failure:64}")),
    };
    if let Some(batch) = batcher.finish() {
        hash.update(canonical(&batch));
    }
    hash.update(to_json(&report(about, analysis))?);
    let mut text = String::new();
    for byte in hash.finalize() {
        write!(text, "{byte:02x}")?;
    }
    Ok(text)
}

/// A batch with its records by kind.
fn canonical(batch: &PlainBatch) -> Vec<u8> {
    Batch::decode(batch.bytes.as_slice()).expect("a batch was encoded").encode_to_vec()
}
