//! What pcap-worker counts.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Analysed; the capture is done.
    Done,
    /// Can never be analysed; the capture is failed.
    Failed,
    /// Given back after a failure that may pass.
    Retried,
    /// Given back because this worker stops.
    Returned,
    /// Somebody asked to end it.
    Cancelled,
    /// The capture was deleted, or is asked for by another job.
    Obsolete,
    /// Not a job that this version can read.
    Poison,
}

impl Outcome {
    const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Retried => "retried",
            Self::Returned => "returned",
            Self::Cancelled => "cancelled",
            Self::Obsolete => "obsolete",
            Self::Poison => "poison",
        }
    }
}

/// Tells the recorder what the names mean.
pub fn describe() {
    describe_counter!("weir_pcap_worker_jobs_total", "jobs by outcome");
    describe_counter!("weir_pcap_worker_packets_total", "packets analysed, again where a job was done again");
    describe_counter!("weir_pcap_worker_bytes_total", Unit::Bytes, "bytes of these packets on the wire");
    describe_counter!("weir_pcap_worker_batches_total", "batches that the stream has taken");
    describe_counter!("weir_pcap_worker_send_retries_total", "batches that the stream did not take at once");
    describe_counter!("weir_pcap_worker_carves_total", "questions for packets by outcome");
    describe_gauge!("weir_pcap_worker_busy", "1 while a capture is analysed");
}

pub(crate) fn job(outcome: Outcome) {
    counter!("weir_pcap_worker_jobs_total", "outcome" => outcome.name()).increment(1);
}

pub(crate) fn analysed(packets: u64, bytes: u64) {
    counter!("weir_pcap_worker_packets_total").increment(packets);
    counter!("weir_pcap_worker_bytes_total").increment(bytes);
}

pub(crate) fn batch_sent() {
    counter!("weir_pcap_worker_batches_total").increment(1);
}

pub(crate) fn send_retried() {
    counter!("weir_pcap_worker_send_retries_total").increment(1);
}

pub(crate) fn carved(outcome: &'static str) {
    counter!("weir_pcap_worker_carves_total", "outcome" => outcome).increment(1);
}

pub(crate) fn busy(busy: bool) {
    gauge!("weir_pcap_worker_busy").set(f64::from(u8::from(busy)));
}
