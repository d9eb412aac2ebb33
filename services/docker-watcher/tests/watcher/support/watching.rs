//! docker-watcher beside a real NATS, and everything that it publishes.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use clap::Parser as _;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use weir_bus::{Bucket, Bus, names};
use weir_docker_watcher::Config;
use weir_engines::testing::Nats;
use weir_proto::{Batch, Container, ContainerEvent, ContainerStats};
use weir_service::{Context, Health, Shutdown};

use super::eventually;

/// The host's name in the records: it needs escaping in a key.
pub(crate) const HOST: &str = "test.host";

/// A running service.
pub(crate) struct Watching {
    pub(crate) nats: Nats,
    data: TempDir,
    arguments: Vec<String>,
    service: Option<(Context, JoinHandle<anyhow::Result<()>>)>,
    bus: Bus,
    batches: Arc<Mutex<Vec<Batch>>>,
    reader: JoinHandle<()>,
}

impl Watching {
    /// Starts NATS and the service; `arguments` are further options. `None` = there is no NATS here.
    pub(crate) async fn start_or_skip(docker_host: &str, arguments: &[&str]) -> Option<Self> {
        let nats = Nats::start_or_skip().await?;
        let data = tempfile::tempdir().unwrap();
        let mut all = vec!["weir-docker-watcher".to_owned(), "--docker-host".to_owned(), docker_host.to_owned()];
        all.extend(["--nats-url".to_owned(), nats.url(), "--host".to_owned(), HOST.to_owned()]);
        all.extend(["--data-dir".to_owned(), data.path().display().to_string()]);
        all.extend(["--stats-interval".to_owned(), "1".to_owned(), "--timeout".to_owned(), "2".to_owned()]);
        if !arguments.contains(&"--runtimes") {
            all.extend(["--runtimes".to_owned(), "docker".to_owned()]);
        }
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let config = Config::try_parse_from(&all).unwrap();
        let bus = Bus::connect(&config.bus, "test").await.unwrap();
        bus.ready(&Shutdown::new(), |_| ()).await.unwrap();
        let batches = Arc::new(Mutex::new(Vec::new()));
        let reader = tokio::spawn(read(bus.clone(), Arc::clone(&batches)));
        let mut watching = Self { nats, data, arguments: all, service: None, bus, batches, reader };
        watching.start();
        Some(watching)
    }

    /// Starts the service again after [`Self::stop`].
    pub(crate) fn start(&mut self) {
        let context = Context { shutdown: Shutdown::new(), health: Health::default() };
        let config = Config::try_parse_from(&self.arguments).unwrap();
        self.service = Some((context.clone(), tokio::spawn(weir_docker_watcher::run(config, context))));
    }

    /// Stops the service as a signal would.
    pub(crate) async fn stop(&mut self) {
        let (context, service) = self.service.take().unwrap();
        context.shutdown.cancel();
        service.await.unwrap().unwrap();
    }

    /// Why a condition is not met; `None` = it is.
    pub(crate) fn unmet(&self, condition: &str) -> Option<String> {
        let (context, _) = self.service.as_ref().unwrap();
        context.health.conditions().get(condition).cloned().unwrap_or_else(|| Some("not named".to_owned()))
    }

    /// Waits until the service is ready.
    pub(crate) async fn ready(&self) {
        let (context, _) = self.service.as_ref().unwrap();
        let ready = eventually("ready service", || context.health.is_ready().then_some(()));
        let waited = tokio::time::timeout(std::time::Duration::from_secs(50), ready).await;
        assert!(waited.is_ok(), "not ready: {:?}", context.health.conditions());
    }

    /// Waits until the published records give an answer.
    pub(crate) async fn records<T>(&self, what: &str, answer: impl Fn(&Records) -> Option<T>) -> T {
        let answered = eventually(what, || answer(&self.published()));
        let waited = tokio::time::timeout(std::time::Duration::from_secs(50), answered).await;
        waited.unwrap_or_else(|_| {
            let Records { stats, events, statements } = self.published();
            let conditions = self.service.as_ref().map(|(context, _)| context.health.conditions());
            panic!("no {what}: {conditions:?}\n{statements:#?}\n{events:#?}\n{:#?}", stats.last())
        })
    }

    /// All that was published until now.
    pub(crate) fn published(&self) -> Records {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let mut records = Records::default();
        for batch in batches.iter() {
            assert_eq!(batch.host, HOST);
            records.stats.extend(batch.container_stats.iter().cloned());
            records.events.extend(batch.container_events.iter().cloned());
            records.statements.extend(batch.containers.iter().cloned());
        }
        records
    }

    /// The bucket of identities.
    pub(crate) async fn identities(&self) -> Bucket<Container> {
        self.bus.bucket(names::IDENTITIES).await.unwrap()
    }

    /// The key of a container in it.
    pub(crate) fn key(id: &str) -> String {
        format!("{}.{}", names::key(HOST), names::key(id))
    }

    pub(crate) fn data_dir(&self) -> &Path {
        self.data.path()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.reader.abort();
        if let Some((context, _)) = &self.service {
            context.shutdown.cancel();
        }
    }
}

/// What was published, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Records {
    pub(crate) stats: Vec<ContainerStats>,
    pub(crate) events: Vec<ContainerEvent>,
    pub(crate) statements: Vec<Container>,
}

impl Records {
    /// The actions of a container's events.
    pub(crate) fn actions(&self, id: &str) -> Vec<&str> {
        self.events.iter().filter(|event| event.container_id == id).map(|event| event.action.as_str()).collect()
    }

    pub(crate) fn event(&self, id: &str, action: &str) -> Option<&ContainerEvent> {
        self.events.iter().find(|event| event.container_id == id && event.action == action)
    }

    /// The rows of a container as the table keeps them: of the statements about one life the latest, in the order of their starts.
    pub(crate) fn lives(&self, id: &str) -> Vec<&Container> {
        let mut lives: Vec<&Container> = Vec::new();
        for statement in self.statements.iter().filter(|statement| statement.container_id == id) {
            match lives.iter_mut().find(|life| life.started_at == statement.started_at) {
                Some(life) if life.observed_at < statement.observed_at => *life = statement,
                Some(_) => {}
                None => lives.push(statement),
            }
        }
        lives.sort_by_key(|life| life.started_at);
        lives
    }

    /// The samples of a container.
    pub(crate) fn samples(&self, id: &str) -> Vec<&ContainerStats> {
        self.stats.iter().filter(|stats| stats.container_id == id).collect()
    }
}

async fn read(bus: Bus, batches: Arc<Mutex<Vec<Batch>>>) {
    loop {
        let Ok(mut reader) = bus.records().await else {
            tokio::task::yield_now().await;
            continue;
        };
        while let Ok(message) = reader.next().await {
            let batch = message.batch().unwrap();
            keep(&batches, batch);
            // A lost ack brings the batch again, which is known then.
            let _acked = message.ack().await;
        }
    }
}

fn keep(batches: &Mutex<Vec<Batch>>, batch: Batch) {
    let mut seen = batches.lock().unwrap_or_else(PoisonError::into_inner);
    let name = |batch: &Batch| (batch.producer.clone(), batch.sequence);
    if !seen.iter().any(|other| name(other) == name(&batch)) {
        seen.push(batch);
    }
}
