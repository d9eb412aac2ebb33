use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Weir, problem};

/// Ten records of one minute, on 2026-06-01 from 12:00:00, one every six seconds: `10.0.0.<n>` asks `192.0.2.1` on the ports 443 and 53.
async fn with_flows() -> Option<Weir> {
    let weir = Weir::start().await?;
    weir.clickhouse
        .write(
            "INSERT INTO weir.flows (start_time, end_time, recorded_at, source, host, flow_id, src_ip, dst_ip, src_port, dst_port, protocol, \
             tx_bytes, tx_packets, rx_bytes, rx_packets, end_reason, rtt_us, src_container, src_container_id, app) \
             SELECT toDateTime64('2026-06-01 12:00:00', 6, 'UTC') + INTERVAL number * 6 SECOND + INTERVAL 7 MICROSECOND AS s, s, s, 'ebpf', 'h', \
             18446744073709551615 - intDiv(number, 2), toIPv6('::ffff:10.0.0.' || toString(number)), toIPv6('2001:db8::1'), 40000 + number, \
             if(number % 2, 443, 53), if(number % 2, 6, 17), 100 * number, number, 10, 1, 'fin', if(number % 2, 1000, NULL), \
             if(number < 3, 'web', ''), if(number < 3, 'abc', ''), if(number % 2, 'tls', 'dns') FROM numbers(10)",
        )
        .await
        .unwrap();
    Some(weir)
}

const RANGE: &str = "from=2026-06-01T12:00:00Z&to=2026-06-01T12:01:00Z";

#[tokio::test]
async fn records_come_in_parts_the_latest_first() {
    let Some(weir) = with_flows().await else { return };
    let all = weir.json(&format!("/api/v1/flows?{RANGE}")).await;
    let items = all["items"].as_array().unwrap();
    assert_eq!((items.len(), &all["next_cursor"]), (10, &Value::Null));
    let last = &items[0];
    assert_eq!(last["start_time"], "2026-06-01T12:00:54.000007Z");
    assert_eq!((&last["src_ip"], &last["dst_ip"]), (&json!("10.0.0.9"), &json!("2001:db8::1")));
    assert_eq!((&last["flow_id"], &last["rtt_us"]), (&json!("18446744073709551611"), &json!(1000)));
    assert_eq!(items[1]["rtt_us"], Value::Null);

    let mut seen = Vec::new();
    let mut path = format!("/api/v1/flows?{RANGE}&limit=3");
    loop {
        let part = weir.json(&path).await;
        seen.extend(part["items"].as_array().unwrap().iter().cloned());
        let Some(cursor) = part["next_cursor"].as_str() else { break };
        // The cursor keeps the range.
        path = format!("/api/v1/flows?limit=3&cursor={cursor}");
    }
    assert_eq!(&seen, items);
}

#[tokio::test]
async fn a_filter_chooses_records() {
    let Some(weir) = with_flows().await else { return };
    for (filter, count) in [
        ("", 10),
        ("dst_port = 443", 5),
        ("protocol = udp and app = dns", 5),
        ("src_ip in 10.0.0.0/30", 4),
        ("ip = 2001:db8::/32", 10),
        ("not src_ip in (10.0.0.1, 10.0.0.2)", 8),
        ("src_container = \"web\" and not dst_port = 53", 1),
        ("container like 'W%'", 3),
        ("container ~ '^we.$'", 3),
        ("bytes >= 510", 5),
        ("rtt_us > 999", 5),
        ("not rtt_us > 999", 0),
        ("flow_id = 18446744073709551615", 2),
        ("capture_id = 00000000-0000-0000-0000-000000000000", 10),
        ("src_container = 'x'' or 1=1 --'", 0),
        ("host = \"h'; DROP TABLE flows\"", 0),
    ] {
        let response = weir.get(&format!("/api/v1/flows?{RANGE}")).query(&[("filter", filter)]).send().await.unwrap();
        if filter.contains("''") {
            assert_eq!(problem(response).await.1, "invalid-filter");
            continue;
        }
        assert_eq!(response.status(), StatusCode::OK, "{filter}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["items"].as_array().unwrap().len(), count, "{filter}");
    }
    let response = weir.get("/api/v1/flows?filter=dst_prt%20%3D%201").send().await.unwrap();
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["type"], &body["position"]), (&json!("urn:weir:problem:invalid-filter"), &json!(0)));
}

#[tokio::test]
async fn the_greatest_groups_come_first() {
    let Some(weir) = with_flows().await else { return };
    let top = weir.json(&format!("/api/v1/flows/top?{RANGE}&by=dst_port,app&metric=bytes")).await;
    assert_eq!(
        top["items"],
        json!([
            { "key": { "dst_port": 443, "app": "tls" }, "bytes": 2550, "packets": 30, "flows": 5, "tx_bytes": 2500, "rx_bytes": 50, "retransmits": 0 },
            { "key": { "dst_port": 53, "app": "dns" }, "bytes": 2050, "packets": 25, "flows": 5, "tx_bytes": 2000, "rx_bytes": 50, "retransmits": 0 },
        ])
    );
    let top = weir.json(&format!("/api/v1/flows/top?{RANGE}&limit=1&metric=packets&filter=app%3Ddns")).await;
    assert_eq!(top["items"][0]["key"], json!({ "src_ip": "10.0.0.8" }));
    for by in ["nothing", "src_ip,", "src_ip,dst_ip,src_port,dst_port,app", "src_ip;"] {
        let response = weir.get(&format!("/api/v1/flows/top?by={by}")).send().await.unwrap();
        assert_eq!(problem(response).await, (400, "invalid-parameter".into()), "{by}");
    }
}

#[tokio::test]
async fn a_series_has_every_interval() {
    let Some(weir) = with_flows().await else { return };
    let range = "from=2026-06-01T11:59:00Z&to=2026-06-01T12:02:00Z";
    let series = weir.json(&format!("/api/v1/flows/timeseries?{range}&step=1m")).await;
    let bytes: Vec<_> = series["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| (point["time"].clone(), point["bytes"].clone()))
        .collect();
    assert_eq!(
        bytes,
        [
            (json!("2026-06-01T11:59:00.000000Z"), json!(0)),
            (json!("2026-06-01T12:00:00.000000Z"), json!(4600)),
            (json!("2026-06-01T12:01:00.000000Z"), json!(0)),
        ]
    );
    let series = weir.json(&format!("/api/v1/flows/timeseries?{range}&step=30s&by=app&limit=1")).await;
    let groups: Vec<_> = series["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|point| (point["key"]["app"].clone(), point["flows"].clone()))
        .collect();
    assert_eq!(
        (&series["step_seconds"], groups),
        (&json!(30), vec![(json!("tls"), json!(2)), (json!("tls"), json!(3))])
    );
}

#[tokio::test]
async fn a_question_that_makes_no_sense_is_a_problem() {
    let Some(weir) = Weir::start().await else { return };
    for (path, kind) in [
        ("/api/v1/flows?limit=0", "invalid-parameter"),
        ("/api/v1/flows?limit=10001", "invalid-parameter"),
        ("/api/v1/flows?limit=-1", "invalid-parameter"),
        ("/api/v1/flows?limit=many", "invalid-parameter"),
        ("/api/v1/flows?cursor=x", "invalid-parameter"),
        ("/api/v1/flows?from=yesterday", "invalid-parameter"),
        ("/api/v1/flows?from=-1m&to=-2m", "invalid-parameter"),
        ("/api/v1/flows?form=-1m", "invalid-parameter"),
        ("/api/v1/flows?filter=(", "invalid-filter"),
        ("/api/v1/flows/top?metric=beauty", "invalid-parameter"),
        ("/api/v1/flows/timeseries?step=1s&from=-7d", "invalid-parameter"),
        ("/api/v1/flows/timeseries?step=soon", "invalid-parameter"),
    ] {
        let response = weir.get(path).send().await.unwrap();
        assert_eq!(problem(response).await, (400, kind.to_owned()), "{path}");
    }
}
