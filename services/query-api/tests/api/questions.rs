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
            json!(["old", true, "", "10.0.0.3", "2026-06-01T11:30:00.000000Z", 3500]),
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
