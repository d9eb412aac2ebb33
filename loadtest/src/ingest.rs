//! `ingest`: engines, ingester, load, check and report, in one throwaway directory.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use weir_bus::Bus;
use weir_engines::{ClickHouse, Nats, clickhouse, locate, process::spawn};
use weir_store::{Reader, schema};

use crate::{check, flows, load::Load, process};

/// How long an engine may take to be ready.
const READY: Duration = Duration::from_mins(1);
/// How long the last flow may take.
const DRAIN: Duration = Duration::from_mins(5);
/// How often an engine is asked.
const POLL: Duration = Duration::from_millis(50);

/// What to measure.
#[derive(Debug, clap::Parser)]
pub(crate) struct Options {
    #[command(flatten)]
    load: Load,
    /// The ingester's program [default: weir-ingester beside this one]
    #[arg(long, value_name = "FILE")]
    ingester: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        clap::Parser::parse_from(["ingest"])
    }
}

/// A process whose use is reported.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) child: Child,
    pub(crate) cpu_before: Duration,
}

impl Part {
    pub(crate) async fn start(name: &'static str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let log = std::fs::File::create(log.join(format!("{name}.log"))).context("cannot write a log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = spawn(command).await.with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, child, cpu_before: Duration::ZERO })
    }

    pub(crate) fn cpu(&self) -> Duration {
        self.child.id().and_then(process::cpu).unwrap_or_default()
    }
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: its figures mean little");
    }
    let dir = tempfile::Builder::new().prefix("weir-loadtest-").tempdir().context("no temporary directory")?;
    let nats = Nats::prepare(&locate::nats_server()?, &dir.path().join("nats"))?;
    let loader = locate::clickhouse_loader().unwrap_or_else(|| PathBuf::from("weir-clickhouse"));
    let limits = clickhouse::Limits::for_this_machine();
    let clickhouse = ClickHouse::prepare(locate::clickhouse(&loader)?, &dir.path().join("clickhouse"), &limits)?;
    let writer = store_options(&clickhouse, clickhouse::WRITER, clickhouse.writer_password());

    let mut parts = vec![
        Part::start("NATS", nats.command(), dir.path()).await?,
        Part::start("ClickHouse", clickhouse.command(), dir.path()).await?,
    ];
    ready("NATS", || nats.ready()).await?;
    ready("ClickHouse", || clickhouse.ready()).await?;
    schema::migrate(&writer).await.context("cannot make the tables")?;
    let bus_options = bus_options(&nats);
    let bus = Bus::connect(&bus_options, "weir-loadtest").await?;
    bus.ready(&CancellationToken::new(), |_| {}).await?;
    parts.push(Part::start("ingester", ingester(options.ingester.as_ref(), &nats, &clickhouse)?, dir.path()).await?);
    let reader = Reader::connect(&writer);

    // One small load warms everything up.
    let warm_up = Load { rate: 0, seconds: 1, batch: 1000, run: "warm-up".to_owned() };
    flows::publish(&bus, &warm_up).await?;
    check::wait(&reader, &warm_up, DRAIN).await?;
    for part in &mut parts {
        part.cpu_before = part.cpu();
    }
    let own_before = process::cpu(std::process::id()).unwrap_or_default();

    let load = &options.load;
    let started = Instant::now();
    let published = flows::publish(&bus, load).await?;
    check::wait(&reader, load, DRAIN).await?;
    let took = started.elapsed();
    let own = process::cpu(std::process::id()).unwrap_or_default().saturating_sub(own_before);
    report(load, published, took, &parts, own, &reader).await
}

async fn report(
    load: &Load,
    published: Duration,
    took: Duration,
    parts: &[Part],
    own: Duration,
    reader: &Reader,
) -> anyhow::Result<()> {
    let flows = load.flows() as f64;
    println!("{} flows, each in the table exactly once", load.flows());
    println!("  published   {:>8.1} s  {:>9.0} flows/s", published.as_secs_f64(), flows / published.as_secs_f64());
    println!("  in table    {:>8.1} s  {:>9.0} flows/s", took.as_secs_f64(), flows / took.as_secs_f64());
    println!("CPU time                   flows/s per core   peak memory");
    let mut all = Duration::ZERO;
    for part in parts {
        let cpu = part.cpu().saturating_sub(part.cpu_before);
        all += cpu;
        let memory = part.child.id().and_then(process::peak_memory).unwrap_or(0);
        println!(
            "  {:<11} {:>8.2} s  {:>16.0} {:>10} MB",
            part.name,
            cpu.as_secs_f64(),
            flows / cpu.as_secs_f64(),
            memory >> 20
        );
    }
    println!("  {:<11} {:>8.2} s  {:>16.0}", "together", all.as_secs_f64(), flows / all.as_secs_f64());
    println!("  {:<11} {:>8.2} s  (the load generator itself)", "generator", own.as_secs_f64());
    disk(reader).await
}

/// Bytes of a row, as inserted and after a merge of everything, with the columns that take most.
async fn disk(reader: &Reader) -> anyhow::Result<()> {
    #[derive(serde::Deserialize)]
    struct Size {
        name: String,
        bytes: f64,
    }
    const TABLE: &str = "SELECT 'flows' AS name, sum(bytes_on_disk) / sum(rows) AS bytes FROM system.parts \
        WHERE database = 'weir' AND table = 'flows' AND active";
    const COLUMNS: &str = "SELECT column AS name, sum(column_data_compressed_bytes) / sum(rows) AS bytes FROM system.parts_columns \
        WHERE database = 'weir' AND table = 'flows' AND active GROUP BY column ORDER BY bytes DESC LIMIT 8";
    let size = async || anyhow::Ok(reader.query(TABLE).rows::<Size>().await?.first().map_or(0.0, |size| size.bytes));
    let before = size().await.context("cannot read the size of the table")?;
    // An answer without rows is an answer.
    let _done: Vec<Size> = reader.query("OPTIMIZE TABLE flows FINAL").rows().await.context("cannot merge the table")?;
    println!("disk: {before:.1} bytes a row as inserted, {:.1} after all merges", size().await?);
    let columns: Vec<Size> = reader.query(COLUMNS).rows().await?;
    let columns: Vec<_> = columns.iter().map(|column| format!("{} {:.1}", column.name, column.bytes)).collect();
    println!("  most of it: {}", columns.join(", "));
    Ok(())
}

/// A program of Weir: the one that was named, or the one beside this.
pub(crate) fn program(named: Option<&PathBuf>, name: &str) -> anyhow::Result<PathBuf> {
    let program = match named {
        Some(program) => program.clone(),
        None => std::env::current_exe().context("where is this program?")?.with_file_name(name),
    };
    ensure!(program.is_file(), "{} is missing: build it, or name it", program.display());
    Ok(program)
}

pub(crate) fn ingester(named: Option<&PathBuf>, nats: &Nats, clickhouse: &ClickHouse) -> anyhow::Result<Command> {
    let mut command = Command::new(program(named, "weir-ingester")?);
    command
        .env("WEIR_NATS_URL", nats.url())
        .env("WEIR_CLICKHOUSE_URL", clickhouse.url())
        .env("WEIR_CLICKHOUSE_USER", clickhouse::WRITER)
        .env("WEIR_CLICKHOUSE_PASSWORD", clickhouse.writer_password());
    Ok(command)
}

pub(crate) fn store_options(clickhouse: &ClickHouse, user: &str, password: &str) -> weir_store::Options {
    weir_store::Options {
        clickhouse_url: clickhouse.url(),
        clickhouse_user: user.to_owned(),
        clickhouse_password: password.to_owned(),
    }
}

pub(crate) fn bus_options(nats: &Nats) -> weir_bus::Options {
    weir_bus::Options {
        nats_url: nats.url(),
        nats_credentials: None,
        records_max_bytes: 4 << 30,
        uploads_max_bytes: 1 << 20,
    }
}

pub(crate) async fn ready<R>(name: &str, probe: impl Fn() -> R) -> anyhow::Result<()>
where
    R: Future<Output = Result<(), weir_engines::Error>>,
{
    let (started, mut poll) = (Instant::now(), tokio::time::interval(POLL));
    loop {
        poll.tick().await;
        match probe().await {
            Ok(()) => return Ok(()),
            Err(error) if started.elapsed() > READY => {
                return Err(anyhow::Error::from(error).context(format!("{name} is not ready")));
            }
            Err(_) => {}
        }
    }
}
