//! Where a packet is: which interface sees it, and what keeps its flow apart from the same addresses elsewhere.

use aya_ebpf::{
    macros::map,
    maps::{HashMap, PerCpuArray, ProgramArray},
};
use weir_capture_common::{
    contained::{Here, MAX_CONTAINED, Spot, places},
    ledger,
};

use crate::frame::SkBuff;

/// Written by the program at an interface in a container before it calls the one that counts.
#[map]
static HERE: PerCpuArray<Here> = PerCpuArray::with_max_entries(1, 0);

#[map]
static CONTAINED_PROGRAMS: ProgramArray = ProgramArray::with_max_entries(places::COUNT, 0);

/// For the programs at sockets.
#[map]
static MASKS: HashMap<Spot, u64> = HashMap::with_max_entries(MAX_CONTAINED, 0);

/// 1 = there may be something in it.
#[unsafe(no_mangle)]
static MASKS_ON: u32 = 0;

#[derive(Clone, Copy)]
pub struct Place {
    /// Of the interface.
    pub number: u32,
    /// Of its ledger.
    pub ledger: u32,
    pub mask: u64,
}

/// Where a packet is; `contained` = in a container, and the program at the interface has said where.
#[inline(always)]
pub fn of(frame: &SkBuff, contained: bool) -> Option<Place> {
    if !contained {
        return Some(Place { number: frame.ifindex(), ledger: ledger::place_here(frame.ifindex()), mask: 0 });
    }
    // SAFETY: this CPU's own element; classifiers run with bottom halves disabled, so none interrupts another on one CPU.
    let Here { number, mask, .. } = unsafe { *HERE.get_ptr(0)? };
    Some(Place { number, ledger: ledger::place_in_container(number), mask })
}

/// What keeps the flows of a socket's packet apart; `None` = nothing is captured there.
#[inline(always)]
pub fn mask(netns: u64, ifindex: u32) -> Option<u64> {
    // SAFETY: a constant that is set before the program is loaded; the value is copied at once.
    unsafe {
        if (&raw const MASKS_ON).read_volatile() == 0 {
            return None;
        }
        MASKS.get(&Spot { netns, ifindex, reserved: 0 }).copied()
    }
}
