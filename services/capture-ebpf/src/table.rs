//! The flow table: index, slots, free slots.

use aya_ebpf::bindings::BPF_NOEXIST;
use weir_capture_common::{
    dissect::Headers,
    facts::{Facts, OTHERS},
    flow::{FlowKey, Side},
    initiator::{ACK, RST, SYN, TCP},
    ledger::{Ledger, Outcome},
    sequence::{CONNECTING, Progress},
    slot::{self, Counters, Hook, LIVE, SEGMENT, Slot},
    wire::Size,
};

use crate::{
    atomic,
    maps::{FACTS, FREE, INDEX, RECENT, RESERVE, SLOTS, WAITING},
    picks::{self, Seen},
    sockets, spill,
};

/// Places for recent flows less one; they are a power of two.
#[unsafe(no_mangle)]
static RECENT_MASK: u32 = 0;

const EEXIST: i32 = -17;
const E2BIG: i32 = -7;

/// What the table wants to know of a packet.
pub struct Packet<'a> {
    pub headers: &'a Headers,
    pub key: &'a mut FlowKey,
    pub side: Side,
    /// Who began, if this is the flow's first packet.
    pub initiator: Side,
    pub room: Room,
    /// It was made on this host, and leaves it here.
    pub own: bool,
    pub size: Size,
    pub hook: Hook,
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub now: u64,
}

/// Where a packet is accounted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// In the slot of its flow.
    Own,
    /// In user space, which is told of it.
    Told,
    /// With all others of its protocol and port.
    Shared,
}

/// Adds a packet to its flow; the first one opens it.
#[inline(always)]
pub fn add(packet: &mut Packet, seen: &mut Seen, ledger: &mut Ledger) -> Outcome {
    // Twice: between a lookup and an insert another CPU may open the flow, and an index entry may be reused while it is read. And twice again where
    // there is no room for the flow, for what it counts to instead.
    for _ in 0..4 {
        if let Some((slot, number)) = find(packet.key) {
            if packet.room == Room::Shared {
                ledger.overflow += packet.size.packets;
            }
            return update(slot, number, packet, seen);
        }
        match open(packet) {
            Ok(()) if packet.room == Room::Shared => {
                ledger.overflow += packet.size.packets;
                return Outcome::Accounted;
            }
            Ok(()) => {
                ledger.flows_opened += 1;
                return Outcome::Accounted;
            }
            Err(Some(Outcome::TableFull)) if packet.room == Room::Own => {
                if spill::tell(packet) {
                    ledger.spilled += packet.size.packets;
                    packet.room = Room::Told;
                    return Outcome::Accounted;
                }
                packet.room = Room::Shared;
                *packet.key = FlowKey::overflow(packet.headers, packet.hook);
                (packet.side, packet.initiator) = (Side::A, Side::A);
            }
            Err(Some(outcome)) => return outcome,
            Err(None) => {}
        }
    }
    Outcome::SlotReused
}

#[inline(always)]
fn find(key: &FlowKey) -> Option<(*mut Slot, u32)> {
    if let Some(found) = find_recent(key) {
        return Some(found);
    }
    let (slot, number) = look_up(key)?;
    remember(key, number);
    Some((slot, number))
}

/// A flow that is in the index.
#[inline(always)]
pub fn look_up(key: &FlowKey) -> Option<(*mut Slot, u32)> {
    let number = indexed::<0>(key).or_else(|| indexed::<1>(key))?;
    let slot = slot(number)?;
    // SAFETY: a pointer into the array. A slot that the index names is filled, and is not freed before this program has ended (RCU).
    let found = unsafe { &(*slot).key };
    if found != key {
        return None;
    }
    Some((slot, number))
}

#[inline(always)]
fn indexed<const INDEX_AT: u32>(key: &FlowKey) -> Option<u32> {
    // SAFETY: the number is copied at once. Should the element have been reused for another key, the slot's own key tells.
    unsafe { INDEX.get(INDEX_AT)?.get(key).copied() }
}

#[inline(always)]
fn slot(number: u32) -> Option<*mut Slot> {
    SLOTS.get_value_ptr_mut(number / SEGMENT, &(number % SEGMENT))
}

/// What is known of the flow in a slot.
#[inline(always)]
pub fn facts(number: u32) -> Option<*mut Facts> {
    FACTS.get_value_ptr_mut(number / SEGMENT, &(number % SEGMENT))
}

/// A flow that is live and stands at its place among the recent ones.
#[inline(always)]
pub fn find_recent(key: &FlowKey) -> Option<(*mut Slot, u32)> {
    // SAFETY: a constant that is set before the program is loaded.
    let place = key.spread() & unsafe { (&raw const RECENT_MASK).read_volatile() };
    // SAFETY: an element of the array, read once.
    let numbers = unsafe { RECENT.get_ptr(place)?.read_volatile() };
    live(key, numbers as u32).or_else(|| live(key, (numbers >> 32) as u32))
}

#[inline(always)]
fn live(key: &FlowKey, number: u32) -> Option<(*mut Slot, u32)> {
    let slot = slot(number)?;
    // SAFETY: a pointer into the array. A slot that is live is in the index, and is not freed before this program has ended (RCU).
    unsafe { ((&raw const (*slot).state).read_volatile() == LIVE && (*slot).key == *key).then_some((slot, number)) }
}

/// Puts a flow at its place among the recent ones; of two that are there the older one goes.
#[inline(always)]
fn remember(key: &FlowKey, number: u32) {
    // SAFETY: as in `find_recent`. Two that write at once leave one of them.
    unsafe {
        let place = key.spread() & (&raw const RECENT_MASK).read_volatile();
        if let Some(numbers) = RECENT.get_ptr_mut(place) {
            let before = numbers.read_volatile();
            if before as u32 != number {
                numbers.write_volatile(before << 32 | u64::from(number));
            }
        }
    }
}

/// Whether all there is to do about a packet of this flow is to add: no handshake, and nobody wants to read it.
#[inline(always)]
pub fn is_steady(slot: *const Slot, side: Side, headers: &Headers) -> bool {
    // SAFETY: a pointer into the array.
    let (marks, before) = unsafe {
        let counters = match side {
            Side::A => &raw const (*slot).from_a,
            Side::B => &raw const (*slot).from_b,
        };
        ((*counters).progress.marks, (*counters).packets)
    };
    headers.tcp_flags & SYN == 0 && marks & CONNECTING == 0 && !picks::may_want(headers, before)
}

/// Adds a packet to its flow, of which [`is_steady`] is true.
#[inline(always)]
pub fn continues(slot: *mut Slot, number: u32, packet: &Packet) -> Outcome {
    update(slot, number, packet, &mut Seen { first_seen: 0, before: 0 })
}

#[inline(always)]
fn update(slot: *mut Slot, number: u32, packet: &Packet, seen: &mut Seen) -> Outcome {
    // SAFETY: as in `find`. All CPUs and user space share the slot: sums are atomic. Everything else is written as a whole word, and it makes no
    // difference whose word stays: two packets of one direction that come at the same moment bring the same owner and nearly the same time.
    unsafe {
        let counters = match packet.side {
            Side::A => &raw mut (*slot).from_a,
            Side::B => &raw mut (*slot).from_b,
        };
        let back = match packet.side {
            Side::A => &raw const (*slot).from_b,
            Side::B => &raw const (*slot).from_a,
        };
        if !(*counters).owned_by(packet.hook, packet.now, packet.headers.src.is_unspecified()) {
            remember_interface(number, slot::ifindex(packet.hook), slot::ifindex((*counters).owner));
            return Outcome::Duplicate;
        }
        if (*counters).owner != packet.hook {
            (*counters).owner = packet.hook;
        }
        if (*slot).interval_first == 0 {
            (*slot).interval_first = packet.now;
        }
        (seen.first_seen, seen.before) = ((*slot).first_seen, (*counters).packets);
        (*counters).last_seen = packet.now;
        if (*counters).tcp_flags & u64::from(packet.headers.tcp_flags) != u64::from(packet.headers.tcp_flags) {
            atomic::or(&raw mut (*counters).tcp_flags, u64::from(packet.headers.tcp_flags));
        }
        atomic::add(&raw mut (*counters).packets, packet.size.packets);
        atomic::add(&raw mut (*counters).bytes, packet.size.bytes);
        if packet.key.protocol() == TCP && packet.room == Room::Own {
            follow(counters, back, number, packet);
        }
    }
    Outcome::Accounted
}

/// Follows the sequence of a TCP direction, and its handshake.
#[inline(always)]
unsafe fn follow(counters: *mut Counters, back: *const Counters, number: u32, packet: &Packet) {
    // SAFETY: as in `update`.
    unsafe {
        (*counters).progress.follow(
            &packet.headers.segment,
            packet.size.packets,
            (packet.now >> 10) as u32,
            packet.own,
        );
        if packet.headers.segment.flags & SYN == 0 && (*counters).progress.marks & CONNECTING == 0 {
            return;
        }
        let Some(facts) = facts(number) else { return };
        connect(counters, facts, (*back).progress.next, packet);
    }
}

/// SYN, SYN with ACK, ACK: of each the last one before the next step, so that a SYN that was sent again does not count as latency.
#[inline(always)]
unsafe fn connect(counters: *mut Counters, facts: *mut Facts, expected: u32, packet: &Packet) {
    // SAFETY: pointers into the arrays.
    unsafe {
        let flags = packet.headers.segment.flags & (SYN | ACK | RST);
        if flags == SYN {
            (*counters).syns += 1;
            (*counters).progress.marks |= CONNECTING;
            ((*facts).syn, (*facts).syn_ack, (*facts).ack) = (packet.now, 0, 0);
        } else if flags == SYN | ACK {
            if (*facts).syn != 0 && (*facts).ack == 0 {
                (*facts).syn_ack = packet.now;
            }
        } else if flags == ACK && (*facts).syn_ack != 0 && packet.headers.segment.acknowledgement == expected {
            (*facts).ack = packet.now;
            (*counters).progress.marks &= !CONNECTING;
        } else if flags & RST != 0 {
            (*counters).progress.marks &= !CONNECTING;
        }
    }
}

/// Another interface saw a packet that is counted already.
#[inline(always)]
fn remember_interface(number: u32, ifindex: u32, counting: u32) {
    if ifindex == counting {
        return;
    }
    let Some(facts) = facts(number) else { return };
    for place in 0..OTHERS {
        // SAFETY: a pointer into the array. Two that write at once leave one of them; the next packet writes the other.
        unsafe {
            let other = &raw mut (*facts).others[place];
            if *other == ifindex {
                return;
            }
            if *other == 0 {
                *other = ifindex;
                return;
            }
        }
    }
}

/// Opens a flow with its first packet. `Err(None)`: another CPU was faster.
#[inline(always)]
fn open(packet: &Packet) -> Result<(), Option<Outcome>> {
    let (Some(free), Some(index)) = (FREE.get(0), INDEX.get(0)) else { return Err(Some(Outcome::TableBusy)) };
    let popped = if packet.room == Room::Shared { RESERVE.pop() } else { free.pop() };
    let number = match popped {
        Ok(Some(number)) => number,
        Ok(None) => return Err(Some(Outcome::TableFull)),
        Err(_) => return Err(Some(Outcome::TableBusy)),
    };
    let Some(slot) = slot(number) else { return Err(Some(Outcome::TableBusy)) };
    fill(slot, packet);
    match index.insert(&*packet.key, &number, BPF_NOEXIST.into()) {
        Ok(()) => {
            // SAFETY: a pointer into the array. From here on user space reads the slot; everything in it was written before the insert.
            unsafe { (&raw mut (*slot).state).write_volatile(LIVE) };
            remember(packet.key, number);
            begin(slot, number, packet);
            Ok(())
        }
        Err(error) => {
            // The stacks have room for all numbers that were taken from them, so this one fits.
            let _ = if packet.room == Room::Shared { RESERVE.push(&number, 0) } else { free.push(&number, 0) };
            Err(match error {
                EEXIST => None,
                E2BIG => Some(Outcome::TableFull),
                _ => Some(Outcome::TableBusy),
            })
        }
    }
}

/// What is known of a flow that has just got its slot.
#[inline(always)]
fn begin(slot: *mut Slot, number: u32, packet: &Packet) {
    if packet.room == Room::Shared {
        return;
    }
    let Some(facts) = facts(number) else { return };
    // SAFETY: a pointer into the array; the waiting end is copied at once.
    unsafe {
        if packet.headers.tunnel.kind != 0 {
            (*facts).tunnel = packet.headers.tunnel;
        }
        if packet.key.protocol() == TCP && packet.headers.segment.flags & SYN != 0 {
            let counters = match packet.side {
                Side::A => &raw mut (*slot).from_a,
                Side::B => &raw mut (*slot).from_b,
            };
            connect(counters, facts, 0, packet);
        }
        if let Some(waiting) = WAITING.get(&*packet.key) {
            let waiting = *waiting;
            let side = if waiting.side == Side::A as u32 { Side::A } else { Side::B };
            sockets::tell(facts, side, &waiting.local);
            let _gone = WAITING.remove(&*packet.key);
        }
    }
}

#[inline(always)]
fn fill(slot: *mut Slot, packet: &Packet) {
    // SAFETY: a pointer into the array, to a slot whose number was on the stack: nobody else knows it. User space zeroed it.
    unsafe {
        (*slot).key = *packet.key;
        (*slot).initiator = packet.initiator as u32;
        (*slot).first_seen = packet.now;
        (*slot).interval_first = packet.now;
        let (mine, other): (*mut Counters, *mut Counters) = match packet.side {
            Side::A => (&raw mut (*slot).from_a, &raw mut (*slot).from_b),
            Side::B => (&raw mut (*slot).from_b, &raw mut (*slot).from_a),
        };
        (*mine).packets = packet.size.packets;
        (*mine).bytes = packet.size.bytes;
        (*mine).last_seen = packet.now;
        (*mine).owner = packet.hook;
        (*mine).tcp_flags = u64::from(packet.headers.tcp_flags);
        (*mine).syns = 0;
        (*mine).progress = Progress::default();
        if packet.key.protocol() == TCP && packet.room == Room::Own {
            (*mine).progress.follow(
                &packet.headers.segment,
                packet.size.packets,
                (packet.now >> 10) as u32,
                packet.own,
            );
        }
        // A slot that came back because another CPU was faster still holds that packet.
        (*other).packets = 0;
        (*other).bytes = 0;
        (*other).last_seen = 0;
        (*other).owner = 0;
        (*other).tcp_flags = 0;
        (*other).syns = 0;
        (*other).progress = Progress::default();
    }
}
