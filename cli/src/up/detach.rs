//! `--detach`: the supervisor in a session of its own, and this process waiting until all is ready.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::args::Up;
use crate::instance::{Instance, PartState, Phase};
use crate::output;

/// How long all parts together may take to be ready.
const DEADLINE: Duration = Duration::from_mins(3);

/// A part that ended so often before all was ready will end again.
const HOPELESS: u32 = 5;

/// How often it is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Starts the supervisor, shows what it says, and returns when all is ready; stops it when that does not come.
pub(super) async fn run(options: &Up, instance: &Instance) -> Result<bool> {
    let path = instance.logs().join("weir.log");
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    // A handle of its own: a clone would share its position with the writers.
    let mut said = File::open(&path).context("cannot read the log")?;
    said.seek(SeekFrom::End(0)).context("cannot read the log")?;
    let mut child = start(options, instance, &log)?;
    let outcome = wait(&mut child, instance, &mut said).await;
    show(&mut said)?;
    if let Err(error) = outcome {
        stop(&mut child).await;
        show(&mut said)?;
        return Err(error);
    }
    output::line(&format!("running in the background; log in {}", path.display()))?;
    Ok(true)
}

fn start(options: &Up, instance: &Instance, log: &File) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe().context("cannot find out where this program is")?);
    command.args(["up", "--detached", "--listen", &options.listen.to_string(), "--data-dir"]).arg(instance.root());
    for interface in &options.interfaces {
        command.args(["--interface", interface]);
    }
    if options.live_captures {
        command.arg("--live-captures");
    }
    if let Some(token) = &options.api_token {
        // Not on the command line, which everybody on the machine can read.
        command.env("WEIR_API_TOKEN", token);
    }
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
    // SAFETY: setsid(2) is async-signal-safe.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into));
    }
    command.spawn().context("cannot start the supervisor")
}

async fn wait(child: &mut Child, instance: &Instance, said: &mut File) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let mut poll = tokio::time::interval(POLL);
    loop {
        poll.tick().await;
        show(said)?;
        if let Some(status) = child.try_wait().context("cannot wait for the supervisor")? {
            anyhow::bail!("not started: the supervisor ended ({})", weir_engines::process::describe(status));
        }
        let state = instance.state()?.filter(|state| Some(state.supervisor_pid) == child.id());
        let Some(state) = state else { continue };
        if state.phase == Phase::Running {
            return Ok(());
        }
        let hopeless = state.parts.iter().find(|part| part.restarts >= HOPELESS);
        if let Some(part) = hopeless {
            let why = part.last_exit.as_deref().unwrap_or("no reason given");
            anyhow::bail!("{} keeps ending ({why}); stopped again", part.name);
        }
        if Instant::now() > deadline {
            let waiting: Vec<_> = state
                .parts
                .iter()
                .filter(|part| matches!(part.state, PartState::Starting | PartState::NotReady | PartState::Restarting))
                .map(|part| {
                    let why = part.reason.as_deref().or(part.last_exit.as_deref()).unwrap_or("no reason given");
                    format!("{} ({why})", part.name)
                })
                .collect();
            anyhow::bail!("not ready after {} s: {}; stopped again", DEADLINE.as_secs(), waiting.join(", "));
        }
    }
}

async fn stop(child: &mut Child) {
    if let Some(pid) = child.id() {
        // It may have ended in this moment.
        let _ = kill(Pid::from_raw(pid as i32), Signal::SIGTERM);
    }
    let _ = tokio::time::timeout(DEADLINE, child.wait()).await;
}

/// Passes on what the supervisor said since the last time.
fn show(said: &mut File) -> Result<()> {
    let mut text = Vec::new();
    said.read_to_end(&mut text).context("cannot read the log")?;
    std::io::stdout().lock().write_all(&text)?;
    Ok(())
}
