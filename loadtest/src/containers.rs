//! `containers`: what it costs to watch a hundred real containers, beside `docker stats` of the same ones.

mod engine;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use tokio::process::Command;
use weir_engines::{ClickHouse, Nats, clickhouse, locate};
use weir_store::{Reader, schema};

use crate::{
    ingest::{self, Part},
    process,
};
use engine::Engine;

/// How long a row may take.
const PATIENCE: Duration = Duration::from_mins(3);
/// How often the table is asked for new events: what is measured is no finer.
const POLL: Duration = Duration::from_millis(10);
/// The marks: percent of a core, bytes, and seconds.
const MARK_CPU: f64 = 1.0;
const MARK_MEMORY: u64 = 30 << 20;
const MARK_SWEEP: f64 = 2.0;
const MARK_EVENT: f64 = 1.0;

/// What to measure.
#[derive(Clone, Debug, clap::Parser)]
pub(crate) struct Options {
    /// How many containers run
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    containers: usize,
    /// Seconds between two samples of a container
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    interval: u64,
    /// Over how many intervals the use of CPU is measured
    #[arg(long, value_name = "COUNT", default_value_t = 6)]
    intervals: u32,
    /// How many events are timed
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    events: usize,
    /// docker-watcher's program [default: weir-docker-watcher beside this one]
    #[arg(long, value_name = "FILE")]
    watcher: Option<PathBuf>,
    /// The ingester's program [default: weir-ingester beside this one]
    #[arg(long, value_name = "FILE")]
    ingester: Option<PathBuf>,
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    watcher_cpu: f64,
    engine_cpu: f64,
    memory: u64,
    peak: u64,
    sweeps: Vec<f64>,
    client_cpu: Duration,
    client_wall: Duration,
    client_engine_cpu: Duration,
    events: Vec<f64>,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: its figures mean little");
    }
    ensure!(nix::unistd::geteuid().is_root(), "a Docker engine of its own needs root");
    let dir = tempfile::Builder::new().prefix("weir-loadtest-").tempdir().context("no temporary directory")?;
    let nats = Nats::prepare(&locate::nats_server()?, &dir.path().join("nats"))?;
    let loader = locate::clickhouse_loader().unwrap_or_else(|| PathBuf::from("weir-clickhouse"));
    let limits = clickhouse::Limits::for_this_machine();
    let clickhouse = ClickHouse::prepare(locate::clickhouse(&loader)?, &dir.path().join("clickhouse"), &limits)?;
    let writer = ingest::store_options(&clickhouse, clickhouse::WRITER, clickhouse.writer_password());
    let _nats = Part::start("NATS", nats.command(), dir.path()).await?;
    let _clickhouse = Part::start("ClickHouse", clickhouse.command(), dir.path()).await?;
    ingest::ready("NATS", || nats.ready()).await?;
    ingest::ready("ClickHouse", || clickhouse.ready()).await?;
    schema::migrate(&writer).await.context("cannot make the tables")?;
    let reader = Reader::connect(&writer);

    let engine = Engine::start(dir.path()).await?;
    eprintln!("starting {} containers", options.containers);
    let names = engine.run(options.containers).await;
    let watched = match &names {
        Ok(names) => {
            let ingester = ingest::ingester(options.ingester.as_ref(), &nats, &clickhouse)?;
            let _ingester = Part::start("ingester", ingester, dir.path()).await?;
            let mut command = Command::new(ingest::program(options.watcher.as_ref(), "weir-docker-watcher")?);
            command.env("WEIR_NATS_URL", nats.url()).env("DOCKER_HOST", engine.host());
            command
                .args(["--runtimes", "docker", "--stats-interval", &options.interval.to_string(), "--data-dir"])
                .arg(dir.path());
            let watcher = Part::start("docker-watcher", command, dir.path()).await?;
            tokio::select! {
                found = measure(options, names, &engine, &watcher, &reader) => found,
                _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped")),
            }
        }
        Err(_) => Ok(Found::default()),
    };
    eprintln!("removing the containers");
    // Those that were started before one failed are known by no name here, and end with the engine.
    engine.end(names.as_deref().unwrap_or_default()).await?;
    names?;
    report(options, &watched?);
    Ok(())
}

async fn measure(
    options: &Options,
    names: &[String],
    engine: &Engine,
    watcher: &Part,
    reader: &Reader,
) -> anyhow::Result<Found> {
    let mut found = Found::default();
    wait_for_samples(reader, names.len()).await?;
    let pid = watcher.child.id().context("docker-watcher ended: see its log")?;

    let (started, before, engine_before) = (Instant::now(), watcher.cpu(), engine.part.cpu());
    tokio::time::sleep(Duration::from_secs(options.interval) * options.intervals).await;
    let percent = |used: Duration| used.as_secs_f64() / started.elapsed().as_secs_f64() * 100.0;
    found.watcher_cpu = percent(watcher.cpu().saturating_sub(before));
    found.engine_cpu = percent(engine.part.cpu().saturating_sub(engine_before));
    found.memory = process::memory(pid).context("docker-watcher ended")?;
    found.sweeps = sweeps(reader, options.intervals as usize).await?;

    let (started, before, engine_before) = (Instant::now(), process::cpu_of_ended_children()?, engine.part.cpu());
    engine.docker_or_fail(&["stats", "--no-stream"]).await?;
    found.client_wall = started.elapsed();
    found.client_cpu = process::cpu_of_ended_children()?.saturating_sub(before);
    found.client_engine_cpu = engine.part.cpu().saturating_sub(engine_before);

    found.events = events(options.events, names, engine, reader).await?;
    found.peak = process::peak_memory(pid).unwrap_or_default();
    Ok(found)
}

#[derive(Deserialize)]
struct Count {
    count: String,
}

/// Waits until each container has been sampled twice.
async fn wait_for_samples(reader: &Reader, containers: usize) -> anyhow::Result<()> {
    const SAMPLED: &str = "SELECT toString(count()) AS count FROM (SELECT container_id FROM container_stats GROUP BY container_id HAVING count() >= 2)";
    let (started, mut poll) = (Instant::now(), tokio::time::interval(Duration::from_millis(500)));
    loop {
        poll.tick().await;
        let sampled = reader.query(SAMPLED).rows::<Count>().await?;
        if sampled.first().is_some_and(|row| row.count == containers.to_string()) {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "not all containers are sampled after {} s", PATIENCE.as_secs());
    }
}

/// A row by its container and its time, microseconds since 1970.
#[derive(Deserialize)]
struct Timed {
    container_id: String,
    time_us: String,
}

impl Timed {
    fn micros(&self) -> anyhow::Result<i64> {
        self.time_us.parse().context("not a time")
    }
}

/// From the first to the last reading of each of the latest sweeps, seconds.
async fn sweeps(reader: &Reader, count: usize) -> anyhow::Result<Vec<f64>> {
    const SAMPLES: &str = "SELECT container_id, toString(toUnixTimestamp64Micro(time)) AS time_us FROM container_stats ORDER BY time DESC";
    let mut times: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for row in reader.query(SAMPLES).rows::<Timed>().await? {
        let micros = row.micros()?;
        times.entry(row.container_id).or_default().push(micros);
    }
    let sweep = |latest: usize| {
        let of_sweep: Option<Vec<_>> = times.values().map(|times| times.get(latest).copied()).collect();
        let of_sweep = of_sweep?;
        Some((of_sweep.iter().max()? - of_sweep.iter().min()?) as f64 / 1e6)
    };
    // The newest may not have all its rows yet.
    Ok((1..=count).filter_map(sweep).collect())
}

/// How long events take from the engine's time of them until a query finds them, seconds.
async fn events(count: usize, names: &[String], engine: &Engine, reader: &Reader) -> anyhow::Result<Vec<f64>> {
    // A signal that a sleeper does not notice: an event, and nothing else.
    let signals = async {
        for name in names.iter().cycle().take(count) {
            engine.docker_or_fail(&["kill", "--signal", "WINCH", name]).await?;
        }
        anyhow::Ok(())
    };
    let seen = async {
        const EVENTS: &str = "SELECT container_id, toString(toUnixTimestamp64Micro(time)) AS time_us FROM container_events WHERE action = 'kill'";
        let (started, mut poll) = (Instant::now(), tokio::time::interval(POLL));
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen: HashMap<(String, i64), f64> = HashMap::new();
        while seen.len() < count {
            poll.tick().await;
            let rows = reader.query(EVENTS).rows::<Timed>().await?;
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_micros() as i64;
            for row in rows {
                let micros = row.micros()?;
                seen.entry((row.container_id, micros)).or_insert((now - micros) as f64 / 1e6);
            }
            ensure!(started.elapsed() < PATIENCE, "{} of {count} events are in the table", seen.len());
        }
        anyhow::Ok(seen.into_values().collect::<Vec<_>>())
    };
    let ((), seen) = tokio::try_join!(signals, seen)?;
    Ok(seen)
}

fn report(options: &Options, found: &Found) {
    let mut events = found.events.clone();
    events.sort_by(f64::total_cmp);
    let quantile = |of: f64| {
        events.get(((events.len() as f64 * of).ceil() as usize).saturating_sub(1)).copied().unwrap_or_default()
    };
    let slowest = found.sweeps.iter().copied().fold(0.0, f64::max);
    let verdict = |is_met: bool| if is_met { "met" } else { "missed" };
    let interval = options.interval as f64;
    println!(
        "{} containers, a sample of each every {} s, over {} intervals",
        options.containers, options.interval, options.intervals
    );
    println!("  {:<44} {:>10} {:>10}", "", "measured", "mark");
    let row = |name: &str, measured: String, mark: String, is_met| {
        println!("  {name:<44} {measured:>10} {mark:>10}  {}", verdict(is_met));
    };
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    row(
        "docker-watcher, of one core",
        format!("{:.2} %", found.watcher_cpu),
        format!("{MARK_CPU} %"),
        found.watcher_cpu <= MARK_CPU,
    );
    row(
        "docker-watcher, memory (RSS)",
        format!("{:.1} MiB", mebibytes(found.memory)),
        format!("{} MiB", MARK_MEMORY >> 20),
        found.memory <= MARK_MEMORY,
    );
    row(
        "docker-watcher, largest RSS",
        format!("{:.1} MiB", mebibytes(found.peak)),
        format!("{} MiB", MARK_MEMORY >> 20),
        found.peak <= MARK_MEMORY,
    );
    row("slowest sampling of all", format!("{slowest:.2} s"), format!("{MARK_SWEEP} s"), slowest <= MARK_SWEEP);
    row(
        "event to queryable row, p99",
        format!("{:.3} s", quantile(0.99)),
        format!("{MARK_EVENT} s"),
        quantile(0.99) <= MARK_EVENT,
    );
    println!(
        "  event to queryable row: p50 {:.3} s, slowest {:.3} s, of {}",
        quantile(0.5),
        quantile(1.0),
        events.len()
    );
    let per_sampling = |percent: f64| percent / 100.0 * interval * 1000.0;
    let (own, client) = (per_sampling(found.watcher_cpu), found.client_cpu.as_secs_f64() * 1000.0);
    let (engine, client_engine) = (per_sampling(found.engine_cpu), found.client_engine_cpu.as_secs_f64() * 1000.0);
    println!("one sampling of all                  docker-watcher   docker stats --no-stream   ratio");
    println!("  CPU of the client           {own:>14.0} ms {client:>19.0} ms {:>13.1}", client / own);
    println!(
        "  CPU of the engine           {engine:>14.0} ms {client_engine:>19.0} ms {:>13.1}",
        client_engine / engine
    );
    println!(
        "  wall time                   {slowest:>14.2} s  {:>19.2} s  {:>13.1}",
        found.client_wall.as_secs_f64(),
        found.client_wall.as_secs_f64() / slowest
    );
}
