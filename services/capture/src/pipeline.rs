//! Wires the parts: interfaces → capturing thread → publisher.

use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;
use tracing::{info, warn};
use weir_bus::{Bus, Publisher, names};
use weir_proto::{Batch, Source};
use weir_service::Context;

use crate::{
    capture::Capture,
    config::Config,
    interfaces::{self, Network},
};

/// How long the end waits for NATS to take the last batches; what it has not taken stays in the spool.
const CLOSE: Duration = Duration::from_secs(10);
/// How often the thread is looked after.
const WATCHDOG: Duration = Duration::from_secs(1);

/// Captures until the shutdown, then publishes what is left.
pub async fn run(config: Config, capture: Capture, context: Context) -> anyhow::Result<()> {
    let (network, mut changes) = watch::channel(Network::default());
    let bus = Bus::connect(&config.bus, "weir-capture").await?;
    let directory = config.spool.spool_dir.clone().unwrap_or_else(|| config.service.data_dir.join("spool/capture"));
    let publisher = Publisher::open(
        bus.clone(),
        names::RECORDS_EBPF,
        &config.service.host,
        &directory,
        config.spool.spool_max_bytes,
    )?;
    let sink = publisher.clone();
    capture.start(
        Box::new(move |flows| sink.publish(Batch { source: Source::Ebpf.into(), flows, ..Batch::default() })),
        context.health.clone(),
        Some(config.service.data_dir.join("capture.checkpoint")),
    )?;

    let watching = tokio::spawn(interfaces::watch(network, context.shutdown.clone()));
    let connecting = tokio::spawn(report_bus(bus, context.clone()));
    let mut watchdog = tokio::time::interval(WATCHDOG);
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => break,
            changed = changes.changed() => {
                if changed.is_err() {
                    break;
                }
                let selection = interfaces::select(&config.interfaces, &changes.borrow_and_update());
                capture.select(selection)?;
            }
            _ = watchdog.tick() => if capture.has_ended() { break },
        }
    }

    let totals = tokio::task::spawn_blocking(move || capture.stop()).await?.context("capturing stopped")?;
    let left = publisher.close(CLOSE).await;
    if left > 0 {
        warn!(batches = left, directory = %directory.display(), "the spool keeps what NATS has not taken");
    }
    info!(records = totals.reported.records, packets = totals.reported.packets, "all that was counted is reported");
    connecting.abort();
    if context.shutdown.is_cancelled() {
        return Ok(());
    }
    watching.await??;
    anyhow::bail!("capturing ended by itself")
}

/// Says whether NATS is there. Capturing does not wait for it.
async fn report_bus(bus: Bus, context: Context) {
    context.health.unmet("nats", "not connected yet; records wait in the spool");
    let told = bus.ready(&context.shutdown, |error| {
        context.health.unmet("nats", format!("{error}; records wait in the spool"));
    });
    if told.await.is_ok() {
        context.health.met("nats");
    }
}
