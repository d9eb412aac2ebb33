//! One instance on disk: its directory, the lock that says who runs it, and the state it tells others.
//!
//! ```text
//! DIR/run/lock         held by the supervisor for as long as it lives
//! DIR/run/state.json   what runs, where, since when (0600)
//! DIR/logs/PART.log    the last 10 to 20 MiB of each part, and of the supervisor itself (weir.log)
//! DIR/nats, DIR/clickhouse, DIR/PART   what the parts keep
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::args;

/// The directory of an instance.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    root: PathBuf,
}

/// Says that this process runs the instance; the kernel takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held open, never read")] File);

/// What the supervisor tells others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// The process that runs the instance.
    pub(crate) supervisor_pid: u32,
    /// When it started.
    pub(crate) started_at: Timestamp,
    /// How far it came.
    pub(crate) phase: Phase,
    /// The address of the API.
    pub(crate) api: String,
    /// The parts, in the order in which they start.
    pub(crate) parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    Starting,
    /// All that is on was ready once.
    Running,
    Stopping,
}

/// One part of the system.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) state: PartState,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<u32>,
    /// Where it says whether it is ready: 200 or 503 with the reasons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<String>,
    /// How often it ended by itself and was started again.
    pub(crate) restarts: u32,
    /// How it ended the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_exit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) log: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PartState {
    /// Started, not ready yet.
    Starting,
    Ready,
    /// It was ready and is not now.
    NotReady,
    /// It ended by itself and waits to be started again.
    Restarting,
    /// It cannot run here, and the rest does without; the reason says how to get it.
    Off,
    /// Somebody else runs it: the user's own server.
    External,
    Stopped,
}

impl PartState {
    /// As people and programs read it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::NotReady => "not ready",
            Self::Restarting => "restarting",
            Self::Off => "off",
            Self::External => "external",
            Self::Stopped => "stopped",
        }
    }
}

impl Instance {
    /// The instance that the options name, whether it exists or not.
    pub(crate) fn find(options: &args::Instance) -> Result<Self> {
        let root = match &options.data_dir {
            Some(dir) => {
                std::path::absolute(dir).with_context(|| format!("cannot use --data-dir {}", dir.display()))?
            }
            None => default_root().context("no home directory: say --data-dir DIR")?,
        };
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// The directory of one part.
    pub(crate) fn part(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes the directories; others than the owner have no business there.
    pub(crate) fn create(&self) -> Result<()> {
        for dir in [self.root.clone(), self.run(), self.logs()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&dir)
                .with_context(|| format!("cannot make {}", dir.display()))?;
        }
        Ok(())
    }

    /// Takes the instance for this process. The error says who has it.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let path = self.lock_file();
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
            Ok(_) => Ok(Lock(file)),
            Err(Errno::EAGAIN | Errno::EACCES) => {
                let pid = self.running()?.map_or_else(String::new, |pid| format!(" (process {pid})"));
                let dir = self.root.display();
                anyhow::bail!(
                    "another `weir up`{pid} runs on {dir}: stop it with `weir down --data-dir {dir}`, or choose another --data-dir"
                )
            }
            Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
        }
    }

    /// The process that runs the instance, if one does. Not for the one that holds the [`Lock`]: fcntl(2) gives a lock up when its
    /// process closes any handle of the file.
    pub(crate) fn running(&self) -> Result<Option<i32>> {
        let file = match OpenOptions::new().write(true).open(self.lock_file()) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open {}", self.lock_file().display())),
        };
        let mut lock = whole_file();
        fcntl(&file, FcntlArg::F_GETLK(&mut lock))
            .with_context(|| format!("cannot read the lock {}", self.lock_file().display()))?;
        Ok((i32::from(lock.l_type) != libc::F_UNLCK).then_some(lock.l_pid))
    }

    /// What the supervisor told last, which may have gone since: see [`Self::running`].
    pub(crate) fn state(&self) -> Result<Option<State>> {
        let path = self.state_file();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| format!("cannot understand {}", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Tells others; readers see the old state or the new one, never a part of it.
    pub(crate) fn write_state(&self, state: &State) -> Result<()> {
        let partial = self.run().join("state.partial");
        let bytes = serde_json::to_vec_pretty(state)?;
        let mut options = OpenOptions::new();
        options.create(true).truncate(true).write(true).mode(0o600);
        let mut file = options.open(&partial).with_context(|| format!("cannot write {}", partial.display()))?;
        std::io::Write::write_all(&mut file, &bytes).with_context(|| format!("cannot write {}", partial.display()))?;
        fs::rename(&partial, self.state_file()).with_context(|| format!("cannot write {}", self.state_file().display()))
    }

    /// Ends the services that an earlier supervisor left running, and names them. The kernel ends them with it, but for a program with
    /// file capabilities (`setcap`), of which it forgets that order (prctl(2), `PR_SET_PDEATHSIG`). For who knows that nobody runs
    /// the instance.
    pub(crate) fn end_leftovers(&self) -> Vec<String> {
        // A state that cannot be read names nobody; whoever needs it says so.
        let parts = self.state().ok().flatten().map(|state| state.parts).unwrap_or_default();
        let left = parts.into_iter().filter(|part| part.pid.is_some_and(|pid| is_leftover(&part.name, pid)));
        left.filter_map(|part| {
            let pid = Pid::from_raw(part.pid? as i32);
            kill(pid, Signal::SIGKILL).is_ok().then_some(part.name)
        })
        .collect()
    }

    pub(crate) fn remove_state(&self) {
        // Who asks next finds nobody running, with or without the file.
        let _ = fs::remove_file(self.state_file());
    }

    fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    fn lock_file(&self) -> PathBuf {
        self.run().join("lock")
    }

    fn state_file(&self) -> PathBuf {
        self.run().join("state.json")
    }
}

/// Whether the process with this number is still that service, without a supervisor. A number can belong to somebody else by now.
fn is_leftover(service: &str, pid: u32) -> bool {
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned();
    // TASK_COMM_LEN is 16 with the final zero.
    let expected: String = format!("weir-{service}").chars().take(15).collect();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    // A zombie has ended and waits for init to notice.
    let runs = field("State:").is_some_and(|state| !state.starts_with('Z'));
    runs && name(&pid.to_string()) == expected && field("PPid:").is_some_and(|parent| name(parent) != "weir")
}

fn default_root() -> Option<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Some(PathBuf::from("/var/lib/weir"));
    }
    let state = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    state.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"))).map(|dir| dir.join("weir"))
}

/// A write lock on all of a file. Unlike flock(2), fcntl(2) can ask who holds it without trying to take it.
fn whole_file() -> libc::flock {
    libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(dir: &Path) -> Instance {
        Instance::find(&args::Instance { data_dir: Some(dir.to_owned()) }).expect("found")
    }

    #[test]
    fn nobody_runs_an_instance_that_does_not_exist() {
        let dir = tempfile::tempdir().expect("tempdir");
        let instance = instance(&dir.path().join("none"));
        assert_eq!(instance.running().expect("asked"), None);
        assert!(instance.state().expect("read").is_none());
    }

    #[test]
    fn a_state_that_is_no_json_is_an_error_and_not_a_panic() {
        let dir = tempfile::tempdir().expect("tempdir");
        let instance = instance(dir.path());
        instance.create().expect("created");
        fs::write(instance.state_file(), "{").expect("write");
        assert!(format!("{:#}", instance.state().expect_err("cut")).starts_with("cannot understand"));
    }
}
