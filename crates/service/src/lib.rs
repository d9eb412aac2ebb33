//! What every service has: options, signals, health endpoints and an orderly end.
//!
//! A service's `main` is one call of [`main`]; the rest is its own `run(config, context)`.

pub mod allocator;
mod health;
pub mod http;
mod probe;
pub mod sandbox;
mod server;

use std::{future::Future, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use health::Health;
pub use tokio_util::sync::CancellationToken as Shutdown;
pub use weir_telemetry::chain;

/// Exit code for a bad option or variable, as in `sysexits.h`.
pub const EX_USAGE: u8 = 64;

/// Options that every service has.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Service")]
#[group(id = "service-options")]
pub struct Options {
    /// Name of this host in the records
    #[arg(long, env = "WEIR_HOST", value_name = "NAME", default_value_t = hostname(), hide_default_value = true)]
    pub host: String,
    /// Where `/healthz`, `/readyz` and `/metrics` are answered; port 0 lets the kernel choose one
    #[arg(long, env = "WEIR_HEALTH_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub health_listen: SocketAddr,
    /// Bearer token that `/metrics` asks for; needed where `--health-listen` is not a loopback address
    #[arg(long, env = "WEIR_HEALTH_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub health_token: Option<String>,
    /// Directory for what must outlive a restart
    #[arg(long, env = "WEIR_DATA_DIR", value_name = "DIR", default_value = "/var/lib/weir")]
    pub data_dir: PathBuf,
    /// Do not run: ask the service that runs on `--health-listen` whether it is ready, and exit with 0 or 1
    #[arg(long)]
    pub probe: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub telemetry: weir_telemetry::Options,
}

/// What a running service is given: the order to stop, and where to say how it is.
#[derive(Clone)]
pub struct Context {
    /// Cancelled on SIGINT and SIGTERM. A service then finishes what it holds and returns.
    pub shutdown: CancellationToken,
    /// The conditions behind `/readyz`.
    pub health: Health,
}

/// Runs a service: telemetry, health endpoints, signals, `run`, and the exit code.
///
/// Exit codes: 0 stopped as asked, 1 failed (the chain of causes is logged once). Bad options never come here: see [`parse`].
pub fn main<F>(service: &'static str, options: &Options, run: impl FnOnce(Context) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    start(service, options, Extras::default(), run)
}

/// As [`main`], with more routes beside the health endpoints; those too ask for the token, if there is one.
pub fn main_with_routes<F>(
    service: &'static str,
    options: &Options,
    routes: axum::Router,
    run: impl FnOnce(Context) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    start(service, options, Extras { routes, ..Extras::default() }, run)
}

/// As [`main`], for a service that reads what strangers sent: `policy` says what it may still do (the port of the health endpoints and
/// that of the traces' receiver are added), and all else is given up before anything else happens. What does not hold of that is a
/// warning in the log, the metric `weir_sandbox_layer`, and a note in `/readyz`.
pub fn main_confined<F>(
    service: &'static str,
    options: &Options,
    mut policy: sandbox::Policy,
    run: impl FnOnce(Context) -> F,
) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    if options.probe {
        return probe::run(options.health_listen);
    }
    policy.listen.push(options.health_listen.port());
    policy.connect.extend(weir_telemetry::ports());
    let confinement = Some(sandbox::apply(&policy));
    start(service, options, Extras { confinement, ..Extras::default() }, run)
}

/// What only some services have.
#[derive(Default)]
struct Extras {
    routes: axum::Router,
    confinement: Option<sandbox::Confinement>,
}

fn start<F>(service: &'static str, options: &Options, extras: Extras, run: impl FnOnce(Context) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<()>>,
{
    if options.probe {
        return probe::run(options.health_listen);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("{service}: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(async {
        // Inside the runtime: the exporter's client needs one.
        let telemetry = match weir_telemetry::init(service, &options.telemetry) {
            Ok(telemetry) => telemetry,
            Err(error) => {
                eprintln!("{service}: {:#}", anyhow::Error::from(error));
                return ExitCode::from(EX_USAGE);
            }
        };
        let result = supervise(options, &telemetry, extras, run).await;
        let code = match &result {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                error!("{failure:#}");
                ExitCode::FAILURE
            }
        };
        // Exporting blocks for as long as the receiver does not answer.
        let _joined = tokio::task::spawn_blocking(move || telemetry.shutdown()).await;
        code
    })
}

/// Parses the command line; a bad one exits with 64 and names the field.
#[must_use]
pub fn parse<P: clap::Parser>() -> P {
    P::try_parse().unwrap_or_else(|error| {
        // Printing fails only where nobody can read it.
        let _printed = error.print();
        std::process::exit(if error.use_stderr() { i32::from(EX_USAGE) } else { 0 })
    })
}

async fn supervise<F>(
    options: &Options,
    telemetry: &weir_telemetry::Telemetry,
    extras: Extras,
    run: impl FnOnce(Context) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let context = Context { shutdown: CancellationToken::new(), health: Health::default() };
    if let Some(confinement) = &extras.confinement {
        tell(confinement, &context.health);
    }
    stop_on_signal(context.shutdown.clone())?;
    let server = server::start(options, context.health.clone(), telemetry.clone(), extras.routes).await?;
    info!(address = %server.address, "health endpoints are up");
    let result = run(context.clone()).await;
    context.shutdown.cancel();
    info!("stopped");
    result
}

/// Says in the log, the metrics and `/readyz` what the sandbox is.
fn tell(confinement: &sandbox::Confinement, health: &Health) {
    metrics::describe_gauge!("weir_sandbox_layer", "1 = this layer of the sandbox holds in full");
    for (name, layer) in confinement.layers() {
        metrics::gauge!("weir_sandbox_layer", "layer" => *name).set(f64::from(u8::from(layer.is_ok())));
    }
    match confinement.missing() {
        None => info!("confined: no new privileges, no capabilities, few files, few system calls"),
        Some(missing) => {
            warn!(missing, "the sandbox is not complete");
            health.note("sandbox", missing);
        }
    }
}

fn stop_on_signal(shutdown: CancellationToken) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!(signal = "SIGTERM", "stopping"),
            _ = interrupt.recv() => info!(signal = "SIGINT", "stopping"),
        }
        shutdown.cancel();
    });
    Ok(())
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}
