//! `check`: the tables hold exactly a load.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use weir_store::Reader;

use crate::load::{Load, Sums};

/// How often the table is asked.
const POLL: Duration = Duration::from_millis(100);

/// What to expect, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    clickhouse: weir_store::Options,
    /// Seconds to wait for the last flow
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let reader = Reader::connect(&options.clickhouse);
    wait(&reader, &options.load, Duration::from_secs(options.timeout)).await?;
    println!("the table holds exactly the {} flows of load {}", options.load.flows(), options.load.run);
    Ok(())
}

/// Waits until the table has as many flows as the load, and compares; returns how long the wait was.
pub(crate) async fn wait(reader: &Reader, load: &Load, timeout: Duration) -> anyhow::Result<Duration> {
    let (started, mut poll) = (Instant::now(), tokio::time::interval(POLL));
    loop {
        poll.tick().await;
        let count = reader.query("SELECT count() AS flows FROM flows WHERE host = {host:String}");
        let count = count.param("host", load.host()).rows::<Count>().await.context("cannot count the flows")?;
        let flows = count.first().map_or(0, |count| count.flows);
        if flows >= load.flows() {
            break;
        }
        if started.elapsed() > timeout {
            bail!("the table has {flows} of {} flows after {} s", load.flows(), timeout.as_secs());
        }
    }
    let took = started.elapsed();
    let found =
        reader.query(Sums::SQL).param("host", load.host()).rows::<Sums>().await.context("cannot sum the flows")?;
    let (found, expected) = (found.into_iter().next().unwrap_or_default(), load.sums());
    if found != expected {
        bail!("the table differs from what was published: {found:?}, expected {expected:?}");
    }
    Ok(took)
}

#[derive(serde::Deserialize)]
struct Count {
    flows: u64,
}
