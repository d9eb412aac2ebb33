//! `/api/health`, `/api/stats` and `/api/live`, beside `/healthz`, `/readyz` and `/metrics` that every service has.

use std::{convert::Infallible, sync::Arc, time::Instant};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use futures::{Stream, StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use weir_filter::{Evaluator, FlowSubject};
use weir_service::Health;

use crate::{
    live::{Heard, Listener, Live},
    metrics::Snapshot,
    output::object,
};

/// What the routes tell of.
#[derive(Clone)]
pub struct Told {
    /// Records as they come.
    pub live: Live,
    /// The conditions of readiness, once the service runs.
    pub health: Arc<std::sync::OnceLock<Health>>,
    /// Name of the host in the records.
    pub host: Arc<str>,
    /// When this life began.
    pub since: Instant,
}

impl Told {
    /// For a service that begins now.
    #[must_use]
    pub fn new(host: &str) -> Self {
        Self { live: Live::default(), health: Arc::default(), host: host.into(), since: Instant::now() }
    }
}

/// The routes.
pub fn routes(told: Told) -> Router {
    Router::new()
        .route("/api/health", get(health))
        .route("/api/stats", get(stats))
        .route("/api/live", get(live))
        .with_state(told)
}

/// 200 or 503, with what is wrong.
async fn health(State(told): State<Told>) -> Response {
    let health = told.health.get();
    let ready = health.is_some_and(Health::is_ready);
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let conditions = health.map(Health::conditions);
    let body = json!({
        "status": if ready { "ok" } else { "degraded" },
        "conditions": conditions,
        "version": env!("CARGO_PKG_VERSION"),
        "host": &*told.host,
        "uptime_seconds": told.since.elapsed().as_secs(),
    });
    (status, Json(body)).into_response()
}

/// The ledger and the table, as of the last drain.
async fn stats(State(told): State<Told>) -> Json<Value> {
    let Snapshot { ledger, reported, flows, capacity } = crate::metrics::latest();
    let mut object = crate::metrics::ledger_object(&ledger, &reported);
    object.insert("host".into(), (&*told.host).into());
    object.insert("uptime_seconds".into(), told.since.elapsed().as_secs().into());
    object.insert("flows".into(), json!({ "live": flows, "capacity": capacity, "opened": ledger.flows_opened }));
    Json(Value::Object(object))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LiveParameters {
    /// In the filter language.
    #[serde(default)]
    filter: String,
}

/// Records as they come: server-sent events, or with `Accept: application/x-ndjson` one JSON object a line. Who reads too slowly misses
/// records, and is told how many batches.
async fn live(
    State(told): State<Told>,
    Query(LiveParameters { filter }): Query<LiveParameters>,
    headers: HeaderMap,
) -> Response {
    let filter = match Evaluator::read(&filter) {
        Ok(filter) => filter,
        Err(error) => return problem(StatusCode::BAD_REQUEST, "invalid-filter", &error.to_string()),
    };
    let Some(listener) = told.live.listen() else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "busy", "as many listen already as may");
    };
    let wanted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let told = said(listener, filter, told.host);
    if wanted.contains("application/x-ndjson") {
        let lines = told.map(|said| Ok::<_, Infallible>(said.line()));
        return ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response();
    }
    let events = told.map(|said| Ok::<_, Infallible>(said.event()));
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}

enum Said {
    Flow(Value),
    Skipped(u64),
}

impl Said {
    fn line(self) -> String {
        match self {
            Self::Flow(flow) => format!("{flow}\n"),
            Self::Skipped(batches) => format!("{}\n", json!({ "skipped_batches": batches })),
        }
    }

    fn event(self) -> Event {
        match self {
            Self::Flow(flow) => Event::default().event("flow").data(flow.to_string()),
            Self::Skipped(batches) => Event::default().event("skipped").data(json!({ "batches": batches }).to_string()),
        }
    }
}

fn said(listener: Listener, filter: Evaluator, host: Arc<str>) -> impl Stream<Item = Said> {
    let batches = stream::unfold(listener, async |mut listener| listener.next().await.map(|heard| (heard, listener)));
    batches.flat_map(move |heard| {
        let said: Vec<Said> = match heard {
            Heard::Skipped(batches) => vec![Said::Skipped(batches)],
            Heard::Flows(flows) => (flows.iter())
                .filter(|flow| filter.holds(&FlowSubject { flow, host: &host, source: "ebpf" }))
                .map(|flow| Said::Flow(object(flow, &host)))
                .collect(),
        };
        stream::iter(said)
    })
}

/// RFC 9457.
fn problem(status: StatusCode, kind: &str, detail: &str) -> Response {
    let body = json!({ "type": format!("urn:weir:problem:{kind}"), "title": kind, "status": status.as_u16(), "detail": detail });
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
