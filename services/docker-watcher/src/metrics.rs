//! The numbers behind `/metrics`, each named once.

use std::time::Duration;

use crate::Error;

/// A request to the engine that failed.
pub(crate) fn failure(operation: &'static str, error: &Error) {
    metrics::counter!("weir_docker_watcher_failures_total", "operation" => operation, "reason" => error.reason())
        .increment(1);
}

/// An event that became a record.
pub(crate) fn event() {
    metrics::counter!("weir_docker_watcher_events_total").increment(1);
}

/// An event that did not become a record.
pub(crate) fn event_left_out(reason: &'static str) {
    metrics::counter!("weir_docker_watcher_events_left_out_total", "reason" => reason).increment(1);
}

/// A sample that became a record.
pub(crate) fn sample() {
    metrics::counter!("weir_docker_watcher_samples_total").increment(1);
}

/// Samples that should have been and are not.
pub(crate) fn samples_missed(reason: &'static str, count: u64) {
    if count > 0 {
        metrics::counter!("weir_docker_watcher_samples_missed_total", "reason" => reason).increment(count);
    }
}

/// How long it took until all containers were sampled.
pub(crate) fn sweep(took: Duration) {
    metrics::histogram!("weir_docker_watcher_sweep_seconds").record(took.as_secs_f64());
}

/// Labels and attributes that were shortened or left out.
pub(crate) fn values_cut(count: usize) {
    if count > 0 {
        metrics::counter!("weir_docker_watcher_values_cut_total").increment(count as u64);
    }
}

/// How many containers of a source run.
pub(crate) fn running(source: &str, count: usize) {
    metrics::gauge!("weir_docker_watcher_running_containers", "source" => source.to_owned()).set(count as f64);
}

/// A session with a runtime began.
pub(crate) fn connected(source: &str) {
    metrics::counter!("weir_docker_watcher_connects_total", "source" => source.to_owned()).increment(1);
}

/// A session with a runtime could not begin, or ended.
pub(crate) fn session_failure(source: &str, error: &Error) {
    metrics::counter!("weir_docker_watcher_session_failures_total", "source" => source.to_owned(), "reason" => error.reason())
        .increment(1);
}

/// An identity that could not be written and is tried again.
pub(crate) fn identity_failure() {
    metrics::counter!("weir_docker_watcher_identity_failures_total").increment(1);
}
