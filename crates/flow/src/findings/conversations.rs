//! What goes on between a client and a service over all their flows: rhythm, volume, logins, and how well it works.

use hashbrown::{HashMap, HashSet};

use super::bounded::Bounded;
use super::ended::{Attempt, Ended, is_group, is_internal};
use super::evidence::Evidence;
use super::finding::Finding;
use super::scans::Scans;
use super::thresholds::Thresholds;
use crate::analyzer::Scale;

mod harm;
mod health;
mod rhythm;
mod stalls;

pub use rhythm::Rhythm;

/// Conversations that are followed.
const MAX_CONVERSATIONS: usize = 32_768;
/// Starts of flows that are kept of each.
const MAX_STARTS: usize = 128;

/// Who talks to whom about what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ends {
    pub(super) src: [u8; 16],
    pub(super) dst: [u8; 16],
    pub(super) port: u16,
    pub(super) protocol: u8,
}

/// Who sends, and to whom.
pub(super) type Pair = ([u8; 16], [u8; 16]);

/// All flows between the same ends.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    flows: u64,
    established: u64,
    unanswered: u64,
    refused: u64,
    reset: u64,
    one_sided: u64,
    /// Of the established ones: over within seconds, after a few kilobytes.
    short: u64,
    tx_bytes: u64,
    rx_bytes: u64,
    packets: u64,
    rx_packets: u64,
    retransmits: u64,
    zero_windows: [u64; 2],
    /// Data of the largest segment of each side that was sent once and acknowledged.
    largest_passed: [u16; 2],
    /// Milliseconds since `epoch`; empty where there was one flow, as with most.
    starts: Vec<u32>,
    epoch: u64,
    /// Sum and sum of squares of what the client sent in each flow.
    sizes: (f64, f64),
    evidence: Evidence,
    /// Silences of its transfers, if there were any.
    stalls: Option<Box<stalls::Stalls>>,
    /// Of what went wrong, if anything did.
    trouble: Option<Box<Evidence>>,
}

/// The conversations of a capture.
#[derive(Debug)]
pub(super) struct Conversations {
    all: Bounded<Ends, Conversation>,
}

impl Conversations {
    pub(super) fn new(scale: Scale) -> Self {
        Self { all: Bounded::new(scale.of(MAX_CONVERSATIONS)) }
    }

    pub(super) const fn lost(&self) -> u64 {
        self.all.lost
    }

    pub(super) fn flow(&mut self, ended: &Ended<'_>) {
        if is_group(ended.dst) || (ended.attempt.is_none() && !ended.is_udp() && !ended.is_echo()) {
            return;
        }
        let ends = Ends { src: ended.src, dst: ended.dst, port: ended.dst_port, protocol: ended.protocol };
        let matters = |conversation: &Conversation| conversation.flows > 1 || conversation.tx_bytes > 100_000;
        if let Some(conversation) = self.all.entry(ends, matters) {
            conversation.add(ended);
        }
    }

    pub(super) fn findings(&self, thresholds: &Thresholds, scans: &Scans, found: &mut Vec<Finding>) {
        let scanners: HashSet<[u8; 16]> =
            self.all.iter().map(|(ends, _)| ends.src).filter(|src| scans.is_scanner(src, thresholds)).collect();
        let mut services = HashMap::new();
        let mut entered = HashMap::new();
        for (ends, conversation) in self.all.iter() {
            for find in Conversation::DETECTORS {
                // Nearly always there is none, and to pass that on by way of an iterator would move it.
                if let Some(finding) = find(conversation, ends, thresholds) {
                    found.push(finding);
                }
            }
            if !scanners.contains(&ends.src) {
                health::add_to_service(&mut services, ends, conversation);
            }
            harm::enter(&mut entered, ends, conversation);
        }
        health::services(services, thresholds, found);
        harm::lateral_movement(entered, thresholds, found);
    }

    /// Data of the largest segment that passed from one address to another, for those pairs that are asked about.
    pub(super) fn largest_passed(&self, is_asked: impl Fn(&Pair) -> bool) -> HashMap<Pair, u16> {
        let mut passed = HashMap::new();
        for (ends, conversation) in self.all.iter() {
            for (pair, largest) in
                [(ends.src, ends.dst), (ends.dst, ends.src)].into_iter().zip(conversation.largest_passed)
            {
                if largest > 0 && is_asked(&pair) {
                    let known: &mut u16 = passed.entry(pair).or_default();
                    *known = largest.max(*known);
                }
            }
        }
        passed
    }

    /// The most regular conversations, the surest first.
    pub(super) fn rhythms(&self, thresholds: &Thresholds, limit: usize) -> Vec<Rhythm> {
        let mut all: Vec<Rhythm> =
            self.all.iter().filter_map(|(ends, conversation)| conversation.rhythm(ends, thresholds)).collect();
        all.sort_by(|a, b| {
            (b.flows, a.src, a.dst, a.dst_port, a.protocol).cmp(&(a.flows, b.src, b.dst, b.dst_port, b.protocol))
        });
        all.truncate(limit);
        all
    }
}

/// Looks for one kind of finding.
type Detector = fn(&Conversation, &Ends, &Thresholds) -> Option<Finding>;

impl Conversation {
    const DETECTORS: [Detector; 8] = [
        Self::beacon,
        Self::exfiltration,
        Self::icmp_tunnel,
        Self::brute_force,
        Self::retransmissions,
        Self::zero_windows,
        Self::resets,
        Self::stalled,
    ];

    fn add(&mut self, ended: &Ended<'_>) {
        let record = ended.record;
        let sum = |tx: Option<u64>, rx: Option<u64>| tx.unwrap_or(0) + rx.unwrap_or(0);
        self.tx_bytes += record.tx_bytes;
        self.rx_bytes += record.rx_bytes;
        self.packets += ended.packets();
        self.rx_packets += record.rx_packets;
        self.retransmits += sum(record.tx_retransmits, record.rx_retransmits);
        self.zero_windows[0] += record.tx_zero_windows.unwrap_or(0);
        self.zero_windows[1] += record.rx_zero_windows.unwrap_or(0);
        for (largest, passed) in self.largest_passed.iter_mut().zip(ended.largest_passed) {
            *largest = passed.max(*largest);
        }
        let attempts = 1 + record.syn_retransmits.unwrap_or(0);
        let mut trouble = sum(record.tx_retransmits, record.rx_retransmits) > 0
            || sum(record.tx_zero_windows, record.rx_zero_windows) > 0;
        match ended.attempt {
            Some(Attempt::Unanswered) => (self.unanswered, trouble) = (self.unanswered + attempts, true),
            Some(Attempt::Refused) => (self.refused, trouble) = (self.refused + 1, true),
            Some(Attempt::OneSided) => (self.one_sided, trouble) = (self.one_sided + 1, true),
            Some(Attempt::Established) => trouble |= self.add_established(ended),
            _ => {}
        }
        if ended.first {
            self.add_start(record.start_time);
            let size = record.tx_bytes as f64;
            (self.sizes.0, self.sizes.1) = (self.sizes.0 + size, self.sizes.1 + size * size);
            self.flows += 1;
        }
        ended.add_to(&mut self.evidence);
        self.add_stalls(ended);
        if trouble {
            ended.add_to(self.trouble.get_or_insert_default());
        }
    }

    /// Whether it ended with a reset.
    fn add_established(&mut self, ended: &Ended<'_>) -> bool {
        let record = ended.record;
        let over = record.end_reason == i32::from(weir_proto::EndReason::Fin)
            || record.end_reason == i32::from(weir_proto::EndReason::Rst);
        let lasted = record.end_time.saturating_sub(record.start_time);
        self.established += 1;
        self.short += u64::from(over && lasted < 30_000_000 && record.tx_bytes < 20_000 && record.rx_bytes < 20_000);
        let reset = record.end_reason == i32::from(weir_proto::EndReason::Rst);
        self.reset += u64::from(reset);
        reset
    }

    fn add_start(&mut self, time: u64) {
        if self.flows == 0 {
            self.epoch = time;
            return;
        }
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        if self.starts.len() < MAX_STARTS {
            // A flow that ended later may have begun earlier; the order is made when it is asked for.
            let (early, late) = (self.epoch.min(time), self.epoch.max(time));
            let offset = u32::try_from((late - early) / 1000).unwrap_or(u32::MAX);
            if time < self.epoch {
                self.starts.iter_mut().for_each(|start| *start = start.saturating_add(offset));
                self.epoch = time;
                self.starts.push(0);
            } else {
                self.starts.push(offset);
            }
        }
    }

    /// Mean and spread (relative standard deviation) of what the client sent in a flow.
    fn size(&self) -> (f64, f64) {
        let count = self.flows.max(1) as f64;
        let mean = self.sizes.0 / count;
        let variance = (self.sizes.1 / count - mean * mean).max(0.0);
        (mean, variance.sqrt() / mean.max(1.0))
    }
}

pub(super) const fn is_outward(ends: &Ends) -> bool {
    is_internal(ends.src) && !is_internal(ends.dst)
}
