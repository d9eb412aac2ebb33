//! Flows that have no room in the kernel's table, added up here from what the kernel tells packet by packet.

use std::{collections::HashMap, time::Duration};

use weir_capture_common::{
    facts::Tunnel,
    flow::{FlowKey, Side},
    initiator::{FIN, RST, TCP},
    ledger::{self, Entry},
    slot::{self, Counters},
    spill::{Spill, marks},
};
use weir_proto::EndReason;

use super::{Interval, Story, Traffic};

/// Flows that are kept, some 8 MB; when there are more, all are reported and forgotten.
const MAX_FLOWS: usize = 32_768;

/// The flows.
pub struct Spilled {
    flows: HashMap<FlowKey, Flow>,
    /// What goes on is reported this often.
    active: Duration,
    /// What is quiet for this long has ended, or has got its room.
    linger: Duration,
    /// By the place of the ledger.
    duplicates: HashMap<u32, Entry>,
}

#[derive(Clone, Copy)]
struct Flow {
    initiator: Side,
    tunnel: Tunnel,
    /// First packet.
    began: u64,
    /// First packet that is not reported; 0 = all are.
    first: u64,
    from_a: Counters,
    from_b: Counters,
}

impl Spilled {
    /// None yet.
    #[must_use]
    pub fn new(active: Duration, linger: Duration) -> Self {
        Self { flows: HashMap::new(), active, linger, duplicates: HashMap::new() }
    }

    /// Adds a packet. As in the table, only the first hook that sees a direction counts it.
    pub fn add(&mut self, spill: &Spill, report: &mut dyn FnMut(Interval)) {
        if self.flows.len() >= MAX_FLOWS && !self.flows.contains_key(&spill.key) {
            self.finish(report);
        }
        let flow = self.flows.entry(spill.key).or_insert_with(|| Flow {
            initiator: spill.initiator(),
            tunnel: spill.tunnel,
            began: spill.now,
            first: 0,
            from_a: Counters::default(),
            from_b: Counters::default(),
        });
        let counters = flow.sent_mut(spill.sender());
        if !counters.owned_by(spill.hook, spill.now, spill.marks & marks::ANONYMOUS != 0) {
            let duplicates = self.duplicates.entry(ledger::place(slot::ifindex(spill.hook))).or_default();
            duplicates.packets += u64::from(spill.packets);
            duplicates.bytes += u64::from(spill.bytes);
            return;
        }
        counters.owner = spill.hook;
        counters.packets += u64::from(spill.packets);
        counters.bytes += u64::from(spill.bytes);
        counters.last_seen = counters.last_seen.max(spill.now);
        counters.tcp_flags |= u64::from(spill.tcp_flags());
        if flow.first == 0 {
            flow.first = spill.now;
        }
    }

    /// Reports what is due, and forgets what is quiet.
    pub fn run(&mut self, now: u64, report: &mut dyn FnMut(Interval)) {
        let (active, linger) = (self.active, self.linger);
        self.flows.retain(|key, flow| {
            if Duration::from_nanos(now.saturating_sub(flow.last_seen())) >= linger {
                report(flow.interval(key, flow.end_reason(key)));
                return false;
            }
            if flow.first != 0 && Duration::from_nanos(now.saturating_sub(flow.first)) >= active {
                report(flow.interval(key, EndReason::Active));
                flow.settle();
            }
            true
        });
    }

    /// Reports the rest of all.
    pub fn finish(&mut self, report: &mut dyn FnMut(Interval)) {
        for (key, flow) in self.flows.drain() {
            report(flow.interval(&key, flow.end_reason(&key)));
        }
    }

    /// What the kernel counted in a [place](ledger::place) as accounted although another hook had counted it.
    #[must_use]
    pub fn duplicates(&self, place: u32) -> Entry {
        self.duplicates.get(&place).copied().unwrap_or_default()
    }
}

impl Flow {
    fn sent_mut(&mut self, side: Side) -> &mut Counters {
        match side {
            Side::A => &mut self.from_a,
            Side::B => &mut self.from_b,
        }
    }

    fn sent(&self, side: Side) -> &Counters {
        match side {
            Side::A => &self.from_a,
            Side::B => &self.from_b,
        }
    }

    fn last_seen(&self) -> u64 {
        self.from_a.last_seen.max(self.from_b.last_seen)
    }

    fn end_reason(&self, key: &FlowKey) -> EndReason {
        let (a, b) = (self.from_a.tcp_flags as u8, self.from_b.tcp_flags as u8);
        match key.protocol() {
            TCP if (a | b) & RST != 0 => EndReason::Rst,
            TCP if a & b & FIN != 0 => EndReason::Fin,
            _ => EndReason::Evicted,
        }
    }

    fn interval(&self, key: &FlowKey, end_reason: EndReason) -> Interval {
        let traffic = |side| {
            let counters = self.sent(side);
            Traffic { packets: counters.packets, bytes: counters.bytes, tcp_flags: counters.tcp_flags as u8 }
        };
        let (mine, other) = (self.sent(self.initiator), self.sent(self.initiator.other()));
        let owner = if mine.owner == 0 { other.owner } else { mine.owner };
        let end = self.last_seen();
        Interval {
            key: *key,
            initiator: self.initiator,
            flow_start: self.began,
            start: if self.first == 0 { end } else { self.first.min(end) },
            end,
            tx: traffic(self.initiator),
            rx: traffic(self.initiator.other()),
            ifindex: slot::ifindex(owner),
            end_reason,
            story: Story { tunnel: self.tunnel, ..Story::default() },
        }
    }

    /// Begins the next interval.
    fn settle(&mut self) {
        self.first = 0;
        for counters in [&mut self.from_a, &mut self.from_b] {
            (counters.packets, counters.bytes, counters.tcp_flags) = (0, 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_capture_common::dissect::Headers;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn spill(port: u16, now: u64, hook: u32, marks: u32) -> Spill {
        let (key, _) = FlowKey::new(&Headers { src_port: port, dst_port: 40_000, protocol: 17, ..Headers::default() });
        Spill { key, now, packets: 2, bytes: 100, hook, marks, tunnel: Tunnel::default() }
    }

    fn spilled() -> Spilled {
        Spilled::new(Duration::from_secs(5), Duration::from_secs(1))
    }

    #[test]
    fn both_directions_are_one_flow_that_ends_when_it_is_quiet() {
        let (mut spilled, mut told) = (spilled(), Vec::new());
        for (now, marks) in [(SECOND, marks::B_BEGAN | marks::FROM_B), (SECOND + 5, 0)] {
            spilled.add(&spill(1, now, 2, marks), &mut |interval| told.push(interval));
        }
        spilled.run(SECOND + 10, &mut |interval| told.push(interval));
        assert!(told.is_empty());
        spilled.run(3 * SECOND, &mut |interval| told.push(interval));
        spilled.finish(&mut |interval| told.push(interval));
        let [interval] = told[..] else { panic!("{told:?}") };
        assert_eq!((interval.initiator, interval.tx.packets, interval.rx.bytes), (Side::B, 2, 100));
        assert_eq!((interval.start, interval.end, interval.ifindex), (SECOND, SECOND + 5, 1));
        assert_eq!(interval.end_reason, EndReason::Evicted);
    }

    #[test]
    fn a_flow_that_goes_on_is_reported_in_parts() {
        let (mut spilled, mut told) = (spilled(), Vec::new());
        for step in 0..20 {
            let now = SECOND + step * SECOND / 2;
            spilled.add(&spill(1, now, 2, 0), &mut |_| ());
            spilled.run(now, &mut |interval| told.push(interval));
        }
        spilled.finish(&mut |interval| told.push(interval));
        assert_eq!(told.iter().map(|interval| interval.tx.packets).sum::<u64>(), 40);
        assert!(told.len() == 2 && told[0].end < told[1].start && told[0].flow_start == told[1].flow_start, "{told:?}");
    }

    #[test]
    fn what_another_hook_has_counted_is_a_duplicate() {
        let (mut spilled, mut told) = (spilled(), Vec::new());
        for hook in [2, 5] {
            spilled.add(&spill(1, SECOND, hook, 0), &mut |_| ());
        }
        spilled.finish(&mut |interval| told.push(interval));
        assert_eq!(told[0].tx.packets, 2);
        assert_eq!(spilled.duplicates(ledger::place(slot::ifindex(5))), Entry { packets: 2, bytes: 100 });
    }

    #[test]
    fn more_flows_than_are_kept_are_reported_early() {
        let (mut spilled, mut packets) = (spilled(), 0);
        for number in 0..MAX_FLOWS as u64 + 10 {
            let mut one = spill(number as u16, SECOND, 2, 0);
            one.key.a.low = number;
            spilled.add(&one, &mut |interval| packets += interval.tx.packets);
        }
        assert_eq!(packets, 2 * MAX_FLOWS as u64);
        assert_eq!(spilled.flows.len(), 10);
    }
}
