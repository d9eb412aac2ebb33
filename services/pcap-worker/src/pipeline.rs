//! The wiring: the queue of jobs, and one job after the other.

use std::time::Duration;

use anyhow::Context as _;
use tracing::warn;
use weir_bus::{Bus, JobsReader, names};
use weir_service::Context;

use crate::carve;
use crate::config::Config;
use crate::job::Worker;
use crate::metrics;

/// How long one request for a job waits at the server.
const WAIT: Duration = Duration::from_secs(5);
/// Pause after a failure of the bus.
const PAUSE: Duration = Duration::from_secs(1);
const NATS: &str = "nats";

/// Takes jobs until told to stop.
pub(crate) async fn run(config: Config, context: Context) -> anyhow::Result<()> {
    metrics::describe();
    context.health.unmet(NATS, "not connected yet");
    let bus = Bus::connect(&config.bus, "weir-pcap-worker").await.context("cannot connect to NATS")?;
    let report = |error: &weir_bus::Error| context.health.unmet(NATS, error.to_string());
    if let Err(error) = bus.ready(&context.shutdown, report).await {
        return if context.shutdown.is_cancelled() { Ok(()) } else { Err(error).context("cannot use NATS") };
    }
    let worker = Worker {
        captures: bus.bucket(names::CAPTURES).await?,
        uploads: bus.objects(names::UPLOADS).await?,
        artifacts: bus.objects(names::ARTIFACTS).await?,
        shutdown: context.shutdown.clone(),
        config,
        bus,
    };
    let carving = tokio::spawn(carve::answer(worker.clone()));
    while !context.shutdown.is_cancelled() {
        if let Err(error) = take_jobs(&worker, &context).await {
            context.health.unmet(NATS, format!("{error:#}"));
            warn!("{error:#}");
            tokio::select! {
                () = context.shutdown.cancelled() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
    carving.await.context("carving ended unexpectedly")
}

/// One job after the other, until told to stop or until the bus fails.
async fn take_jobs(worker: &Worker, context: &Context) -> anyhow::Result<()> {
    let mut jobs: JobsReader = worker.bus.jobs(worker.config.ack_wait()).await?;
    loop {
        context.health.met(NATS);
        let message = tokio::select! {
            // A request that was sent is not taken back: a job that it gets is delivered again after the acknowledgement's time.
            biased;
            () = context.shutdown.cancelled() => return Ok(()),
            message = jobs.next(WAIT) => message?,
        };
        if let Some(message) = message {
            worker.handle(&message).await?;
        }
    }
}
