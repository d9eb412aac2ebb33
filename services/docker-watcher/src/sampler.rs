//! The counters of every running container, once per interval.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, sleep_until},
};
use tracing::debug;
use weir_proto::{Container, ContainerStats};
use weir_service::Shutdown;

use crate::{
    Error,
    docker::{Engine, stats},
    metrics,
    outbox::{Outbox, Record},
    usage::{Previous, cpu_percent},
};

/// The containers that run now. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    running: Arc<RwLock<BTreeMap<String, Arc<Container>>>>,
}

impl Targets {
    /// Says whether a container runs.
    pub fn set(&self, id: &str, life: Option<&Container>) {
        let mut running = self.running.write().unwrap_or_else(PoisonError::into_inner);
        match life {
            Some(life) => drop(running.insert(id.to_owned(), Arc::new(life.clone()))),
            None => drop(running.remove(id)),
        }
        metrics::running(running.len());
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
    /// Between two samples of a container; a sweep that takes longer is cut short and the rest counted.
    pub interval: Duration,
    /// Requests to the engine at one time.
    pub concurrency: usize,
}

/// Samples until told to stop.
pub async fn run(
    targets: Targets,
    mut engine: watch::Receiver<Option<Engine>>,
    outbox: Outbox,
    pace: Pace,
    shutdown: Shutdown,
) {
    let mut previous = HashMap::new();
    let mut every = tokio::time::interval(pace.interval);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = every.tick() => {}
        }
        let now = engine.borrow_and_update().clone();
        let Some(now) = now else {
            metrics::samples_missed("no_engine", targets.all().len() as u64);
            continue;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sweep(&now, &targets, &outbox, pace, &mut previous) => {}
        }
    }
}

async fn sweep(
    engine: &Engine,
    targets: &Targets,
    outbox: &Outbox,
    pace: Pace,
    previous: &mut HashMap<String, Previous>,
) {
    let started = Instant::now();
    let running = targets.all();
    let mut left = running.len() as u64;
    let mut answers = stream::iter(running.clone())
        .map(|life| async move { (engine.stats(&life.container_id).await, life) })
        .buffer_unordered(pace.concurrency);
    loop {
        tokio::select! {
            answer = answers.next() => {
                let Some((answer, life)) = answer else { break };
                left -= 1;
                if let Some(record) = take(answer, &life, previous) {
                    metrics::sample();
                    outbox.send(Record::Stats(Box::new(record))).await;
                }
            }
            () = sleep_until(started + pace.interval) => {
                metrics::samples_missed("late", left);
                break;
            }
        }
    }
    let ids: std::collections::HashSet<_> = running.iter().map(|life| life.container_id.as_str()).collect();
    previous.retain(|id, _| ids.contains(id.as_str()));
    metrics::sweep(started.elapsed());
}

/// The record of an answer, or the count of its absence.
fn take(
    answer: Result<Option<stats::Sample>, Error>,
    life: &Container,
    previous: &mut HashMap<String, Previous>,
) -> Option<ContainerStats> {
    match answer {
        Ok(Some(sample)) => Some(complete(sample, life, previous)),
        // It ended since the sweep began.
        Ok(None) | Err(Error::NotFound) => {
            metrics::samples_missed("ended", 1);
            None
        }
        Err(error) => {
            debug!(error = error.chain(), container = life.container_id, "no sample");
            metrics::failure("stats", &error);
            metrics::samples_missed(error.reason(), 1);
            None
        }
    }
}

/// Adds to the counters what inspection and the sample before know.
fn complete(sample: stats::Sample, life: &Container, previous: &mut HashMap<String, Previous>) -> ContainerStats {
    let mut record = sample.record;
    record.container_id.clone_from(&life.container_id);
    record.name.clone_from(&life.name);
    record.image.clone_from(&life.image);
    record.labels.clone_from(&life.labels);
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
        for field in stats::NETWORK_FIELDS {
            record.missing.insert(field.to_owned(), "host network: the counters are those of the host".to_owned());
        }
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(read_ns: i64, cpu_ns: u64) -> stats::Sample {
        let record =
            ContainerStats { cpu_usage_ns: Some(cpu_ns), network_rx_bytes: Some(1), ..ContainerStats::default() };
        stats::Sample { read_ns, record }
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
    fn counters_of_the_hosts_network_are_not_a_containers() {
        let life = Container { host_network: true, ..life(7) };
        let record = complete(sample(1, 1), &life, &mut HashMap::new());
        assert_eq!(record.network_rx_bytes, None);
        assert!(record.missing["network_rx_bytes"].contains("host network"));
    }
}
