//! Two network namespaces and a wire between them, removed at the end.

use std::{
    fs::File,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread::JoinHandle,
};

use anyhow::{Context as _, ensure};
use nix::sched::{CloneFlags, setns};

/// Addresses of the two ends.
pub(crate) const A: &str = "10.99.0.1";
pub(crate) const B: &str = "10.99.0.2";

/// A wire; at its ends the interfaces a0 and b0.
pub(crate) struct Wire {
    pub(crate) a: String,
    pub(crate) b: String,
}

impl Wire {
    pub(crate) fn new() -> anyhow::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let end = |side| format!("weir-bench-{}-{number}-{side}", std::process::id());
        let wire = Self { a: end("a"), b: end("b") };
        for namespace in [&wire.a, &wire.b] {
            ip(&["netns", "add", namespace])?;
        }
        ip(&["-n", &wire.a, "link", "add", "a0", "type", "veth", "peer", "name", "b0", "netns", &wire.b])?;
        for (namespace, interface, address) in [(&wire.a, "a0", A), (&wire.b, "b0", B)] {
            ip(&["-n", namespace, "address", "add", &format!("{address}/24"), "dev", interface])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        }
        Ok(wire)
    }

    /// Lets packets through. What captures is there before the first of them.
    pub(crate) fn up(&self) -> anyhow::Result<()> {
        ip(&["-n", &self.b, "link", "set", "b0", "up"])?;
        ip(&["-n", &self.a, "link", "set", "a0", "up"])
    }

    /// Packets of both directions that a0 has counted.
    pub(crate) fn packets(&self) -> anyhow::Result<u64> {
        let text = spawn(&self.a, || std::fs::read_to_string("/proc/thread-self/net/dev"))
            .join()
            .map_err(|_| anyhow::anyhow!("cannot enter the namespace"))???;
        let line = text.lines().find_map(|line| line.trim().strip_prefix("a0:")).context("a0 is gone")?;
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        ensure!(numbers.len() >= 16, "counters of a kind that is not known");
        // What the stack says of itself when the wire is taken down counts as dropped; it has passed the program.
        Ok(numbers[1] + numbers[9] + numbers[11])
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for namespace in [&self.a, &self.b] {
            if let Err(error) = ip(&["netns", "delete", namespace]) {
                eprintln!("weir-loadtest: {error:#}");
            }
        }
    }
}

/// Starts a thread in a namespace.
pub(crate) fn spawn<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<anyhow::Result<T>> {
    let path = format!("/run/netns/{namespace}");
    std::thread::spawn(move || {
        let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        setns(file, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
        Ok(work())
    })
}

pub(crate) fn has_ip() -> bool {
    Command::new("ip").arg("-Version").output().is_ok_and(|output| output.status.success())
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output().context("cannot start ip")?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), message.trim());
    Ok(())
}
