//! What TCP connections came to.

use std::collections::BTreeMap;

use weir_proto::{EndReason, Flow};

use crate::packet::transport::flags;
use crate::statistics::Histogram;
use crate::tcp::{RX, Silence, Silences, TX, Wait};
use crate::tracker::Finished;

/// What TCP connections came to.
#[derive(Clone, Debug, Default)]
pub struct TcpSummary {
    /// Reset before either side had sent data.
    pub resets_before_data: u64,
    /// Reset after that.
    pub resets_after_data: u64,
    /// Of these resets, those that the initiator sent; the responder sent the others.
    pub resets_by_initiator: u64,
    /// Their SYN was answered, and the answer never acknowledged.
    pub half_open: u64,
    /// One side said that it is done, and the other never did.
    pub half_closed: u64,
    /// Open, and silent until the flow table gave them up.
    pub idle: u64,
    /// Open, with nothing but keep-alives in the last minute.
    pub zombies: u64,
    /// Segments that the capture has more than once.
    pub duplicates: u64,
    /// Waits before the first, second, ... SYN that was sent again, microseconds.
    pub syn_waits: Vec<Histogram>,
    /// Long silences by what was waited for, with the record in which the longest one ended.
    pub silences: BTreeMap<Wait, (Silence, Flow)>,
}

impl TcpSummary {
    /// Counts an interval of a connection.
    pub(super) fn add(&mut self, record: &Flow, finished: &Finished) {
        let Some(report) = &finished.tcp else { return };
        if let Some(silences) = &report.silences {
            self.add_silences(silences, record);
        }
        self.duplicates += report.counts.iter().map(|side| u64::from(side.doubled)).sum::<u64>();
        if let Some(reset) = report.reset {
            let count = if reset.after_data { &mut self.resets_after_data } else { &mut self.resets_before_data };
            *count += 1;
            self.resets_by_initiator += u64::from(reset.by == TX);
        }
        for (number, &wait) in report.syn_waits_us.iter().enumerate() {
            if number >= self.syn_waits.len() {
                self.syn_waits.push(Histogram::default());
            }
            self.syn_waits[number].add(wait);
        }
        if matches!(finished.reason, EndReason::Fin | EndReason::Rst | EndReason::Active) {
            return;
        }
        let [tx, rx] = finished.interval.flags;
        let answered = rx & (flags::SYN | flags::ACK) == flags::SYN | flags::ACK;
        let packets: u64 = finished.interval.packets.iter().sum();
        let keep_alives = u64::from(report.counts[TX].keep_alives + report.counts[RX].keep_alives);
        let is_open = report.has_data || report.handshake_us.is_some() || finished.continued;
        if answered && tx & flags::SYN != 0 && tx & flags::ACK == 0 {
            self.half_open += 1;
        } else if (tx ^ rx) & flags::FIN != 0 {
            self.half_closed += 1;
        } else if keep_alives > 0 && packets <= 2 * keep_alives + 1 {
            self.zombies += 1;
        } else if is_open && finished.reason == EndReason::Idle {
            self.idle += 1;
        }
    }

    fn add_silences(&mut self, silences: &Silences, record: &Flow) {
        for wait in Wait::ALL {
            let more = silences.of(wait);
            if more.count == 0 {
                continue;
            }
            let (all, longest) = self.silences.entry(wait).or_default();
            if more.longest_us > all.longest_us {
                longest.clone_from(record);
            }
            all.merge(more);
        }
    }
}
