//! The only place that wires.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use futures::future::join_all;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};
use tracing::{info, warn};
use weir_bus::{Bus, Publisher, names};
use weir_proto::Container;
use weir_service::{Context, Health, Shutdown};

use crate::{
    Config,
    cgroup::Served,
    config::Runtime,
    identities::Identities,
    outbox::{self, Outbox, Record},
    position::Position,
    runtime::{self, Address},
    sampler::{self, Pace, Targets},
    sources,
    watcher::{self, Outputs, Watcher},
};

/// How long a stopping process waits for NATS to take what it has; the rest stays in the spool.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs the service until it is told to stop.
pub async fn run(config: Config, context: Context) -> anyhow::Result<()> {
    let Context { shutdown, health } = context;
    let host = config.service.host.as_str();
    health.unmet("nats", "connecting");

    let addresses = sources::addresses(&config, Path::new("/")).context("cannot know where Docker is")?;
    let bus = Bus::connect(&config.bus, "weir-docker-watcher").await.context("cannot use --nats-url")?;
    let publisher = Publisher::open(
        bus.clone(),
        names::RECORDS_CONTAINERS,
        host,
        &config.spool_dir(),
        config.spool.spool_max_bytes,
    )
    .context("cannot open the spool")?;
    let identities = Identities::new(host);
    let (earlier_sender, earlier) = oneshot::channel();

    let served = served(&addresses);
    let several = addresses.iter().filter(|address| matches!(address, Address::Podman(_))).count() > 1;
    let sources: Vec<_> = addresses
        .into_iter()
        .map(|address| {
            Source::start(name(&address, several), address, &config, &identities, served.clone(), &health, &shutdown)
        })
        .collect();
    let (parts, earlier_of): (Vec<_>, Vec<_>) = sources.into_iter().map(Source::parts).unzip();
    let sharing = tokio::spawn(share(earlier, earlier_of));
    let identities = tokio::spawn(identities.run(bus, health, earlier_sender, shutdown.clone()));
    // Each ends when its watcher and its sampler have: they hold the senders.
    let tasks = parts.into_iter().map(|Running { records, position, file, watcher, sampler }| {
        let publisher = &publisher;
        async move {
            outbox::run(records, publisher, position, file).await;
            watcher.await.context("a watcher broke")?;
            sampler.await.context("a sampler broke")
        }
    });
    join_all(tasks).await.into_iter().collect::<anyhow::Result<()>>()?;

    if tokio::time::timeout(DRAIN, identities).await.is_err() {
        warn!("identities could not be written before the end: the next start will");
    }
    sharing.abort();
    let left = publisher.close(DRAIN).await;
    if left > 0 {
        info!(batches = left, "left in the spool for the next start");
    }
    Ok(())
}

/// A watched runtime: all that nothing but the publisher and the bucket shares with another.
struct Source {
    running: Running,
    earlier: (String, oneshot::Sender<Vec<Container>>),
}

struct Running {
    records: mpsc::Receiver<Record>,
    position: Position,
    file: std::path::PathBuf,
    watcher: JoinHandle<()>,
    sampler: JoinHandle<()>,
}

impl Source {
    fn start(
        name: &'static str,
        address: Address,
        config: &Config,
        identities: &Identities,
        served: Served,
        health: &Health,
        shutdown: &Shutdown,
    ) -> Self {
        // A socket that was found may be of no use: Docker's containerd serves no CRI, and may be closed to this user.
        let optional = config.runtimes.contains(&Runtime::Auto) && !matches!(address, Address::Docker(_));
        if !optional {
            health.unmet(name, format!("connecting to {address}"));
        }
        let file = config.position_file(&name.replace(['/', ' '], "-"));
        let position = Position::load(&file).unwrap_or_else(|error| {
            warn!(%error, file = %file.display(), "cannot read the place in the events");
            Position::default()
        });
        let (outbox, records) = Outbox::new();
        let (engine, connected_engine) = watch::channel(None);
        let (earlier_sender, earlier) = oneshot::channel();
        let targets = Targets::new(name);
        let source = runtime::source_name(&address);
        let outputs = Outputs {
            outbox: outbox.clone(),
            identities: identities.clone(),
            targets: targets.clone(),
            engine,
            served,
        };
        let watching = watcher::Options {
            name,
            address,
            optional,
            timeout: config.timeout(),
            concurrency: usize::from(config.inspect_concurrency),
            reconcile_interval: config.reconcile_interval(),
            filter: config.filter.clone(),
        };
        let pace = Pace { interval: config.stats_interval(), concurrency: usize::from(config.stats_concurrency) };
        let watcher = Watcher::new(watching, &config.service.host, position.clone(), outputs, health.clone(), earlier);
        let watcher = tokio::spawn(watcher.run(shutdown.clone()));
        let sampler = tokio::spawn(sampler::run(targets, connected_engine, outbox, pace, shutdown.clone()));
        let running = Running { records, position, file, watcher, sampler };
        Self { running, earlier: (source, earlier_sender) }
    }

    fn parts(self) -> (Running, (String, oneshot::Sender<Vec<Container>>)) {
        (self.running, self.earlier)
    }
}

/// The condition of a source: its kind, and its address where there are several of the kind.
fn name(address: &Address, several: bool) -> &'static str {
    match address {
        // A handful, one per user who runs a service, and they live as long as the process.
        Address::Podman(path) if several => Box::leak(format!("podman {}", path.display()).into_boxed_str()),
        _ => address.kind(),
    }
}

fn served(addresses: &[Address]) -> Served {
    let found = addresses.iter().find_map(|address| match address {
        Address::Cgroup(served) => Some(served.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| Served::new(0))
}

/// Gives every source the identities that it left, and the first one those that no source knows.
async fn share(earlier: oneshot::Receiver<Vec<Container>>, sources: Vec<(String, oneshot::Sender<Vec<Container>>)>) {
    // Err = the process ends before NATS answered.
    let Ok(earlier) = earlier.await else { return };
    let mut shares = vec![Vec::new(); sources.len()];
    for container in earlier {
        let index = sources.iter().position(|(source, _)| *source == container.source).unwrap_or(0);
        if let Some(share) = shares.get_mut(index) {
            share.push(container);
        }
    }
    for ((_, sender), share) in sources.into_iter().zip(shares) {
        // A watcher ends only with the process.
        let _sent = sender.send(share);
    }
}
