//! A disk that fills up, and has room again.

use std::{fs, io::Write as _, path::Path, process::Command};

use tempfile::TempDir;

use crate::{
    known::{Producer, holds_exactly},
    weir::{Weir, eventually, text},
};

/// A small file system of its own.
struct Disk {
    mount: TempDir,
}

impl Disk {
    fn new_or_skip() -> Option<Self> {
        let mount = tempfile::Builder::new().prefix("weir-disk-").tempdir().expect("tempdir");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=300m", "tmpfs"]).arg(mount.path()).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("skipped: cannot mount a file system: run as root");
            return None;
        }
        Some(Self { mount })
    }

    fn fill(&self) {
        let mut filler = fs::File::create(self.filler()).expect("create");
        let zeros = vec![0; 1 << 16];
        while filler.write_all(&zeros).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).expect("remove");
    }

    fn filler(&self) -> std::path::PathBuf {
        self.mount.path().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A test that failed may leave it busy; it goes with the last who uses it.
        let _unmounted = Command::new("umount").arg("--lazy").arg(self.mount.path()).status();
    }
}

#[test]
fn a_full_disk_is_said_and_loses_nothing_that_was_taken() {
    let Some(disk) = Disk::new_or_skip() else { return };
    let Some(weir) = Weir::up_in_or_skip(disk.mount.path(), "lo") else { return };
    let producer = Producer::new(&weir);
    let capture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../services/pcap-worker/tests/captures/ethernet-ns.pcap");
    let upload = || weir.run(&["upload", capture.to_str().expect("utf-8"), "--wait"]);
    producer.publish(0, 10_000);
    holds_exactly(&weir, 10_000);

    disk.fill();
    producer.publish(10_000, 20_000);
    let refused = upload();
    assert!(!refused.status.success(), "{}", text(&refused.stdout));
    eventually(|| !weir.run(&["status"]).status.success(), || "status says that all is well".to_owned());

    disk.empty();
    eventually(|| weir.run(&["status"]).status.success(), || text(&weir.run(&["status"]).stdout));
    producer.close();
    holds_exactly(&weir, 20_000);
    let taken = upload();
    assert!(taken.status.success(), "{}", text(&taken.stderr));
}
