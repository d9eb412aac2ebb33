//! The service itself.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::App;

/// This description
#[utoipa::path(
    get, path = "/api/v1/openapi.json", tag = "meta",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json"))
)]
pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], crate::document())
}

/// Whether the process lives
#[utoipa::path(
    get, path = "/healthz", tag = "meta",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain"))
)]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the service can answer.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    ready: bool,
    /// Per condition null, or what is missing
    conditions: BTreeMap<&'static str, Option<String>>,
}

/// Whether the service can answer
#[utoipa::path(
    get, path = "/readyz", tag = "meta",
    responses(
        (status = 200, description = "All is there", body = Readiness),
        (status = 503, description = "Something is missing", body = Readiness),
    )
)]
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let ready = app.health.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, conditions: app.health.conditions() })).into_response()
}
