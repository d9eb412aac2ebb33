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

/// A server-sent event.
#[derive(Clone, Debug)]
struct Told {
    name: String,
    id: String,
    data: Value,
}

/// Reads until so many events came: all that are there then.
async fn told(request: RequestBuilder, count: usize) -> Vec<Told> {
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
            let parsed = events.iter().take(complete).map(|event| Told {
                name: field(event, "event:"),
                id: field(event, "id:"),
                data: serde_json::from_str(&field(event, "data:")).unwrap(),
            });
            return parsed.collect();
        }
        let piece = tokio::time::timeout(std::time::Duration::from_mins(1), body.next()).await;
        text.push_str(std::str::from_utf8(&piece.expect("in time").expect("more").unwrap()).unwrap());
    }
}

/// The same as ids and actions.
async fn read(request: RequestBuilder, count: usize) -> Vec<(String, String)> {
    let all = told(request, count).await.into_iter();
    all.map(|told| (told.id, told.data["action"].as_str().unwrap_or_default().to_owned())).collect()
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

/// Records of flows of one batch: all of one second, each to the next port.
async fn flow(weir: &Weir, sequence: u64, ports: std::ops::Range<u32>, container: &str) {
    let sql = format!(
        "INSERT INTO weir.flows (start_time, end_time, recorded_at, stream_sequence, source, host, flow_id, src_ip, dst_ip, dst_port, \
         protocol, tx_bytes, tx_packets, src_container) SELECT now64(6), now64(6), now() - {ago}, {sequence}, 'ebpf', 'h', number + 1, \
         '::ffff:10.0.0.2', '::ffff:10.0.0.3', {start} + number, 6, 100, 1, '{container}' FROM numbers({count})",
        // Older batches came earlier.
        ago = 1000 - sequence,
        start = ports.start,
        count = ports.len(),
    );
    weir.clickhouse.write(&sql).await.unwrap();
}

#[tokio::test]
async fn flows_are_followed_beside_events_with_a_filter() {
    let Some(weir) = with_container().await else { return };
    flow(&weir, 1, 1..2, "web").await;
    happen(&weir, 1, "web", &["create"]).await;
    let path = "/api/v1/live?filter=src_container%3Dweb&action=die";
    let following = tokio::spawn(told(weir.get(path), 4));
    let mut sequence = 1;
    until("flows and events were read", || {
        sequence += 1;
        let (done, weir) = (following.is_finished(), &weir);
        async move {
            if !done {
                flow(weir, sequence, 443..445, "web").await;
                flow(weir, sequence, 80..81, "other").await;
                happen(weir, sequence, "web", &["start", "die"]).await;
            }
            done
        }
    })
    .await;
    let all = following.await.unwrap();
    let of = |name: &str| all.iter().filter(|told| told.name == name).collect::<Vec<_>>();
    assert!(of("flow").iter().all(|told| told.data["src_container"] == "web"), "{all:?}");
    assert!(of("event").iter().all(|told| told.data["action"] == "die"), "{all:?}");
    assert_eq!(of("flow").len() + of("event").len(), all.len());
    // In the middle of a batch, of flows alone.
    let from_first = told(weir.get("/api/v1/live?kind=flows").header("Last-Event-ID", "0-0-0"), 3).await;
    let again = weir.get("/api/v1/live?kind=flows").header("Last-Event-ID", &from_first[1].id);
    let again = told(again, 1).await;
    assert_eq!((&again[0].id, &again[0].data), (&from_first[2].id, &from_first[2].data));
    for path in ["/api/v1/live?kind=packets", "/api/v1/live?filter=x%3D"] {
        assert_eq!(weir.get(path).send().await.unwrap().status(), StatusCode::BAD_REQUEST, "{path}");
    }
    let response = weir.get("/api/v1/live").header("Last-Event-ID", "1-2-3").send().await.unwrap();
    assert_eq!(problem(response).await, (400, "invalid-parameter".to_owned()));
}

#[tokio::test]
async fn who_is_too_far_behind_is_told_what_it_lost_and_goes_on() {
    let Some(weir) = Weir::start().await else { return };
    flow(&weir, 1, 0..3000, "web").await;
    flow(&weir, 900, 0..7, "web").await;
    let request = weir.get("/api/v1/live?filter=dst_port%3E%3D5").header("Last-Event-ID", "0-0-0");
    let all = told(request, 1001).await;
    assert!(all[..1000].iter().all(|told| told.name == "flow"));
    // 3000 and 7, without the ports from 0 to 4, and without those that were told.
    assert_eq!((all[1000].name.as_str(), &all[1000].data["flows"]), ("skipped", &json!(3000 + 7 - 10 - 1000)));
    let id = all[1000].id.clone();
    flow(&weir, 901, 7..9, "web").await;
    let next = told(weir.get("/api/v1/live?kind=flows").header("Last-Event-ID", id), 1).await;
    assert_eq!(next[0].data["dst_port"], 7);
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

/// Certificates of an authority and of a receiver on loopback, made by openssl. `None` = there is none here.
fn certificates(directory: &std::path::Path) -> Option<()> {
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=weir-test";
    std::fs::write(directory.join("extension"), "subjectAltName=IP:127.0.0.1").unwrap();
    for arguments in [
        format!("req -x509 {new} -keyout ca-key.pem -out ca.pem -days 2"),
        format!("req {new} -keyout key.pem -out request.pem"),
        "x509 -req -in request.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -out cert.pem -days 2 -extfile extension".to_owned(),
    ] {
        let output = std::process::Command::new("openssl").current_dir(directory).args(arguments.split(' ')).output();
        let Ok(output) = output else {
            eprintln!("skipped: there is no openssl");
            return None;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    Some(())
}

/// A listener that speaks TLS.
struct Tls(tokio::net::TcpListener, tokio_rustls::TlsAcceptor);

impl axum::serve::Listener for Tls {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.0.accept().await.unwrap();
            // A client that does not trust this server goes away.
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

#[tokio::test]
async fn an_https_receiver_must_be_who_it_says() {
    use tokio_rustls::rustls::{
        ServerConfig, crypto,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    };
    let directory = tempfile::tempdir().unwrap();
    let Some(()) = certificates(directory.path()) else { return };
    let certificate = CertificateDer::from_pem_file(directory.path().join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.path().join("key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let got = Got::default();
    got.lock().unwrap().push((HeaderMap::new(), Bytes::new()));
    let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", receiver.local_addr().unwrap());
    let router = Router::new().route("/", post(receive)).with_state(Arc::clone(&got));
    let tls = Tls(receiver, tokio_rustls::TlsAcceptor::from(Arc::new(config)));
    let receiving = tokio::spawn(async move { axum::serve(tls, router).await });
    let file = directory.path().join("hooks.json");
    let hook = |name: &str| json!({ "name": name, "url": url, "secret": "0123456789abcdef", "attempts": 1 });
    let mut known = hook("known");
    known["ca_file"] = json!(directory.path().join("ca.pem"));
    std::fs::write(&file, json!({ "webhooks": [known, hook("unknown")] }).to_string()).unwrap();
    let option = format!("--webhooks-file={}", file.display());
    let Some(weir) = Weir::start_with(&[&option]).await else { return };
    let bus = weir.bus().await;
    hooks_have_places(&bus, 2).await;
    happen(&weir, 7, "web", &["die"]).await;
    until("the event was taken", async || got.lock().unwrap().len() == 2).await;
    let (headers, body) = got.lock().unwrap()[1].clone();
    assert!(is_signed(&headers, &body));
    // To a receiver with a certificate of nobody nothing is sent.
    let message = bus.records().await.unwrap().next().await.unwrap();
    let error = message.batch().unwrap_err().to_string();
    assert!(error.starts_with("webhook unknown: 1 attempts, the last: ") && error.contains("certificate"), "{error}");
    assert_eq!(got.lock().unwrap().len(), 2);
    receiving.abort();
}

async fn hooks_have_places(bus: &Bus, count: usize) {
    until("the hooks have places", async || {
        let Ok(bucket) = bus.bucket::<String>(weir_bus::names::WEBHOOKS).await else { return false };
        bucket.list("").await.is_ok_and(|places| places.len() == count)
    })
    .await;
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
    let bus = weir.bus().await;
    hooks_have_places(&bus, 2).await;
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
