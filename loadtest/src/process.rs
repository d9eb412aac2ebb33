//! What a process used so far.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Child;
use std::{fs, time::Duration};

/// Clock ticks a second of `/proc` (`USER_HZ`, proc(5)): 100 on every architecture that Linux has today.
const TICKS: f64 = 100.0;

/// CPU time of a process, user and system; None = it is gone.
pub(crate) fn cpu(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<f64>().ok();
    Some(Duration::from_secs_f64((ticks(11)? + ticks(12)?) / TICKS))
}

/// The largest size of a process in memory so far, in bytes; None = it is gone.
pub(crate) fn peak_memory(pid: u32) -> Option<u64> {
    status(pid, "VmHWM:")
}

/// Its size in memory now, in bytes; None = it is gone.
pub(crate) fn memory(pid: u32) -> Option<u64> {
    status(pid, "VmRSS:")
}

fn status(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// CPU time of all children that have ended.
pub(crate) fn cpu_of_ended_children() -> anyhow::Result<Duration> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    let time = |value: nix::sys::time::TimeVal| {
        Duration::from_secs(value.tv_sec().unsigned_abs()) + Duration::from_micros(value.tv_usec().unsigned_abs())
    };
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

/// Waits for a child to end; the largest size in memory and the CPU time that it had, as far as they were seen.
pub(crate) fn watch(child: &mut Child) -> anyhow::Result<(u64, Duration)> {
    let (mut memory, mut used) = (0, Duration::ZERO);
    loop {
        memory = peak_memory(child.id()).unwrap_or(0).max(memory);
        used = cpu(child.id()).unwrap_or_default().max(used);
        if let Some(status) = child.try_wait()? {
            anyhow::ensure!(status.signal().is_none(), "it ended with {status}");
            return Ok((memory, used));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        assert!(cpu(pid).is_some());
        assert!(peak_memory(pid).unwrap() > 1 << 20);
        assert!(memory(pid).unwrap() <= peak_memory(pid).unwrap());
        assert!(cpu(u32::MAX).is_none());
    }
}
