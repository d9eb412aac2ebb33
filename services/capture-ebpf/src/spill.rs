//! Tells user space of a packet whose flow has no room in the table. Off unless the constant says otherwise.

use weir_capture_common::{
    flow::Side,
    spill::{Spill, marks},
};

use crate::{maps::SPILLED, table::Packet};

/// 1 = packets that find no room are told of one by one.
#[unsafe(no_mangle)]
static SPILL_ON: u32 = 0;

/// `BPF_RB_NO_WAKEUP`: user space looks by itself, many times a second.
const NO_WAKEUP: u64 = 1;

/// Whether user space will hear of it.
#[inline(always)]
pub fn tell(packet: &Packet) -> bool {
    // SAFETY: a constant that is set before the program is loaded.
    if unsafe { (&raw const SPILL_ON).read_volatile() } == 0 {
        return false;
    }
    let Some(mut entry) = SPILLED.reserve::<Spill>(0) else { return false };
    let mut bits = u32::from(packet.headers.tcp_flags);
    if packet.side == Side::B {
        bits |= marks::FROM_B;
    }
    if packet.initiator == Side::B {
        bits |= marks::B_BEGAN;
    }
    if packet.headers.src.is_unspecified() {
        bits |= marks::ANONYMOUS;
    }
    let spill = entry.as_mut_ptr();
    // SAFETY: memory of the buffer that is this program's until it submits; every field is written.
    unsafe {
        (*spill).key = *packet.key;
        (*spill).now = packet.now;
        (*spill).packets = packet.size.packets as u32;
        (*spill).bytes = packet.size.bytes as u32;
        (*spill).hook = packet.hook;
        (*spill).marks = bits;
        (*spill).tunnel = packet.headers.tunnel;
    }
    entry.submit(NO_WAKEUP);
    true
}
