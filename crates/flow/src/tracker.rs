//! The flow table: counts packets into flows and says when a record of one is finished.
//!
//! The only clock is the time of packets, which may step in either direction. A flow that ended leaves its name behind for a while, so
//! that packets after its end (a late acknowledgement, a conversation that goes on after a pause) are records of the same flow, and a new
//! SYN with another sequence number is a new flow.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};
use weir_proto::EndReason;

use crate::key::{Direction, Key};
use crate::rows::Rows;
use crate::rtp;
use crate::table::Place;
use crate::tcp::{Marks, Report};

mod deadlines;
mod entry;
mod retired;

use deadlines::{Deadline, Deadlines};
use retired::{Retired, Retirees};

pub use crate::tcp::Segment;
pub use entry::{Entry, Facts, Interval};

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
    /// Silence of an open TCP flow before it is asked what it waited for.
    pub silence_us: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const SECOND: u64 = 1_000_000;
        Self {
            // Each takes about 900 bytes with its name after its end.
            flows: 250_000,
            retired: 250_000,
            active_us: 60 * SECOND,
            idle_tcp_us: 300 * SECOND,
            idle_us: 60 * SECOND,
            closed_us: 5 * SECOND,
            silence_us: SECOND,
        }
    }
}

/// What a caller keeps with each flow.
pub trait State: Default {
    /// Bytes on the heap that end with the flow.
    fn held_bytes(&self) -> usize;

    /// What the interval of a media stream adds up to, by direction, since the last call.
    fn take_stream(&mut self) -> [Option<rtp::Report>; 2] {
        [None; 2]
    }

    /// Whether what went in either direction, by [`Direction::index`], ends in the middle of a message whose length is known.
    fn midway(&self) -> [bool; 2] {
        [false; 2]
    }

    /// Whether there is something to say when the flow ends: then [`Tracker::take_ended`] gives it.
    fn has_more(&self) -> bool {
        false
    }
}

/// What a flow kept that ended with something to say.
#[derive(Debug)]
pub struct Ended<S> {
    /// The flow's key.
    pub key: Key,
    /// Its name within the analysis.
    pub ordinal: u64,
    /// As in [`Entry`].
    pub id: u64,
    /// What was kept.
    pub state: S,
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
    /// The segment is not whole: its flags count, and its bytes do once [`Tracker::segment`] has them all.
    pub is_fragment: bool,
    /// The capture has the packet more than once: it counts as captured, and says nothing new of the connection.
    pub is_copy: bool,
    /// What stands in a record for the ports of source and destination; for ICMP type and code.
    pub ports: (u16, u16),
    /// Number of the ends of the tunnel that it is in, in the caller's table; 0 = none.
    pub tunnel_ends: u32,
}

/// A packet that may be the other direction of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    /// Microseconds.
    pub time: u64,
    /// Which way the packet went.
    pub direction: Direction,
    /// What a segment of TCP acknowledges.
    pub acknowledgement: Option<u32>,
}

/// A finished interval of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The flow's key.
    pub key: Key,
    /// How many flows were made before this one.
    pub ordinal: u64,
    /// As in [`Entry`].
    pub id: u64,
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
    /// What the segments of the interval say; set for TCP.
    pub tcp: Option<Box<Report>>,
    /// What the interval of a media stream adds up to: what initiator and responder sent.
    pub stream: [Option<rtp::Report>; 2],
    /// Protocol recognised in the payload; empty = none.
    pub app: &'static str,
    /// What else its payload told.
    pub facts: Facts,
}

impl Finished {
    /// The addresses of initiator and responder.
    pub(crate) const fn ends(&self) -> ([u8; 16], [u8; 16]) {
        (self.key.src(self.initiator).ip, self.key.dst(self.initiator).ip)
    }
}

/// The flow table.
#[derive(Debug)]
pub struct Tracker<S> {
    limits: Limits,
    slots: Rows<Option<Entry<S>>>,
    free: Vec<u32>,
    /// Slots by key.
    index: HashTable<Place>,
    hasher: DefaultHashBuilder,
    /// The slot of the last packet: the next one is often of the same flow.
    latest: u32,
    deadlines: Deadlines,
    /// The latest time of a packet.
    now: u64,
    tokens: u32,
    retired: Retirees,
    ordinals: u64,
    evicted: u64,
    released_bytes: usize,
    /// Empty; keeps its room from call to call.
    silent: Vec<u32>,
    finished: Vec<Finished>,
    ended: Vec<Ended<S>>,
    /// Flows that are still to be ended at the end, the first one last.
    last: Vec<(u64, u32)>,
}

impl<S: State> Tracker<S> {
    /// An empty table.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            slots: Rows::default(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            latest: 0,
            deadlines: Deadlines::new(),
            now: 0,
            tokens: 0,
            retired: Retirees::new(limits.retired),
            ordinals: 0,
            evicted: 0,
            released_bytes: 0,
            silent: Vec::new(),
            finished: Vec::new(),
            ended: Vec::new(),
            last: Vec::new(),
        }
    }

    /// Counts a packet into its flow, and says what it is of a TCP connection.
    pub fn observe(&mut self, packet: &Observation) -> Marks {
        let mut marks = Marks::default();
        let mut slot = self.find(&packet.key);
        if let Some(found) = slot
            && self.starts_anew(found, packet)
        {
            self.end(found, None);
            // The new connection shares nothing with the one before.
            self.retired.remove(&packet.key);
            slot = None;
            marks.insert(Marks::PORTS_REUSED);
        }
        let slot = slot.unwrap_or_else(|| self.begin(packet));
        self.latest = slot;
        let entry = self.slots[slot as usize].as_mut().expect("the index names only slots in use");
        let was_closed = entry.tcp.is_closed();
        marks.insert(entry.count(packet, &self.limits, &mut self.finished));
        let closes = !was_closed && entry.tcp.is_closed();
        if closes {
            self.schedule(slot);
        }
        marks
    }

    /// Analyses a segment whose packet was counted in fragments.
    pub fn segment(&mut self, key: &Key, time: u64, direction: Direction, segment: &Segment) -> Marks {
        self.get_mut(key).map_or_else(Marks::default, |entry| entry.segment(time, direction, segment))
    }

    /// The flow with this key, if it is in the table.
    pub fn get_mut(&mut self, key: &Key) -> Option<&mut Entry<S>> {
        let slot = self.find(key)?;
        self.slots[slot as usize].as_mut()
    }

    /// Flows in the table.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether the flow with this key is in the table.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.find(key).is_some()
    }

    /// Whether a packet under another key is, by what it says, of the other direction of the flow with this one.
    pub(crate) fn awaits(&self, key: &Key, reply: Reply) -> bool {
        let entry = self.find(key).and_then(|slot| self.slots[slot as usize].as_ref());
        entry.is_some_and(|entry| entry.awaits(reply))
    }

    fn find(&self, key: &Key) -> Option<u32> {
        let holds = |slot: u32| matches!(self.slots.get(slot as usize), Some(Some(entry)) if entry.key == *key);
        if holds(self.latest) {
            return Some(self.latest);
        }
        let hash = self.hash(key);
        self.index.find(Place::spread(hash), |place| place.hash == hash && holds(place.at)).map(|place| place.at)
    }

    fn hash(&self, key: &Key) -> u32 {
        self.hasher.hash_one(key) as u32
    }

    /// Ends flows that have been silent for too long; some of them at each call, so that a leap of the clock does not finish a whole table
    /// at once.
    pub fn advance(&mut self, now: u64) {
        self.now = self.now.max(now);
        let mut silent = std::mem::take(&mut self.silent);
        while silent.len() < TOGETHER
            && let Some(deadline) = self.deadlines.pop_due(self.now)
        {
            let Some(due) = self.due(deadline) else { continue };
            if due <= self.now {
                silent.push(deadline.slot);
            } else {
                self.deadlines.insert(Deadline { time: due, ..deadline });
            }
        }
        self.end_all(&silent, Some(EndReason::Idle));
        silent.clear();
        self.silent = silent;
    }

    /// Ends the next flows in the order in which they began, some of them at each call; whether there are more.
    pub fn finish_some(&mut self) -> bool {
        if self.last.is_empty() {
            let slots = (0..).zip(self.slots.iter());
            self.last = slots.filter_map(|(slot, entry)| Some((entry.as_ref()?.ordinal, slot))).collect();
            // Taken from the end.
            self.last.sort_unstable_by(|a, b| b.cmp(a));
            self.deadlines.clear();
        }
        let rest = self.last.len().saturating_sub(TOGETHER);
        let slots: Vec<u32> = self.last.drain(rest..).rev().map(|(_, slot)| slot).collect();
        self.end_all(&slots, Some(EndReason::Eof));
        !self.last.is_empty()
    }

    /// Whether an interval has finished that was not taken.
    #[must_use]
    pub const fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// Takes the intervals that have finished, in the order in which they did, for an empty vector, whose room is used.
    pub fn take_finished(&mut self, into: &mut Vec<Finished>) {
        std::mem::swap(into, &mut self.finished);
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

    /// Takes what ended flows have to say, in the order in which they ended.
    pub fn take_ended(&mut self) -> Vec<Ended<S>> {
        std::mem::take(&mut self.ended)
    }

    /// Whether a packet cannot belong to the connection in this slot: a SYN whose sequence number is not that of the SYN before.
    fn starts_anew(&self, slot: u32, packet: &Observation) -> bool {
        let Some(segment) = packet.tcp.filter(Segment::is_syn) else { return false };
        let base = self.slots[slot as usize].as_ref().and_then(|entry| entry.base_sequence(packet.direction));
        base.is_some_and(|base| base != segment.sequence)
    }

    fn begin(&mut self, packet: &Observation) -> u32 {
        if self.index.len() >= self.limits.flows.max(1) {
            self.evict();
        }
        let entry = if let Some(entry) = self.resumed(packet) {
            entry
        } else {
            self.ordinals += 1;
            Entry::new(packet, self.ordinals)
        };
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        if slot as usize == self.slots.len() {
            self.slots.push(Some(entry));
        } else {
            self.slots[slot as usize] = Some(entry);
        }
        let place = Place { hash: self.hash(&packet.key), at: slot };
        self.index.insert_unique(place.rehash(), place, |place| place.rehash());
        self.schedule(slot);
        self.drop_stale_deadlines();
        slot
    }

    /// Makes the flow in a slot be looked at when its time is out as it is now; an earlier order to do so is void.
    fn schedule(&mut self, slot: u32) {
        let Self { limits, slots, deadlines, tokens, .. } = self;
        let Some(entry) = &mut slots[slot as usize] else { return };
        *tokens = tokens.wrapping_add(1);
        entry.token = *tokens;
        let time = entry.last_seen.saturating_add(idle_timeout(limits, entry));
        deadlines.insert(Deadline { time, slot, token: entry.token });
    }

    /// Flows that end otherwise leave their deadlines behind; ports that are used anew with each packet would pile them up.
    fn drop_stale_deadlines(&mut self) {
        const SPARE: usize = 1024;
        if self.deadlines.len() <= 2 * self.index.len() + SPARE {
            return;
        }
        let slots = &self.slots;
        self.deadlines.retain(|deadline| {
            slots[deadline.slot as usize].as_ref().is_some_and(|entry| entry.token == deadline.token)
        });
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
        entry.id = old.id;
        entry.initiator = old.initiator;
        entry.ports = old.ports;
        entry.interface = old.interface;
        entry.app = old.app;
        entry.facts.tunnel_ends = old.tunnel_ends;
        entry.continued = true;
        entry.tcp.base_sequence = old.base_sequence;
        Some(entry)
    }

    /// When the flow that a deadline is for ends if nothing more comes; none where the deadline is void.
    fn due(&self, deadline: Deadline) -> Option<u64> {
        let entry = self.slots.get(deadline.slot as usize)?.as_ref().filter(|entry| entry.token == deadline.token)?;
        Some(entry.last_seen.saturating_add(idle_timeout(&self.limits, entry)))
    }

    /// Ends about the longest silent flow.
    fn evict(&mut self) {
        while let Some(deadline) = self.deadlines.pop_first() {
            match self.due(deadline) {
                Some(due) if due <= deadline.time => {
                    self.evicted += 1;
                    return self.end(deadline.slot, Some(EndReason::Evicted));
                }
                Some(due) => self.deadlines.insert(Deadline { time: due, ..deadline }),
                None => {}
            }
        }
    }

    fn end(&mut self, slot: u32, reason: Option<EndReason>) {
        self.end_all(&[slot], reason);
    }

    /// Finishes the flows in these slots. A connection that was closed says so whatever ended its record.
    ///
    /// Each of the tables is gone over by itself: what a flow is found in is rarely in the caches when the flow ends, and so several of
    /// them are fetched at once.
    fn end_all(&mut self, slots: &[u32], reason: Option<EndReason>) {
        for slot in slots {
            self.remove(*slot);
        }
        for slot in slots {
            self.finish(*slot, reason);
        }
        for slot in slots {
            self.retire(*slot);
        }
        for slot in slots {
            self.release(*slot);
        }
    }

    /// Takes the flow in a slot out of the index.
    fn remove(&mut self, slot: u32) {
        let Some(Some(entry)) = self.slots.get(slot as usize) else { return };
        let hash = self.hash(&entry.key);
        if let Ok(place) = self.index.find_entry(Place::spread(hash), |place| place.at == slot) {
            place.remove();
        }
    }

    fn finish(&mut self, slot: u32, reason: Option<EndReason>) {
        let Some(Some(entry)) = self.slots.get_mut(slot as usize) else { return };
        let reason = entry.tcp.end_reason().or(reason).unwrap_or(EndReason::Idle);
        self.finished.push(entry.finish(reason));
    }

    fn retire(&mut self, slot: u32) {
        if let Some(Some(entry)) = self.slots.get(slot as usize) {
            self.retired.add(entry.retired());
        }
    }

    /// Makes a slot free.
    fn release(&mut self, slot: u32) {
        let Some(Some(entry)) = self.slots.get_mut(slot as usize) else { return };
        self.released_bytes += entry.state.held_bytes();
        if entry.state.has_more() {
            let state = std::mem::take(&mut entry.state);
            self.ended.push(Ended { key: entry.key, ordinal: entry.ordinal, id: entry.id, state });
        }
        self.slots[slot as usize] = None;
        self.free.push(slot);
    }
}

/// Flows that are ended at one time: enough of them for their rows to be fetched side by side, and few enough for what is made of them to
/// stay close to the core until it is taken.
const TOGETHER: usize = 48;

/// Silence that ends a flow.
const fn idle_timeout<S>(limits: &Limits, entry: &Entry<S>) -> u64 {
    match (entry.is_tcp(), entry.tcp.is_closed()) {
        (true, true) => limits.closed_us,
        (true, false) => limits.idle_tcp_us,
        (false, _) => limits.idle_us,
    }
}

#[cfg(test)]
mod tests;
