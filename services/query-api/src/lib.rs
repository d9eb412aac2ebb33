//! # The path of a request through query-api
//!
//! 1. [`server`] takes the connection; every request gets a span that continues the caller's trace, a place among the requests in hand,
//!    and passes [`guard`]: is it meant for us (Host), does a page of another origin try something (Origin), does it carry the token.
//! 2. [`routes`] holds one file a resource. Parameters are read by [`extract`], so that what is wrong with them is a [`Problem`].
//! 3. Flows and containers become SQL of our own: a time range ([`time`]), a [`weir_filter`] as a condition with parameters, a [`cursor`].
//!    SQL of strangers goes through [`sql`] first.
//! 4. `ClickHouse` answers as a user that can only read. Typed answers are collected (they have a `limit`); answers of `/query` are
//!    passed on as they come, and a client that goes away ends its query.
//! 5. An upload streams through [`upload`] into the object store while it is hashed; then a key, a job and a record say that it is there.
//! 6. Whatever goes wrong is an [`Error`], and [`Error::describe`] is the one place where it becomes HTTP.

mod app;
mod captures;
mod config;
mod cursor;
mod error;
mod events;
mod extract;
mod feed;
mod guard;
mod lingering;
mod metrics;
mod monitor;
mod routes;
mod server;
pub mod sql;
mod time;
mod upload;
mod values;
mod webhooks;

use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use weir_bus::Bus;
use weir_service::Context;
use weir_store::Reader;

use app::App;
pub use config::Config;
pub use error::{Error, PROBLEM_JSON, Problem};
pub use server::document;

/// Runs the service until it is told to stop. Neither NATS nor `ClickHouse` has to be there: what needs them says so until they are.
pub async fn run(config: Arc<Config>, context: Context) -> anyhow::Result<()> {
    let listener = server::listen(&config).await?;
    run_on(listener, config, context).await
}

/// Runs the service on a listener.
pub async fn run_on(listener: TcpListener, config: Arc<Config>, context: Context) -> anyhow::Result<()> {
    let bus = Bus::connect(&config.nats, "weir-query-api").await.context("cannot use NATS")?;
    let reader = Reader::connect(&config.clickhouse);
    let app = Arc::new(App::new(config, &context, bus, reader, listener.local_addr()?));
    let hooks = webhooks::read(app.config.webhooks_file.as_deref()).context("cannot use --webhooks-file")?;
    let delivering = tokio::spawn(webhooks::run(Arc::clone(&app), hooks));
    let monitor = tokio::spawn(monitor::run(Arc::clone(&app), context.shutdown.clone()));
    let tasks = app.tasks.clone();
    server::serve(app, listener, context.shutdown).await;
    end(&tasks).await;
    delivering.await.context("webhooks failed")?;
    monitor.await.context("the monitor of NATS and ClickHouse failed")
}

/// How long the service waits at its end for recordings, which then have been told that it is enough.
const LAST_PIECES: std::time::Duration = std::time::Duration::from_secs(12);

async fn end(tasks: &tokio_util::task::TaskTracker) {
    tasks.close();
    if tokio::time::timeout(LAST_PIECES, tasks.wait()).await.is_err() {
        tracing::warn!(recordings = tasks.len(), "recordings are left as they are");
    }
}
