//! One measurement, in a process of its own: so that its memory is its own.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use weir_flow::Config;
use weir_pcap_worker::analysis::{Live, analyse};
use weir_pcap_worker::capture_file::Limits;

use super::walk::walk;
use crate::process;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    what: What,
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum What {
    /// Read the bytes
    Read,
    /// Count the packets by their 5-tuples
    Walk,
    /// All that is done with an uploaded capture, up to its records
    Analyse,
}

/// What one run took.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Took {
    pub(super) seconds: f64,
    /// Of the processor: what others do on the machine changes it little.
    pub(super) cpu: f64,
    /// Largest size of the process, bytes.
    pub(super) memory: u64,
    pub(super) packets: u64,
    /// Records that came out, or flows.
    pub(super) records: u64,
}

/// Measures in a new process.
pub(super) fn measure(what: What, file: &Path) -> anyhow::Result<Took> {
    use clap::ValueEnum as _;
    let name = what.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let program = std::env::current_exe().context("where is this program?")?;
    let output = super::peers::one_core(&program).args(["pcap", "measure", &name]).arg(file).output()?;
    anyhow::ensure!(output.status.success(), "cannot measure: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("a measurement that is none")
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut took = match options.what {
        What::Read => read(&options.file)?,
        What::Walk => {
            let walked = walk(File::open(&options.file)?)?;
            Took { packets: walked.packets, records: walked.flows as u64, ..Took::default() }
        }
        What::Analyse => analysed(&options.file)?,
    };
    took.seconds = started.elapsed().as_secs_f64();
    took.cpu = process::cpu(std::process::id()).unwrap_or_default().as_secs_f64();
    took.memory = process::peak_memory(std::process::id()).unwrap_or(0);
    println!("{}", serde_json::to_string(&took)?);
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Took> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 1 << 20]);
    while file.read(&mut buffer)? > 0 {}
    Ok(Took::default())
}

fn analysed(path: &Path) -> anyhow::Result<Took> {
    let mut records = 0;
    let file = File::open(path)?;
    let analysis = analyse(file, Limits::default(), Config::default(), &Live::default(), |_| {
        records += 1;
        Ok(())
    })?;
    Ok(Took { packets: analysis.summary.frames.packets, records, ..Took::default() })
}
