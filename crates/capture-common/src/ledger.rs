//! The loss ledger: each packet that a hook sees is counted once as seen and once as what became of it.

use crate::{
    contained::{MAX_CONTAINED, is_contained},
    wire::Size,
};

/// Ledgers of one CPU. Interfaces whose indexes differ by a multiple of it share one.
pub const LEDGERS: u32 = 1024;

/// The same with those of interfaces in containers.
pub const ALL_LEDGERS: u32 = LEDGERS + MAX_CONTAINED;

/// Which of them counts what passes an interface with this number.
#[must_use]
pub fn place(number: u32) -> u32 {
    if is_contained(number) { place_in_container(number) } else { place_here(number) }
}

/// The same of one in the namespace that is captured in.
#[inline(always)]
#[must_use]
pub fn place_here(ifindex: u32) -> u32 {
    ifindex % LEDGERS
}

/// The same of one in a container.
#[inline(always)]
#[must_use]
pub fn place_in_container(number: u32) -> u32 {
    LEDGERS + number % MAX_CONTAINED
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Outcome {
    /// It came to a hook. `Seen` is the sum of all the others.
    Seen = 0,
    /// It stands in a flow.
    Accounted = 1,
    /// It is no IP packet (ARP, LLDP, ...).
    NotIp = 2,
    /// It says that it is IP, and its headers say otherwise.
    Malformed = 3,
    /// It stands in its flow already: another hook saw it first.
    Duplicate = 4,
    /// The flow table has no room for its flow.
    TableFull = 5,
    /// The kernel refused an operation on the flow table (lock contention, memory).
    TableBusy = 6,
    /// Its slot was given to another flow twice while it was looked up.
    SlotReused = 7,
    /// The filter does not accept it.
    Filtered = 8,
    /// Its flow is not in the sample.
    NotSampled = 9,
}

/// Whether an outcome is how things should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Came to a hook.
    Seen,
    /// In a flow.
    Accounted,
    /// Belongs into no flow, into one where it already is, or into one that nobody wants.
    Ignored,
    /// Should be in a flow and is not.
    Lost,
}

impl Outcome {
    /// All outcomes, in the order of [`Ledger::entries`].
    pub const ALL: [Self; 10] = [
        Self::Seen,
        Self::Accounted,
        Self::NotIp,
        Self::Malformed,
        Self::Duplicate,
        Self::TableFull,
        Self::TableBusy,
        Self::SlotReused,
        Self::Filtered,
        Self::NotSampled,
    ];

    /// Whether this is how things should be.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Seen => Kind::Seen,
            Self::Accounted => Kind::Accounted,
            Self::NotIp | Self::Malformed | Self::Duplicate | Self::Filtered | Self::NotSampled => Kind::Ignored,
            Self::TableFull | Self::TableBusy | Self::SlotReused => Kind::Lost,
        }
    }

    /// The value of the label `reason` in `/metrics`.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Accounted => "accounted",
            Self::NotIp => "not_ip",
            Self::Malformed => "malformed",
            Self::Duplicate => "duplicate",
            Self::TableFull => "table_full",
            Self::TableBusy => "table_busy",
            Self::SlotReused => "slot_reused",
            Self::Filtered => "filter",
            Self::NotSampled => "sampling",
        }
    }
}

/// Packets and bytes of one outcome. Bytes are IP bytes; of a packet that is not IP all bytes behind the link-layer header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Entry {
    /// Packets on the wire.
    pub packets: u64,
    /// Bytes on the wire.
    pub bytes: u64,
}

/// One CPU's share of the ledger of one interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Ledger {
    /// Indexed by [`Outcome`].
    pub entries: [Entry; Outcome::ALL.len()],
    /// Fragments that were accounted without ports, because their first fragment was not seen.
    pub fragments_without_ports: u64,
    /// Flows that got a slot.
    pub flows_opened: u64,
    /// Times that the kernel showed many packets as one (GSO, GRO).
    pub super_packets: u64,
    /// Packets that user space was told of one by one, because there was no room for their flows.
    pub spilled: u64,
    /// Packets that were accounted by protocol and port, because there was no room for their flows, and the buffer was full.
    pub overflow: u64,
}

impl Ledger {
    /// Counts a packet that came, and what became of it.
    #[inline(always)]
    pub fn record(&mut self, outcome: Outcome, size: Size) {
        self.add(Outcome::Seen, size);
        self.add(outcome, size);
    }

    #[inline(always)]
    fn add(&mut self, outcome: Outcome, size: Size) {
        let entry = &mut self.entries[outcome as usize];
        entry.packets += size.packets;
        entry.bytes += size.bytes;
    }

    /// What was accounted is a duplicate after all: user space has found out.
    pub fn take_back(&mut self, duplicates: Entry) {
        for (outcome, sign) in [(Outcome::Accounted, false), (Outcome::Duplicate, true)] {
            let entry = &mut self.entries[outcome as usize];
            let change = |sum: u64, by: u64| if sign { sum + by } else { sum.saturating_sub(by) };
            entry.packets = change(entry.packets, duplicates.packets);
            entry.bytes = change(entry.bytes, duplicates.bytes);
        }
    }

    /// One outcome's entry.
    #[must_use]
    pub fn entry(&self, outcome: Outcome) -> Entry {
        self.entries[outcome as usize]
    }

    /// Adds another CPU's share.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.entries.iter_mut().zip(&other.entries) {
            mine.packets += theirs.packets;
            mine.bytes += theirs.bytes;
        }
        self.fragments_without_ports += other.fragments_without_ports;
        self.flows_opened += other.flows_opened;
        self.super_packets += other.super_packets;
        self.spilled += other.spilled;
        self.overflow += other.overflow;
    }

    /// What was counted since an earlier state of the same ledger.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut new = *self;
        for (new, before) in new.entries.iter_mut().zip(&earlier.entries) {
            new.packets = new.packets.wrapping_sub(before.packets);
            new.bytes = new.bytes.wrapping_sub(before.bytes);
        }
        new.fragments_without_ports = self.fragments_without_ports.wrapping_sub(earlier.fragments_without_ports);
        new.flows_opened = self.flows_opened.wrapping_sub(earlier.flows_opened);
        new.super_packets = self.super_packets.wrapping_sub(earlier.super_packets);
        new.overflow = self.overflow.wrapping_sub(earlier.overflow);
        new
    }

    /// Packets and bytes of all outcomes of a kind.
    #[must_use]
    pub fn sum(&self, kind: Kind) -> Entry {
        Outcome::ALL.into_iter().filter(|outcome| outcome.kind() == kind).fold(Entry::default(), |sum, outcome| {
            let entry = self.entry(outcome);
            Entry { packets: sum.packets + entry.packets, bytes: sum.bytes + entry.bytes }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_what_became_of_it() {
        let mut ledger = Ledger::default();
        for (index, outcome) in Outcome::ALL.into_iter().enumerate().skip(1) {
            ledger.record(outcome, Size { packets: 1, bytes: 100 + index as u64 });
        }
        let kinds = [Kind::Accounted, Kind::Ignored, Kind::Lost].map(|kind| ledger.sum(kind));
        let seen = ledger.entry(Outcome::Seen);
        assert_eq!(seen.packets, kinds.iter().map(|entry| entry.packets).sum::<u64>());
        assert_eq!(seen.bytes, kinds.iter().map(|entry| entry.bytes).sum::<u64>());
    }

    #[test]
    fn outcomes_stand_at_their_own_number() {
        for (index, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, index);
        }
    }
}
