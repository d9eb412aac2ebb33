//! `latency`: how long it takes from a packet on a wire until a query finds it.
//!
//! The whole path runs: a wire to a network namespace, weir-capture on it, NATS, the ingester and `ClickHouse`. Two kinds of traffic: connections
//! that end, timed from their last packet to their row, and a flow that goes on, each of its packets timed until a row has counted it. Needs
//! root and iproute2.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::channel,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::sched::{CloneFlags, setns};
use serde::Deserialize;
use weir_engines::{ClickHouse, Nats, clickhouse, locate};
use weir_store::{Reader, schema};

use crate::ingest::{self, Part};

/// How long a row may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often the table is asked: what is measured is no finer.
const POLL: Duration = Duration::from_millis(20);
/// The mark: 99 of 100 packets.
const MARK: Duration = Duration::from_millis(2500);
/// Time between two packets of the flow that goes on.
const PACE: Duration = Duration::from_millis(20);

/// What to measure.
#[derive(Clone, Debug, clap::Parser)]
pub(crate) struct Options {
    /// How many connections are timed
    #[arg(long, value_name = "COUNT", default_value_t = 300)]
    connections: u32,
    /// Milliseconds between two of them
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 50)]
    pause: u64,
    /// Seconds that the flow goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    seconds: u64,
    /// How often capture reports flows that go on [default: capture's own]
    #[arg(long, value_name = "DURATION")]
    drain_active: Option<String>,
    /// The program of capture [default: weir-capture beside this one]
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// The ingester's program [default: weir-ingester beside this one]
    #[arg(long, value_name = "FILE")]
    ingester: Option<PathBuf>,
}

pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: its figures mean little");
    }
    let dir = tempfile::Builder::new().prefix("weir-loadtest-").tempdir().context("no temporary directory")?;
    let wire = Wire::new()?;
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
    let ingester = ingest::ingester(options.ingester.as_ref(), &nats, &clickhouse)?;
    let _ingester = Part::start("ingester", ingester, dir.path()).await?;
    let _capture = Part::start("capture", capture(options, &wire, &nats, dir.path())?, dir.path()).await?;
    let reader = Reader::connect(&writer);

    warm_up(&wire, &reader).await?;
    let ended = connections(options, &wire, &reader).await?;
    report("connections, from the last packet to the row", ended);
    let going_on = going_on(options, &wire, &reader).await?;
    let pace = options.drain_active.as_ref().map(|interval| format!(" (--drain-active {interval})"));
    report(&format!("packets of a flow that goes on, to a row{}", pace.unwrap_or_default()), going_on);
    Ok(())
}

fn capture(options: &Options, wire: &Wire, nats: &Nats, dir: &Path) -> anyhow::Result<tokio::process::Command> {
    let mut command = tokio::process::Command::new(ingest::program(options.capture.as_ref(), "weir-capture")?);
    command.env("WEIR_NATS_URL", nats.url());
    command.args(["--interface", &wire.here, "--data-dir"]).arg(dir);
    command.args(options.drain_active.iter().flat_map(|interval| ["--drain-active", interval]));
    Ok(command)
}

/// One datagram after the other until one of them has a row: everything runs.
async fn warm_up(wire: &Wire, reader: &Reader) -> anyhow::Result<()> {
    let socket = UdpSocket::bind((wire.address(1).as_str(), 0))?;
    let (started, mut poll) = (Instant::now(), tokio::time::interval(Duration::from_millis(200)));
    loop {
        poll.tick().await;
        // Nobody listens, and the answer that says so is an error of the next one.
        let _refused = socket.send_to(b"anybody there?", (wire.address(2).as_str(), 9));
        let rows = reader.query("SELECT toString(count()) AS value FROM flows").rows::<Value>().await?;
        if rows.first().is_some_and(|row| row.value != "0") {
            return Ok(());
        }
        ensure!(started.elapsed() < PATIENCE, "no packet has a row after {} s", PATIENCE.as_secs());
    }
}

#[derive(Deserialize)]
struct Value {
    value: String,
}

/// Opens and closes connections; how long each took from its end to its row.
async fn connections(options: &Options, wire: &Wire, reader: &Reader) -> anyhow::Result<Vec<Duration>> {
    let (count, pause) = (options.connections, Duration::from_millis(options.pause));
    let (told, port) = channel();
    let serving = wire.there(move || {
        let listener = TcpListener::bind("0.0.0.0:0")?;
        told.send(listener.local_addr()?.port())?;
        for _ in 0..count {
            let (mut stream, _) = listener.accept()?;
            stream.read_to_end(&mut Vec::new())?;
        }
        anyhow::Ok(())
    })?;
    let port = port.recv_timeout(PATIENCE).context("nobody listens at the other end")?;
    let address = wire.address(2);
    let (told, ends) = channel();
    let connecting = std::thread::spawn(move || {
        for _ in 0..count {
            let mut stream = TcpStream::connect((address.as_str(), port))?;
            let own = stream.local_addr()?.port();
            stream.write_all(b"hello")?;
            stream.shutdown(std::net::Shutdown::Write)?;
            // Until the other end has closed it, too.
            stream.read_to_end(&mut Vec::new())?;
            told.send((own.to_string(), Instant::now()))?;
            std::thread::sleep(pause);
        }
        anyhow::Ok(())
    });
    let query = format!(
        "SELECT DISTINCT toString(src_port) AS value FROM flows WHERE protocol = 6 AND dst_port = {port} AND end_reason = 'fin'"
    );
    let (started, mut poll) = (Instant::now(), tokio::time::interval(POLL));
    let (mut waiting, mut seen, mut took) = (HashMap::new(), HashSet::new(), Vec::new());
    while took.len() < count as usize {
        poll.tick().await;
        let rows = reader.query(&query).rows::<Value>().await?;
        let now = Instant::now();
        waiting.extend(ends.try_iter());
        for row in rows {
            if !seen.contains(&row.value)
                && let Some(end) = waiting.remove(&row.value)
            {
                took.push(now.duration_since(end));
                seen.insert(row.value);
            }
        }
        let whole = PATIENCE + pause * count;
        ensure!(started.elapsed() < whole, "{} of {count} connections have a row", took.len());
    }
    ended(connecting)?;
    ended(serving)?;
    Ok(took)
}

/// Sends datagrams of one flow at a steady pace; how long each took until a row had counted it.
async fn going_on(options: &Options, wire: &Wire, reader: &Reader) -> anyhow::Result<Vec<Duration>> {
    let socket = UdpSocket::bind((wire.address(1).as_str(), 0))?;
    let (port, address) = (socket.local_addr()?.port(), wire.address(2));
    let count = (Duration::from_secs(options.seconds).as_millis() / PACE.as_millis()) as usize;
    let (told, times) = channel();
    let sending = std::thread::spawn(move || {
        for _ in 0..count {
            let _refused = socket.send_to(b"tick", (address.as_str(), 9));
            told.send(Instant::now())?;
            std::thread::sleep(PACE);
        }
        anyhow::Ok(())
    });
    let query =
        format!("SELECT toString(sum(tx_packets)) AS value FROM flows WHERE protocol = 17 AND src_port = {port}");
    let (started, mut poll) = (Instant::now(), tokio::time::interval(POLL));
    let (mut sent, mut took) = (Vec::new(), Vec::new());
    while took.len() < count {
        poll.tick().await;
        let rows = reader.query(&query).rows::<Value>().await?;
        let now = Instant::now();
        sent.extend(times.try_iter());
        let counted: usize = rows.first().map_or(Ok(0), |row| row.value.parse())?;
        let new = sent.iter().take(counted).skip(took.len());
        let new: Vec<_> = new.map(|sent: &Instant| now.saturating_duration_since(*sent)).collect();
        took.extend(new);
        let whole = PATIENCE + Duration::from_secs(options.seconds);
        // The kernel may have refused some.
        if sending.is_finished() && counted == sent.len() {
            break;
        }
        ensure!(started.elapsed() < whole, "{} of {count} packets are counted", took.len());
    }
    ended(sending)?;
    Ok(took)
}

fn ended(thread: std::thread::JoinHandle<anyhow::Result<()>>) -> anyhow::Result<()> {
    thread.join().map_err(|_| anyhow::anyhow!("the traffic broke off"))?
}

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let quantile = |of: f64| {
        let at = ((took.len() as f64 * of).ceil() as usize).saturating_sub(1);
        took.get(at).copied().unwrap_or_default()
    };
    let (half, most, longest) = (quantile(0.5), quantile(0.99), quantile(1.0));
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    println!("{what}: {}", took.len());
    println!(
        "  half within {}, 99 of 100 within {} (mark: {}, {}), all within {}",
        seconds(half),
        seconds(most),
        seconds(MARK),
        if most <= MARK { "met" } else { "missed" },
        seconds(longest)
    );
}

/// A wire from here to a network namespace of its own, which is removed at the end.
struct Wire {
    here: String,
    namespace: String,
    net: u32,
}

impl Wire {
    fn new() -> anyhow::Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "a wire to a network namespace needs root");
        let pid = std::process::id();
        let wire = Self { here: format!("wlat{pid}"), namespace: format!("weir-latency-{pid}"), net: pid % 256 };
        ip(&["netns", "add", &wire.namespace])?;
        let (namespace, here) = (wire.namespace.as_str(), wire.here.as_str());
        ip(&["link", "add", here, "type", "veth", "peer", "name", "w0", "netns", namespace])?;
        ip(&["address", "add", &format!("{}/30", wire.address(1)), "dev", here])?;
        ip(&["-n", namespace, "address", "add", &format!("{}/30", wire.address(2)), "dev", "w0"])?;
        ip(&["-n", namespace, "link", "set", "w0", "up"])?;
        ip(&["link", "set", here, "up"])?;
        Ok(wire)
    }

    /// Of the addresses for measurements (RFC 2544).
    fn address(&self, end: u8) -> String {
        format!("198.19.{}.{}", self.net, end)
    }

    /// Starts a thread at the other end.
    fn there(
        &self,
        work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<std::thread::JoinHandle<anyhow::Result<()>>> {
        let namespace = File::open(format!("/run/netns/{}", self.namespace)).context("the namespace is gone")?;
        Ok(std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the namespace")?;
            work()
        }))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The interfaces go with it.
        if let Err(error) = ip(&["netns", "delete", &self.namespace]) {
            eprintln!("weir-loadtest: {error:#}");
        }
    }
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output().context("cannot start ip: install iproute2")?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), message.trim());
    Ok(())
}
