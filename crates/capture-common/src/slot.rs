//! A flow's place in the table: the kernel adds, user space reads the same memory.
//!
//! The index maps a key to the number of a slot; the slots themselves are an array that user space maps. Its life:
//!
//! 1. **free**: its number lies on the stack of free slots. Nobody reads or writes it.
//! 2. The kernel takes the number off the stack, fills the slot with the flow's first packet and puts the number into the index. The slot is **live**.
//! 3. Packets add to it. User space reads the counters, which only grow, and reports the differences.
//! 4. User space marks the slot as **ending** and takes the key out of the index. A packet that looked it up before may still add to the slot, so user
//!    space waits for an RCU grace period; after it no packet can know the slot any more. What it holds now is final.
//! 5. User space reports the rest, frees the slot and puts its number back on the stack.
//!
//! An element of a kernel hash may be reused for another key while a program still reads it. So the slot holds its key too, and a program
//! that finds another key in it looks again.
//!
//! The table grows and shrinks while packets come. Slots lie in segments, so that more of them are one more segment: no slot ever moves. The index and
//! the stack of free numbers are replaced as a whole: programs look into two indexes as long as user space carries the keys over, and take free numbers
//! from the new stack as soon as they see it.
//!
//! The table of recent flows saves most packets the lookup in the index: an array, where a flow's place follows from its key, of the numbers of two slots each.
//! Nobody takes a number out of it. It is only a hint: it counts if the slot is live and holds the key.

use crate::{
    flow::{FlowKey, Side},
    initiator::{FIN, RST},
    sequence::Progress,
};

/// Which hook of which interface saw a packet: the interface's index, shifted left, and 1 for egress. 0 = none.
pub type Hook = u32;

/// Set in the owner of a direction when its interface is gone: the next hook that sees a packet takes over.
pub const RELEASED: Hook = 1 << 31;

/// The hook of an interface.
#[inline(always)]
#[must_use]
pub fn hook(ifindex: u32, egress: bool) -> Hook {
    (ifindex << 1) | u32::from(egress)
}

/// The index of the hook's interface.
#[inline(always)]
#[must_use]
pub fn ifindex(hook: Hook) -> u32 {
    (hook & !RELEASED) >> 1
}

/// Slots of one segment of the table: the upper bits of a slot's number are its segment, the lower ones its place there.
pub const SEGMENT: u32 = 4096;

/// Segments at most: 16 million flows, and what is kept for those without room.
pub const SEGMENTS: u32 = 4097;

/// How long the owner of a direction must have seen nothing until another hook may take over, in nanoseconds.
pub const TAKEOVER_NS: u64 = 1_000_000_000;

/// Value of [`Slot::state`]: nobody uses the slot.
pub const FREE: u32 = 0;
/// Value of [`Slot::state`]: a flow lives here.
pub const LIVE: u32 = 1;
/// Value of [`Slot::state`]: it does, and only those who find it in the index may add to it.
pub const ENDING: u32 = 2;

/// One direction of a flow, in a cache line of its own: the two directions are mostly handled by different CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Packets on the wire.
    pub packets: u64,
    /// IP bytes on the wire.
    pub bytes: u64,
    /// `CLOCK_BOOTTIME` in nanoseconds of the last packet; 0 = none yet.
    pub last_seen: u64,
    /// The hook that counts this direction: the first one that saw a packet of it.
    pub owner: Hook,
    /// SYNs without ACK.
    pub syns: u32,
    /// Union of the TCP flags.
    pub tcp_flags: u64,
    /// What the sequence numbers tell; TCP only.
    pub progress: Progress,
}

impl Counters {
    /// Whether a packet that `hook` sees at `now` is to be counted there.
    ///
    /// A packet may pass several hooks of one host: in at one interface and out at another, out and in again on the loopback, a bridge and its
    /// ports. Only the first hook that saw this direction counts it. When that one has seen nothing for [`TAKEOVER_NS`] (a route has
    /// changed), the next hook that sees a packet takes over; until then the ledger shows the packets as duplicates. User space takes
    /// the ownership away from interfaces that are gone.
    ///
    /// `anonymous`: the sender has no address yet (it asks for one, or makes sure that nobody else has it). All such senders are one flow, so on
    /// one interface what comes in and what goes out are different packets.
    #[inline(always)]
    #[must_use]
    pub fn owned_by(&self, hook: Hook, now: u64, anonymous: bool) -> bool {
        self.owner == hook
            || self.owner == 0
            || self.owner & RELEASED != 0
            || (anonymous && ifindex(self.owner) == ifindex(hook))
            || now.saturating_sub(self.last_seen) > TAKEOVER_NS
    }
}

/// One flow. 192 bytes: a cache line about the flow, and one for each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Slot {
    /// Whose slot this is.
    pub key: FlowKey,
    /// [`FREE`], [`LIVE`] or [`ENDING`]; written by the kernel last when it fills the slot, by user space first when it ends the flow.
    pub state: u32,
    /// 0 = side A began, 1 = side B.
    pub initiator: u32,
    /// `CLOCK_BOOTTIME` in nanoseconds of the first packet.
    pub first_seen: u64,
    /// The same of the first packet since user space last set this to 0.
    pub interval_first: u64,
    /// What side A sent.
    pub from_a: Counters,
    /// What side B sent.
    pub from_b: Counters,
}

impl Slot {
    /// What a side sent.
    #[inline(always)]
    #[must_use]
    pub fn from_side(&self, side: Side) -> &Counters {
        match side {
            Side::A => &self.from_a,
            Side::B => &self.from_b,
        }
    }

    /// The side that began.
    #[inline(always)]
    #[must_use]
    pub fn initiator(&self) -> Side {
        if self.initiator == 0 { Side::A } else { Side::B }
    }

    /// When the last packet of either direction was seen.
    #[must_use]
    pub fn last_seen(&self) -> u64 {
        self.from_a.last_seen.max(self.from_b.last_seen)
    }

    /// Whether and how the flow's TCP conversation has ended.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        let (a, b) = (self.from_a.tcp_flags, self.from_b.tcp_flags);
        if (a | b) & u64::from(RST) != 0 {
            Some(Ended::Reset)
        } else if a & b & u64::from(FIN) != 0 {
            Some(Ended::Closed)
        } else {
            None
        }
    }
}

/// How a TCP conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Both sides sent FIN.
    Closed,
    /// One side sent RST.
    Reset,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_three_cache_lines() {
        assert_eq!(size_of::<Counters>(), 64);
        assert_eq!(size_of::<Slot>(), 192);
        assert_eq!(core::mem::offset_of!(Slot, from_a), 64);
    }

    #[test]
    fn a_forwarded_packet_is_counted_where_it_was_seen_first() {
        let (arrives, leaves) = (hook(2, false), hook(3, true));
        let mut counters = Counters::default();
        assert!(counters.owned_by(arrives, 10, false));
        counters = Counters { owner: arrives, last_seen: 10, packets: 1, ..counters };
        assert!(!counters.owned_by(leaves, 20, false));
        assert!(counters.owned_by(arrives, 30, false));
    }

    #[test]
    fn another_hook_takes_over_when_the_owner_sees_nothing_any_more() {
        let counters = Counters { owner: hook(2, false), last_seen: 5, ..Counters::default() };
        assert!(!counters.owned_by(hook(3, false), 5 + TAKEOVER_NS, false));
        assert!(counters.owned_by(hook(3, false), 6 + TAKEOVER_NS, false));
    }

    #[test]
    fn an_owner_that_is_gone_is_followed_at_once_and_keeps_its_name() {
        let owner = hook(2, true) | RELEASED;
        let counters = Counters { owner, last_seen: 5, ..Counters::default() };
        assert!(counters.owned_by(hook(3, false), 5, false));
        assert_eq!(ifindex(owner), 2);
    }

    #[test]
    fn hosts_without_an_address_send_different_packets_on_one_wire() {
        let counters = Counters { owner: hook(2, true), last_seen: 5, ..Counters::default() };
        assert!(counters.owned_by(hook(2, false), 5, true));
        assert!(!counters.owned_by(hook(3, false), 5, true));
    }

    #[test]
    fn clocks_of_two_cpus_may_differ_a_little() {
        let counters = Counters { owner: hook(2, false), last_seen: 100, ..Counters::default() };
        assert!(!counters.owned_by(hook(3, false), 90, false));
    }

    #[test]
    fn a_conversation_is_closed_when_both_sides_have_sent_fin() {
        let mut slot = Slot::default();
        slot.from_a.tcp_flags = u64::from(FIN);
        assert_eq!(slot.ended(), None);
        slot.from_b.tcp_flags = u64::from(FIN);
        assert_eq!(slot.ended(), Some(Ended::Closed));
        slot.from_b.tcp_flags |= u64::from(RST);
        assert_eq!(slot.ended(), Some(Ended::Reset));
    }
}
