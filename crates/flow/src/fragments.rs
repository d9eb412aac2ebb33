//! IPv4 and IPv6 fragments: which flow each belongs to, and the whole payload once all have come.
//!
//! Only the first fragment carries ports. Fragments that come before it wait here, as figures and not as packets, until it names their
//! flow, or until time or room runs out; either way each is counted once. Memory is bounded by entries, ranges and bytes.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::key::{Belonging, Key};
use crate::packet::Fragment;

mod starts;

pub use starts::Start;
use starts::{Beginning, Starts};

/// Bounds of the table.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Packets in reassembly at one time.
    pub entries: usize,
    /// Bytes of payload kept for all of them.
    pub bytes: usize,
    /// Microseconds of packet time after which an incomplete packet is given up. RFC 8200 says 60 s; hosts use 30.
    pub timeout_us: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 8192, bytes: 32 << 20, timeout_us: 30_000_000 }
    }
}

impl Limits {
    const fn is_over(&self, since: u64, now: u64) -> bool {
        now.saturating_sub(since) >= self.timeout_us
    }
}

/// What the fragments of one packet share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Datagram {
    /// Network order, IPv4 mapped.
    pub src: [u8; 16],
    /// Network order, IPv4 mapped.
    pub dst: [u8; 16],
    /// IANA number for IPv4; 0 for IPv6, which does not distinguish by it (RFC 8200 section 4.5).
    pub protocol: u8,
    /// Identification field.
    pub id: u32,
    /// As in [`Key`].
    pub vlan: u32,
    /// As in [`Key`].
    pub tunnel: u32,
}

/// The figures of one fragment that waits for the name of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Microseconds.
    pub time: u64,
    /// IP bytes on the wire.
    pub length: u32,
    /// IANA number of what is known of the upper layer.
    pub protocol: u8,
    /// Number of the interface.
    pub interface: u32,
    /// Number of the ends of the tunnel that it is in; 0 = none.
    pub tunnel_ends: u32,
}

/// Fragments whose first one never came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// What they had in common.
    pub datagram: Datagram,
    /// The figures of one of them.
    pub packet: Waiting,
}

/// A packet that never became whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incomplete {
    /// When its first fragment to come was there, microseconds.
    pub time: u64,
    /// The frame of that one.
    pub frame: u64,
    /// What its fragments have in common.
    pub datagram: Datagram,
    /// Its flow, where its fragments name one.
    pub key: Option<Key>,
    /// IANA number of what is known of the upper layer.
    pub protocol: u8,
}

/// A payload that was put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// What its first fragment says of the upper layer.
    pub protocol: u8,
    /// The payload.
    pub bytes: Vec<u8>,
}

/// Ranges of one packet beyond which it is hostile and no longer put together.
const MAX_RANGES: usize = 64;
/// Fragments that wait for the first one beyond which they are orphans at once.
const MAX_WAITING: usize = 64;
/// Fragments that are given up at one time, about; the rest follows with the next packets, so that a leap of the clock does not give up a
/// whole table at once.
const TOGETHER: usize = 64;
/// The largest payload that an IP packet can have.
const MAX_PAYLOAD: usize = 65_535;

#[derive(Debug)]
struct Entry {
    generation: u64,
    /// Of the fragment that came first.
    time: u64,
    frame: u64,
    named: Option<Belonging>,
    protocol: u8,
    waiting: Vec<Waiting>,
    data: Vec<u8>,
    /// Sorted, disjoint, not touching.
    ranges: Vec<(usize, usize)>,
    total: Option<usize>,
    /// The payload was given away. The entry stays until its time is out, for fragments that the capture holds twice.
    given: bool,
    /// The payload can no longer be put together; its fragments are still counted.
    spoilt: bool,
    /// Two fragments said different things about the same bytes.
    contradicts: bool,
    beginning: Beginning,
}

/// The table of packets in reassembly.
#[derive(Debug, Default)]
pub struct Fragments {
    limits: Limits,
    entries: HashMap<Datagram, Entry>,
    /// In the order of arrival; an entry that is gone or was made anew is known by its generation.
    order: VecDeque<(u64, Datagram, u64)>,
    bytes: usize,
    early: u64,
    generations: u64,
    orphans: Vec<Orphan>,
    /// The latest time, microseconds.
    now: u64,
    /// The frame at hand.
    frame: u64,
    incomplete: Vec<Incomplete>,
    starts: Starts,
}

impl Fragments {
    /// An empty table.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Says which frame the fragments that follow are in.
    pub const fn begin(&mut self, frame: u64) {
        self.frame = frame;
    }

    /// Names the flow of a packet by its first fragment; gives the fragments that waited for it.
    pub fn name(&mut self, now: u64, datagram: Datagram, named: Belonging) -> Vec<Waiting> {
        let entry = self.entry(now, datagram);
        if std::mem::take(&mut entry.given) {
            // The same again, or the next packet with this number.
            entry.named = None;
            entry.beginning = Beginning::default();
        }
        // Of two first fragments the earlier one holds, as it does for what they carry.
        entry.named.get_or_insert(named);
        std::mem::take(&mut entry.waiting)
    }

    /// The flow of a later fragment, where it is known. Otherwise the fragment waits.
    pub fn find(&mut self, now: u64, datagram: Datagram, packet: Waiting) -> Option<Belonging> {
        let entry = self.entry(now, datagram);
        if entry.named.is_some() {
            return entry.named;
        }
        if entry.waiting.len() < MAX_WAITING {
            entry.waiting.push(packet);
        } else {
            self.orphans.push(Orphan { datagram, packet });
        }
        None
    }

    /// Adds the bytes of a fragment; gives the whole payload when this was the last one missing.
    ///
    /// `cut` says that the capture kept fewer bytes than were sent; `protocol` is what this fragment says of the upper layer.
    pub fn push(
        &mut self,
        now: u64,
        datagram: Datagram,
        fragment: Fragment,
        bytes: &[u8],
        cut: bool,
        protocol: u8,
    ) -> Option<Whole> {
        self.entry(now, datagram);
        let entry = self.entries.get_mut(&datagram)?;
        if fragment.offset == 0 {
            entry.protocol = protocol;
        }
        let others = self.bytes - entry.data.len();
        let (start, end) = (fragment.offset as usize, fragment.offset as usize + bytes.len());
        if entry.given {
            return None;
        }
        let too_much = others + end.max(entry.data.len()) > self.limits.bytes;
        if entry.spoilt || cut || end > MAX_PAYLOAD || too_much {
            self.early += u64::from(too_much && !entry.spoilt && !cut && end <= MAX_PAYLOAD);
            entry.spoil();
        } else {
            entry.place(start, bytes, (!fragment.more).then_some(end));
        }
        self.bytes = others + entry.data.len();
        let whole = !entry.spoilt && entry.total.is_some_and(|total| entry.ranges == [(0, total)]);
        // A packet without its first fragment's header names no flow and is of no use.
        if !whole || entry.named.is_none() {
            return None;
        }
        entry.given = true;
        entry.total = None;
        entry.ranges = Vec::new();
        self.bytes = others;
        let bytes = std::mem::take(&mut entry.data);
        (entry.beginning != Beginning::Read).then_some(Whole { protocol: entry.protocol, bytes })
    }

    /// Gives up what has been incomplete for too long, some of it at each call; whether there are beginnings to be taken.
    pub fn expire(&mut self, now: u64) -> bool {
        if self.order.is_empty() {
            self.now = now;
            return false;
        }
        self.release_starts(now);
        while !self.has_enough()
            && let Some(&(time, datagram, generation)) = self.order.front()
            // A clock that stepped back must not keep an entry for ever: the bound on entries ends it.
            && self.limits.is_over(time, now)
        {
            self.order.pop_front();
            self.note_incomplete(&datagram, generation);
            self.give_up(&datagram, generation);
        }
        self.now = now;
        self.starts.are_ready()
    }

    /// Gives up the next ones, in the order of arrival, some at each call; whether there are more. What was given up is to be taken in
    /// between.
    pub fn finish_some(&mut self) -> bool {
        // What began shortly before the end of the capture may have been completed after it.
        const TOO_LATE_US: u64 = 2_000_000;
        self.release_starts(u64::MAX);
        while !self.has_enough()
            && let Some((time, datagram, generation)) = self.order.pop_front()
        {
            if self.now.saturating_sub(time) >= TOO_LATE_US {
                self.note_incomplete(&datagram, generation);
            }
            self.give_up(&datagram, generation);
        }
        !self.order.is_empty() || self.starts.are_waiting()
    }

    const fn has_enough(&self) -> bool {
        self.orphans.len() >= TOGETHER || self.incomplete.len() >= TOGETHER || self.starts.ready() >= TOGETHER
    }

    /// Whether there are packets that never became whole, their beginnings, or fragments without their first one, to be taken.
    #[must_use]
    pub const fn has_given_up(&self) -> bool {
        !self.incomplete.is_empty() || !self.orphans.is_empty() || self.starts.are_ready()
    }

    /// Takes the packets that never became whole though their time is out.
    pub fn take_incomplete(&mut self) -> Vec<Incomplete> {
        std::mem::take(&mut self.incomplete)
    }

    /// The flow of a packet in fragments, where they name it.
    #[must_use]
    pub fn flow_of(&self, datagram: &Datagram) -> Option<Key> {
        self.entries.get(datagram)?.named.map(|(key, ..)| key)
    }

    /// Whether fragments of this packet said different things about the same bytes; once.
    pub fn take_contradiction(&mut self, datagram: &Datagram) -> bool {
        self.entries.get_mut(datagram).is_some_and(|entry| std::mem::take(&mut entry.contradicts))
    }

    /// A packet of which the capture kept too little to tell is not incomplete.
    fn note_incomplete(&mut self, datagram: &Datagram, generation: u64) {
        let entry = self.entries.get(datagram).filter(|entry| entry.generation == generation);
        if let Some(entry) = entry.filter(|entry| !entry.given && !entry.spoilt) {
            let (time, frame, key) = (entry.time, entry.frame, entry.named.map(|(key, ..)| key));
            let protocol = entry.waiting.first().map_or(entry.protocol, |waiting| waiting.protocol);
            self.incomplete.push(Incomplete { time, frame, datagram: *datagram, key, protocol });
        }
    }

    /// Packets that were not put together because there was no room for their fragments.
    #[must_use]
    pub const fn given_up_early(&self) -> u64 {
        self.early
    }

    /// Takes the fragments that will never get a name.
    pub fn take_orphans(&mut self) -> Vec<Orphan> {
        std::mem::take(&mut self.orphans)
    }

    fn entry(&mut self, now: u64, datagram: Datagram) -> &mut Entry {
        let known = self.entries.get(&datagram).map(|entry| (entry.time, entry.generation));
        if let Some((_, generation)) = known.filter(|(time, _)| self.limits.is_over(*time, now)) {
            self.note_incomplete(&datagram, generation);
            self.give_up(&datagram, generation);
        }
        if !self.entries.contains_key(&datagram) {
            self.make_room();
            self.generations += 1;
            self.order.push_back((now, datagram, self.generations));
        }
        let (generation, frame) = (self.generations, self.frame);
        self.entries.entry(datagram).or_insert_with(|| Entry {
            generation,
            time: now,
            frame,
            named: None,
            protocol: 0,
            waiting: Vec::new(),
            data: Vec::new(),
            ranges: Vec::new(),
            total: None,
            given: false,
            spoilt: false,
            contradicts: false,
            beginning: Beginning::default(),
        })
    }

    fn make_room(&mut self) {
        // Stale places in the order count too, or a stream of complete packets would let it grow.
        while self.order.len() >= self.limits.entries.max(1) {
            let Some((_, datagram, generation)) = self.order.pop_front() else { break };
            let entry = self.entries.get(&datagram).filter(|entry| entry.generation == generation);
            self.early += u64::from(entry.is_some_and(|entry| !entry.given && !entry.spoilt));
            self.give_up(&datagram, generation);
        }
    }

    fn give_up(&mut self, datagram: &Datagram, generation: u64) {
        if self.entries.get(datagram).is_none_or(|entry| entry.generation != generation) {
            return;
        }
        if let Some(entry) = self.remove(datagram) {
            let orphans = entry.waiting.into_iter().map(|packet| Orphan { datagram: *datagram, packet });
            self.orphans.extend(orphans);
        }
    }

    fn remove(&mut self, datagram: &Datagram) -> Option<Entry> {
        let entry = self.entries.remove(datagram)?;
        self.bytes = self.bytes.saturating_sub(entry.data.len());
        Some(entry)
    }
}

impl Entry {
    fn spoil(&mut self) {
        self.spoilt = true;
        self.data = Vec::new();
        self.ranges = Vec::new();
    }

    /// Copies a fragment to its place. Where fragments overlap, the bytes that came last hold; RFC 5722 would drop the packet, but a
    /// capture may hold each fragment twice.
    fn place(&mut self, start: usize, bytes: &[u8], total: Option<usize>) {
        let end = start + bytes.len();
        if total.is_some_and(|total| self.total.is_some_and(|known| known != total) || self.data.len() > total)
            || self.total.is_some_and(|known| end > known)
        {
            return self.spoil();
        }
        self.total = self.total.or(total);
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.contradicts |= self.ranges.iter().any(|&(from, to)| {
            let (from, to) = (from.max(start), to.min(end));
            from < to && self.data[from..to] != bytes[from - start..to - start]
        });
        self.data[start..end].copy_from_slice(bytes);
        self.merge(start, end);
        if self.ranges.len() > MAX_RANGES {
            self.spoil();
        }
    }

    fn merge(&mut self, mut start: usize, mut end: usize) {
        self.ranges.retain(|&(from, to)| {
            let apart = to < start || from > end;
            if !apart {
                start = start.min(from);
                end = end.max(to);
            }
            apart
        });
        let at = self.ranges.partition_point(|&(from, _)| from < start);
        self.ranges.insert(at, (start, end));
    }
}

#[cfg(test)]
mod tests;
