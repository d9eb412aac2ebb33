//! The flow table: index, slots, free slots.

use aya_ebpf::bindings::BPF_NOEXIST;
use weir_capture_common::{
    flow::{FlowKey, Side},
    ledger::{Ledger, Outcome},
    slot::{Counters, Hook, LIVE, Slot},
    wire::Size,
};

use crate::{
    atomic,
    maps::{FREE, INDEX, SLOTS},
};

const EEXIST: i32 = -17;
const E2BIG: i32 = -7;

/// What the table wants to know of a packet.
pub struct Packet {
    pub key: FlowKey,
    pub side: Side,
    /// Who began, if this is the flow's first packet.
    pub initiator: Side,
    pub tcp_flags: u64,
    pub size: Size,
    pub hook: Hook,
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub now: u64,
}

/// Adds a packet to its flow; the first one opens it.
#[inline(always)]
pub fn add(packet: &Packet, ledger: &mut Ledger) -> Outcome {
    // Twice: between a lookup and an insert another CPU may open the flow, and an index entry may be reused while it is read.
    for _ in 0..2 {
        if let Some(slot) = find(&packet.key) {
            return update(slot, packet);
        }
        match open(packet) {
            Ok(()) => {
                ledger.flows_opened += 1;
                return Outcome::Accounted;
            }
            Err(Some(outcome)) => return outcome,
            Err(None) => {}
        }
    }
    Outcome::SlotReused
}

#[inline(always)]
fn find(key: &FlowKey) -> Option<*mut Slot> {
    // SAFETY: the number is copied at once. Should the element have been reused for another key, the slot's own key tells.
    let number = unsafe { *INDEX.get(key)? };
    let slot = SLOTS.get_ptr_mut(number)?;
    // SAFETY: a pointer into the array. A slot that the index names is filled, and is not freed before this program has ended (RCU).
    let found = unsafe { &(*slot).key };
    (found == key).then_some(slot)
}

#[inline(always)]
fn update(slot: *mut Slot, packet: &Packet) -> Outcome {
    // SAFETY: as in `find`. All CPUs and user space share the slot: sums are atomic. Everything else is written as a whole word, and it makes no
    // difference whose word stays: two packets of one direction that come at the same moment bring the same owner and nearly the same time.
    unsafe {
        let counters = match packet.side {
            Side::A => &raw mut (*slot).from_a,
            Side::B => &raw mut (*slot).from_b,
        };
        let anonymous = packet.key.end(packet.side).0.is_unspecified();
        if !(*counters).owned_by(packet.hook, packet.now, anonymous) {
            return Outcome::Duplicate;
        }
        if (*counters).owner != packet.hook {
            (*counters).owner = packet.hook;
        }
        if (*slot).interval_first == 0 {
            (*slot).interval_first = packet.now;
        }
        (*counters).last_seen = packet.now;
        if (*counters).tcp_flags & packet.tcp_flags != packet.tcp_flags {
            atomic::or(&raw mut (*counters).tcp_flags, packet.tcp_flags);
        }
        atomic::add(&raw mut (*counters).packets, packet.size.packets);
        atomic::add(&raw mut (*counters).bytes, packet.size.bytes);
    }
    Outcome::Accounted
}

/// Opens a flow with its first packet. `Err(None)`: another CPU was faster.
#[inline(always)]
fn open(packet: &Packet) -> Result<(), Option<Outcome>> {
    let number = match FREE.pop() {
        Ok(Some(number)) => number,
        Ok(None) => return Err(Some(Outcome::TableFull)),
        Err(_) => return Err(Some(Outcome::TableBusy)),
    };
    let Some(slot) = SLOTS.get_ptr_mut(number) else {
        return Err(Some(Outcome::TableBusy));
    };
    fill(slot, packet);
    match INDEX.insert(&packet.key, &number, BPF_NOEXIST.into()) {
        Ok(()) => {
            // SAFETY: a pointer into the array. From here on user space reads the slot; everything in it was written before the insert.
            unsafe { (&raw mut (*slot).state).write_volatile(LIVE) };
            Ok(())
        }
        Err(error) => {
            // The stack has room for all numbers there are, so this one fits.
            let _ = FREE.push(number, 0);
            Err(match error {
                EEXIST => None,
                E2BIG => Some(Outcome::TableFull),
                _ => Some(Outcome::TableBusy),
            })
        }
    }
}

#[inline(always)]
fn fill(slot: *mut Slot, packet: &Packet) {
    // SAFETY: a pointer into the array, to a slot whose number was on the stack: nobody else knows it. User space zeroed it.
    unsafe {
        (*slot).key = packet.key;
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
        (*mine).tcp_flags = packet.tcp_flags;
        // A slot that came back because another CPU was faster still holds that packet.
        (*other).packets = 0;
        (*other).bytes = 0;
        (*other).last_seen = 0;
        (*other).owner = 0;
        (*other).tcp_flags = 0;
    }
}
