use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Weir, problem};

async fn with_containers() -> Option<Weir> {
    let weir = Weir::start().await?;
    for (id, name, image, started, state, labels) in [
        ("aaa111", "web", "nginx:1", "2026-06-01 10:00:00", "exited", "{'team': 'a', 'tier': 'front'}"),
        ("aaa111", "web", "nginx:1", "2026-06-01 11:00:00", "exited", "{'team': 'a', 'tier': 'front'}"),
        ("aab222", "web", "nginx:2", "2026-06-01 12:00:00", "running", "{'team': 'a', 'tier': 'front'}"),
        ("ccc333", "db", "postgres", "2026-06-01 09:00:00", "running", "{'team': 'b'}"),
    ] {
        // A life is stated twice, and the later statement holds.
        for observed in ["00", "30"] {
            let state = if observed == "00" { "created" } else { state };
            let sql = format!(
                "INSERT INTO weir.containers (host, runtime, container_id, name, image, labels, ip_addresses, networks, started_at, state, observed_at) \
                 VALUES ('h', 'docker', '{id}', '{name}', '{image}', {labels}, ['::ffff:172.17.0.2'], \
                 [('bridge', 'n1', '::ffff:172.17.0.2', '02:42:ac:11:00:02')], '{started}', '{state}', '2026-06-01 13:00:{observed}')"
            );
            weir.clickhouse.write(&sql).await.unwrap();
        }
    }
    weir.clickhouse
        .write(
            "INSERT INTO weir.container_stats (time, host, runtime, container_id, name, cpu_percent, memory_bytes, missing) \
             SELECT now64(6) - INTERVAL number SECOND, 'h', 'docker', 'aab222', 'web', if(number = 4, NULL, 12.5), 1000 + number, map() FROM numbers(5)",
        )
        .await
        .unwrap();
    weir.clickhouse
        .write(
            "INSERT INTO weir.container_events (time, host, runtime, container_id, name, action, exit_code) \
             SELECT now64(6) - INTERVAL number SECOND, 'h', 'docker', 'aab222', 'web', ['start', 'create'][number + 1], NULL FROM numbers(2)",
        )
        .await
        .unwrap();
    Some(weir)
}

#[tokio::test]
async fn containers_are_listed_with_their_last_life_and_filters() {
    let Some(weir) = with_containers().await else { return };
    let ids = async |query: &str| -> Vec<String> {
        let page = weir.json(&format!("/api/v1/containers?{query}")).await;
        page["items"].as_array().unwrap().iter().map(|item| item["container_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("").await, ["aab222", "aaa111", "ccc333"]);
    assert_eq!(ids("state=running").await, ["aab222", "ccc333"]);
    assert_eq!(ids("label=tier").await, ["aab222", "aaa111"]);
    assert_eq!(ids("label=team%3Db").await, ["ccc333"]);
    assert_eq!(ids("label=team%3Da,tier%3Dfront&state=exited").await, ["aaa111"]);
    assert_eq!(ids("image=nginx:1&network=bridge&name=web&host=h").await, ["aaa111"]);
    assert_eq!(ids("network=none").await, Vec::<String>::new());
    let first = weir.json("/api/v1/containers?limit=2").await;
    let cursor = first["next_cursor"].as_str().unwrap();
    assert_eq!(ids(&format!("limit=2&cursor={cursor}")).await, ["ccc333"]);
}

#[tokio::test]
async fn a_container_is_found_by_id_beginning_or_name() {
    let Some(weir) = with_containers().await else { return };
    for (asked, id) in [("aaa111", "aaa111"), ("aab", "aab222"), ("ccc", "ccc333"), ("db", "ccc333"), ("web", "aab222")]
    {
        let container = weir.json(&format!("/api/v1/containers/{asked}")).await;
        assert_eq!(container["container_id"], id, "{asked}");
        assert_eq!(container["ip_addresses"], json!(["172.17.0.2"]));
    }
    let container = weir.json("/api/v1/containers/aaa111").await;
    assert_eq!(
        (container["lives"].as_array().unwrap().len(), &container["started_at"]),
        (2, &json!("2026-06-01T11:00:00.000000Z"))
    );
    assert_eq!((&container["state"], &container["finished_at"]), (&json!("exited"), &Value::Null));
    for (asked, expected) in
        [("aa", (409, "ambiguous")), ("nobody", (404, "not-found")), ("%27%20OR%201", (404, "not-found"))]
    {
        for end in ["", "/stats", "/events", "/flows"] {
            let response = weir.get(&format!("/api/v1/containers/{asked}{end}")).send().await.unwrap();
            assert_eq!(problem(response).await, (expected.0, expected.1.to_owned()), "{asked}{end}");
        }
    }
}

#[tokio::test]
async fn what_a_container_used_and_did_comes_in_parts() {
    let Some(weir) = with_containers().await else { return };
    let mut memory = Vec::new();
    let mut path = "/api/v1/containers/web/stats?from=-5m&limit=2".to_owned();
    loop {
        let part = weir.json(&path).await;
        memory.extend(part["items"].as_array().unwrap().iter().map(|item| item["memory_bytes"].as_u64().unwrap()));
        let Some(cursor) = part["next_cursor"].as_str() else { break };
        path = format!("/api/v1/containers/web/stats?limit=2&cursor={cursor}");
    }
    assert_eq!(memory, [1000, 1001, 1002, 1003, 1004]);
    let events = weir.json("/api/v1/containers/web/events").await;
    let actions: Vec<_> =
        events["items"].as_array().unwrap().iter().map(|item| item["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["start", "create"]);
    let flows = weir.get("/api/v1/containers/web/flows?filter=port%3D80").send().await.unwrap();
    assert_eq!(flows.status(), StatusCode::OK);
}
