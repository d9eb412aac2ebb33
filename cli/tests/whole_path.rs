//! The whole system as a user starts it, `weir up`, with real packets, a real capture, real engines, and answers over HTTP; and with
//! every part killed while records flow.

use std::{
    fs,
    net::{Ipv4Addr, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use weir_bus::{Bus, Publisher, names};
use weir_proto::{Batch, EndReason, Flow, Ip, Source};

const DEADLINE: Duration = Duration::from_mins(2);
const PROGRAMS: [&str; 6] =
    ["weir-clickhouse", "weir-ingester", "weir-query-api", "weir-pcap-worker", "weir-docker-watcher", "weir-capture"];

/// A running instance in a directory of its own.
struct Weir {
    dir: TempDir,
}

impl Weir {
    /// `weir up --detach`; `None` where a program or an engine is missing, and it says so.
    fn up_or_skip(interface: &str) -> Option<Self> {
        for name in PROGRAMS {
            let program = Path::new(env!("CARGO_BIN_EXE_weir")).with_file_name(name);
            if !program.is_file() {
                eprintln!("skipped: {} is not built", program.display());
                return None;
            }
        }
        let loader = Path::new(env!("CARGO_BIN_EXE_weir")).with_file_name("weir-clickhouse");
        if let Err(error) = weir_engines::locate::nats_server().and(weir_engines::locate::clickhouse(&loader)) {
            eprintln!("skipped: {error}");
            return None;
        }
        let weir = Self { dir: tempfile::Builder::new().prefix("weir-whole-").tempdir().expect("tempdir") };
        let up = weir.run(&["up", "--detach", "--listen", "127.0.0.1:0", "--interface", interface]);
        assert!(up.status.success(), "{}\n{}", text(&up.stdout), text(&up.stderr));
        Some(weir)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_weir"))
            .args(arguments)
            .env("WEIR_DATA_DIR", self.dir.path())
            .env_remove("WEIR_NATS_URL")
            .env_remove("WEIR_CLICKHOUSE_URL")
            .stdin(Stdio::null())
            .output()
            .expect("run weir")
    }

    /// The rows of a query, as `weir query --format ndjson` prints them; `None` while the system cannot answer.
    fn rows(&self, sql: &str) -> Option<Vec<Value>> {
        let output = self.run(&["query", sql, "--format", "ndjson"]);
        let lines = text(&output.stdout);
        output.status.success().then(|| lines.lines().map(|line| serde_json::from_str(line).expect(line)).collect())
    }

    /// Waits until a query has the rows that it should have.
    fn eventually(&self, sql: &str, expected: &Value) {
        let mut last = None;
        eventually(
            || {
                last = self.rows(sql);
                last.as_ref().is_some_and(|rows| rows.as_slice() == std::slice::from_ref(expected))
            },
            || format!("{sql}\nexpected {expected}\nlast saw {:?}", self.rows(sql)),
        );
    }

    fn part(&self, name: &str) -> Value {
        let status: Value = serde_json::from_slice(&self.run(&["status", "--json"]).stdout).expect("status is JSON");
        let parts = status["parts"].as_array().expect("parts");
        parts.iter().find(|part| part["name"] == name).cloned().unwrap_or_else(|| panic!("no {name} in {status}"))
    }

    fn nats_url(&self) -> String {
        let config = fs::read_to_string(self.dir.path().join("nats/nats.conf")).expect("nats.conf");
        let port = config.lines().find_map(|line| line.strip_prefix("port: ")).expect("port");
        let password = fs::read_to_string(self.dir.path().join("nats/password")).expect("password");
        format!("nats://weir:{}@127.0.0.1:{port}", password.trim())
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        let down = self.run(&["down"]);
        if std::thread::panicking() {
            eprintln!("{}", text(&down.stdout));
            for log in fs::read_dir(self.dir.path().join("logs")).into_iter().flatten().flatten() {
                let lines = fs::read_to_string(log.path()).unwrap_or_default();
                let tail: Vec<_> = lines.lines().rev().take(30).collect();
                eprintln!("--- {}", log.path().display());
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

/// Two ends of a wire: one here, one in a namespace of its own.
struct Wire {
    namespace: String,
    here: String,
    peer: String,
}

impl Wire {
    /// `None` where namespaces cannot be made, and it says so.
    fn new_or_skip() -> Option<Self> {
        let pid = std::process::id();
        let wire = Self { namespace: format!("weir-wp-{pid}"), here: format!("wwp{pid}"), peer: format!("wwq{pid}") };
        if !ip(&["netns", "add", &wire.namespace]) {
            eprintln!("skipped: cannot make a network namespace: run as root, with iproute2 installed");
            return None;
        }
        assert!(ip(&["link", "add", &wire.here, "type", "veth", "peer", "name", &wire.peer, "netns", &wire.namespace]));
        // Nothing but the test's own traffic: no neighbour discovery of IPv6 on its own account.
        assert!(ip(&["addr", "add", "198.18.77.1/30", "dev", &wire.here]));
        assert!(ip(&["link", "set", &wire.here, "up"]));
        assert!(ip(&["-n", &wire.namespace, "addr", "add", "198.18.77.2/30", "dev", &wire.peer]));
        assert!(ip(&["-n", &wire.namespace, "link", "set", &wire.peer, "up"]));
        assert!(ip(&["-n", &wire.namespace, "link", "set", "lo", "up"]));
        Some(wire)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The interfaces go with the namespace.
        ip(&["netns", "delete", &self.namespace]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn eventually(mut holds: impl FnMut() -> bool, otherwise: impl FnOnce() -> String) {
    let deadline = Instant::now() + DEADLINE;
    let (_never, pause) = channel::<()>();
    while !holds() {
        assert!(Instant::now() <= deadline, "not within {} s: {}", DEADLINE.as_secs(), otherwise());
        assert_eq!(pause.recv_timeout(Duration::from_millis(200)), Err(RecvTimeoutError::Timeout));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn packets_on_a_wire_become_rows_that_say_exactly_what_was_sent() {
    let Some(wire) = Wire::new_or_skip() else { return };
    let Some(weir) = Weir::up_or_skip(&wire.here) else { return };
    if weir.part("capture")["state"] == "off" {
        eprintln!("skipped: capture is off here: {}", weir.part("capture")["reason"]);
        return;
    }
    let socket = UdpSocket::bind("198.18.77.1:0").expect("bind");
    let port = socket.local_addr().expect("address").port();
    for datagram in 0..1000_u32 {
        // Nobody listens: the other end answers some with ICMP, which the next send reports.
        let _refused = socket.send_to(&[0; 100], (Ipv4Addr::new(198, 18, 77, 2), 4000 + (datagram % 10) as u16));
    }
    // 100 bytes of payload, 8 of UDP, 20 of IPv4.
    weir.eventually(
        &format!(
            "SELECT sum(tx_packets) AS packets, sum(tx_bytes) AS bytes, sum(rx_packets) AS back, uniqExact(flow_id) AS flows \
             FROM flows WHERE source = 'ebpf' AND protocol = 17 AND src_port = {port}"
        ),
        &serde_json::json!({"packets": 1000, "bytes": 128_000, "back": 0, "flows": 10}),
    );
    let flows = weir.run(&["flows", &format!("src_port = {port} and dst_ip in 198.18.77.0/30"), "--json"]);
    assert!(flows.status.success(), "{}", text(&flows.stderr));
    assert!(text(&flows.stdout).contains("198.18.77.2"), "{}", text(&flows.stdout));
}

#[test]
fn a_capture_that_is_uploaded_twice_is_counted_once() {
    let Some(weir) = Weir::up_or_skip("lo") else { return };
    let capture = dns_and_udp_capture(weir.dir.path());
    for _ in 0..2 {
        let upload = weir.run(&["upload", capture.to_str().expect("path"), "--wait", "--json"]);
        assert!(upload.status.success(), "{}\n{}", text(&upload.stdout), text(&upload.stderr));
        assert!(text(&upload.stdout).contains("\"done\""), "{}", text(&upload.stdout));
    }
    weir.eventually(
        "SELECT count() AS flows, sum(tx_packets + rx_packets) AS packets, sum(tx_bytes + rx_bytes) AS bytes FROM flows WHERE source = 'pcap'",
        &serde_json::json!({"flows": 100, "packets": 500, "bytes": 500 * 60}),
    );
    weir.eventually(
        "SELECT count() AS captures, any(state) AS state, sum(packets) AS packets FROM captures",
        &serde_json::json!({"captures": 1, "state": "done", "packets": 500}),
    );
}

/// 500 UDP packets of 100 flows, 32 bytes of payload each, in the classic format.
fn dns_and_udp_capture(directory: &Path) -> PathBuf {
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4_u32.to_le_bytes());
    file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(65_535_u32.to_le_bytes());
    file.extend(101_u32.to_le_bytes()); // LINKTYPE_RAW
    for packet in 0..500_u32 {
        let port = 10_000 + (packet % 100) as u16;
        file.extend((1_700_000_000 + packet / 100).to_le_bytes());
        file.extend((packet * 100).to_le_bytes());
        file.extend(60_u32.to_le_bytes());
        file.extend(60_u32.to_le_bytes());
        file.extend([0x45, 0, 0, 60, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        file.extend(port.to_be_bytes());
        file.extend([0x1f, 0x90, 0, 40, 0, 0]);
        file.extend([0; 32]);
    }
    let path = directory.join("fixture.pcap");
    fs::write(&path, file).expect("write capture");
    path
}

const RECORDS: u64 = 200_000;
const PER_BATCH: u64 = 500;

#[test]
fn every_part_is_killed_while_records_flow_and_each_record_is_there_once() {
    let Some(weir) = Weir::up_or_skip("lo") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let spool = tempfile::tempdir().expect("tempdir");
    let options = weir_bus::Options {
        nats_url: weir.nats_url(),
        nats_credentials: None,
        records_max_bytes: 1 << 30,
        uploads_max_bytes: 1 << 30,
    };
    let publisher = runtime.block_on(async {
        let bus = Bus::connect(&options, "whole-path test").await.expect("connect");
        bus.ready(&CancellationToken::new(), |_| ()).await.expect("ready");
        Publisher::open(bus, names::RECORDS_EBPF, "known", spool.path(), 1 << 30).expect("spool")
    });

    let parts = ["ingester", "nats", "clickhouse", "query-api", "pcap-worker", "docker-watcher", "ingester"];
    let share = RECORDS / (parts.len() as u64 + 1);
    let mut made = 0;
    for part in parts {
        made = publish(&publisher, made, made + share);
        let before = weir.part(part);
        let pid = i32::try_from(before["pid"].as_i64().expect("pid")).expect("pid");
        kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
        // More come while it is away.
        made = publish(&publisher, made, made + PER_BATCH);
        eventually(
            || weir.part(part)["restarts"].as_u64() > before["restarts"].as_u64(),
            || format!("{part} is not started again: {}", weir.part(part)),
        );
    }
    publish(&publisher, made, RECORDS);
    assert_eq!(runtime.block_on(publisher.close(DEADLINE)), 0, "all is published");

    let bytes: u64 = (0..RECORDS).sum();
    weir.eventually(
        "SELECT count() AS records, uniqExact(flow_id) AS different, toString(sum(tx_bytes)) AS bytes FROM flows WHERE host = 'known'",
        &serde_json::json!({"records": RECORDS, "different": RECORDS, "bytes": bytes.to_string()}),
    );
}

/// Publishes the known records `from..to` and returns where it stopped.
fn publish(publisher: &Publisher, from: u64, to: u64) -> u64 {
    let mut next = from;
    while next < to {
        let end = (next + PER_BATCH).min(to);
        let flows = (next..end).map(known).collect();
        assert!(
            publisher.publish(Batch { source: Source::Ebpf.into(), flows, ..Batch::default() }),
            "the spool takes it"
        );
        next = end;
    }
    next
}

fn known(number: u64) -> Flow {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_micros() as u64;
    let (src, dst) = (Ip::from([1; 16]), Ip::from([2; 16]));
    Flow {
        start_time: now,
        end_time: now,
        flow_id: number,
        src_ip_high: src.high,
        src_ip_low: src.low,
        dst_ip_high: dst.high,
        dst_ip_low: dst.low,
        protocol: 6,
        tx_bytes: number,
        tx_packets: 1,
        end_reason: EndReason::Fin.into(),
        ..Flow::default()
    }
}
