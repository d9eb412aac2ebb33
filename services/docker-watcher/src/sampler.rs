//! The counters of every running container, once per interval.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tracing::debug;
use weir_proto::{Container, ContainerStats};
use weir_service::Shutdown;

use crate::{
    Error, cgroup, metrics,
    outbox::{Outbox, Record},
    runtime::{self, Engine, Sample},
    usage::{Previous, cpu_percent},
};

/// How many containers are asked for in a second, where the interval leaves time for that: so many begin beside each other without waiting, and
/// a thousand do not beat at once.
const STARTS_PER_SECOND: u32 = 200;

/// The containers of a source that run now. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    source: Arc<str>,
    running: Arc<RwLock<BTreeMap<String, Arc<Container>>>>,
}

impl Targets {
    /// None yet, of the source that metrics name so.
    #[must_use]
    pub fn new(source: &str) -> Self {
        Self { source: source.into(), running: Arc::default() }
    }

    /// Says whether a container runs.
    pub fn set(&self, id: &str, life: Option<&Container>) {
        let mut running = self.running.write().unwrap_or_else(PoisonError::into_inner);
        match life {
            Some(life) => drop(running.insert(id.to_owned(), Arc::new(life.clone()))),
            None => drop(running.remove(id)),
        }
        metrics::running(&self.source, running.len());
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.running.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// How often, and how many at a time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two samples of a container.
    pub interval: Duration,
    /// Requests to the engine at one time.
    pub concurrency: usize,
}

/// Samples until told to stop.
///
/// In every interval each running container is asked for once, at its own moment of it, unless the request before is still on its way: that is
/// counted. So an engine that is slow about one container delays no other, and never has more than one request per container. Where the engine
/// does not answer, the container's cgroup does.
pub async fn run(
    targets: Targets,
    engine: watch::Receiver<Option<Engine>>,
    outbox: Outbox,
    pace: Pace,
    shutdown: Shutdown,
) {
    let mut sampler = Sampler {
        pace,
        waiting: VecDeque::new(),
        flying: FuturesUnordered::new(),
        busy: HashSet::new(),
        previous: HashMap::new(),
        began: Instant::now(),
    };
    let mut every = tokio::time::interval(pace.interval);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let due = sampler.next_due();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = until(due) => {}
            _ = every.tick() => {
                let engine = engine.borrow().clone();
                sampler.begin(engine.as_ref(), targets.all());
            }
            Some((answer, life)) = sampler.flying.next() => {
                if let Some(record) = sampler.answered(answer, &life) {
                    outbox.send(Record::Stats(Box::new(record))).await;
                }
            }
        }
        sampler.ask();
    }
}

type Answer = (Result<Option<Sample>, Error>, Arc<Container>);

struct Sampler {
    pace: Pace,
    /// In the order of their moments.
    waiting: VecDeque<(Instant, Option<Engine>, Arc<Container>)>,
    flying: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// The containers of both.
    busy: HashSet<String>,
    previous: HashMap<String, Previous>,
    /// When the newest sweep began.
    began: Instant,
}

impl Sampler {
    /// Begins a sweep.
    fn begin(&mut self, engine: Option<&Engine>, running: Vec<Arc<Container>>) {
        let ids: HashSet<_> = running.iter().map(|life| life.container_id.as_str()).collect();
        self.previous.retain(|id, _| ids.contains(id.as_str()));
        self.began = Instant::now();
        let window = window(running.len(), self.pace.interval);
        for life in running {
            if self.busy.insert(life.container_id.clone()) {
                let due = self.began + window.mul_f64(phase(&life.container_id));
                self.waiting.push_back((due, engine.cloned(), life));
            } else {
                metrics::samples_missed("late", 1);
            }
        }
        self.waiting.make_contiguous().sort_by_key(|(due, ..)| *due);
    }

    /// Sends what may be sent.
    fn ask(&mut self) {
        let now = Instant::now();
        while self.flying.len() < self.pace.concurrency
            && let Some((_, engine, life)) = self.waiting.pop_front_if(|(due, ..)| *due <= now)
        {
            self.flying.push(async move { (count(engine.as_ref(), &life).await, life) }.boxed());
        }
    }

    /// The next moment of a container that may be asked for then.
    fn next_due(&self) -> Option<Instant> {
        let due = self.waiting.front().map(|(due, ..)| *due);
        due.filter(|_| self.flying.len() < self.pace.concurrency)
    }

    fn answered(&mut self, answer: Result<Option<Sample>, Error>, life: &Container) -> Option<ContainerStats> {
        self.busy.remove(&life.container_id);
        if self.busy.is_empty() {
            metrics::sweep(self.began.elapsed());
        }
        take(answer, life, &mut self.previous)
    }
}

/// Waits until then; `None` = for ever.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Over how much of the interval the containers' moments are spread.
fn window(containers: usize, interval: Duration) -> Duration {
    let containers = u32::try_from(containers).unwrap_or(u32::MAX);
    (Duration::from_secs(1) * containers / STARTS_PER_SECOND).min(interval / 2)
}

/// A container's moment within the window, from 0 to 1: always the same, so that its samples are an interval apart.
fn phase(container_id: &str) -> f64 {
    let mut hasher = DefaultHasher::new();
    container_id.hash(&mut hasher);
    (hasher.finish() >> 32) as f64 / f64::from(u32::MAX)
}

/// The engine's counters, or else those of the cgroup.
async fn count(engine: Option<&Engine>, life: &Container) -> Result<Option<Sample>, Error> {
    let error = match engine {
        Some(engine) => match engine.stats(life).await {
            Err(error) if !matches!(error, Error::NotFound) => Some(error),
            answer => return answer,
        },
        None => None,
    };
    if let Some(error) = &error {
        debug!(error = error.chain(), container = life.container_id, "the engine does not count");
        metrics::failure("stats", error);
    }
    match (runtime::sample_without_engine(life).await, error) {
        (Ok(Some(sample)), _) => Ok(Some(sample)),
        (_, Some(error)) | (Err(error), None) => Err(error),
        (Ok(None), None) => Err(Error::Closed),
    }
}

/// The record of an answer, or the count of its absence.
fn take(
    answer: Result<Option<Sample>, Error>,
    life: &Container,
    previous: &mut HashMap<String, Previous>,
) -> Option<ContainerStats> {
    match answer {
        Ok(Some(sample)) => {
            metrics::sample();
            Some(complete(sample, life, previous))
        }
        // It ended since the sweep began.
        Ok(None) | Err(Error::NotFound) => {
            metrics::samples_missed("ended", 1);
            None
        }
        Err(error) => {
            debug!(error = error.chain(), container = life.container_id, "no sample");
            metrics::samples_missed(error.reason(), 1);
            None
        }
    }
}

/// Adds to the counters what inspection and the sample before know.
fn complete(sample: Sample, life: &Container, previous: &mut HashMap<String, Previous>) -> ContainerStats {
    let mut record = sample.record;
    record.container_id.clone_from(&life.container_id);
    record.name.clone_from(&life.name);
    record.image.clone_from(&life.image);
    record.labels.clone_from(&life.labels);
    record.restarts = life.restarts;
    if let Some(cpu_ns) = record.cpu_usage_ns {
        let now = Previous { started_at: life.started_at, read_ns: sample.read_ns, cpu_ns };
        match cpu_percent(previous.get(&life.container_id), &now) {
            Ok(percent) => record.cpu_percent = Some(percent),
            Err(reason) => drop(record.missing.insert("cpu_percent".to_owned(), reason.to_owned())),
        }
        previous.insert(life.container_id.clone(), now);
    } else {
        record.missing.insert("cpu_percent".to_owned(), "the engine reports no CPU use".to_owned());
        previous.remove(&life.container_id);
    }
    if life.host_network {
        (record.network_rx_bytes, record.network_tx_bytes) = (None, None);
        (record.network_rx_packets, record.network_tx_packets) = (None, None);
        record.interfaces.clear();
        for field in cgroup::network::FIELDS {
            record.missing.insert(field.to_owned(), "host network: the counters are those of the host".to_owned());
        }
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(read_ns: i64, cpu_ns: u64) -> Sample {
        let record =
            ContainerStats { cpu_usage_ns: Some(cpu_ns), network_rx_bytes: Some(1), ..ContainerStats::default() };
        Sample { read_ns, record }
    }

    fn life(started_at: u64) -> Container {
        let labels = [("tier".to_owned(), "web".to_owned())].into();
        Container { container_id: "af1c".into(), name: "web".into(), labels, started_at, ..Container::default() }
    }

    #[test]
    fn a_second_sample_of_the_same_life_has_a_rate() {
        let mut previous = HashMap::new();
        let first = complete(sample(1_000_000_000, 500), &life(7), &mut previous);
        assert_eq!((first.cpu_percent, first.missing.contains_key("cpu_percent")), (None, true));
        let second = complete(sample(2_000_000_000, 250_000_500), &life(7), &mut previous);
        assert_eq!((second.cpu_percent, second.missing.is_empty()), (Some(25.0), true));
        assert_eq!((second.name.as_str(), second.labels["tier"].as_str()), ("web", "web"));
        let restarted = complete(sample(3_000_000_000, 900_000_000), &life(8), &mut previous);
        assert_eq!(restarted.cpu_percent, None);
    }

    #[test]
    fn a_hundred_begin_within_half_a_second_and_a_thousand_do_not_beat_at_once() {
        let interval = Duration::from_secs(10);
        assert_eq!(window(100, interval), Duration::from_millis(500));
        assert_eq!(window(1000, interval), Duration::from_secs(5));
        assert_eq!(window(1000, Duration::from_secs(1)), Duration::from_millis(500));
        let mut tenths = [0; 10];
        for container in 0..1000 {
            tenths[((phase(&format!("container-{container}")) * 10.0) as usize).min(9)] += 1;
        }
        assert!(tenths.iter().all(|count| (60..=140).contains(count)), "{tenths:?}");
        assert_eq!(phase("web").to_bits(), phase("web").to_bits());
    }

    #[test]
    fn counters_of_the_hosts_network_are_not_a_containers() {
        let life = Container { host_network: true, ..life(7) };
        let record = complete(sample(1, 1), &life, &mut HashMap::new());
        assert_eq!(record.network_rx_bytes, None);
        assert!(record.missing["network_rx_bytes"].contains("host network"));
    }
}
