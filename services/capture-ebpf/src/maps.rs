//! The maps. Sizes of the flow table's three parts are set when the object is loaded (`--max-flows`).

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, Stack},
};
use weir_capture_common::{
    flow::{FlowKey, FragmentKey},
    ledger::Ledger,
    slot::Slot,
};

/// Ports of a datagram's first fragment.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ports {
    pub src: u16,
    pub dst: u16,
}

#[map]
pub static INDEX: HashMap<FlowKey, u32> = HashMap::with_max_entries(1, 0);

#[map]
pub static SLOTS: Array<Slot> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
pub static FREE: Stack<u32> = Stack::with_max_entries(1, 0);

/// Datagrams in flight: a fragment follows its first one within milliseconds.
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, Ports> = LruHashMap::with_max_entries(8192, 0);

#[map]
pub static LEDGER: PerCpuArray<Ledger> = PerCpuArray::with_max_entries(1, 0);
