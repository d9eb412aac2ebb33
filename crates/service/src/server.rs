//! `/healthz`, `/readyz` and `/metrics`.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use weir_telemetry::Telemetry;

use crate::{Health, Options, http};

/// The running endpoints; they end with the runtime, so that a service that is draining still answers.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
}

struct Shared {
    health: Health,
    telemetry: Telemetry,
    token: Option<String>,
}

pub(crate) async fn start(
    options: &Options,
    health: Health,
    telemetry: Telemetry,
    routes: Router,
) -> anyhow::Result<Server> {
    anyhow::ensure!(
        options.health_listen.ip().is_loopback()
            || options.health_token.as_ref().is_some_and(|token| !token.is_empty()),
        "--health-listen {} is reachable from other hosts: set WEIR_HEALTH_TOKEN, or listen on 127.0.0.1",
        options.health_listen
    );
    let listener = TcpListener::bind(options.health_listen)
        .await
        .with_context(|| format!("cannot listen on --health-listen {}", options.health_listen))?;
    let address = listener.local_addr()?;
    let shared = Arc::new(Shared { health, telemetry, token: options.health_token.clone() });
    let guarded = Router::new().route("/metrics", get(metrics)).with_state(shared.clone()).merge(routes);
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(shared.clone())
        .merge(guarded.layer(from_fn_with_state(shared.clone(), with_token)));
    tokio::spawn(http::serve(listener, router, http::Limits::default(), CancellationToken::new()));
    tokio::spawn(async move {
        // The recorder keeps samples until somebody renders or tidies.
        let mut every = tokio::time::interval(std::time::Duration::from_secs(5));
        loop {
            every.tick().await;
            shared.telemetry.upkeep();
        }
    });
    Ok(Server { address })
}

/// 200 or 503 with `{"ready": bool, "conditions": {name: null | reason}}`, and `"notes": {about: text}` where there are any.
async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let ready = shared.health.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut body = serde_json::json!({ "ready": ready, "conditions": shared.health.conditions() });
    let notes = shared.health.notes();
    if !notes.is_empty() {
        body["notes"] = serde_json::json!(notes);
    }
    (status, Json(body)).into_response()
}

/// Lets pass who has the token, if there is one.
async fn with_token(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if let Some(token) = &shared.token {
        let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if given.and_then(|value| value.strip_prefix("Bearer ")) != Some(token) {
            return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer")], "a bearer token is needed\n")
                .into_response();
        }
    }
    next.run(request).await
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.telemetry.render_metrics()).into_response()
}
