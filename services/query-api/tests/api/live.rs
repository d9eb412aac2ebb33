use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode as Status, routing::post};
use futures::StreamExt as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use weir_bus::Bus;

use crate::support::{Weir, problem, until};

/// Events of a container: one row each, all of one batch.
async fn happen(weir: &Weir, sequence: u64, container: &str, actions: &[&str]) {
    let row = |(n, action): (usize, &&str)| {
        format!(
            "(now64(6) + INTERVAL {n} MILLISECOND, now(), {sequence}, 'h', 'docker', '{container}-id', '{container}', 'shop:1', '{action}', \
             {{'team': 'a'}}, map())"
        )
    };
    let rows: Vec<_> = actions.iter().enumerate().map(row).collect();
    let columns =
        "time, recorded_at, stream_sequence, host, runtime, container_id, name, image, action, labels, attributes";
    weir.clickhouse
        .write(&format!("INSERT INTO weir.container_events ({columns}) VALUES {}", rows.join(",")))
        .await
        .unwrap();
}

async fn with_container() -> Option<Weir> {
    let weir = Weir::start().await?;
    exist(&weir).await;
    Some(weir)
}

async fn exist(weir: &Weir) {
    weir.clickhouse
        .write(
            "INSERT INTO weir.containers (host, runtime, container_id, name, labels, networks, started_at, state, observed_at) \
             VALUES ('h', 'docker', 'web-id', 'web', map(), [], now(), 'running', now())",
        )
        .await
        .unwrap();
}

/// Reads until so many events came: their ids and actions.
async fn read(request: RequestBuilder, count: usize) -> Vec<(String, String)> {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let (mut body, mut text) = (response.bytes_stream(), String::new());
    loop {
        let events: Vec<_> = text.split("\n\n").filter(|event| event.contains("data:")).collect();
        let complete = if text.ends_with("\n\n") { events.len() } else { events.len().saturating_sub(1) };
        if complete >= count {
            let field = |event: &str, name: &str| {
                event.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
            };
            let parsed = events.iter().take(complete).map(|event| {
                let data: Value = serde_json::from_str(&field(event, "data:")).unwrap();
                (field(event, "id:"), data["action"].as_str().unwrap_or_default().to_owned())
            });
            return parsed.collect();
        }
        let piece = tokio::time::timeout(std::time::Duration::from_mins(1), body.next()).await;
        text.push_str(std::str::from_utf8(&piece.expect("in time").expect("more").unwrap()).unwrap());
    }
}

fn actions(events: &[(String, String)]) -> Vec<&str> {
    events.iter().map(|(_, action)| action.as_str()).collect()
}

#[tokio::test]
async fn events_of_a_container_are_followed_and_taken_up_again() {
    let Some(weir) = with_container().await else { return };
    happen(&weir, 1, "web", &["create"]).await;
    let path = "/api/v1/containers/web/events?follow=true";
    let first = tokio::spawn(read(weir.get(path), 2));
    let all = tokio::spawn(read(weir.get("/api/v1/live?kind=events&action=die,oom&label=team%3Da"), 2));
    let metric = async || weir.clickhouse.read("SELECT 1").await.is_ok();
    until("the engine answers", metric).await;
    // Whether it follows already is seen by what it gets: more batches come until it has its two.
    let mut sequence = 1;
    until("two events were read", || {
        sequence += 1;
        let (done, weir) = (first.is_finished() && all.is_finished(), &weir);
        async move {
            if !done {
                happen(weir, sequence, "other", &["die"]).await;
                happen(weir, sequence + 1000, "web", &["start", "oom", "die"]).await;
            }
            done
        }
    })
    .await;
    let (first, all) = (first.await.unwrap(), all.await.unwrap());
    assert_eq!(actions(&first)[..2], ["start", "oom"]);
    assert!(all.iter().all(|(_, action)| ["die", "oom"].contains(&action.as_str())));
    // In the middle of a batch.
    let (id, _) = &first[1];
    let again = read(weir.get(path).header("Last-Event-ID", id), 1).await;
    assert_eq!(actions(&again)[0], "die");
    assert_ne!(&again[0].0, id);
    for (path, id) in [(path, "x"), ("/api/v1/containers/web/stats?follow=true&from=-1h", "1-1-1")] {
        let response = weir.get(path).header("Last-Event-ID", id).send().await.unwrap();
        assert_eq!(problem(response).await, (400, "invalid-parameter".to_owned()));
    }
}

#[tokio::test]
async fn statistics_are_followed_and_followers_are_counted() {
    let Some(weir) = Weir::start_with(&["--max-followers=1"]).await else { return };
    exist(&weir).await;
    let insert = "INSERT INTO weir.container_stats (time, recorded_at, stream_sequence, host, runtime, container_id, name, cpu_percent, missing) \
                  VALUES (now64(6), now(), 5, 'h', 'docker', 'web-id', 'web', 12.5, map())";
    weir.clickhouse.write(insert).await.unwrap();
    let path = "/api/v1/containers/web/stats?follow=true";
    let held = weir.get(path).header("Last-Event-ID", "0-0-0").send().await.unwrap();
    assert_eq!(held.status(), StatusCode::OK);
    let response = weir.get(path).send().await.unwrap();
    assert_eq!(problem(response).await, (503, "overloaded".to_owned()));
    let piece = held.bytes_stream().next().await.unwrap().unwrap();
    let text = std::str::from_utf8(&piece).unwrap();
    assert!(text.contains("event: stats") && text.contains("\"cpu_percent\":12.5"), "{text}");
    until("the place is free again", async || weir.get(path).send().await.unwrap().status() == StatusCode::OK).await;
}

/// What a receiver got: signature and time as they were, and the body.
type Got = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

/// Answers the first request with 500, and those that are not signed with 401.
async fn receive(State(got): State<Got>, headers: HeaderMap, body: Bytes) -> Status {
    let mut got = got.lock().unwrap();
    got.push((headers, body));
    if got.len() == 1 { Status::INTERNAL_SERVER_ERROR } else { Status::OK }
}

fn is_signed(headers: &HeaderMap, body: &[u8]) -> bool {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let mut mac = Hmac::<Sha256>::new_from_slice(b"0123456789abcdef").unwrap();
    mac.update(format!("{}.", header("weir-timestamp")).as_bytes());
    mac.update(body);
    let expected = mac.finalize().into_bytes().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
    header("weir-signature") == format!("sha256={expected}")
}

#[tokio::test]
async fn events_are_posted_signed_until_they_are_taken_and_else_become_dead_letters() {
    let got = Got::default();
    let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", receiver.local_addr().unwrap());
    let router = Router::new().route("/taken", post(receive)).with_state(Arc::clone(&got));
    let receiving = tokio::spawn(async move { axum::serve(receiver, router).await });
    let file = tempfile::NamedTempFile::new().unwrap();
    let hook = |name: &str| json!({ "name": name, "url": format!("{url}/{name}"), "secret": "0123456789abcdef", "filter": { "actions": ["die"] } });
    std::fs::write(file.path(), json!({ "webhooks": [hook("taken"), hook("nowhere")] }).to_string()).unwrap();
    let option = format!("--webhooks-file={}", file.path().display());
    let Some(weir) = Weir::start_with(&[&option]).await else { return };
    let options = weir_bus::Options {
        nats_url: weir.nats.url(),
        nats_credentials: None,
        records_max_bytes: 1 << 20,
        uploads_max_bytes: 1 << 20,
    };
    let bus = Bus::connect(&options, "test").await.unwrap();
    until("both hooks have a place", async || {
        let Ok(bucket) = bus.bucket::<String>(weir_bus::names::WEBHOOKS).await else { return false };
        bucket.list("").await.is_ok_and(|places| places.len() == 2)
    })
    .await;
    happen(&weir, 7, "web", &["start", "die"]).await;
    until("the event was taken", async || got.lock().unwrap().len() == 2).await;
    let taken = got.lock().unwrap().clone();
    for (headers, body) in &taken {
        assert!(is_signed(headers, body));
        let body: Value = serde_json::from_slice(body).unwrap();
        assert_eq!((&body["event"]["action"], &body["event"]["container_id"]), (&json!("die"), &json!("web-id")));
        assert_eq!(body["id"], headers["weir-delivery"].to_str().unwrap());
    }
    // The other receiver has no such path.
    let mut records = bus.records().await.unwrap();
    let message = records.next().await.unwrap();
    assert_eq!(message.subject(), weir_bus::names::RECORDS_DEAD);
    let error = message.batch().unwrap_err();
    assert_eq!(
        (error.reason(), error.to_string().as_str()),
        ("undeliverable", "webhook nowhere: the receiver answers 404 Not Found")
    );
    receiving.abort();
}
