//! The whole system on this machine: engines, services, and the commands of a person who tries it for the first time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

const PROGRAMS: [&str; 6] =
    ["weir-clickhouse", "weir-ingester", "weir-query-api", "weir-pcap-worker", "weir-docker-watcher", "weir-capture"];

/// A running system in a directory of its own.
struct System {
    data: TempDir,
}

impl System {
    /// `None`, and why, where a part of it is missing.
    fn start() -> Option<Self> {
        for program in PROGRAMS {
            if let Err(why) = usable(&beside(program)) {
                eprintln!("skipped: {program} {why}");
                return None;
            }
        }
        if let Err(error) =
            weir_engines::locate::nats_server().and(weir_engines::locate::clickhouse(&beside("weir-clickhouse")))
        {
            eprintln!("skipped: {error}");
            return None;
        }
        let system = Self { data: tempfile::Builder::new().prefix("weir-system-").tempdir().expect("tempdir") };
        system.up();
        Some(system)
    }

    fn up(&self) {
        self.ok(&["up", "--detach", "--listen", "127.0.0.1:0", "--interface", "lo"]);
        self.ok(&["status", "--wait"]);
    }

    fn upload(&self) -> Value {
        let capture = self.data.path().join("one datagram.pcap");
        fs::write(&capture, one_datagram()).expect("write");
        self.json(&["upload", capture.to_str().expect("utf-8"), "--wait"])
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(arguments).env("WEIR_DATA_DIR", self.data.path()).stdin(Stdio::null());
        for variable in ["WEIR_LISTEN", "WEIR_API", "WEIR_API_TOKEN", "WEIR_NATS_URL", "WEIR_CLICKHOUSE_URL"] {
            command.env_remove(variable);
        }
        command.output().expect("run weir")
    }

    /// What a command says that must succeed.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}\n{}", String::from_utf8_lossy(&output.stderr));
        said
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--json"]].concat())).expect("JSON")
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = self.run(&["down"]);
    }
}

#[test]
fn a_capture_that_is_uploaded_can_be_asked_for_in_every_way() {
    let Some(system) = System::start() else { return };
    let uploaded = system.upload();
    assert_eq!((uploaded["state"].as_str(), uploaded["packets"].to_string().trim_matches('"')), (Some("done"), "1"));
    assert_eq!(uploaded["name"], "one datagram.pcap");
    let id = uploaded["capture_id"].as_str().expect("capture_id");
    assert_eq!(system.upload()["capture_id"], id, "the same bytes are the same capture");

    let sql = format!("SELECT src_port, dst_port, tx_packets, tx_bytes FROM flows WHERE capture_id = '{id}'");
    assert_eq!(system.ok(&["query", &sql, "--format", "csv"]).lines().last(), Some("40000,53,1,32"));
    assert!(system.ok(&["query", &sql]).contains("40000"));
    let flows = system.json(&["flows", "dst_port = 53 and source = \"pcap\"", "--from", "2020-01-01T00:00:00Z"]);
    assert_eq!(flows["items"].as_array().expect("items").len(), 1, "{flows}");
    let top = system.json(&[
        "top",
        "dst_port = 53 and source = \"pcap\"",
        "--by",
        "dst_ip",
        "--from",
        "2020-01-01T00:00:00Z",
    ]);
    assert_eq!(top["items"].as_array().expect("items").len(), 1, "{top}");
    system.ok(&["flows"]);
    system.ok(&["top"]);
    system.ok(&["containers"]);

    let refused = system.run(&["query", "DROP TABLE flows"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(!refused.stderr.is_empty());
    let bad = system.run(&["flows", "no_such_column = 1"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&bad.stderr).contains("no_such_column"),
        "{}",
        String::from_utf8_lossy(&bad.stderr)
    );
    let missing = system.run(&["upload", "/nonexistent.pcap"]);
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn what_was_recorded_is_there_after_kills_and_a_restart() {
    let Some(system) = System::start() else { return };
    let id = system.upload()["capture_id"].as_str().expect("capture_id").to_owned();
    let count = format!("SELECT count(), sum(tx_packets) FROM flows WHERE capture_id = '{id}'");
    for part in ["nats", "clickhouse", "ingester", "query-api", "pcap-worker"] {
        let status = system.json(&["status"]);
        let parts = status["parts"].as_array().expect("parts").iter();
        let pid = parts.clone().find(|one| one["name"] == part).and_then(|one| one["pid"].as_i64()).expect("pid");
        kill(Pid::from_raw(i32::try_from(pid).expect("pid")), Signal::SIGKILL).expect("kill");
        await_restart(&system, part);
    }
    assert_eq!(system.ok(&["query", &count, "--format", "csv"]).lines().last(), Some("1,1"));
    system.ok(&["down"]);
    system.up();
    assert_eq!(system.ok(&["query", &count, "--format", "csv"]).lines().last(), Some("1,1"));
    assert_eq!(system.upload()["capture_id"], id.as_str(), "the bytes are known");
    assert_eq!(system.ok(&["query", &count, "--format", "csv"]).lines().last(), Some("1,1"));
}

/// Until the part was started again and all are ready.
fn await_restart(system: &System, part: &str) {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let status: Value = serde_json::from_slice(&system.run(&["status", "--json"]).stdout).expect("JSON");
        let parts = status["parts"].as_array().expect("parts");
        let restarted = parts.iter().any(|one| one["name"] == part && one["restarts"] == 1);
        if restarted && status["ready"] == true {
            return;
        }
        assert!(Instant::now() < deadline, "{part} did not come back: {status:#}");
    }
}

fn beside(program: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_weir")).with_file_name(program)
}

fn usable(program: &Path) -> Result<(), &'static str> {
    let help = Command::new(program).arg("--help").stdin(Stdio::null()).output().map_err(|_| "is not built")?;
    if String::from_utf8_lossy(&help.stdout).contains("Usage") { Ok(()) } else { Err("cannot do anything yet") }
}

/// A capture of one UDP datagram with four bytes, 10.0.0.1:40000 to 10.0.0.2:53 (draft-ietf-opsawg-pcap, RFC 791, RFC 768).
fn one_datagram() -> Vec<u8> {
    let ethernet = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..], &[0x08, 0x00]].concat();
    let ip = [0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0x66, 0xca, 10, 0, 0, 1, 10, 0, 0, 2];
    let udp = [0x9c, 0x40, 0, 53, 0, 12, 0, 0, b'w', b'e', b'i', b'r'];
    let frame = [&ethernet[..], &ip, &udp].concat();
    let length = u32::try_from(frame.len()).expect("small").to_le_bytes();
    let header: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1];
    // 2026-01-01T00:00:00Z
    let record: [u32; 2] = [1_767_225_600, 0];
    let mut file: Vec<u8> = header.iter().chain(&record).flat_map(|word| word.to_le_bytes()).collect();
    file.extend([length, length].concat());
    file.extend(frame);
    file
}
