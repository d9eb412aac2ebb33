//! Whether NATS and `ClickHouse` are there.

use std::{sync::Arc, time::Duration};

use weir_bus::names;
use weir_service::{Shutdown, chain};

use crate::{App, captures, metrics};

/// How often they are asked.
const EVERY: Duration = Duration::from_secs(2);
/// How often the store is searched for what is left of uploads that were cut off with their service.
const SWEEP: Duration = Duration::from_mins(10);
/// How often captures are looked through for those whose time has come, at least.
const AGE: Duration = Duration::from_mins(5);
/// How often recordings are looked through for those whose service is gone.
const RECORDINGS: Duration = Duration::from_secs(15);
/// An upload to which nothing was added for so long has ended; no shorter than twice the time that one may stand still.
const SWEPT_AFTER: Duration = Duration::from_mins(10);

pub(crate) async fn run(app: Arc<App>, shutdown: Shutdown) {
    tokio::join!(nats(&app, &shutdown), clickhouse(&app, &shutdown), sweep(&app, &shutdown), age(&app, &shutdown));
}

async fn nats(app: &App, shutdown: &Shutdown) {
    let away = |error: &dyn std::fmt::Display| app.health.unmet("nats", format!("NATS is not ready: {error}"));
    away(&"not asked yet");
    if app.any_bus().ready(shutdown, |error| away(&chain(error))).await.is_err() {
        return;
    }
    let mut every = tokio::time::interval(EVERY);
    while tick(&mut every, shutdown).await {
        if app.any_bus().is_connected() {
            app.health.met("nats");
        } else {
            away(&"the connection is lost, connecting again");
        }
    }
}

async fn clickhouse(app: &App, shutdown: &Shutdown) {
    app.health.unmet("clickhouse", "ClickHouse was not asked yet");
    let mut every = tokio::time::interval(EVERY);
    while tick(&mut every, shutdown).await {
        // It asks for a table, so that a database without Weir's tables is not ready.
        match app.reader.query("SELECT count() FROM captures WHERE false").rows::<serde_json::Value>().await {
            Ok(_) => app.health.met("clickhouse"),
            Err(error) => app.health.unmet("clickhouse", format!("ClickHouse is not ready: {}", chain(&error))),
        }
    }
}

/// Removes what is left of uploads whose service was killed in their middle.
async fn sweep(app: &App, shutdown: &Shutdown) {
    let idle = SWEPT_AFTER.max(app.config.upload_idle() * 2);
    let mut every = tokio::time::interval(SWEEP);
    while tick(&mut every, shutdown).await {
        let Ok(uploads) = app.objects(names::UPLOADS).await else {
            // NATS is away or has no store yet: the condition says so.
            every.reset_after(EVERY);
            continue;
        };
        match uploads.sweep(idle).await {
            Ok(swept) => metrics::swept(swept),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "uploads that were cut off stay"),
        }
    }
}

/// Expires captures, queues those that were left without a job, and ends recordings that were left.
async fn age(app: &App, shutdown: &Shutdown) {
    // Often enough that a short life is kept to by a few percent.
    let expiry = Duration::from_secs(app.config.report_ttl / 20).clamp(Duration::from_secs(1), AGE);
    let mut every = tokio::time::interval(expiry);
    let mut lost = tokio::time::interval(AGE);
    let mut recordings = tokio::time::interval(RECORDINGS);
    loop {
        let done = tokio::select! {
            () = shutdown.cancelled() => return,
            _ = every.tick() => captures::expire(app).await.map(drop),
            _ = lost.tick() => captures::queue_again(app).await,
            _ = recordings.tick() => captures::end_lost_recordings(app).await,
        };
        // NATS is away: the condition says so.
        if let Err(error) = done
            && app.any_bus().is_connected()
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "captures cannot be looked through");
        }
    }
}

async fn tick(every: &mut tokio::time::Interval, shutdown: &Shutdown) -> bool {
    tokio::select! {
        () = shutdown.cancelled() => false,
        _ = every.tick() => true,
    }
}
