use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Weir, problem, until};

#[tokio::test]
async fn every_failure_is_a_problem() {
    let Some(weir) = Weir::start().await else { return };
    let json = "application/json";
    for (method, path, kind, body, expected) in [
        ("GET", "/", None, "", (404, "no-such-path")),
        ("GET", "/api/v1/nothing", None, "", (404, "no-such-path")),
        ("GET", "/api/v1/flows/", None, "", (404, "no-such-path")),
        ("GET", "/api/v1/query", None, "", (405, "method-not-allowed")),
        ("PUT", "/api/v1/captures", None, "", (405, "method-not-allowed")),
        ("DELETE", "/api/v1/flows", None, "", (405, "method-not-allowed")),
        ("POST", "/api/v1/query", None, "{}", (415, "unsupported-media-type")),
        ("POST", "/api/v1/query", Some("text/plain"), "{\"sql\":\"SELECT 1\"}", (415, "unsupported-media-type")),
        ("POST", "/api/v1/query", Some(json), "", (422, "invalid-body")),
        ("POST", "/api/v1/query", Some(json), "{", (422, "invalid-body")),
        ("POST", "/api/v1/query", Some(json), "[]", (422, "invalid-body")),
        ("POST", "/api/v1/query", Some(json), "{}", (422, "invalid-body")),
        ("POST", "/api/v1/query", Some(json), "{\"sql\":1}", (422, "invalid-body")),
        ("POST", "/api/v1/query", Some(json), "{\"sql\":\"SELECT 1\",\"format\":\"xml\"}", (422, "invalid-body")),
        ("POST", "/api/v1/query", Some(json), "{\"sql\":\"SELECT 1\",\"fromat\":\"csv\"}", (422, "invalid-body")),
        ("GET", "/api/v1/captures/not-a-uuid", None, "", (400, "invalid-parameter")),
        ("GET", "/api/v1/captures/%ff", None, "", (400, "invalid-parameter")),
        ("GET", "/api/v1/captures/8b0c9d1e-6c1f-4b7e-9a1b-000000000000", None, "", (404, "not-found")),
    ] {
        let mut request = weir.client.request(method.parse().unwrap(), format!("{}{path}", weir.url)).body(body);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        if expected.0 == 405 {
            assert!(response.headers().contains_key("allow"), "{method} {path}");
        }
        assert_eq!(problem(response).await, (expected.0, expected.1.to_owned()), "{method} {path} {body}");
    }
    let large = json!({ "sql": format!("SELECT '{}'", "x".repeat(10 << 20)) });
    let response = weir.post("/api/v1/query").json(&large).send().await;
    // The answer may come before the body was sent, and the client may then see only that the connection closed.
    if let Ok(response) = response {
        assert_eq!(problem(response).await, (413, "too-large".into()));
    }
    assert_eq!(weir.get("/healthz").send().await.unwrap().text().await.unwrap(), "ok\n");
    assert_eq!(
        weir.json("/readyz").await,
        json!({ "ready": true, "conditions": { "nats": null, "clickhouse": null } })
    );
    assert_eq!(weir.json("/api/v1/openapi.json").await["openapi"], "3.1.0");
}

#[tokio::test]
async fn pages_of_others_cannot_ask_or_change_anything() {
    let Some(weir) = Weir::start_with(&["--allowed-host=weir.example"]).await else { return };
    let port = weir.url.rsplit(':').next().unwrap().to_owned();
    for (host, status) in [
        (format!("localhost:{port}"), 200),
        (format!("127.0.0.1:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        ("weir.example".into(), 200),
        ("evil.example".into(), 421),
        (format!("evil.example:{port}"), 421),
        ("localhost.evil.example".into(), 421),
        ("127.0.0.1.evil.example".into(), 421),
        ("192.0.2.1".into(), 421),
    ] {
        let response = weir.get("/api/v1/openapi.json").header("host", &host).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{host}");
        if status != 200 {
            assert_eq!(problem(response).await.1, "unknown-host");
        }
    }
    for (origin, refused) in
        [(weir.url.as_str(), false), ("http://evil.example", true), ("null", true), ("http://127.0.0.1:1", true)]
    {
        let response = weir
            .post("/api/v1/query")
            .header("origin", origin)
            .json(&json!({ "sql": "SELECT 1" }))
            .send()
            .await
            .unwrap();
        if refused {
            assert_eq!(problem(response).await, (403, "cross-origin".into()), "{origin}");
        } else {
            assert_eq!(response.status(), StatusCode::OK, "{origin}");
        }
    }
}

#[tokio::test]
async fn with_a_token_every_request_below_api_needs_it() {
    let Some(weir) = Weir::start_with(&["--api-token=s3cret"]).await else { return };
    for path in ["/api/v1/flows", "/api/v1/openapi.json", "/api/v1/nothing"] {
        for header in [None, Some("Bearer wrong"), Some("Basic s3cret"), Some("s3cret"), Some("Bearer ")] {
            let mut request = weir.get(path);
            if let Some(header) = header {
                request = request.header("authorization", header);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            assert_eq!(problem(response).await, (401, "unauthorized".into()), "{path} {header:?}");
        }
    }
    let response = weir.get("/api/v1/flows").bearer_auth("s3cret").header("host", "any.example").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(weir.get("/readyz").send().await.unwrap().status(), StatusCode::OK);
}

#[test]
fn other_hosts_cannot_ask_without_a_token() {
    let service = std::process::Command::new(env!("CARGO_BIN_EXE_weir-query-api"))
        .args(["--listen=0.0.0.0:0", "--nats-url=nats://127.0.0.1:1"])
        .env_remove("WEIR_API_TOKEN")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&service.stderr).into_owned();
    assert!(!service.status.success() && said.contains("WEIR_API_TOKEN"), "{said}");
}

#[tokio::test]
async fn an_engine_that_is_away_is_said_and_the_rest_goes_on() {
    let Some(mut weir) = Weir::start().await else { return };
    weir.clickhouse.kill().await;
    for path in ["/api/v1/flows", "/api/v1/flows/top", "/api/v1/containers", "/api/v1/containers/x"] {
        let response = weir.get(path).send().await.unwrap();
        assert!(response.headers().contains_key("retry-after"));
        assert_eq!(problem(response).await, (503, "clickhouse-away".into()), "{path}");
    }
    assert_eq!(problem(weir.query("SELECT 1").await).await, (503, "clickhouse-away".into()));
    assert_eq!(weir.json("/api/v1/captures").await, json!({ "items": [], "next_cursor": null }));
    until("the loss is seen", || async { weir.health.conditions()["clickhouse"].is_some() }).await;
    assert_eq!(weir.get("/readyz").send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    weir.clickhouse.restart().await.unwrap();
    until("it is back", || async { weir.health.is_ready() }).await;
    assert_eq!(weir.query("SELECT 1").await.status(), StatusCode::OK);

    weir.nats.kill().await;
    until("the loss is seen", || async { weir.health.conditions()["nats"].is_some() }).await;
    let response = weir.post("/api/v1/captures").body("\u{a}\r\r\n...").send().await.unwrap();
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(problem(response).await, (503, "nats-away".into()));
    assert_eq!(problem(weir.get("/api/v1/captures").send().await.unwrap()).await.1, "nats-away");
    assert_eq!(weir.query("SELECT 1").await.status(), StatusCode::OK);
    weir.nats.restart().await.unwrap();
    until("it is back", || async { weir.health.is_ready() }).await;
    assert_eq!(weir.get("/api/v1/captures").send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_engine_that_hangs_costs_a_bounded_time() {
    let Some(weir) = Weir::start().await else { return };
    weir.clickhouse.pause();
    let answer = tokio::time::timeout(Duration::from_secs(30), weir.query("SELECT 1")).await;
    weir.clickhouse.resume();
    let (status, _) = problem(answer.expect("it is given up")).await;
    assert!(status == 422 || status == 503, "{status}");
}

#[tokio::test]
async fn what_is_no_http_is_answered_or_closed() {
    let Some(weir) = Weir::start().await else { return };
    let address = weir.url.strip_prefix("http://").unwrap();
    for bytes in [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0\0\0\0\r\n\r\n"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // A reset is an answer, too.
        let _end = stream.read_to_end(&mut answer).await;
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.1 5"),
            "{bytes:?}"
        );
    }
    let _: Value = weir.json("/readyz").await;
}

/// A program that is killed with the test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.0.kill();
        let _status = self.0.wait();
    }
}

#[tokio::test]
async fn the_program_starts_without_its_engines_and_says_what_is_missing() {
    let mut program = Running(
        std::process::Command::new(env!("CARGO_BIN_EXE_weir-query-api"))
            .args(["--listen=127.0.0.1:0", "--nats-url=nats://127.0.0.1:1", "--clickhouse-url=http://127.0.0.1:1"])
            .env_remove("WEIR_API_TOKEN")
            .env("WEIR_LOG", "info")
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut said = std::io::BufRead::lines(std::io::BufReader::new(program.0.stderr.take().unwrap()));
    let mut address = |of: &str| {
        let line = said.by_ref().map(Result::unwrap).find(|line| line.contains(of)).expect("it says where it listens");
        let start = line.find("127.0.0.1:").unwrap();
        line[start..].split_whitespace().next().unwrap().to_owned()
    };
    let (health, api) = (address("health endpoints are up"), address("the API is up"));
    let client = reqwest::Client::new();
    let get = |address: &str, path: &str| client.get(format!("http://{address}{path}")).send();
    for address in [&health, &api] {
        until("both are said to be missing", || async {
            let ready = get(address, "/readyz").await.unwrap();
            assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
            let conditions = ready.json::<Value>().await.unwrap()["conditions"].to_string();
            conditions.matches("does not answer").count() == 2
        })
        .await;
    }
    assert_eq!(problem(get(&api, "/api/v1/flows").await.unwrap()).await, (503, "clickhouse-away".into()));
    assert_eq!(problem(get(&api, "/api/v1/captures").await.unwrap()).await, (503, "nats-away".into()));
    let metrics = get(&health, "/metrics").await.unwrap().text().await.unwrap();
    let counted = "weir_http_requests_total{method=\"GET\",route=\"/api/v1/flows\",status=\"503\"} 1";
    assert!(metrics.contains(counted) && metrics.contains("weir_http_request_seconds"), "{metrics}");
}

#[tokio::test]
async fn it_stops_when_told_to() {
    let Some(weir) = Weir::start().await else { return };
    assert_eq!(weir.query("SELECT 1").await.status(), StatusCode::OK);
    weir.stop().await;
}
