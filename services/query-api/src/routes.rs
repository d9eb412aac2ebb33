//! What is answered, a file a resource.

mod captures;
mod containers;
mod flows;
mod live;
mod meta;
mod query;
mod questions;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{App, Error};

/// The head of the description.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Weir",
        description = "Flows, containers and captures of the network, as records that can be asked.\n\nTimes are RFC 3339 or relative to now (`-15m`). Numbers of 64 bits that name something are strings. Lists take `limit` and `cursor`. Every error is `application/problem+json` (RFC 9457) with a stable `type`.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    security((), ("token" = [])),
    tags(
        (name = "query", description = "SQL"),
        (name = "flows", description = "Who spoke with whom, how much and how well"),
        (name = "captures", description = "Uploaded captures and their analysis"),
        (name = "containers", description = "Containers, what they used and what happened to them"),
        (name = "questions", description = "Questions about containers and their traffic that have an answer ready"),
        (name = "meta", description = "The service itself")
    )
)]
struct Head;

/// The columns of an event that is followed, besides whose it is.
pub(crate) const EVENT_COLUMNS: &str = "time, runtime, name, image, action, exit_code, labels, attributes";
/// The columns of a sample that is followed, besides whose it is.
pub(crate) use containers::STATS as STATS_COLUMNS;

/// Every route with its description.
pub(crate) fn all() -> OpenApiRouter<Arc<App>> {
    let uploads = OpenApiRouter::new()
        .routes(routes!(captures::list, captures::upload))
        // An upload has a limit of its own.
        .layer(DefaultBodyLimit::disable());
    OpenApiRouter::with_openapi(Head::openapi())
        .routes(routes!(query::query))
        .routes(routes!(flows::list))
        .routes(routes!(flows::sums::top))
        .routes(routes!(flows::sums::timeseries))
        .merge(uploads)
        .routes(routes!(captures::get, captures::delete))
        .routes(routes!(captures::report))
        .routes(routes!(captures::events))
        .routes(routes!(captures::packets))
        .routes(routes!(captures::cancel))
        .routes(routes!(captures::analyse))
        .routes(routes!(captures::record))
        .routes(routes!(captures::stop))
        .routes(routes!(containers::list))
        .routes(routes!(containers::get))
        .routes(routes!(containers::stats))
        .routes(routes!(containers::events))
        .routes(routes!(containers::flows))
        .routes(routes!(live::live))
        .routes(routes!(questions::list))
        .routes(routes!(questions::ask))
        .routes(routes!(meta::openapi))
        .routes(routes!(meta::healthz))
        .routes(routes!(meta::readyz))
}

/// A query of our own whose times come as [`crate::values::Moment`] reads them.
pub(crate) fn typed(app: &App, sql: &str) -> weir_store::Query {
    app.reader
        .query(sql)
        .setting("max_execution_time", &app.config.query_seconds.max(1).to_string())
        .setting("date_time_output_format", "iso")
}

/// The rows of a query of our own.
async fn rows<T: serde::de::DeserializeOwned>(query: weir_store::Query) -> Result<Vec<T>, Error> {
    query.rows().await.map_err(Error::of_typed)
}
