//! `--pin`: what is counted outlives the process.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{
    exact::{pair, up, v4},
    support::{
        service::{Service, metric, wait_for_metric},
        skipped, traffic,
    },
};

/// A BPF file system, gone at the end.
pub(crate) struct BpfFs(tempfile::TempDir);

impl BpfFs {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        mount(Some("bpf"), directory.path(), Some("bpf"), MsFlags::empty(), None::<&Path>).unwrap();
        Self(directory)
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.0.path().join("weir")
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _left = umount2(self.0.path(), MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_capture_that_is_killed_loses_no_count_of_what_passes_before_between_and_after() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let (bpf, directory) = (BpfFs::new(), tempfile::tempdir().unwrap());
    let pins = bpf.pins();
    let options = ["--pin", pins.to_str().unwrap(), "--max-flows", "1000", "--drain-active", "100ms"];
    let (first, address) = Service::start_with(&a, directory.path(), &options);
    up(&a, &b);
    traffic::ping(&a, v4(2), 10, 56);
    traffic::udp_to_nowhere(&a, std::net::SocketAddr::new(v4(2), 9), 20);
    wait_for_metric(&a, &address, "weir_capture_packets_reported_total ", |packets| packets >= 40);
    first.kill();
    traffic::ping(&a, v4(2), 25, 56);
    traffic::tcp_stream(&a, &b, v4(2), 1 << 20);

    let (second, address) = Service::start_with(&a, directory.path(), &options);
    traffic::ping(&a, v4(2), 5, 56);
    // The interface has counted all of it; what the stack says of itself may still come.
    wait_for_metric(&a, &address, "weir_capture_packets_seen_total ", |seen| {
        let (rx, tx) = a.counters("a0");
        seen >= 100 && seen == sum(&a, &address) && seen >= rx.packets + tx.packets
    });
    wait_for_metric(&a, &address, "weir_capture_packets_pending ", |pending| pending == 0);
    let value = |name| metric(&a, &address, name);
    assert_eq!(
        value("weir_capture_packets_reported_total "),
        value("weir_capture_packets_accounted_total "),
        "all that both lives counted is reported, and once"
    );
    assert_eq!(value("weir_capture_packets_unseen_total ").unwrap_or(0), 0);
    second.end();
    assert_eq!(std::fs::read_dir(&pins).unwrap().count(), 0, "a life that ends in order leaves nothing");
}

/// What became of the packets.
fn sum(host: &crate::support::host::Host, address: &str) -> u64 {
    let ignored = metric(host, address, "weir_capture_packets_ignored_total{reason=\"not_ip\"} ").unwrap_or(0);
    metric(host, address, "weir_capture_packets_accounted_total ").unwrap_or(0) + ignored
}

#[test]
fn a_directory_that_is_no_bpf_file_system_is_named() {
    if skipped() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_weir-capture"))
        .args(["--interface", "lo", "--output", "lines", "--pin"])
        .arg(directory.path())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("BPF file system"), "{message}");
}
