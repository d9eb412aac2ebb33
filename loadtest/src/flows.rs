//! `flows`: publishes a load.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weir_bus::{Bus, names};

use crate::load::Load;

/// Batches on their way at one time, as a service of Weir has them.
const IN_FLIGHT: usize = 32;

/// What to publish, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    nats: weir_bus::Options,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let bus = Bus::connect(&options.nats, "weir-loadtest").await.context("cannot use NATS")?;
    bus.ready(&CancellationToken::new(), |error| eprintln!("waiting: {error}")).await?;
    let took = publish(&bus, &options.load).await?;
    let flows = options.load.flows();
    println!("published {flows} flows in {:.1} s: {:.0}/s", took.as_secs_f64(), flows as f64 / took.as_secs_f64());
    Ok(())
}

/// Publishes at the load's rate, or as fast as it goes where that is slower; returns how long it took.
pub(crate) async fn publish(bus: &Bus, load: &Load) -> anyhow::Result<Duration> {
    let (producer, started) = (Uuid::new_v4(), Instant::now());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_micros() as u64;
    futures::stream::iter(1..=load.batches())
        .map(|sequence| async move {
            if load.rate > 0 {
                let due = Duration::from_secs_f64(((sequence - 1) * load.batch) as f64 / load.rate as f64);
                tokio::time::sleep_until((started + due).into()).await;
            }
            let batch = load.make(producer, sequence, now);
            let records = async { bus.send(names::RECORDS_EBPF, &batch).await };
            records.await.with_context(|| format!("cannot publish batch {sequence}"))
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    Ok(started.elapsed())
}
