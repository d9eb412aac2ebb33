use std::fmt::Write as _;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Weir, problem};

/// A day on which `web` (project shop) was killed for memory at 12:00, was made anew of another image, and `old` was removed at 11:00.
async fn with_history() -> Option<Weir> {
    let weir = Weir::start().await?;
    let mut lives = String::new();
    for (id, name, image, ip, started, finished, state) in [
        ("w1", "web", "shop:1", "10.0.0.2", "09:00:00", "'2026-06-01 12:00:00'", "removed"),
        ("w2", "web", "shop:2", "10.0.0.2", "12:00:30", "NULL", "running"),
        ("d1", "db", "postgres", "10.0.0.3", "09:00:00", "NULL", "running"),
        ("o1", "old", "old:1", "10.0.0.4", "09:00:00", "'2026-06-01 11:00:00'", "removed"),
    ] {
        let project = if name == "old" { "" } else { "shop" };
        let _written = write!(
            lives,
            "('h', 'docker', '{id}', '{name}', '{image}', '{image}-id', {{'com.docker.compose.project': '{project}'}}, \
             ['::ffff:{ip}'], '2026-06-01 {started}', {finished}, '{state}', '2026-06-01 13:00:00'),"
        );
    }
    let columns = "host, runtime, container_id, name, image, image_id, labels, ip_addresses, started_at, finished_at, state, observed_at";
    write_rows(&weir, "containers", columns, &lives).await;
    let events = "('2026-06-01 11:59:59.5', 'h', 'docker', 'w1', 'web', 'shop:1', 'oom', NULL), \
                  ('2026-06-01 12:00:00', 'h', 'docker', 'w1', 'web', 'shop:1', 'die', 137)";
    write_rows(&weir, "container_events", "time, host, runtime, container_id, name, image, action, exit_code", events)
        .await;
    let mut flows = String::new();
    for (id, time, src, dst, name, packets, again) in [
        (1, "11:30:00", "10.0.0.2", "93.184.216.34", "example.com", 10, 0),
        (2, "11:59:30", "10.0.0.2", "10.0.0.3", "", 100, 30),
        (3, "12:10:00", "10.0.0.2", "93.184.216.34", "example.com", 10, 0),
        (4, "12:20:00", "10.0.0.2", "203.0.113.9", "evil.example", 10, 0),
        (5, "10:30:00", "10.0.0.3", "10.0.0.4", "", 1000, 1),
        (6, "11:30:00", "10.0.0.3", "10.0.0.4", "", 3, 2),
    ] {
        // Nobody knew any container when these rows were made, except for those of destinations outside.
        let (container, container_id) = match (src, name) {
            (_, "") => ("", ""),
            _ if time < "12:00:00" => ("web", "w1"),
            _ => ("web", "w2"),
        };
        let _written = write!(
            flows,
            "('2026-06-01 {time}', addSeconds(toDateTime64('2026-06-01 {time}', 6, 'UTC'), 5), '2026-06-01 {time}', 'ebpf', 'h', {id}, \
             '::ffff:{src}', '::ffff:{dst}', 443, 6, {packets}000, {packets}, 500, 0, {again}, 0, '{name}', '{container}', '{container_id}'),"
        );
    }
    let columns = "start_time, end_time, recorded_at, source, host, flow_id, src_ip, dst_ip, dst_port, protocol, tx_bytes, tx_packets, \
                   rx_bytes, rx_packets, tx_retransmits, rx_retransmits, dst_name, src_container, src_container_id";
    write_rows(&weir, "flows", columns, &flows).await;
    let samples = "('2026-06-01 11:29:50', 'h', 'docker', 'w1', 'web', 20, 1000), ('2026-06-01 11:30:10', 'h', 'docker', 'w1', 'web', 40, 3000)";
    write_rows(&weir, "container_stats", "time, host, runtime, container_id, name, cpu_percent, memory_bytes", samples)
        .await;
    Some(weir)
}

async fn write_rows(weir: &Weir, table: &str, columns: &str, values: &str) {
    let sql = format!("INSERT INTO weir.{table} ({columns}) VALUES {}", values.trim_end_matches(','));
    weir.clickhouse.write(&sql).await.unwrap();
}

const DAY: &str = "from=2026-06-01T00:00:00Z&to=2026-06-02T00:00:00Z";

/// The named columns of an answer.
async fn asked(weir: &Weir, question: &str, columns: &[&str]) -> Vec<Value> {
    let separator = if question.contains('?') { '&' } else { '?' };
    let answer = weir.json(&format!("/api/v1/questions/{question}{separator}{DAY}")).await;
    let row = |item: &Value| columns.iter().map(|column| item[*column].clone()).collect::<Value>();
    answer["items"].as_array().unwrap().iter().map(row).collect()
}

#[tokio::test]
async fn every_question_has_its_answer() {
    let Some(weir) = with_history().await else { return };

    let columns = ["action", "container", "exit_code", "seconds_before", "flow_id", "dst_container", "dst_ip"];
    assert_eq!(
        asked(&weir, "flows-before-death", &columns).await,
        [
            json!(["die", "web", 137, 25, "2", "db", "10.0.0.3"]),
            json!(["oom", "web", null, 24.5, "2", "db", "10.0.0.3"])
        ]
    );
    assert_eq!(asked(&weir, "flows-before-death?action=oom&container=web", &["action"]).await, [json!(["oom"])]);

    let columns = ["changed_at", "container", "previous_image", "image", "destination", "ips", "ports", "flows"];
    assert_eq!(
        asked(&weir, "new-destinations", &columns).await,
        [json!(["2026-06-01T12:00:30.000000Z", "web", "shop:1", "shop:2", "evil.example", ["203.0.113.9"], [443], 1])]
    );

    let columns = ["src_container", "dst_container", "packets", "tx_retransmits", "retransmit_percent"];
    let pairs = [json!(["web", "db", 100, 30, 30]), json!(["db", "old", 1000, 1, 0.1])];
    assert_eq!(asked(&weir, "retransmits", &columns).await, pairs[..1]);
    assert_eq!(asked(&weir, "retransmits?above=0.0005", &columns).await, pairs);
    assert_eq!(asked(&weir, "retransmits?above=0&container=old", &columns).await, pairs[1..]);

    let columns = ["hour", "project", "tx_bytes", "rx_bytes", "internal_bytes", "flows"];
    assert_eq!(
        asked(&weir, "project-traffic", &columns).await,
        [
            json!(["2026-06-01T12:00:00Z", "shop", 20_000, 1000, 0, 2]),
            json!(["2026-06-01T11:00:00Z", "shop", 13_000, 1000, 100_500, 3]),
            json!(["2026-06-01T10:00:00Z", "shop", 1_000_000, 500, 0, 1])
        ]
    );

    let columns = ["container", "after_end", "peer_container", "peer_ip", "first_time", "bytes"];
    assert_eq!(
        asked(&weir, "gone-containers?container=old", &columns).await,
        [
            json!(["old", true, "db", "10.0.0.3", "2026-06-01T11:30:00.000000Z", 3500]),
            json!(["old", false, "db", "10.0.0.3", "2026-06-01T10:30:00.000000Z", 1_000_500])
        ]
    );

    let columns = ["time", "container_id", "cpu_percent", "cpu_percent_max", "memory_bytes_max", "tx_bytes", "records"];
    assert_eq!(
        asked(&weir, "cpu-and-traffic?container=web&host=h", &columns).await[3..],
        [
            json!(["2026-06-01T11:30:00Z", "w1", 40, 40, 3000, 10_000, 1]),
            json!(["2026-06-01T11:25:00Z", "w1", 20, 20, 1000, 0, 0])
        ]
    );
}

#[tokio::test]
async fn questions_are_listed_and_come_in_parts() {
    let Some(weir) = with_history().await else { return };
    let list = weir.json("/api/v1/questions").await;
    let questions = list["items"].as_array().unwrap();
    assert_eq!(questions.len(), 6);
    for question in questions {
        let name = question["name"].as_str().unwrap();
        weir.json(&format!("/api/v1/questions/{name}")).await;
        let view = question["view"].as_str().unwrap();
        let answer = weir.query(&format!("SELECT count() AS n FROM {view}")).await;
        assert_eq!(answer.status(), StatusCode::OK, "{view}");
    }
    let (mut seen, mut path) = (0, format!("/api/v1/questions/gone-containers?limit=1&{DAY}"));
    loop {
        let part = weir.json(&path).await;
        seen += part["items"].as_array().unwrap().len();
        let Some(cursor) = part["next_cursor"].as_str() else { break };
        path = format!("/api/v1/questions/gone-containers?limit=1&cursor={cursor}");
    }
    assert_eq!(seen, asked(&weir, "gone-containers", &[]).await.len());
    for (path, expected) in [
        ("nothing", (404, "not-found")),
        ("project-traffic?above=1", (400, "invalid-parameter")),
        ("retransmits?above=x", (400, "invalid-parameter")),
        ("retransmits?limit=0", (400, "invalid-parameter")),
        ("retransmits?from=yesterday", (400, "invalid-parameter")),
    ] {
        let response = weir.get(&format!("/api/v1/questions/{path}")).send().await.unwrap();
        assert_eq!(problem(response).await, (expected.0, expected.1.to_owned()), "{path}");
    }
}

#[tokio::test]
async fn flows_have_the_names_that_came_late() {
    let Some(weir) = with_history().await else { return };
    let names = async |query: &str| -> Vec<Value> {
        let page = weir.json(&format!("/api/v1/flows?{DAY}&{query}")).await;
        let row = |item: &Value| json!([item["flow_id"], item["src_container"], item["dst_container"]]);
        page["items"].as_array().unwrap().iter().map(row).collect()
    };
    assert_eq!(names("filter=flow_id%3D2").await, [json!(["2", "web", "db"])]);
    assert_eq!(names("filter=dst_container%3Dold").await, [json!(["5", "db", "old"])]);
    assert_eq!(names("limit=1").await, [json!(["4", "web", ""])]);
    assert_eq!(names("filter=dst_port%3D1").await, Vec::<Value>::new());
    let top = weir.json(&format!("/api/v1/flows/top?{DAY}&by=dst_container&filter=dst_port%3D443&limit=2")).await;
    let keys: Vec<_> = top["items"].as_array().unwrap().iter().map(|group| &group["key"]["dst_container"]).collect();
    assert_eq!(keys, ["old", "db"]);
    let page = weir.json(&format!("/api/v1/containers/d1/flows?{DAY}")).await;
    assert_eq!(page["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn an_address_of_a_network_that_a_container_joined_later_is_its_own_from_then_on() {
    let Some(weir) = Weir::start().await else { return };
    // `moves` began after `before`, which had until 11:00 the address that it got at 12:00.
    let networks = "[('front', 'n1', '::ffff:10.0.0.2', ''), ('back', 'n2', '::ffff:10.0.1.2', '')]";
    let lives = format!(
        "('h', 'docker', 'b', 'before', ['::ffff:10.0.1.2'], [('back', 'n2', '::ffff:10.0.1.2', '')], '2026-06-01 08:00:00', '2026-06-01 11:00:00', '2026-06-01 13:00:00'),\
         ('h', 'docker', 'm', 'moves', ['::ffff:10.0.0.2', '::ffff:10.0.1.2'], {networks}, '2026-06-01 09:00:00', NULL, '2026-06-01 13:00:00')"
    );
    let columns = "host, runtime, container_id, name, ip_addresses, networks, started_at, finished_at, observed_at";
    write_rows(&weir, "containers", columns, &lives).await;
    let events =
        [("08:59:59.9", "m", "n1"), ("07:59:59.9", "b", "n2"), ("12:00:00", "m", "n2")].map(|(time, id, network)| {
            format!("('2026-06-01 {time}', 'h', 'docker', '{id}', 'network_connect', {{'network_id': '{network}'}})")
        });
    write_rows(&weir, "container_events", "time, host, runtime, container_id, action, attributes", &events.join(","))
        .await;
    let flows = [(1, "10:00:00", "10.0.1.2"), (2, "11:30:00", "10.0.1.2"), (3, "12:30:00", "10.0.1.2"), (4, "10:00:00", "10.0.0.2")]
        .map(|(id, time, ip)| {
            format!("('2026-06-01 {time}', '2026-06-01 {time}', '2026-06-01 {time}', 'ebpf', 'h', {id}, '::ffff:{ip}', '::ffff:203.0.113.9', 443, 6)")
        });
    let columns = "start_time, end_time, recorded_at, source, host, flow_id, src_ip, dst_ip, dst_port, protocol";
    write_rows(&weir, "flows", columns, &flows.join(",")).await;
    let page = weir.json(&format!("/api/v1/flows?{DAY}")).await;
    let mut names: Vec<_> =
        page["items"].as_array().unwrap().iter().map(|item| json!([item["flow_id"], item["src_container"]])).collect();
    names.sort_by_key(Value::to_string);
    assert_eq!(names, [json!(["1", "before"]), json!(["2", ""]), json!(["3", "moves"]), json!(["4", "moves"])]);
}

#[tokio::test]
async fn a_translated_flow_counts_once_and_where_only_its_outer_side_was_captured_too() {
    let Some(weir) = Weir::start().await else { return };
    let lives = [("w", "web", "10.0.0.2"), ("d", "db", "10.0.0.3")].map(|(id, name, ip)| {
        format!(
            "('h', 'docker', '{id}', '{name}', 'shop:1', {{'com.docker.compose.project': 'shop'}}, ['::ffff:{ip}'], '2026-06-01 09:00:00', 'running', \
             '2026-06-01 13:00:00')"
        )
    });
    let columns = "host, runtime, container_id, name, image, labels, ip_addresses, started_at, state, observed_at";
    write_rows(&weir, "containers", columns, &lives.join(",")).await;
    let mut flows = String::new();
    for (id, src, nat) in [
        // web: on its bridge, and behind the address of the host.
        (1, "10.0.0.2", "::"),
        (2, "192.0.2.1", "::ffff:10.0.0.2"),
        // db: only there.
        (3, "192.0.2.1", "::ffff:10.0.0.3"),
    ] {
        let _written = write!(
            flows,
            "('2026-06-01 11:30:00', '2026-06-01 11:30:05', '2026-06-01 11:30:00', 'ebpf', 'h', {id}, '::ffff:{src}', '::ffff:93.184.216.34', \
             443, 6, 1000, 10, 500, 5, '{nat}'),"
        );
    }
    let columns = "start_time, end_time, recorded_at, source, host, flow_id, src_ip, dst_ip, dst_port, protocol, tx_bytes, tx_packets, \
                   rx_bytes, rx_packets, src_nat_ip";
    write_rows(&weir, "flows", columns, flows.trim_end_matches(',')).await;
    let columns = ["project", "tx_bytes", "rx_bytes", "internal_bytes", "flows"];
    assert_eq!(asked(&weir, "project-traffic", &columns).await, [json!(["shop", 2000, 1000, 0, 2])]);
    let columns = ["container", "tx_bytes", "rx_bytes", "records"];
    let mut used = asked(&weir, "cpu-and-traffic", &columns).await;
    used.sort_by_key(Value::to_string);
    assert_eq!(used, [json!(["db", 1000, 500, 1]), json!(["web", 1000, 500, 1])]);
}

/// A record that shows a translation: its ends as it shows them, and as they are.
struct Translated<'a> {
    id: u64,
    time: &'a str,
    protocol: u8,
    /// Address and port of who began, and of who answers; what they are on their own side (empty = what is shown), container and name.
    src: (&'a str, u16, &'a str, u16, &'a str, &'a str),
    dst: (&'a str, u16, &'a str, u16, &'a str, &'a str),
    packets: u64,
}

async fn write_translated(weir: &Weir, records: &[Translated<'_>]) {
    let mut rows = String::new();
    for Translated { id, time, protocol, src, dst, packets } in records {
        let container = |name: &str| if name.is_empty() { String::new() } else { format!("id-{name}") };
        let address = |text: &str| if text.is_empty() { "::".to_owned() } else { format!("::ffff:{text}") };
        let end = |(ip, port, nat, nat_port, of, name): &(&str, u16, &str, u16, &str, &str)| {
            format!("'{}', {port}, '{}', {nat_port}, '{}', '{of}', '{name}'", address(ip), address(nat), container(of))
        };
        let _written = write!(
            rows,
            "('2026-06-01 {time}', addSeconds(toDateTime64('2026-06-01 {time}', 6, 'UTC'), 5), '2026-06-01 {time}', 'ebpf', 'h', {id}, {protocol}, \
             {packets}, {packets}000, 10, {}, {}),",
            end(src),
            end(dst)
        );
    }
    let columns = "start_time, end_time, recorded_at, source, host, flow_id, protocol, tx_packets, tx_bytes, tx_retransmits, \
                   src_ip, src_port, src_nat_ip, src_nat_port, src_container_id, src_container, src_name, \
                   dst_ip, dst_port, dst_nat_ip, dst_nat_port, dst_container_id, dst_container, dst_name";
    write_rows(weir, "flows", columns, &rows).await;
}

const WEB: &str = "10.0.0.2";
const DB: &str = "10.0.0.3";
const OLD: &str = "10.0.0.4";
const HOST: &str = "192.0.2.1";
const GATEWAY: &str = "10.0.0.1";

/// The containers `web` (made anew of another image at 12:00), `db`, and `old`, which was removed at 11:00.
async fn with_containers() -> Option<Weir> {
    let weir = Weir::start().await?;
    let lives = [
        ("before", "web", "shop:1", WEB, "09:00:00", "'2026-06-01 11:59:00'", "removed"),
        ("id-web", "web", "shop:2", WEB, "12:00:00", "NULL", "running"),
        ("id-db", "db", "postgres", DB, "09:00:00", "NULL", "running"),
        ("id-old", "old", "old:1", OLD, "09:00:00", "'2026-06-01 14:00:00'", "removed"),
    ];
    let lives = lives.map(|(id, name, image, ip, started, finished, state)| {
        format!(
            "('h', 'docker', '{id}', '{name}', '{image}', ['::ffff:{ip}'], '2026-06-01 {started}', {finished}, '{state}', '2026-06-01 14:00:00')"
        )
    });
    let columns = "host, runtime, container_id, name, image, ip_addresses, started_at, finished_at, state, observed_at";
    write_rows(&weir, "containers", columns, &lives.join(",")).await;
    Some(weir)
}

#[tokio::test]
async fn containers_that_speak_over_a_published_port_are_a_pair_whose_packets_count_once() {
    let Some(weir) = with_containers().await else { return };
    let web = |port| (WEB, port, "", 0, "web", "");
    let db = (DB, 5432, "", 0, "db", "");
    // As conntrack knows it, and as the published port alone tells it.
    let published = (HOST, 8080, DB, 5432, "db", "");
    let guessed = (HOST, 8080, "", 0, "db", "");
    let behind = |port| (GATEWAY, 6000 + port, WEB, port, "web", "");
    let record = |id, time, src, dst, packets| Translated { id, time, protocol: 6, src, dst, packets };
    let records = [
        // Directly.
        record(1, "12:01:00", web(5001), db, 50),
        // Over the port, with the address of the bridge before the other container.
        record(2, "12:01:00", web(5002), published, 100),
        record(3, "12:01:00", behind(5002), db, 100),
        // Over the port, with the container's own address.
        record(4, "12:01:01", web(5003), published, 20),
        record(5, "12:01:01", web(5003), db, 20),
        record(6, "12:01:02", web(5004), guessed, 7),
        record(7, "12:01:02", web(5004), db, 7),
        // Of these only one side was captured.
        record(8, "12:01:03", behind(5005), db, 3),
        record(9, "12:01:03", web(5006), published, 4),
        // Who asks from outside is no container, on either side.
        record(10, "12:01:04", ("198.51.100.7", 7000, "", 0, "", ""), published, 1000),
        record(11, "12:01:04", ("198.51.100.7", 7000, "", 0, "", ""), db, 1000),
    ];
    write_translated(&weir, &records).await;
    let columns = ["src_container", "dst_container", "packets", "bytes", "tx_retransmits"];
    assert_eq!(asked(&weir, "retransmits", &columns).await, [json!(["web", "db", 184, 184_000, 60])]);
}

#[tokio::test]
async fn a_new_destination_is_the_real_one_and_counts_once() {
    const NEW: &str = "203.0.113.9";
    let Some(weir) = with_containers().await else { return };
    let web = |port| (WEB, port, "", 0, "web", "");
    let behind = |port| (HOST, 6000 + port, WEB, port, "web", "");
    let to = |ip, name| (ip, 443, "", 0, "", name);
    let record = |id, time, src, dst, packets| Translated { id, time, protocol: 6, src, dst, packets };
    let records = [
        // Both sides; the name was learned outside.
        record(1, "12:10:00", web(5001), to(NEW, ""), 10),
        record(2, "12:10:00", behind(5001), to(NEW, "evil.example"), 10),
        // Only outside, in another hour.
        record(3, "13:10:00", behind(5002), to(NEW, "evil.example"), 5),
        // Both sides, and nobody has named it.
        record(4, "12:20:00", web(5003), to("203.0.113.10", ""), 2),
        record(5, "12:20:00", behind(5003), to("203.0.113.10", ""), 2),
        // A rule of the host leads it to a proxy of its own, and one to a proxy elsewhere.
        record(6, "12:20:01", web(5004), ("203.0.113.11", 443, "10.9.9.9", 3128, "", ""), 3),
        record(7, "12:20:01", web(5005), ("203.0.113.12", 443, "203.0.113.13", 3128, "", ""), 3),
        record(8, "12:20:01", behind(5005), ("203.0.113.13", 3128, "", 0, "", ""), 3),
        // A ping.
        Translated {
            protocol: 1,
            ..record(9, "12:30:00", (WEB, 8, "", 0, "web", ""), ("203.0.113.14", 0, "", 0, "", ""), 4)
        },
        Translated {
            protocol: 1,
            ..record(10, "12:30:00", (HOST, 8, WEB, 8, "web", ""), ("203.0.113.14", 0, "", 0, "", ""), 4)
        },
    ];
    write_translated(&weir, &records).await;
    let columns = ["container", "destination", "ips", "ports", "flows", "tx_bytes"];
    let mut found = asked(&weir, "new-destinations", &columns).await;
    found.sort_by_key(Value::to_string);
    assert_eq!(
        found,
        [
            json!(["web", "203.0.113.10", ["203.0.113.10"], [443], 1, 2000]),
            json!(["web", "203.0.113.13", ["203.0.113.13"], [3128], 1, 3000]),
            json!(["web", "203.0.113.14", ["203.0.113.14"], [0], 1, 4000]),
            json!(["web", "evil.example", [NEW], [443], 2, 15_000]),
        ]
    );
}

#[tokio::test]
async fn who_talked_to_a_gone_container_over_a_translation_is_its_real_peer() {
    const CLIENT: &str = "198.51.100.7";
    const SERVER: &str = "203.0.113.9";
    let Some(weir) = with_containers().await else { return };
    let client = (CLIENT, 7000, "", 0, "", "");
    let old = (OLD, 80, "", 0, "old", "");
    let published = (HOST, 8080, OLD, 80, "old", "");
    let record = |id, time, src, dst, packets| Translated { id, time, protocol: 6, src, dst, packets };
    let after = |container| (OLD, 80, "", 0, container, "");
    let records = [
        // From outside over the published port, both sides.
        record(1, "13:00:00", client, published, 10),
        record(2, "13:00:00", client, old, 10),
        // Another container, over the same port and behind the bridge's address.
        record(3, "13:00:00", (WEB, 5001, "", 0, "web", ""), published, 20),
        record(4, "13:00:00", (GATEWAY, 6001, WEB, 5001, "web", ""), old, 20),
        // It asks a server outside, whose name was learned there.
        record(5, "13:00:00", (OLD, 5002, "", 0, "old", ""), (SERVER, 443, "", 0, "", ""), 30),
        record(6, "13:00:00", (HOST, 6002, OLD, 5002, "old", ""), (SERVER, 443, "", 0, "", "api.example"), 30),
        // It asks a container over a published port.
        record(7, "13:00:00", (OLD, 5003, "", 0, "old", ""), (HOST, 8081, DB, 5432, "db", ""), 40),
        record(8, "13:00:00", (OLD, 5003, "", 0, "old", ""), (DB, 5432, "", 0, "db", ""), 40),
        // A ping from outside that the host leads to it.
        Translated {
            protocol: 1,
            ..record(9, "13:00:00", (CLIENT, 8, "", 0, "", ""), (HOST, 0, OLD, 0, "old", ""), 2)
        },
        Translated { protocol: 1, ..record(10, "13:00:00", (CLIENT, 8, "", 0, "", ""), (OLD, 0, "", 0, "old", ""), 2) },
        // After its end the rule is still there.
        record(11, "14:30:00", client, (HOST, 8080, OLD, 80, "", ""), 1),
        record(12, "14:30:00", client, after(""), 1),
        record(13, "14:30:00", (WEB, 5004, "", 0, "web", ""), after(""), 3),
    ];
    write_translated(&weir, &records).await;
    let columns = ["after_end", "peer_ip", "peer_container", "peer_name", "port", "protocol", "bytes"];
    let mut found = asked(&weir, "gone-containers?container=old", &columns).await;
    found.sort_by_key(Value::to_string);
    assert_eq!(
        found,
        [
            json!([false, WEB, "web", "", 80, 6, 20_000]),
            json!([false, DB, "db", "", 5432, 6, 40_000]),
            json!([false, CLIENT, "", "", 0, 1, 2000]),
            json!([false, CLIENT, "", "", 80, 6, 10_000]),
            json!([false, SERVER, "", "api.example", 443, 6, 30_000]),
            json!([true, WEB, "web", "", 80, 6, 3000]),
            json!([true, CLIENT, "", "", 80, 6, 1000]),
        ]
    );
}
