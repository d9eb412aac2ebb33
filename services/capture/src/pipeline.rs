//! Wires the parts: interfaces → capturing thread → publisher or writer.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tracing::{info, warn};
use weir_bus::{Bus, Publisher, names};
use weir_proto::{Batch, Flow, Source};
use weir_service::Context;

use crate::{
    capture::{Capture, Sink, Sizing},
    config::{self, Config, Output},
    demand::{self, Who},
    http::Told,
    interfaces::{self, Network},
    output::Printer,
    picks::{CatchUp, Known, Picks, Rows},
    select,
};

/// How long the end waits for NATS to take the last batches; what it has not taken stays in the spool.
const CLOSE: Duration = Duration::from_secs(10);
/// How often the thread is looked after.
const WATCHDOG: Duration = Duration::from_secs(1);

/// Captures until the shutdown, then publishes what is left.
pub async fn run(config: Config, capture: Capture, context: Context) -> anyhow::Result<()> {
    let told = Told::new(&config.service.host);
    run_told(config, capture, context, told).await
}

/// As [`run`], and tells of it to those who ask over HTTP.
pub async fn run_told(config: Config, mut capture: Capture, context: Context, told: Told) -> anyhow::Result<()> {
    // Set once, here.
    let _first = told.health.set(context.health.clone());
    let (network, mut changes) = watch::channel(Network::default());
    let destination = Destination::open(&config, &context).await?;
    let checkpoint = destination.is_nats().then(|| config.service.data_dir.join("capture.checkpoint"));
    let known = Arc::new(Known::default());
    let picks = capture.take_picks();
    let start = |buffer| {
        Picks::start(
            buffer,
            capture.seed(),
            capture.nat(),
            capture.known_inside(),
            Arc::clone(&known),
            destination.rows(),
        )
    };
    let picks = picks.map(start);
    let picks = picks.transpose().context("cannot start a thread")?;
    let who = Arc::new(Who::default());
    let recorder = capture.take_recorder().zip(destination.bus());
    let recording = recorder.map(|(recorder, bus)| {
        demand::start(bus, recorder, Arc::clone(&who), network.subscribe(), &config, &context.shutdown)
    });
    capture.start(
        sink(&config, &destination, &told, (known, who), picks.as_ref().map(Picks::catch_up)),
        context.health.clone(),
        checkpoint,
    )?;
    capture.keep_books(destination.rows())?;

    let watching = tokio::spawn(interfaces::watch(network, context.shutdown.clone()));
    let mut watchdog = tokio::time::interval(WATCHDOG);
    let mut reread = config.config.is_some().then(|| signal(SignalKind::hangup())).transpose()?;
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
            () = told_to_reread(&mut reread) => match config::reload() {
                Ok(config) => capture.resize(Sizing::of(&config))?,
                Err(error) => warn!(%error, "the file of options is wrong: all stays as it is"),
            },
            _ = watchdog.tick() => if capture.has_ended() { break },
        }
    }

    if let Some(recording) = recording {
        // Where the loop ended without an order to stop, it would go on.
        recording.stop().await;
    }
    let totals = tokio::task::spawn_blocking(move || capture.stop()).await?.context("capturing stopped")?;
    if let Some(picks) = picks {
        tokio::task::spawn_blocking(move || picks.stop()).await?;
    }
    destination.close().await?;
    info!(records = totals.reported.records, packets = totals.reported.packets, "all that was counted is reported");
    if context.shutdown.is_cancelled() {
        return Ok(());
    }
    watching.await??;
    anyhow::bail!("capturing ended by itself")
}

/// `SIGHUP`; never where there is no file of options to be read again.
async fn told_to_reread(hangup: &mut Option<Signal>) {
    match hangup {
        Some(hangup) => {
            hangup.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Scales what a sample stands for, adds names, and hands records to all who want them.
fn sink(
    config: &Config,
    destination: &Destination,
    told: &Told,
    (known, who): (Arc<Known>, Arc<Who>),
    names: Option<CatchUp>,
) -> Sink {
    let one_in = config.sample;
    let live = told.live.clone();
    let mut publish = destination.publish();
    Box::new(move |mut flows| {
        if let Some(names) = &names {
            names.wait();
        }
        for flow in &mut flows {
            select::scale(flow, one_in);
            known.name(flow);
        }
        who.learn(&flows);
        live.tell(&flows);
        publish(flows)
    })
}

/// Where records go.
enum Destination {
    Nats { bus: Box<Bus>, publisher: Publisher, directory: std::path::PathBuf, connecting: tokio::task::JoinHandle<()> },
    Alone(Printer),
}

impl Destination {
    async fn open(config: &Config, context: &Context) -> anyhow::Result<Self> {
        match config.output.unwrap_or(Output::Nats) {
            Output::Nats => Self::nats(config, context).await,
            output => {
                let host = &config.service.host;
                Printer::start(output, config.file.as_deref(), host, context.shutdown.clone()).map(Self::Alone)
            }
        }
    }

    async fn nats(config: &Config, context: &Context) -> anyhow::Result<Self> {
        let bus = Bus::connect(&config.bus, "weir-capture").await?;
        let directory = config.spool.spool_dir.clone().unwrap_or_else(|| config.service.data_dir.join("spool/capture"));
        let host = &config.service.host;
        let publisher =
            Publisher::open(bus.clone(), names::RECORDS_EBPF, host, &directory, config.spool.spool_max_bytes)?;
        let connecting = tokio::spawn(report_bus(bus.clone(), context.clone()));
        Ok(Self::Nats { bus: Box::new(bus), publisher, directory, connecting })
    }

    fn is_nats(&self) -> bool {
        matches!(self, Self::Nats { .. })
    }

    fn bus(&self) -> Option<Bus> {
        match self {
            Self::Nats { bus, .. } => Some(Bus::clone(bus)),
            Self::Alone(_) => None,
        }
    }

    fn publish(&self) -> Box<dyn FnMut(Vec<Flow>) -> bool + Send> {
        match self {
            Self::Nats { publisher, .. } => {
                let publisher = publisher.clone();
                Box::new(move |flows| {
                    publisher.publish(Batch { source: Source::Ebpf.into(), flows, ..Batch::default() })
                })
            }
            Self::Alone(printer) => Box::new(printer.queue()),
        }
    }

    /// Rows of other tables are for the whole of Weir: alone, the names on flows tell the same.
    fn rows(&self) -> Rows {
        match self {
            Self::Nats { publisher, .. } => {
                let publisher = publisher.clone();
                Box::new(move |batch| publisher.publish(batch))
            }
            Self::Alone(_) => Box::new(|_| true),
        }
    }

    async fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Nats { publisher, directory, connecting, .. } => {
                let left = publisher.close(CLOSE).await;
                if left > 0 {
                    warn!(batches = left, directory = %directory.display(), "the spool keeps what NATS has not taken");
                }
                connecting.abort();
                Ok(())
            }
            Self::Alone(printer) => tokio::task::spawn_blocking(move || printer.finish()).await?,
        }
    }
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
