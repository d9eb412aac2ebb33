//! When a process began.

use std::{fs, path::Path};

/// Clock ticks a second of `/proc` (`USER_HZ`, proc(5)): 100 on every architecture that Linux has today.
const TICKS: u64 = 100;

/// When a process began, microseconds since 1970; `None` = it is gone.
///
/// The kernel says it in ticks since it booted itself, and its boot in whole seconds, so this can be up to a second early. In return it is the
/// same whenever it is asked, which a life's name must be.
#[must_use]
pub fn started_at(proc: &Path, pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(proc.join(pid.to_string()).join("stat")).ok()?;
    // The name, in parentheses, may hold anything; the start is field 22.
    let ticks: u64 = stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()?;
    let boot = fs::read_to_string(proc.join("stat")).ok()?;
    let boot: u64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot.saturating_mul(1_000_000).saturating_add(ticks.saturating_mul(1_000_000 / TICKS)))
}

/// Whether a process is still that of the runtime, which makes ready what it will execute: its network may have no address yet.
#[must_use]
pub fn is_made_ready(proc: &Path, pid: u32) -> bool {
    // runc, libcontainer/nsenter: the name of its second stage until it executes the container's own program.
    fs::read_to_string(proc.join(pid.to_string()).join("comm")).is_ok_and(|name| name.starts_with("runc:["))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_began_before_now_and_always_at_the_same_time() {
        let proc = Path::new("/proc");
        let began = started_at(proc, std::process::id()).unwrap();
        let now = jiff::Timestamp::now().as_microsecond() as u64;
        assert!(began <= now && now - began < 3_600_000_000, "{began} {now}");
        assert_eq!(started_at(proc, std::process::id()), Some(began));
        assert_eq!(started_at(proc, u32::MAX), None);
    }
}
