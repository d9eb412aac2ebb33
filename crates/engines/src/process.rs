//! Child processes that never outlive this one.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

/// A child to start, the runtime that will wait for it, and where to send it.
struct Job {
    command: Command,
    runtime: tokio::runtime::Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// One thread starts all children and never ends: `PR_SET_PDEATHSIG` fires when the *thread* that made the child ends
/// (prctl(2)), and threads of a runtime or of a test end before their process does.
static SPAWNER: LazyLock<Mutex<mpsc::Sender<Job>>> = LazyLock::new(|| {
    let (sender, jobs) = mpsc::channel::<Job>();
    std::thread::Builder::new()
        .name("spawner".to_owned())
        .spawn(move || {
            for mut job in jobs {
                let _context = job.runtime.enter();
                // The caller may have gone; then the child is dropped here, which kills it.
                let _ = job.reply.send(job.command.spawn());
            }
        })
        .expect("a thread can be started at the start of the program");
    Mutex::new(sender)
});

/// Starts a child that is killed when this process ends, however it ends, and when the returned value is dropped.
pub async fn spawn(mut command: Command) -> io::Result<Child> {
    command.kill_on_drop(true);
    let parent = std::process::id();
    // SAFETY: the closure runs in the child between fork and exec and makes only async-signal-safe calls (prctl, getppid, kill).
    unsafe {
        command.pre_exec(move || die_with(parent));
    }
    let (reply, child) = oneshot::channel();
    let job = Job { command, runtime: tokio::runtime::Handle::current(), reply };
    SPAWNER
        .lock()
        .map_err(|_| io::Error::other("the spawner thread panicked"))?
        .send(job)
        .map_err(|_| io::Error::other("the spawner thread ended"))?;
    child.await.map_err(|_| io::Error::other("the spawner thread ended"))?
}

/// Sends a signal to a child that was not yet waited for. A child that has ended gets nothing.
pub fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = child.id() {
        // It may have ended in this moment: then there is nobody to tell.
        let _ = nix::sys::signal::kill(Pid::from_raw(pid as i32), signal);
    }
}

/// Asks a child to end with `SIGTERM`, and kills it when it has not within `deadline`. True = it ended by itself.
pub async fn terminate(child: &mut Child, deadline: Duration) -> io::Result<bool> {
    signal(child, Signal::SIGTERM);
    match tokio::time::timeout(deadline, child.wait()).await {
        Ok(status) => status.map(|_| true),
        Err(_) => child.kill().await.map(|()| false),
    }
}

/// How a process ended, for people: `exit code 3` or `killed by SIGKILL`.
#[must_use]
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => Signal::try_from(number)
            .map_or_else(|_| format!("killed by signal {number}"), |signal| format!("killed by {signal}")),
        (None, None) => status.to_string(),
    }
}

fn die_with(parent: u32) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have ended before the line above: then no signal will come.
    if nix::unistd::getppid().as_raw() as u32 != parent {
        return Err(io::Error::from(io::ErrorKind::BrokenPipe));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_that_ignores_sigterm_is_killed_after_the_deadline() {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo ready; while :; do read -r _ || :; done"]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = spawn(command).await.expect("start");
        let mut ready = [0_u8; 6];
        tokio::io::AsyncReadExt::read_exact(child.stdout.as_mut().expect("piped"), &mut ready).await.expect("ready");
        assert!(!terminate(&mut child, Duration::from_millis(100)).await.expect("terminate"));
        let status = child.wait().await.expect("status");
        assert_eq!(describe(status), "killed by SIGKILL");
    }

    #[tokio::test]
    async fn a_child_that_obeys_ends_by_itself() {
        let mut command = Command::new("cat");
        command.stdin(std::process::Stdio::piped());
        let mut child = spawn(command).await.expect("start");
        assert!(terminate(&mut child, Duration::from_secs(10)).await.expect("terminate"));
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let error = spawn(Command::new("/nonexistent/program")).await.expect_err("missing");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
