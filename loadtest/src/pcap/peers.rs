//! Other programs that read captures.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::Context as _;

use super::measure::Took;
use super::program;

/// A program, what it does with a capture, and its arguments; `{}` is the capture.
pub(super) struct Peer {
    pub(super) program: &'static str,
    pub(super) does: &'static str,
    arguments: &'static [&'static str],
    /// So slow that it is measured only when asked for.
    pub(super) slow: bool,
}

/// All of them are in Debian.
pub(super) const PEERS: [Peer; 5] = [
    Peer {
        program: "softflowd",
        does: "plain flow export",
        // It exports to where nobody listens.
        arguments: &["-r", "{}", "-n", "127.0.0.1:9", "-v", "9", "-m", "250000", "-d"],
        slow: false,
    },
    Peer { program: "nfpcapd", does: "plain flow export", arguments: &["-r", "{}", "-w", "{dir}"], slow: false },
    Peer { program: "argus", does: "flows with TCP state", arguments: &["-r", "{}", "-w", "/dev/null"], slow: false },
    Peer { program: "tcpdump", does: "a line a packet", arguments: &["-nn", "-r", "{}"], slow: true },
    Peer {
        program: "tshark",
        does: "conversations",
        arguments: &["-n", "-r", "{}", "-q", "-z", "conv,tcp", "-z", "conv,udp"],
        slow: true,
    },
];

impl Peer {
    pub(super) fn path(&self) -> Option<PathBuf> {
        program(self.program)
    }

    /// Runs it on a capture.
    pub(super) fn measure(&self, path: &Path, capture: &Path) -> anyhow::Result<Took> {
        let directory = tempfile::tempdir()?;
        let mut command = one_core(path);
        for argument in self.arguments {
            command.arg(match *argument {
                "{}" => capture.as_os_str(),
                "{dir}" => directory.path().as_os_str(),
                other => other.as_ref(),
            });
        }
        let started = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let (memory, cpu) =
            crate::process::watch(&mut child).with_context(|| format!("cannot run {}", self.program))?;
        Ok(Took { seconds: started.elapsed().as_secs_f64(), cpu: cpu.as_secs_f64(), memory, ..Took::default() })
    }
}

/// A program that has one core.
pub(super) fn one_core(path: &Path) -> Command {
    match program("taskset") {
        None => Command::new(path),
        Some(taskset) => {
            let mut command = Command::new(taskset);
            command.args(["-c", "0"]).arg(path);
            command
        }
    }
}
