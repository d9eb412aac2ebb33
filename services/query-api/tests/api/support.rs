//! The service with its engines, and a client.

use std::{future::Future, sync::Arc, time::Duration};

use clap::Parser as _;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};
use weir_bus::Bus;
use weir_engines::{
    clickhouse::Limits,
    testing::{ClickHouse, Nats},
};
use weir_query_api::Config;
use weir_service::{Context, Health, Shutdown};

/// How long a state may take to come.
const PATIENCE: Duration = Duration::from_mins(1);

/// The options of the bus as a service has them.
#[derive(clap::Parser)]
struct BusOptions {
    #[command(flatten)]
    nats: weir_bus::Options,
}

/// The service and its engines; all of it ends when it is dropped.
pub(crate) struct Weir {
    pub(crate) nats: Nats,
    pub(crate) clickhouse: ClickHouse,
    pub(crate) client: Client,
    pub(crate) url: String,
    pub(crate) health: Health,
    shutdown: Shutdown,
    service: JoinHandle<anyhow::Result<()>>,
    arguments: Vec<String>,
}

impl Weir {
    /// Starts everything, or says why it cannot.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// The same with further options.
    pub(crate) async fn start_with(options: &[&str]) -> Option<Self> {
        let nats = Nats::start_or_skip().await?;
        let limits =
            Limits { query_seconds: 5, result_rows: 2_000_000, result_bytes: 64 << 20, ..Limits::for_this_machine() };
        // Where NATS is, ClickHouse is.
        let clickhouse = match ClickHouse::start_with(&limits).await {
            Ok(clickhouse) => clickhouse,
            Err(error @ weir_engines::Error::NotFound { .. }) => {
                eprintln!("skipped: {error}");
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        let writer = weir_store::Options {
            clickhouse_url: clickhouse.url(),
            clickhouse_user: clickhouse.writer_user().into(),
            clickhouse_password: clickhouse.writer_password().into(),
        };
        weir_store::schema::migrate(&writer).await.unwrap();
        let mut arguments = vec!["weir-query-api".to_owned(), "--query-seconds=5".into(), "--log=warn".into()];
        arguments.extend([
            format!("--nats-url={}", nats.url()),
            format!("--clickhouse-url={}", clickhouse.url()),
            format!("--clickhouse-user={}", clickhouse.reader_user()),
            format!("--clickhouse-password={}", clickhouse.reader_password()),
        ]);
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        let (url, context, service) = serve(&arguments).await;
        let (shutdown, health) = (context.shutdown, context.health);
        let weir = Self { nats, clickhouse, client: Client::new(), url, health, shutdown, service, arguments };
        until("the service is ready", || async { weir.health.is_ready() }).await;
        Some(weir)
    }

    /// Another service with the same options and engines; its address. It ends with the test.
    pub(crate) async fn beside(&self) -> String {
        let (url, context, _service) = serve(&self.arguments).await;
        until("the other service is ready", || async { context.health.is_ready() }).await;
        url
    }

    /// The bus as another service has it.
    pub(crate) async fn bus(&self) -> Bus {
        let options = BusOptions::parse_from(["test", &format!("--nats-url={}", self.nats.url())]);
        let bus = Bus::connect(&options.nats, "test").await.unwrap();
        until("the bus is there", || async { bus.is_connected() }).await;
        bus
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url))
    }

    pub(crate) fn delete(&self, path: &str) -> RequestBuilder {
        self.client.delete(format!("{}{path}", self.url))
    }

    pub(crate) async fn query(&self, sql: &str) -> Response {
        self.post("/api/v1/query").json(&serde_json::json!({ "sql": sql })).send().await.unwrap()
    }

    /// The body of an answer that should be 200.
    pub(crate) async fn json(&self, path: &str) -> Value {
        let response = self.get(path).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Stops the service in the orderly way.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.service.await.unwrap().unwrap();
    }
}

/// Serves with these arguments, at an address that the kernel chooses.
async fn serve(arguments: &[String]) -> (String, Context, JoinHandle<anyhow::Result<()>>) {
    let config = Arc::new(Config::parse_from(arguments));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let context = Context { shutdown: Shutdown::new(), health: Health::default() };
    let given = Context { shutdown: context.shutdown.clone(), health: context.health.clone() };
    (url, context, tokio::spawn(weir_query_api::run_on(listener, config, given)))
}

/// A problem: its status and the end of its type; anything else is a failure.
pub(crate) async fn problem(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let kind = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    let text = response.text().await.unwrap();
    assert_eq!(kind.as_deref(), Some("application/problem+json"), "{status}: {text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["status"], status, "{body}");
    assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
    let kind = body["type"].as_str().unwrap().strip_prefix("urn:weir:problem:").unwrap().to_owned();
    (status, kind)
}

/// Waits for a state.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut reached: impl FnMut() -> F) {
    let mut every = tokio::time::interval(Duration::from_millis(20));
    let wait = async {
        loop {
            every.tick().await;
            if reached().await {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited in vain until {what}");
}
