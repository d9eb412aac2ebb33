//! What runs on this machine, and how.

use std::env;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::FutureExt;
use tokio::process::Command;
use weir_engines::clickhouse::{Limits, READER, WRITER};
use weir_engines::{ClickHouse, Nats, locate, ports, process};

use super::checks;
use super::part::Spec;
use crate::args::{Up, Usage};
use crate::instance::Instance;
use crate::status::{self, Answer};

/// How long `weir-capture --check` may take.
const CHECK: Duration = Duration::from_secs(20);

/// What to do about one part.
pub(super) enum Planned {
    Run(Spec),
    /// Not run, for this reason.
    Off {
        name: &'static str,
        reason: String,
    },
    /// The user's own server.
    External {
        name: &'static str,
    },
}

/// All parts, in the order in which they start, and the address of the API.
pub(super) struct Plan {
    pub(super) api: String,
    /// Without these nothing else can be ready.
    pub(super) engines: Vec<Planned>,
    pub(super) services: Vec<Planned>,
}

/// The names of the parts in the order in which they stop: those that make records first, then those that carry them, then
/// those that keep them.
pub(super) const STOP_ORDER: [&[&str]; 5] =
    [&["capture", "docker-watcher"], &["pcap-worker"], &["ingester"], &["query-api"], &["clickhouse", "nats"]];

/// Where the services find the engines.
struct Addresses {
    nats: String,
    clickhouse: String,
    writer: (String, String),
    reader: (String, String),
}

/// Finds the programs, prepares the engines and decides what is off. Starts nothing that lasts.
pub(super) async fn make(options: &Up, listen: SocketAddr, instance: &Instance) -> Result<Plan> {
    let programs = programs()?;
    let (nats, nats_url) = nats(instance)?;
    let (clickhouse, clickhouse_url, writer, reader) = clickhouse(instance, &programs)?;
    let addresses = Addresses { nats: nats_url, clickhouse: clickhouse_url, writer, reader };
    let build = Build { options, listen, instance, programs: &programs, addresses: &addresses };
    let services = vec![
        build.service(
            "ingester",
            &[("WEIR_CLICKHOUSE_USER", &addresses.writer.0), ("WEIR_CLICKHOUSE_PASSWORD", &addresses.writer.1)],
        )?,
        build.service("query-api", &build.query_api_variables())?,
        build.service("pcap-worker", &[])?,
        build.service("docker-watcher", &[])?,
        build.capture().await?,
    ];
    Ok(Plan { api: checks::url(listen), engines: vec![nats, clickhouse], services })
}

fn nats(instance: &Instance) -> Result<(Planned, String)> {
    if let Some(url) = variable("WEIR_NATS_URL") {
        return Ok((Planned::External { name: "nats" }, url));
    }
    let nats = Arc::new(Nats::prepare(&locate::nats_server()?, &instance.part("nats"))?);
    let url = nats.url();
    let spec = Spec {
        name: "nats",
        health: format!("{}/healthz", nats.monitor_url()),
        command: Box::new({
            let nats = nats.clone();
            move || nats.command()
        }),
        probe: Box::new(move || {
            let nats = nats.clone();
            async move { engine_answer(nats.ready().await) }.boxed()
        }),
        optional: false,
        heals_by_restart: true,
        stop_within: Duration::from_secs(20),
    };
    Ok((Planned::Run(spec), url))
}

type Credentials = (String, String);

fn clickhouse(instance: &Instance, programs: &Path) -> Result<(Planned, String, Credentials, Credentials)> {
    if let Some(url) = variable("WEIR_CLICKHOUSE_URL") {
        let writer = credentials("WEIR_CLICKHOUSE_USER", "WEIR_CLICKHOUSE_PASSWORD")
            .unwrap_or_else(|| ("default".into(), String::new()));
        let reader = credentials("WEIR_CLICKHOUSE_READER_USER", "WEIR_CLICKHOUSE_READER_PASSWORD").ok_or_else(|| {
            Usage("WEIR_CLICKHOUSE_URL is set: set WEIR_CLICKHOUSE_READER_USER (and ..._PASSWORD) to a user that can only read the database weir".into())
        })?;
        return Ok((Planned::External { name: "clickhouse" }, url, writer, reader));
    }
    let program = locate::clickhouse(&programs.join("weir-clickhouse"))?;
    let engine = Arc::new(ClickHouse::prepare(program, &instance.part("clickhouse"), &Limits::for_this_machine())?);
    let url = engine.url();
    let writer = (WRITER.to_owned(), engine.writer_password().to_owned());
    let reader = (READER.to_owned(), engine.reader_password().to_owned());
    let spec = Spec {
        name: "clickhouse",
        health: format!("{url}/ping"),
        command: Box::new({
            let engine = engine.clone();
            move || engine.command()
        }),
        probe: Box::new(move || {
            let engine = engine.clone();
            async move { engine_answer(engine.ready().await) }.boxed()
        }),
        optional: false,
        heals_by_restart: false,
        stop_within: Duration::from_secs(20),
    };
    Ok((Planned::Run(spec), url, writer, reader))
}

fn engine_answer(ready: Result<(), weir_engines::Error>) -> Answer {
    match ready {
        Ok(()) => Answer::Ready,
        Err(error) => Answer::NotReady(format!("{:#}", anyhow::Error::from(error))),
    }
}

/// What all services are made from.
struct Build<'a> {
    options: &'a Up,
    listen: SocketAddr,
    instance: &'a Instance,
    programs: &'a Path,
    addresses: &'a Addresses,
}

impl Build<'_> {
    fn service(&self, name: &'static str, own: &[(&str, &str)]) -> Result<Planned> {
        let program = self.programs.join(format!("weir-{name}"));
        let optional = matches!(name, "capture" | "docker-watcher");
        if !program.is_file() {
            let reason = format!("{} is missing; `./dev up` builds it", program.display());
            anyhow::ensure!(optional, reason);
            return Ok(Planned::Off { name, reason });
        }
        let port = ports::free_port()?;
        let mut variables = self.shared(name)?;
        variables.push(("WEIR_HEALTH_LISTEN".to_owned(), format!("127.0.0.1:{port}")));
        variables.extend(own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let health = format!("http://127.0.0.1:{port}/readyz");
        let client = reqwest::Client::new();
        Ok(Planned::Run(Spec {
            name,
            probe: Box::new({
                let health = health.clone();
                move || {
                    let (client, health) = (client.clone(), health.clone());
                    async move { status::ask(&client, &health).await }.boxed()
                }
            }),
            health,
            command: Box::new(move || command(&program, &variables)),
            optional,
            heals_by_restart: false,
            stop_within: Duration::from_secs(if name == "pcap-worker" || name == "ingester" { 30 } else { 15 }),
        }))
    }

    async fn capture(&self) -> Result<Planned> {
        let interfaces = self.options.interfaces.join(",");
        let mut own: Vec<(&str, &str)> =
            if interfaces.is_empty() { Vec::new() } else { vec![("WEIR_CAPTURE_INTERFACE", &interfaces)] };
        if self.options.live_captures {
            own.push(("WEIR_CAPTURE_ON_DEMAND", "true"));
        }
        let planned = self.service("capture", &own)?;
        let Planned::Run(spec) = &planned else { return Ok(planned) };
        match check((spec.command)()).await {
            Ok(()) => Ok(planned),
            Err(reason) => Ok(Planned::Off { name: "capture", reason }),
        }
    }

    fn query_api_variables(&self) -> Vec<(&str, &str)> {
        let mut variables = vec![
            ("WEIR_CLICKHOUSE_USER", self.addresses.reader.0.as_str()),
            ("WEIR_CLICKHOUSE_PASSWORD", self.addresses.reader.1.as_str()),
        ];
        if let Some(token) = &self.options.api_token {
            variables.push(("WEIR_API_TOKEN", token));
        }
        if self.options.live_captures {
            variables.push(("WEIR_LIVE_CAPTURES", "true"));
        }
        variables
    }

    /// What every service is told.
    fn shared(&self, name: &str) -> Result<Vec<(String, String)>> {
        let dir = self.instance.part(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut variables = vec![
            ("WEIR_DATA_DIR", dir.display().to_string()),
            ("WEIR_NATS_URL", self.addresses.nats.clone()),
            ("WEIR_CLICKHOUSE_URL", self.addresses.clickhouse.clone()),
            ("WEIR_LISTEN", self.listen.to_string()),
        ];
        // Of the disk that is free now, when nobody says: what waits for the ingester, and the uploaded captures.
        if let Ok(disk) = nix::sys::statvfs::statvfs(self.instance.root()) {
            let free = disk.blocks_available() * disk.fragment_size();
            for (name, share) in [
                ("WEIR_RECORDS_MAX_BYTES", (free / 10).min(2 << 30)),
                ("WEIR_UPLOADS_MAX_BYTES", (free / 4).min(8 << 30)),
            ] {
                if variable(name).is_none() {
                    variables.push((name, share.to_string()));
                }
            }
        }
        Ok(variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

/// A service gets the variables of `weir up` itself (`OTEL_...`, `WEIR_LOG`), but no secrets that are not its own.
fn command(program: &Path, variables: &[(String, String)]) -> Command {
    let mut command = Command::new(program);
    for secret in [
        "WEIR_API_TOKEN",
        "WEIR_CLICKHOUSE_USER",
        "WEIR_CLICKHOUSE_PASSWORD",
        "WEIR_CLICKHOUSE_READER_USER",
        "WEIR_CLICKHOUSE_READER_PASSWORD",
    ] {
        command.env_remove(secret);
    }
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command
}

/// Asks capture whether it can work here. The error is what it said.
async fn check(mut command: Command) -> Result<(), String> {
    command
        .arg("--check")
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let child = process::spawn(command).await.map_err(|error| format!("cannot start: {error}"))?;
    let output = tokio::time::timeout(CHECK, child.wait_with_output())
        .await
        .map_err(|_| format!("its check did not end within {} s", CHECK.as_secs()))?
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    let reason = said
        .iter()
        .find_map(|text| text.lines().rfind(|line| !line.starts_with("note: ")))
        .unwrap_or("its check failed and said nothing");
    Err(reason.to_owned())
}

/// The directory of this program, where the others are.
fn programs() -> Result<PathBuf> {
    let own = env::current_exe().context("cannot find out where this program is")?;
    Ok(own.parent().context("this program has no directory")?.to_owned())
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn credentials(user: &str, password: &str) -> Option<(String, String)> {
    Some((variable(user)?, variable(password).unwrap_or_default()))
}
