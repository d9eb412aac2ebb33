//! The flow table: counts packets into flows and says when a record of one is finished.
//!
//! The only clock is the time of packets, which may step in either direction. A flow that ended leaves its name behind for a while, so
//! that packets after its end (a late acknowledgement, a conversation that goes on after a pause) are records of the same flow, and a new
//! SYN with another sequence number is a new flow.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use hashbrown::HashMap;
use weir_proto::EndReason;

use crate::key::{Direction, Key};
use crate::packet::transport::flags;

mod entry;

pub use entry::{Entry, Interval};

/// Bounds and timeouts of the table; times in microseconds of packet time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Flows at one time.
    pub flows: usize,
    /// Names of ended flows that are remembered.
    pub retired: usize,
    /// Longest time that one record covers.
    pub active_us: u64,
    /// Silence that ends a TCP flow.
    pub idle_tcp_us: u64,
    /// Silence that ends any other flow.
    pub idle_us: u64,
    /// Silence that ends a TCP flow that was closed or reset.
    pub closed_us: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const SECOND: u64 = 1_000_000;
        Self {
            // Each takes about 600 bytes with its name after its end.
            flows: 250_000,
            retired: 250_000,
            active_us: 60 * SECOND,
            idle_tcp_us: 300 * SECOND,
            idle_us: 60 * SECOND,
            closed_us: 5 * SECOND,
        }
    }
}

/// What a caller keeps with each flow.
pub trait State: Default {
    /// Bytes on the heap that end with the flow.
    fn held_bytes(&self) -> usize;
}

/// One packet, as far as the table needs it.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// Microseconds.
    pub time: u64,
    /// Number of the frame in the capture, from 1 on.
    pub frame: u64,
    /// The flow's key.
    pub key: Key,
    /// Which way the packet went.
    pub direction: Direction,
    /// IP bytes on the wire.
    pub length: u32,
    /// Number of the interface.
    pub interface: u32,
    /// Set for TCP.
    pub tcp: Option<Segment>,
    /// What stands in a record for the ports of source and destination; for ICMP type and code.
    pub ports: (u16, u16),
}

/// The TCP fields that decide where flows begin and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// FIN = 1 ... CWR = 128.
    pub flags: u8,
}

impl Segment {
    pub(crate) const fn is_syn(&self) -> bool {
        self.flags & (flags::SYN | flags::ACK) == flags::SYN
    }

    pub(crate) const fn is_syn_ack(&self) -> bool {
        self.flags & (flags::SYN | flags::ACK) == flags::SYN | flags::ACK
    }
}

/// A finished interval of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The flow's key.
    pub key: Key,
    /// How many flows were made before this one.
    pub ordinal: u64,
    /// Whether an earlier interval of the flow has finished.
    pub continued: bool,
    /// The direction of packets from the initiator.
    pub initiator: Direction,
    /// As in the observation of the flow's first packet, seen from the initiator.
    pub ports: (u16, u16),
    /// Number of the interface of the flow's first packet.
    pub interface: u32,
    /// What was counted.
    pub interval: Interval,
    /// Why the interval ends.
    pub reason: EndReason,
    /// From SYN to the acknowledgement of SYN+ACK, in the interval in which it was completed.
    pub handshake_us: Option<u32>,
    /// Protocol recognised in the payload; empty = none.
    pub app: &'static str,
}

/// What is remembered of a flow that ended.
#[derive(Clone, Copy, Debug)]
struct Retired {
    ordinal: u64,
    initiator: Direction,
    ports: (u16, u16),
    interface: u32,
    base_sequence: [Option<u32>; 2],
    app: &'static str,
    generation: u64,
}

/// The flow table.
#[derive(Debug)]
pub struct Tracker<S> {
    limits: Limits,
    slots: Vec<Option<Entry<S>>>,
    free: Vec<usize>,
    index: HashMap<Key, usize>,
    /// When to look at a flow next: time, ordinal (which makes the order total), slot. One per flow.
    deadlines: BinaryHeap<Reverse<(u64, u64, usize)>>,
    retired: HashMap<Key, Retired>,
    retired_order: VecDeque<(Key, u64)>,
    retired_generations: u64,
    ordinals: u64,
    evicted: u64,
    released_bytes: usize,
    finished: Vec<Finished>,
    /// Flows that are still to be ended at the end, the first one last.
    last: Vec<(u64, usize)>,
}

impl<S: State> Tracker<S> {
    /// An empty table.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            slots: Vec::new(),
            free: Vec::new(),
            index: HashMap::new(),
            deadlines: BinaryHeap::new(),
            retired: HashMap::new(),
            retired_order: VecDeque::new(),
            retired_generations: 0,
            ordinals: 0,
            evicted: 0,
            released_bytes: 0,
            finished: Vec::new(),
            last: Vec::new(),
        }
    }

    /// Counts a packet and gives the flow it belongs to.
    pub fn observe(&mut self, packet: &Observation) -> &mut Entry<S> {
        let mut slot = self.index.get(&packet.key).copied();
        if let Some(found) = slot
            && self.starts_anew(found, packet)
        {
            self.end(found, None);
            // The new connection shares nothing with the one before.
            self.retired.remove(&packet.key);
            slot = None;
        }
        let slot = slot.unwrap_or_else(|| self.begin(packet));
        let active_us = self.limits.active_us;
        let entry = self.slots[slot].as_mut().expect("the index names only slots in use");
        if let Some(finished) = entry.count(packet, active_us) {
            self.finished.push(finished);
        }
        entry
    }

    /// The flow with this key, if it is in the table.
    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Entry<S>> {
        self.slots[*self.index.get(key)?].as_mut()
    }

    /// Ends flows that have been silent for too long; some of them at each call, so that a leap of the clock does not finish a whole table
    /// at once.
    pub fn advance(&mut self, now: u64) {
        const MOST: usize = 256;
        let mut ended = 0;
        while ended < MOST
            && let Some(&Reverse((deadline, ordinal, slot))) = self.deadlines.peek()
        {
            if deadline > now {
                break;
            }
            self.deadlines.pop();
            let Some(due) = self.due(slot, ordinal) else { continue };
            if due <= now {
                self.end(slot, Some(EndReason::Idle));
                ended += 1;
            } else {
                self.deadlines.push(Reverse((due, ordinal, slot)));
            }
        }
    }

    /// Ends the next flows in the order in which they began, some of them at each call; whether there are more.
    pub fn finish_some(&mut self) -> bool {
        const MOST: usize = 1000;
        if self.last.is_empty() {
            let slots = self.slots.iter().enumerate();
            self.last = slots.filter_map(|(slot, entry)| Some((entry.as_ref()?.ordinal, slot))).collect();
            // Taken from the end.
            self.last.sort_unstable_by(|a, b| b.cmp(a));
            self.deadlines.clear();
        }
        for _ in 0..MOST {
            let Some((_, slot)) = self.last.pop() else { break };
            self.end(slot, Some(EndReason::Eof));
        }
        !self.last.is_empty()
    }

    /// Takes the intervals that have finished, in the order in which they did.
    pub fn take_finished(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.finished)
    }

    /// Flows made so far.
    #[must_use]
    pub const fn flows(&self) -> u64 {
        self.ordinals
    }

    /// Flows that ended because the table needed the room.
    #[must_use]
    pub const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Bytes that ended flows held, since the last call.
    pub fn take_released_bytes(&mut self) -> usize {
        std::mem::take(&mut self.released_bytes)
    }

    /// Whether a packet cannot belong to the connection in this slot: a SYN whose sequence number is not that of the SYN before.
    fn starts_anew(&self, slot: usize, packet: &Observation) -> bool {
        let Some(segment) = packet.tcp.filter(Segment::is_syn) else { return false };
        let base = self.slots[slot].as_ref().and_then(|entry| entry.tcp.base_sequence[packet.direction.index()]);
        base.is_some_and(|base| base != segment.sequence)
    }

    fn begin(&mut self, packet: &Observation) -> usize {
        if self.index.len() >= self.limits.flows.max(1) {
            self.evict();
        }
        let entry = if let Some(entry) = self.resumed(packet) {
            entry
        } else {
            self.ordinals += 1;
            Entry::new(packet, self.ordinals)
        };
        let due = packet.time.saturating_add(self.idle_timeout(&entry));
        let ordinal = entry.ordinal;
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(Some(entry));
        } else {
            self.slots[slot] = Some(entry);
        }
        self.index.insert(packet.key, slot);
        self.deadlines.push(Reverse((due, ordinal, slot)));
        self.drop_stale_deadlines();
        slot
    }

    /// Flows that end otherwise leave their deadlines behind; ports that are used anew with each packet would pile them up.
    fn drop_stale_deadlines(&mut self) {
        const SPARE: usize = 1024;
        if self.deadlines.len() <= 2 * self.index.len() + SPARE {
            return;
        }
        let mut deadlines = std::mem::take(&mut self.deadlines);
        deadlines.retain(|&Reverse((_, ordinal, slot))| self.due(slot, ordinal).is_some());
        self.deadlines = deadlines;
    }

    /// The flow that ended earlier and goes on with this packet.
    fn resumed(&mut self, packet: &Observation) -> Option<Entry<S>> {
        let old = self.retired.remove(&packet.key)?;
        if let Some(segment) = packet.tcp.filter(Segment::is_syn)
            && old.base_sequence[packet.direction.index()].is_some_and(|base| base != segment.sequence)
        {
            return None;
        }
        let mut entry = Entry::new(packet, old.ordinal);
        entry.initiator = old.initiator;
        entry.ports = old.ports;
        entry.interface = old.interface;
        entry.app = old.app;
        entry.continued = true;
        entry.tcp.base_sequence = old.base_sequence;
        Some(entry)
    }

    fn idle_timeout(&self, entry: &Entry<S>) -> u64 {
        match (entry.is_tcp(), entry.tcp.is_closed()) {
            (true, true) => self.limits.closed_us,
            (true, false) => self.limits.idle_tcp_us,
            (false, _) => self.limits.idle_us,
        }
    }

    /// When the flow in this slot ends if nothing more comes; none where the slot belongs to another flow by now.
    fn due(&self, slot: usize, ordinal: u64) -> Option<u64> {
        let entry = self.slots.get(slot)?.as_ref().filter(|entry| entry.ordinal == ordinal)?;
        Some(entry.last_seen.saturating_add(self.idle_timeout(entry)))
    }

    /// Ends about the longest silent flow.
    fn evict(&mut self) {
        while let Some(Reverse((deadline, ordinal, slot))) = self.deadlines.pop() {
            match self.due(slot, ordinal) {
                Some(due) if due <= deadline => {
                    self.evicted += 1;
                    return self.end(slot, Some(EndReason::Evicted));
                }
                Some(due) => self.deadlines.push(Reverse((due, ordinal, slot))),
                None => {}
            }
        }
    }

    /// Finishes the flow in a slot. A connection that was closed says so whatever ended its record.
    fn end(&mut self, slot: usize, reason: Option<EndReason>) {
        let Some(mut entry) = self.slots.get_mut(slot).and_then(Option::take) else { return };
        self.free.push(slot);
        self.index.remove(&entry.key);
        self.released_bytes += entry.state.held_bytes();
        let reason = entry.tcp.end_reason().or(reason).unwrap_or(EndReason::Idle);
        self.finished.push(entry.finish(reason));
        self.retire(&entry);
    }

    fn retire(&mut self, entry: &Entry<S>) {
        while self.retired_order.len() >= self.limits.retired.max(1) {
            let Some((key, generation)) = self.retired_order.pop_front() else { break };
            if self.retired.get(&key).is_some_and(|retired| retired.generation == generation) {
                self.retired.remove(&key);
            }
        }
        self.retired_generations += 1;
        let retired = Retired {
            ordinal: entry.ordinal,
            initiator: entry.initiator,
            ports: entry.ports,
            interface: entry.interface,
            base_sequence: entry.tcp.base_sequence,
            app: entry.app,
            generation: self.retired_generations,
        };
        self.retired.insert(entry.key, retired);
        self.retired_order.push_back((entry.key, self.retired_generations));
    }
}

#[cfg(test)]
mod tests;
