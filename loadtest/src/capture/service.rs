//! `weir-capture` as a process, and what it says at its end.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::network::Wire;
use crate::process;

/// How long it may take to attach and to end.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Service {
    child: Child,
    log: Receiver<String>,
    before: Duration,
    _directory: tempfile::TempDir,
}

/// What it counted, and what it used while it did.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) seen: u64,
    pub(crate) accounted: u64,
    pub(crate) ignored: u64,
    pub(crate) lost: u64,
    pub(crate) reported: u64,
    pub(crate) cpu: Duration,
    /// The largest size in memory, in bytes.
    pub(crate) memory: u64,
    /// How much of it are maps of the kernel, which count where they are mapped.
    pub(crate) maps: u64,
}

/// The program beside this one.
pub(crate) fn beside() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("weir-capture");
    ensure!(path.is_file(), "{} is missing: cargo build --release -p weir-capture", path.display());
    Ok(path)
}

impl Service {
    /// Starts it on a wire's first end; the wire is up when it is attached.
    pub(crate) fn start(program: &Path, wire: &Wire, options: &[&str]) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut child = Command::new("ip")
            .args(["netns", "exec", &wire.a])
            .arg(program)
            .args(["--interface", "a0", "--output", "ndjson", "--file"])
            .arg(directory.path().join("flows.ndjson"))
            .arg("--data-dir")
            .arg(directory.path())
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start weir-capture")?;
        let (line, log) = channel();
        let stderr = child.stderr.take().context("no log")?;
        std::thread::spawn(move || {
            for text in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    break;
                }
            }
        });
        let mut service = Self { child, log, before: Duration::ZERO, _directory: directory };
        service.wait_for("attached")?;
        wire.up()?;
        service.before = service.cpu();
        Ok(service)
    }

    /// CPU since the wire is up.
    pub(crate) fn used(&self) -> Duration {
        self.cpu().saturating_sub(self.before)
    }

    /// Ends it, and returns what it counted.
    pub(crate) fn stop(mut self) -> anyhow::Result<Report> {
        let pid = self.child.id();
        let (cpu, memory, maps) = (self.used(), process::peak_memory(pid).unwrap_or(0), kernel_maps(pid));
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)?;
        let line = self.wait_for("detached")?;
        let status = self.child.wait()?;
        ensure!(status.success(), "weir-capture: {status}");
        let mut report = Report { cpu, memory, maps, ..Report::default() };
        for (name, value) in [
            ("seen=", &mut report.seen),
            ("accounted=", &mut report.accounted),
            ("ignored=", &mut report.ignored),
            ("lost=", &mut report.lost),
            ("reported=", &mut report.reported),
        ] {
            *value = number(&line, name).with_context(|| format!("no {name} in: {line}"))?;
        }
        let outcomes = report.accounted + report.ignored + report.lost;
        ensure!(report.seen == outcomes, "seen {} and what became of it, {outcomes}, differ", report.seen);
        ensure!(report.accounted == report.reported, "accounted and reported differ: {report:?}");
        Ok(report)
    }

    fn cpu(&self) -> Duration {
        process::cpu(self.child.id()).unwrap_or_default()
    }

    fn wait_for(&self, text: &str) -> anyhow::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return Ok(line),
                Ok(_) => {}
                Err(_) => bail!("weir-capture does not say that it is {text}"),
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Both fail if it has ended, which is what is wanted.
        let _ended = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Resident bytes of the kernel's maps that a process has mapped (proc(5), smaps).
fn kernel_maps(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let (mut of_map, mut sum) = (false, 0);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("Rss:") {
            let kilobytes = rest.trim().strip_suffix(" kB").and_then(|number| number.trim().parse::<u64>().ok());
            sum += if of_map { kilobytes.unwrap_or(0) * 1024 } else { 0 };
        } else if line.contains(" rw-s ")
            || line.contains(" r--s ")
            || line.contains(" r-xp ")
            || line.contains(" rw-p ")
        {
            of_map = line.ends_with("anon_inode:bpf-map");
        }
    }
    sum
}

fn number(line: &str, name: &str) -> Option<u64> {
    let at = line.find(&format!(" {name}"))? + 1 + name.len();
    line[at..].split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_their_names() {
        let line = "INFO capture: detached accounted=32 ignored=1 lost=0 reported=31 seen=33";
        assert_eq!(["seen=", "reported=", "lost="].map(|name| number(line, name)), [Some(33), Some(31), Some(0)]);
        assert_eq!(number(line, "nothing="), None);
    }
}
