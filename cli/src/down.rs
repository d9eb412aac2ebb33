//! `weir down`: asks the supervisor to stop and waits until it has.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use crate::args::Down;
use crate::instance::Instance;

/// Longer than all deadlines of an orderly stop together.
const DEADLINE: Duration = Duration::from_mins(2);

pub(crate) async fn run(options: &Down) -> Result<bool> {
    let instance = Instance::find(&options.instance)?;
    let Some(pid) = instance.running()? else {
        let left = match instance.end_leftovers() {
            parts if !parts.is_empty() => format!("; ended what an earlier run left behind: {}", parts.join(", ")),
            _ if instance.state()?.is_some() => {
                "; the last one did not end in order, which left nothing running".to_owned()
            }
            _ => String::new(),
        };
        instance.remove_state();
        println!("nothing runs on {}{left}", instance.root().display());
        return Ok(true);
    };
    kill(Pid::from_raw(pid), Signal::SIGTERM).with_context(|| format!("cannot stop process {pid}"))?;
    let started = Instant::now();
    let mut poll = tokio::time::interval(Duration::from_millis(50));
    while instance.running()? == Some(pid) {
        anyhow::ensure!(
            started.elapsed() < DEADLINE,
            "process {pid} has not ended after {} s; see {}",
            DEADLINE.as_secs(),
            instance.logs().display()
        );
        poll.tick().await;
    }
    println!("stopped in {:.1} s", started.elapsed().as_secs_f64());
    Ok(true)
}
