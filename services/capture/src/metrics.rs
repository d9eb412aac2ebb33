//! What `/metrics` tells. The ledger comes from the kernel as it is: `seen = accounted + ignored + lost`, each by reason, and
//! `accounted = reported + pending`.

use std::sync::{Mutex, PoisonError};

use metrics::{counter, gauge};
use serde_json::{Map, Value, json};
use weir_capture_common::ledger::{Kind, Ledger, Outcome};
use weir_proto::Flow;

/// Packets and bytes in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field says what it is")]
pub struct Sums {
    pub records: u64,
    pub packets: u64,
    pub bytes: u64,
}

impl Sums {
    /// What the records hold, both directions.
    #[must_use]
    pub fn of(flows: &[Flow]) -> Self {
        flows.iter().fold(Self::default(), |sums, flow| Self {
            records: sums.records + 1,
            packets: sums.packets + flow.tx_packets + flow.rx_packets,
            bytes: sums.bytes + flow.tx_bytes + flow.rx_bytes,
        })
    }

    /// Adds others.
    pub fn add(&mut self, other: Self) {
        self.records += other.records;
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// What was known after the last drain.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) ledger: Ledger,
    pub(crate) reported: Sums,
    pub(crate) flows: u64,
    pub(crate) capacity: u32,
}

/// One capture runs in a process, as there is one recorder of metrics.
static LATEST: Mutex<Option<Snapshot>> = Mutex::new(None);

/// What was known after the last drain.
pub(crate) fn latest() -> Snapshot {
    LATEST.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_default()
}

fn keep(change: impl FnOnce(&mut Snapshot)) {
    change(LATEST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default());
}

/// The ledger for `/api/stats`: each kind with packets and bytes, `ignored` and `lost` by reason.
pub(crate) fn ledger_object(ledger: &Ledger, reported: &Sums) -> Map<String, Value> {
    let entry = |packets: u64, bytes: u64| json!({ "packets": packets, "bytes": bytes });
    let mut object = Map::new();
    for (name, kind) in [("seen", Kind::Seen), ("accounted", Kind::Accounted)] {
        let sum = ledger.sum(kind);
        object.insert(name.into(), entry(sum.packets, sum.bytes));
    }
    for (name, kind) in [("ignored", Kind::Ignored), ("lost", Kind::Lost)] {
        let reasons = Outcome::ALL.into_iter().filter(|outcome| outcome.kind() == kind).map(|outcome| {
            let share = ledger.entry(outcome);
            (outcome.reason().to_owned(), entry(share.packets, share.bytes))
        });
        object.insert(name.into(), Value::Object(reasons.collect()));
    }
    let mut told = entry(reported.packets, reported.bytes);
    told["records"] = reported.records.into();
    object.insert("reported".into(), told);
    object
}

/// The kernel's ledger, and how much of it has become records.
pub fn ledger(ledger: &Ledger, reported: &Sums) {
    keep(|latest| (latest.ledger, latest.reported) = (*ledger, *reported));
    for outcome in Outcome::ALL {
        let entry = ledger.entry(outcome);
        let reason = outcome.reason();
        match outcome.kind() {
            Kind::Seen => {
                counter!("weir_capture_packets_seen_total").absolute(entry.packets);
                counter!("weir_capture_bytes_seen_total").absolute(entry.bytes);
            }
            Kind::Accounted => {
                counter!("weir_capture_packets_accounted_total").absolute(entry.packets);
                counter!("weir_capture_bytes_accounted_total").absolute(entry.bytes);
            }
            Kind::Ignored => {
                counter!("weir_capture_packets_ignored_total", "reason" => reason).absolute(entry.packets);
                counter!("weir_capture_bytes_ignored_total", "reason" => reason).absolute(entry.bytes);
            }
            Kind::Lost => {
                counter!("weir_capture_packets_lost_total", "reason" => reason).absolute(entry.packets);
                counter!("weir_capture_bytes_lost_total", "reason" => reason).absolute(entry.bytes);
            }
        }
    }
    counter!("weir_capture_fragments_without_ports_total").absolute(ledger.fragments_without_ports);
    counter!("weir_capture_packets_spilled_total").absolute(ledger.spilled);
    counter!("weir_capture_packets_overflow_total").absolute(ledger.overflow);
    counter!("weir_capture_super_packets_total").absolute(ledger.super_packets);
    counter!("weir_capture_flows_opened_total").absolute(ledger.flows_opened);
    counter!("weir_capture_records_total").absolute(reported.records);
    counter!("weir_capture_packets_reported_total").absolute(reported.packets);
    counter!("weir_capture_bytes_reported_total").absolute(reported.bytes);
    let pending = ledger.entry(Outcome::Accounted).packets.saturating_sub(reported.packets);
    gauge!("weir_capture_packets_pending").set(pending as f64);
}

/// Records that the spool did not take, with what they hold; they count as reported too.
pub fn unpublished(sums: Sums) {
    counter!("weir_capture_records_unpublished_total").increment(sums.records);
    counter!("weir_capture_packets_unpublished_total").increment(sums.packets);
    counter!("weir_capture_bytes_unpublished_total").increment(sums.bytes);
}

/// Packets that no life of the service has seen or reported, because the one before this was killed. They are beside the ledger, which is
/// this life's; as interfaces count, where a super-packet is one.
pub fn unseen(packets: u64) {
    counter!("weir_capture_packets_unseen_total").increment(packets);
}

/// Packets that the kernel has picked to be dissected, and such as found no room on their way.
pub fn picked(picked: u64, lost: u64) {
    counter!("weir_capture_picks_total").absolute(picked);
    counter!("weir_capture_picks_lost_total").absolute(lost);
}

/// How full the table is.
pub fn table(live: u64, capacity: u32) {
    keep(|latest| (latest.flows, latest.capacity) = (live, capacity));
    gauge!("weir_capture_flows").set(live as f64);
    gauge!("weir_capture_flows_capacity").set(f64::from(capacity));
}

/// The table has got another size.
pub fn resized() {
    counter!("weir_capture_table_resizes_total").increment(1);
}

/// Whether an interface, or a name that is waited for, is captured on.
pub fn interface(name: &str, attached: bool) {
    gauge!("weir_capture_interface_attached", "interface" => name.to_owned()).set(if attached { 1.0 } else { 0.0 });
}

/// Whether this kernel offers something that records can tell.
pub fn feature(name: &'static str, available: bool) {
    for (state, value) in [("available", available), ("missing", !available)] {
        gauge!("weir_capture_feature", "feature" => name, "state" => state).set(if value { 1.0 } else { 0.0 });
    }
}

/// What the kernel dropped on the whole host, by its own reason.
pub fn kernel_drops(reason: String, packets: u64) {
    counter!("weir_capture_kernel_drops_total", "reason" => reason).absolute(packets);
}

/// How long a drain took.
pub fn drained(seconds: f64) {
    metrics::histogram!("weir_capture_drain_seconds").record(seconds);
}
