//! The tables in a real `ClickHouse`: what is written is what is read, and a block counts once.

use std::{collections::BTreeMap, net::Ipv6Addr};

use futures::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;
use weir_engines::testing::ClickHouse;
use weir_proto::{
    Address, Audit, Batch, Capture, Container, ContainerDevice, ContainerEvent, ContainerInterface, ContainerNetwork,
    ContainerStats, Dns, EndReason, Finding, Flow, Http, Ip, LedgerEntry, PublishedPort, ResetBy, Source, Tls,
    capture::State, ledger_entry::Outcome,
};
use weir_store::{
    Block, Error, Options, Reader, Rows, Writer,
    rows::{ContainerNames, Containers, DeadLetterRow, NoContainers, Position, Seen, Table},
    schema,
};

/// 2026-01-02T03:04:05.678901Z
const TIME: u64 = 1_767_323_045_678_901;

fn writer_options(clickhouse: &ClickHouse) -> Options {
    Options {
        clickhouse_url: clickhouse.url(),
        clickhouse_user: clickhouse.writer_user().into(),
        clickhouse_password: clickhouse.writer_password().into(),
    }
}

fn reader(clickhouse: &ClickHouse) -> Reader {
    Reader::connect(&Options {
        clickhouse_url: clickhouse.url(),
        clickhouse_user: clickhouse.reader_user().into(),
        clickhouse_password: clickhouse.reader_password().into(),
    })
}

async fn database() -> Option<(ClickHouse, Writer, Reader)> {
    let clickhouse = ClickHouse::start_or_skip().await?;
    schema::migrate(&writer_options(&clickhouse)).await.expect("migrated");
    let writer = Writer::connect(&writer_options(&clickhouse));
    let reader = reader(&clickhouse);
    Some((clickhouse, writer, reader))
}

fn block(token: &str) -> Block {
    Block { token: token.into(), repeated: false }
}

fn repeated(token: &str) -> Block {
    Block { token: token.into(), repeated: true }
}

fn ip(text: &str) -> Ip {
    text.parse::<std::net::IpAddr>().expect("an address").into()
}

async fn insert_all(writer: &Writer, rows: &Rows, block: &Block) {
    writer.insert(&rows.flows, block).await.expect("flows");
    writer.insert(&rows.dns, block).await.expect("dns");
    writer.insert(&rows.tls, block).await.expect("tls");
    writer.insert(&rows.http, block).await.expect("http");
    writer.insert(&rows.container_stats, block).await.expect("container_stats");
    writer.insert(&rows.container_events, block).await.expect("container_events");
    writer.insert(&rows.containers, block).await.expect("containers");
    writer.insert(&rows.captures, block).await.expect("captures");
    writer.insert(&rows.findings, block).await.expect("findings");
    writer.insert(&rows.dead_letters, block).await.expect("dead_letters");
    writer.insert(&rows.capture_ledger, block).await.expect("capture_ledger");
    writer.insert(&rows.audit, block).await.expect("audit");
}

/// Flows with flow ids from `from`, `per_message` in each message, stored one second apart from `stored_at` on.
fn flows(messages: std::ops::Range<u64>, per_message: u64, stored_at: u64) -> Rows {
    let mut rows = Rows::default();
    for message in messages {
        let flows = (0..per_message)
            .map(|n| Flow { flow_id: message * per_message + n, start_time: TIME, end_time: TIME, ..Flow::default() })
            .collect();
        let batch = Batch { host: "h".into(), source: Source::Pcap as i32, flows, ..Batch::default() };
        let position = Position { stream_sequence: message, stored_at: stored_at + message * 1_000_000 };
        rows.push(batch, &position, &NoContainers);
    }
    rows
}

async fn counts(clickhouse: &ClickHouse) -> String {
    clickhouse.read("SELECT count(), uniqExact(flow_id) FROM weir.flows").await.expect("counts")
}

struct Web;

impl Containers for Web {
    fn find(&self, seen: &Seen<'_>) -> [Option<&ContainerNames>; 2] {
        static NAMES: std::sync::OnceLock<ContainerNames> = std::sync::OnceLock::new();
        let names = || ContainerNames { id: "c0ffee".into(), name: "web".into(), image: "nginx:1".into() };
        [seen.src, seen.dst].map(|end| {
            let is_web = seen.host == Some("host-1") && (end.address == ip("10.0.0.7") || end.cgroup == 77);
            is_web.then(|| NAMES.get_or_init(names))
        })
    }
}

fn labels() -> BTreeMap<String, String> {
    [("com.example/a".to_owned(), "b'\\\t☃".to_owned())].into()
}

fn full_batch(capture_id: Uuid) -> Batch {
    let (src, dst) = (ip("10.0.0.7"), ip("2001:db8::1"));
    Batch {
        host: "host-1".into(),
        source: Source::Ebpf as i32,
        flows: vec![Flow {
            start_time: TIME,
            end_time: TIME + 5,
            interface: "eth0".into(),
            flow_id: u64::MAX,
            src_ip_high: src.high,
            src_ip_low: src.low,
            dst_ip_high: dst.high,
            dst_ip_low: dst.low,
            src_port: 40_000,
            dst_port: 443,
            protocol: 6,
            vlan: 0x0012_3456,
            tunnel: "vxlan:42".into(),
            tx_bytes: 1 << 40,
            tx_packets: 2,
            rx_bytes: 3,
            rx_packets: 4,
            tcp_flags_tx: 0x1b,
            tcp_flags_rx: 0x12,
            end_reason: EndReason::Fin as i32,
            handshake_us: Some(123),
            rtt_us: None,
            tx_retransmits: Some(0),
            drop_reason: "NO_SOCKET".into(),
            src_name: "a.example".into(),
            dst_process: "nginx".into(),
            app: "tls".into(),
            dst_cgroup: 77,
            reset_by: ResetBy::Dst as i32,
            reset_confirmed: true,
            reset_reason: "NO_SOCKET".into(),
            ..Flow::default()
        }],
        dns: vec![Dns {
            time: TIME,
            flow_id: 5,
            src_ip_high: src.high,
            src_ip_low: src.low,
            query_id: 65_535,
            qname: "example.com".into(),
            qtype: 28,
            rcode: None,
            answers: vec!["192.0.2.1".into(), "\"txt\"".into()],
            latency_us: Some(9),
            has_query: true,
            dst_port: 53,
            protocol: 17,
            ..Dns::default()
        }],
        tls: vec![Tls {
            time: TIME,
            sni: "example.com".into(),
            alpn: vec!["h2".into()],
            version: 0x0304,
            ..Tls::default()
        }],
        http: vec![Http {
            time: TIME,
            method: "GET".into(),
            path: "/?a=b".into(),
            status: Some(404),
            ..Http::default()
        }],
        container_stats: vec![ContainerStats {
            time: TIME,
            container_id: "c0ffee".into(),
            labels: labels(),
            cpu_percent: Some(12.5),
            pids: Some(3),
            missing: [("memory_bytes".to_owned(), "no such file".to_owned())].into(),
            tier: "cgroup".into(),
            cpu_throttled_ns: Some(5),
            interfaces: vec![ContainerInterface {
                name: "eth0".into(),
                tx_dropped: 8,
                ..ContainerInterface::default()
            }],
            devices: vec![ContainerDevice { major: 254, write_operations: 6, ..ContainerDevice::default() }],
            ..ContainerStats::default()
        }],
        container_events: vec![ContainerEvent {
            time: TIME,
            container_id: "c0ffee".into(),
            action: "die".into(),
            exit_code: Some(-9),
            attributes: labels(),
            ..ContainerEvent::default()
        }],
        containers: vec![Container {
            container_id: "c0ffee".into(),
            name: "web".into(),
            networks: vec![ContainerNetwork {
                name: "bridge".into(),
                ip_high: src.high,
                ip_low: src.low,
                ..ContainerNetwork::default()
            }],
            started_at: TIME,
            observed_at: TIME,
            cgroup_id: 77,
            oom_killed: true,
            labels: [("com.docker.compose.project".to_owned(), "shop".to_owned())].into(),
            image_digest: "sha256:12".into(),
            ports: vec![PublishedPort {
                host_ip_low: 0xffff_0000_0000,
                host_port: 8080,
                container_port: 80,
                protocol: 6,
                ..PublishedPort::default()
            }],
            host_addresses: vec![Address { high: dst.high, low: dst.low }],
            interfaces: vec!["veth1".into()],
            cpu_limit: Some(0.5),
            ..Container::default()
        }],
        captures: vec![Capture {
            capture_id: capture_id.as_bytes().to_vec(),
            name: "a.pcap".into(),
            sha256: vec![0xab; 32],
            state: State::Done as i32,
            first_packet: TIME,
            observed_at: TIME,
            ..Capture::default()
        }],
        findings: vec![Finding {
            time: TIME,
            kind: "scan".into(),
            severity: "critical".into(),
            summary: "s".into(),
            detail: r#"{"ports": [1, 2], "who": {"ip": "10.0.0.7"}}"#.into(),
            ..Finding::default()
        }],
        capture_ledger: vec![LedgerEntry {
            start_time: TIME,
            end_time: TIME + 5,
            interface: "eth0".into(),
            outcome: Outcome::Lost as i32,
            reason: "table_full".into(),
            packets: 3,
            bytes: 1 << 40,
        }],
        audits: vec![Audit {
            time: TIME,
            action: "live_capture".into(),
            outcome: "recorded".into(),
            capture_id: capture_id.as_bytes().to_vec(),
            client: "192.0.2.9".into(),
            host: "host-1".into(),
            seconds: 30,
            packets: 7,
            ..Audit::default()
        }],
        ..Batch::default()
    }
}

#[tokio::test]
async fn every_table_gives_back_what_was_written() {
    let Some((_clickhouse, writer, reader)) = database().await else { return };
    let capture_id = Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
    let mut rows = Rows::default();
    let position = Position { stream_sequence: 7, stored_at: TIME };
    rows.push(full_batch(capture_id), &position, &Web);
    let headers = vec![("Weir-Version".to_owned(), "9".to_owned())];
    let letter = DeadLetterRow::new(&position, "S", "weir.records.x", "bad_zstd".into(), headers, b"\xff\x00garbage");
    rows.dead_letters.push(letter);
    assert_eq!(rows.altered, 0);
    assert_eq!(rows.counts().map(|(_, count)| count), [1; 12]);
    insert_all(&writer, &rows, &block("S:7-7")).await;

    let read = async |table: &str| {
        let rows: Vec<Value> = reader.query(&format!("SELECT * FROM {table}")).rows().await.expect("rows");
        assert_eq!(rows.len(), 1, "{table}");
        rows[0].clone()
    };
    let expect = |row: &Value, expected: Value| {
        for (column, value) in expected.as_object().expect("an object") {
            assert_eq!(&row[column], value, "{column} of {row}");
        }
    };
    let time = "2026-01-02 03:04:05.678901";
    let flow = read("flows").await;
    expect(
        &flow,
        json!({"start_time": time, "end_time": "2026-01-02 03:04:05.678906", "recorded_at": "2026-01-02 03:04:05",
            "stream_sequence": 7, "source": "ebpf", "host": "host-1", "capture_id": Uuid::nil().to_string(),
            "interface": "eth0", "flow_id": u64::MAX, "src_ip": "::ffff:10.0.0.7", "dst_ip": "2001:db8::1",
            "src_port": 40000, "dst_port": 443, "protocol": 6, "vlan": 0x0012_3456, "tunnel": "vxlan:42",
            "tx_bytes": 1_u64 << 40, "tx_packets": 2, "rx_bytes": 3, "rx_packets": 4, "tcp_flags_tx": 27,
            "tcp_flags_rx": 18, "end_reason": "fin", "handshake_us": 123, "rtt_us": null, "tx_retransmits": 0,
            "rx_retransmits": null, "drop_reason": "NO_SOCKET", "src_name": "a.example", "dst_name": "",
            "src_container": "web", "src_container_id": "c0ffee", "src_image": "nginx:1", "dst_container": "web",
            "src_process": "", "dst_process": "nginx", "app": "tls", "reset_by": "dst", "reset_confirmed": true,
            "reset_reason": "NO_SOCKET"}),
    );
    assert!(flow["community_id"].as_str().is_some_and(|id| id.starts_with("1:")), "{flow}");
    expect(
        &read("dns").await,
        json!({"time": time, "qname": "example.com", "qtype": 28, "query_id": 65535, "rcode": null, "has_query": true,
            "answers": ["192.0.2.1", "\"txt\""], "latency_us": 9, "container": "web", "dst_port": 53}),
    );
    expect(&read("tls").await, json!({"sni": "example.com", "alpn": ["h2"], "version": "TLS 1.3", "container": ""}));
    expect(&read("http").await, json!({"method": "GET", "path": "/?a=b", "status": 404, "latency_us": null}));
    expect(
        &read("container_stats").await,
        json!({"labels": labels(), "cpu_percent": 12.5, "memory_bytes": null, "pids": 3,
            "missing": {"memory_bytes": "no such file"}, "tier": "cgroup", "cpu_throttled_ns": 5, "cpu_periods": null}),
    );
    let stats = read("container_stats").await;
    expect(&stats["interfaces"][0], json!({"name": "eth0", "rx_bytes": 0, "tx_dropped": 8}));
    expect(&stats["devices"][0], json!({"major": 254, "write_bytes": 0, "write_operations": 6}));
    expect(&read("container_events").await, json!({"action": "die", "exit_code": -9, "attributes": labels()}));
    expect(
        &read("containers").await,
        json!({"host": "host-1", "name": "web", "ip_addresses": ["::ffff:10.0.0.7"], "started_at": time,
            "finished_at": null, "oom_killed": true, "cgroup_id": 77, "compose_project": "shop", "compose_service": "", "pod": "",
            "image_digest": "sha256:12", "interfaces": ["veth1"], "cpu_limit": 0.5, "memory_limit_bytes": null,
            "ports": [{"host_ip": "::ffff:0.0.0.0", "host_port": 8080, "container_port": 80, "protocol": 6}],
            "host_addresses": ["2001:db8::1"]}),
    );
    expect(
        &read("captures").await,
        json!({"capture_id": capture_id.to_string(), "sha256": "ab".repeat(32), "state": "done", "first_packet": time,
            "last_packet": null}),
    );
    expect(
        &read("findings").await,
        json!({"severity": "critical", "kind": "scan", "detail": {"ports": [1, 2], "who": {"ip": "10.0.0.7"}}}),
    );
    expect(
        &read("capture_ledger").await,
        json!({"start_time": time, "end_time": "2026-01-02 03:04:05.678906", "host": "host-1", "interface": "eth0",
            "outcome": "lost", "reason": "table_full", "packets": 3, "bytes": 1_u64 << 40}),
    );
    expect(
        &read("audit").await,
        json!({"time": time, "action": "live_capture", "outcome": "recorded", "capture_id": capture_id.to_string(),
            "client": "192.0.2.9", "host": "host-1", "filter": "", "seconds": 30, "packets": 7, "stream_sequence": 7}),
    );
    expect(
        &read("dead_letters").await,
        json!({"stream": "S", "sequence": 7, "subject": "weir.records.x", "reason": "bad_zstd", "size_bytes": 9,
            "headers": {"Weir-Version": "9"}}),
    );
    let payload: Vec<Value> =
        reader.query("SELECT hex(payload) AS hex FROM dead_letters").rows().await.expect("payload");
    assert_eq!(payload[0]["hex"], "FF0067617262616765");
}

#[tokio::test]
async fn values_of_strangers_stand_in_the_tables_within_their_range() {
    let Some((clickhouse, writer, _)) = database().await else { return };
    let flow = Flow {
        start_time: u64::MAX,
        end_time: 0,
        src_port: u32::MAX,
        protocol: 300,
        end_reason: 77,
        src_name: "\u{0}\u{fffd}'; DROP TABLE weir.flows".into(),
        ..Flow::default()
    };
    let finding = Finding { detail: r#"{"a": {"b": 1}, "a.b": 2, "c": 1e308}"#.into(), ..Finding::default() };
    let batch =
        Batch { source: 99, capture_id: vec![1], flows: vec![flow], findings: vec![finding], ..Batch::default() };
    let mut rows = Rows::default();
    rows.push(batch, &Position { stream_sequence: u64::MAX, stored_at: u64::MAX }, &NoContainers);
    assert_eq!(rows.altered, 7);
    insert_all(&writer, &rows, &block("S:1-1")).await;
    let columns = "start_time, end_time, source, src_port, protocol, end_reason, length(src_name)";
    let row = clickhouse.read(&format!("SELECT {columns} FROM weir.flows")).await.expect("row");
    let expected = "2299-12-31 23:59:59.999999\t1970-01-01 00:00:00.000000\tunknown\t65535\t255\tunknown\t28\n";
    assert_eq!(row, expected);
    assert_eq!(clickhouse.read("SELECT severity FROM weir.findings").await.expect("severity"), "info\n");
}

#[tokio::test]
async fn a_block_that_is_inserted_again_counts_once_also_after_a_kill() {
    let Some((mut clickhouse, writer, _)) = database().await else { return };
    let rows = flows(1..4, 1000, TIME);
    writer.insert(&rows.flows, &block("S:1-3")).await.expect("first");
    // The token alone.
    writer.insert(&rows.flows, &block("S:1-3")).await.expect("again");
    assert_eq!(counts(&clickhouse).await, "3000\t3000\n");
    clickhouse.kill().await;
    let error = writer.insert(&rows.flows, &block("S:1-3")).await.expect_err("nobody there");
    assert!(error.is_transient(), "{error:?}");
    clickhouse.restart().await.expect("restart");
    writer.insert(&rows.flows, &block("S:1-3")).await.expect("again");
    writer.insert(&rows.flows, &repeated("S:1-3")).await.expect("again");
    assert_eq!(counts(&clickhouse).await, "3000\t3000\n");
    // Another block of the same rows is another block.
    writer.insert(&rows.flows, &block("S:4-6")).await.expect("other");
    assert_eq!(counts(&clickhouse).await, "6000\t3000\n");
}

#[tokio::test]
async fn a_repeated_block_is_right_whatever_became_of_its_token() {
    let Some((clickhouse, writer, _)) = database().await else { return };
    let rows = flows(1..4, 100, TIME);
    // The part is there, its token is not known: as after a kill between commit and note.
    writer.insert(&rows.flows, &block("lost")).await.expect("first");
    writer.insert(&rows.flows, &repeated("S:1-3")).await.expect("again");
    assert_eq!(counts(&clickhouse).await, "300\t300\n");
    // The token is known, the rows are not there: as after a kill between note and commit.
    let rows = flows(4..7, 100, TIME);
    writer.insert(&rows.flows, &block("S:4-6")).await.expect("first");
    clickhouse.write("DELETE FROM weir.flows WHERE stream_sequence BETWEEN 4 AND 6").await.expect("delete");
    assert_eq!(counts(&clickhouse).await, "300\t300\n");
    writer.insert(&rows.flows, &repeated("S:4-6")).await.expect("again");
    assert_eq!(counts(&clickhouse).await, "600\t600\n");
    writer.insert(&rows.flows, &repeated("S:4-6")).await.expect("and again");
    assert_eq!(counts(&clickhouse).await, "600\t600\n");
}

#[tokio::test]
async fn a_block_over_midnight_is_completed_when_only_one_day_of_it_is_there() {
    let Some((clickhouse, writer, _)) = database().await else { return };
    let midnight = (TIME / 86_400_000_000 + 1) * 86_400_000_000;
    let rows = flows(1..7, 100, midnight - 3_500_000);
    let days = |rows: &Rows| {
        rows.flows.iter().map(|row| row.recorded_at() / 86_400).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(days(&rows), 2);
    let first_day: Vec<_> =
        rows.flows.iter().filter(|row| u64::from(row.recorded_at()) * 1_000_000 < midnight).cloned().collect();
    writer.insert(&first_day, &block("S:1-6")).await.expect("a part of it");
    writer.insert(&rows.flows, &block("S:1-6")).await.expect("all of it");
    writer.insert(&rows.flows, &repeated("S:1-6")).await.expect("again");
    assert_eq!(counts(&clickhouse).await, "600\t600\n");
    let partitions = clickhouse.read("SELECT uniqExact(toYYYYMMDD(recorded_at)) FROM weir.flows").await.expect("days");
    assert_eq!(partitions, "2\n");
}

const INSERTS: &str = "FROM system.processes WHERE query LIKE 'INSERT INTO `flows`%'";

/// Inserts in the background, and returns when the server has worked on it for so many seconds, or when it has ended.
async fn insert_until(
    clickhouse: &ClickHouse,
    writer: &Writer,
    rows: &Rows,
    seconds: f64,
) -> tokio::task::JoinHandle<Result<(), Error>> {
    let (writer, rows) = (writer.clone(), rows.flows.clone());
    let insert = tokio::spawn(async move { writer.insert(&rows, &repeated("S:1-200")).await });
    let mut poll = tokio::time::interval(std::time::Duration::from_millis(1));
    while !insert.is_finished() {
        poll.tick().await;
        let elapsed = clickhouse.write(&format!("SELECT max(elapsed) {INSERTS}")).await.expect("processes");
        if elapsed.trim().parse::<f64>().is_ok_and(|elapsed| elapsed > seconds) {
            break;
        }
    }
    insert
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_that_is_cut_off_leaves_nothing() {
    let Some((mut clickhouse, writer, _)) = database().await else { return };
    let rows = flows(1..201, 1000, TIME);
    let all_or_nothing = ["0\t0\n", "200000\t200000\n"];
    // The sender goes away in the middle.
    insert_until(&clickhouse, &writer, &rows, 0.0).await.abort();
    let mut poll = tokio::time::interval(std::time::Duration::from_millis(20));
    while clickhouse.write(&format!("SELECT count() {INSERTS}")).await.expect("processes") != "0\n" {
        poll.tick().await;
    }
    assert!(all_or_nothing.contains(&counts(&clickhouse).await.as_str()));
    // The server is killed in the middle, further and further.
    let mut cut_off = 0;
    for seconds in [0.0, 0.1, 0.3, 0.6] {
        let insert = insert_until(&clickhouse, &writer, &rows, seconds).await;
        clickhouse.kill().await;
        let insert = insert.await.expect("no panic");
        clickhouse.restart().await.expect("restart");
        let count = counts(&clickhouse).await;
        assert!(all_or_nothing.contains(&count.as_str()), "{count}");
        assert!(insert.is_err() || count == all_or_nothing[1], "{count}");
        cut_off += u32::from(insert.is_err());
        clickhouse.write("TRUNCATE TABLE weir.flows").await.expect("truncate");
    }
    assert!(cut_off > 0, "no insert was cut off");
    writer.insert(&rows.flows, &repeated("S:1-200")).await.expect("at last");
    assert_eq!(counts(&clickhouse).await, all_or_nothing[1]);
    let parts = clickhouse.write("SELECT count() FROM system.parts WHERE table = 'flows' AND active").await;
    assert_eq!(parts.expect("parts"), "1\n");
}

#[tokio::test]
async fn a_deleted_capture_has_no_rows_and_the_others_keep_theirs() {
    let Some((clickhouse, writer, _)) = database().await else { return };
    let ids = [Uuid::from_u128(1), Uuid::from_u128(2)];
    let batch = |id: Uuid, deleted| Batch {
        capture_id: id.as_bytes().to_vec(),
        source: Source::Pcap as i32,
        flows: vec![Flow::default(); 3],
        dns: vec![Dns::default(); 2],
        captures: vec![Capture {
            capture_id: id.as_bytes().to_vec(),
            deleted,
            observed_at: u64::from(deleted),
            ..Capture::default()
        }],
        ..Batch::default()
    };
    let mut rows = Rows::default();
    for (sequence, id) in ids.into_iter().enumerate() {
        rows.push(batch(id, false), &Position { stream_sequence: sequence as u64, stored_at: TIME }, &NoContainers);
    }
    insert_all(&writer, &rows, &block("S:0-1")).await;
    writer.delete_capture(ids[0]).await.expect("delete");
    writer.delete_capture(ids[0]).await.expect("again");
    assert_eq!(
        clickhouse.read("SELECT DISTINCT capture_id FROM weir.flows").await.expect("ids"),
        format!("{}\n", ids[1])
    );
    assert_eq!(clickhouse.read("SELECT count() FROM weir.dns").await.expect("dns"), "2\n");

    let mut rows = Rows::default();
    rows.push(batch(ids[0], true), &Position { stream_sequence: 9, stored_at: TIME }, &NoContainers);
    assert_eq!(rows.drop_deleted(), 5);
    assert_eq!((rows.deleted.as_slice(), rows.len()), (&ids[..1], 1));
    insert_all(&writer, &rows, &block("S:9-9")).await;
    // The reader merges: the deleted one is gone.
    assert_eq!(clickhouse.read("SELECT capture_id FROM weir.captures").await.expect("ids"), format!("{}\n", ids[1]));
}

#[tokio::test]
async fn two_programs_may_bring_a_database_up_at_the_same_time_and_again() {
    let Some(clickhouse) = ClickHouse::start_or_skip().await else { return };
    let options = writer_options(&clickhouse);
    let (a, b) = tokio::join!(schema::migrate(&options), schema::migrate(&options));
    assert!(a.expect("a") + b.expect("b") >= schema::version() as usize);
    assert_eq!(schema::migrate(&options).await.expect("again"), 0);
    assert!(schema::check(&options).await.expect("check"));
    let versions = clickhouse.read("SELECT DISTINCT version FROM weir.schema_migrations ORDER BY version").await;
    let numbers: Vec<_> = (1..=schema::version()).map(|version| version.to_string()).collect();
    let expected = numbers.join("\n") + "\n";
    assert_eq!(versions.expect("versions"), expected);

    // As left behind by a start that was killed in the middle.
    clickhouse.write("TRUNCATE TABLE weir.schema_migrations").await.expect("truncate");
    clickhouse.write("DROP TABLE weir.findings").await.expect("drop");
    assert_eq!(schema::migrate(&options).await.expect("completed"), schema::version() as usize);
    assert_eq!(clickhouse.read("SELECT count() FROM weir.findings").await.expect("findings"), "0\n");

    let insert = "INSERT INTO weir.schema_migrations (version, name, checksum) VALUES";
    clickhouse.write(&format!("{insert} (99, 'of the future', '')")).await.expect("insert");
    assert!(matches!(schema::migrate(&options).await, Err(Error::Newer { found: 99, .. })));
    clickhouse.write("TRUNCATE TABLE weir.schema_migrations").await.expect("truncate");
    clickhouse.write(&format!("{insert} (1, 'initial', 'other')")).await.expect("insert");
    assert!(matches!(schema::migrate(&options).await, Err(Error::Changed { version: 1 })));
}

#[derive(Debug, Deserialize, PartialEq)]
struct Number {
    n: u64,
}

#[tokio::test]
async fn values_travel_beside_the_sql() {
    let Some((_clickhouse, _, reader)) = database().await else { return };
    reader.ping().await.expect("ping");
    let hostile = "a'; DROP TABLE flows -- \\ \t\n\u{0} {x:String} ☃";
    let rows: Vec<Value> = reader
        .query("SELECT {text:String} AS text, {list:Array(String)} AS list, {n:UInt64} AS n, {none:Nullable(UInt8)} AS none")
        .param("text", hostile)
        .param("list", vec!["x", hostile])
        .param("n", u64::MAX)
        .param("none", None::<u8>)
        .rows()
        .await
        .expect("rows");
    assert_eq!(rows, [json!({"text": hostile, "list": ["x", hostile], "n": u64::MAX, "none": null})]);
}

#[tokio::test]
async fn an_error_carries_the_code_of_the_server_early_and_late() {
    let Some((_clickhouse, _, reader)) = database().await else { return };
    let error = reader.query("SELEC 1").rows::<Number>().await.expect_err("syntax");
    assert!(matches!(&error, Error::Server { code: 62, name, .. } if name == "SYNTAX_ERROR"), "{error:?}");
    let error = reader.query("INSERT INTO flows (host) VALUES ('x')").rows::<Number>().await.expect_err("readonly");
    assert!(matches!(error, Error::Server { code: 164 | 497, .. }), "{error:?}");

    // Rows come first, the error later.
    let sql = "SELECT number AS n, throwIf(number = 3000000) FROM numbers(5000000)";
    let stream = reader.query(sql).setting("max_block_size", "10000").stream("JSONEachRow").await.expect("first rows");
    let pieces: Vec<_> = stream.collect().await;
    let (last, pieces) = pieces.split_last().expect("pieces");
    assert!(pieces.len() > 1 && pieces.iter().all(Result::is_ok));
    assert!(matches!(last, Err(Error::Server { code: 395, .. })), "{last:?}");
}

#[tokio::test]
async fn a_query_ends_on_the_server_when_its_answer_is_dropped() {
    let Some((clickhouse, _, reader)) = database().await else { return };
    let running = async || {
        let sql = "SELECT count() FROM system.processes WHERE query_id = 'dropped-one'";
        clickhouse.write(sql).await.expect("processes") == "1\n"
    };
    let sql = "SELECT number FROM numbers(9000000000)";
    let query = reader.query(sql).id("dropped-one").setting("max_block_size", "1000").stream("TSV");
    let mut stream = query.await.expect("stream");
    assert!(stream.try_next().await.expect("a piece").is_some());
    assert!(running().await);
    drop(stream);
    let mut poll = tokio::time::interval(std::time::Duration::from_millis(50));
    let gone = async {
        while running().await {
            poll.tick().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.expect("it ends");
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_of_an_answer_is_an_error() {
    let Some((mut clickhouse, _, reader)) = database().await else { return };
    let mut stream = reader.query("SELECT number FROM numbers(9000000000)").stream("TSV").await.expect("stream");
    assert!(stream.try_next().await.expect("a piece").is_some());
    clickhouse.kill().await;
    let end = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(&end, Some(Err(Error::Unavailable(_)))), "{end:?}");
    assert!(reader.ping().await.expect_err("away").is_transient());
}

#[test]
fn addresses_of_the_tests_are_addresses() {
    assert_eq!(Ipv6Addr::from(ip("10.0.0.7")).to_string(), "::ffff:10.0.0.7");
}

#[tokio::test]
async fn rows_with_a_column_that_the_table_lost_are_refused_until_it_is_back() {
    let Some((clickhouse, writer, _)) = database().await else { return };
    let rows = flows(1..4, 100, TIME);
    writer.insert(&rows.flows, &block("S:1-3")).await.expect("first");
    let rows = flows(4..7, 100, TIME);
    clickhouse.write("ALTER TABLE weir.flows DROP COLUMN app").await.expect("drop");
    // With what it knew of the table, and with what it asked for since.
    for _ in 0..2 {
        let error = writer.insert(&rows.flows, &block("S:4-6")).await.expect_err("no such column");
        assert!(!error.is_transient(), "{error:?}");
    }
    assert_eq!(counts(&clickhouse).await, "300\t300\n");
    clickhouse.write("ALTER TABLE weir.flows ADD COLUMN app String").await.expect("add");
    writer.insert(&rows.flows, &repeated("S:4-6")).await.expect("again");
    assert_eq!(counts(&clickhouse).await, "600\t600\n");
}
