//! The only place that wires.

use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};
use weir_bus::{Bus, Publisher, names};
use weir_service::Context;

use crate::{
    Config,
    identities::Identities,
    outbox::{self, Outbox},
    position::Position,
    sampler::{self, Pace, Targets},
    watcher::{self, Outputs, Watcher},
};

/// How long a stopping process waits for NATS to take what it has; the rest stays in the spool.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs the service until it is told to stop.
pub async fn run(config: Config, context: Context) -> anyhow::Result<()> {
    let Context { shutdown, health } = context;
    let host = config.service.host.as_str();
    health.unmet(watcher::CONDITION, format!("connecting to {}", config.docker_host));
    health.unmet("nats", "connecting");

    let bus = Bus::connect(&config.bus, "weir-docker-watcher").await.context("cannot use --nats-url")?;
    let publisher = Publisher::open(
        bus.clone(),
        names::RECORDS_CONTAINERS,
        host,
        &config.spool_dir(),
        config.spool.spool_max_bytes,
    )
    .context("cannot open the spool")?;
    let position = Position::load(&config.position_file()).unwrap_or_else(|error| {
        warn!(%error, file = %config.position_file().display(), "cannot read the place in the engine's events");
        Position::default()
    });

    let (outbox, records) = Outbox::new();
    let (engine, connected_engine) = watch::channel(None);
    let (earlier_sender, earlier) = oneshot::channel();
    let targets = Targets::default();
    let identities = Identities::new(host);

    let outputs = Outputs { outbox: outbox.clone(), identities: identities.clone(), targets: targets.clone(), engine };
    let watching = watcher::Options {
        docker_host: config.docker_host.clone(),
        timeout: config.timeout(),
        concurrency: usize::from(config.inspect_concurrency),
        reconcile_interval: config.reconcile_interval(),
    };
    let pace = Pace { interval: config.stats_interval(), concurrency: usize::from(config.stats_concurrency) };

    let watcher = tokio::spawn(
        Watcher::new(watching, host, position.clone(), outputs, health.clone(), earlier).run(shutdown.clone()),
    );
    let sampler = tokio::spawn(sampler::run(targets, connected_engine, outbox, pace, shutdown.clone()));
    let identities = tokio::spawn(identities.run(bus, health, earlier_sender, shutdown.clone()));
    // Ends when the watcher and the sampler have: they hold the senders.
    outbox::run(records, &publisher, position, config.position_file()).await;

    watcher.await.context("the watcher broke")?;
    sampler.await.context("the sampler broke")?;
    if tokio::time::timeout(DRAIN, identities).await.is_err() {
        warn!("identities could not be written before the end: the next start will");
    }
    let left = publisher.close(DRAIN).await;
    if left > 0 {
        info!(batches = left, "left in the spool for the next start");
    }
    Ok(())
}
