//! pcap-worker: uploaded captures become records.
//!
//! # The path of a capture through pcap-worker
//!
//! 1. `pipeline` takes a job from the queue that all workers share.
//! 2. `job` marks its capture as running, and at the end as done or failed: as a record for the tables, and in the key-value bucket
//!    where the API looks.
//! 3. `work` runs the analysis on a thread of its own; beside it, records are sent in numbered batches, progress is stated, and the job
//!    is kept. A worker that dies does none of this, so its job goes to another worker after the acknowledgement's time.
//! 4. [`capture_file`] reads the object as it streams in: compression off, records cut, damage found.
//! 5. [`analysis`] gives each packet to `weir_flow::Analyzer` and passes its records on.
//! 6. [`batches`] cuts the records into batches that follow from the file alone: an analysis that is done again makes the same batches
//!    with the same names, and the ingester counts them once.
//! 7. [`report`] says what was seen; it is stored beside the upload.
//!
//! Beside the jobs, `carve` answers questions for the packets of some flows of a capture, because this is the process that may read what
//! strangers sent: before all of the above it has given up what it does not need ([`Config::policy`]).

pub mod analysis;
pub mod batches;
pub mod capture_file;
mod carve;
pub mod config;
mod job;
pub mod metrics;
mod pipeline;
pub mod report;
mod source;
mod state;
mod work;

use std::fs::File;
use std::path::Path;

use anyhow::Context as _;

pub use config::Config;

/// Runs the service until it is told to stop.
pub async fn run(config: Config, context: weir_service::Context) -> anyhow::Result<()> {
    Box::pin(pipeline::run(config, context)).await
}

/// Confines the process as [`run`] is and says of each layer whether it holds, and of each attempt to get out whether it was refused.
/// Whether all is as it should be.
pub fn check_sandbox(config: &Config) -> bool {
    let confinement = weir_service::sandbox::apply(&config.policy());
    for (layer, state) in confinement.layers() {
        let state = state.as_ref().map_or_else(ToString::to_string, |()| "holds".to_owned());
        println!("{layer}: {state}");
    }
    let trials = weir_service::sandbox::attempts();
    for trial in &trials {
        let refused = trial.refused.as_deref().map_or_else(|| "POSSIBLE".to_owned(), |why| format!("refused ({why})"));
        println!("{}: {refused}", trial.what);
    }
    confinement.is_complete() && trials.iter().all(|trial| trial.refused.is_some())
}

/// Analyses a file on this machine; gives its report as JSON.
pub fn read(config: &Config, path: &Path) -> anyhow::Result<String> {
    read_open(config, open(path)?, path)
}

/// As [`read`], after giving up all that is not needed for it; for a process that does nothing else.
pub fn read_confined(config: &Config, path: &Path) -> anyhow::Result<String> {
    let file = open(path)?;
    if let Some(missing) = weir_service::sandbox::apply(&config.policy_of_reading()).missing() {
        eprintln!("weir-pcap-worker: the sandbox is not complete: {missing}");
    }
    read_open(config, file, path)
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("cannot open {}", path.display()))
}

fn read_open(config: &Config, file: File, path: &Path) -> anyhow::Result<String> {
    let size_bytes = file.metadata()?.len();
    let live = analysis::Live::default();
    let analysis = analysis::analyse(file, config.limits(), config.analyzer([0; 16]), &live, |_| Ok(()))
        .with_context(|| format!("cannot analyse {}", path.display()))?;
    let about =
        report::About { capture_id: None, name: path.display().to_string(), size_bytes, thresholds: String::new() };
    Ok(report::to_json(&report::report(about, analysis))?)
}
