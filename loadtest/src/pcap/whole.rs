//! From the first uploaded byte to the last row: the whole system on this machine.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::make::Made;

/// A system on its own, in a directory of its own.
struct System<'a> {
    weir: &'a Path,
    state: &'a Path,
}

impl System<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.weir);
        command.args(arguments).env("WEIR_DATA_DIR", self.state);
        command
    }

    fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let output = self.command(arguments).output().context("cannot run weir")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "weir {}: {said}", arguments.join(" "));
        Ok(output)
    }
}

/// Uploads a capture to a system that is started for it; prints how long it takes until its rows can be asked for.
pub(super) fn run(capture: &Path, made: Made) -> anyhow::Result<()> {
    let weir = std::env::current_exe().context("where is this program?")?.with_file_name("weir");
    if !weir.is_file() {
        eprintln!("skipped: {} is not built, so there is no system to upload to", weir.display());
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let system = System { weir: &weir, state: directory.path() };
    let result = upload(&system, capture, made);
    let stopped = system.run(&["down"]);
    result.and(stopped.map(drop))
}

fn upload(system: &System<'_>, capture: &Path, made: Made) -> anyhow::Result<()> {
    system.run(&["up", "--detach", "--listen", "127.0.0.1:0", "--interface", "lo"])?;
    let started = Instant::now();
    let output = system.command(&["upload", "--wait"]).arg(capture).output().context("cannot run weir")?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(output.status.success(), "the upload failed: {}", String::from_utf8_lossy(&output.stderr));
    println!("\nwhole path: {seconds:.2} s from the first byte of {:.0} MB to its rows", made.bytes as f64 / 1e6);
    Ok(())
}
