//! The maps. User space puts the parts of the flow table into the arrays of maps, and others in their place when `--max-flows` changes.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE},
    btf_maps::{self, ArrayOfMaps},
    macros::{btf_map, map},
    maps::{Array, LruHashMap, PerCpuArray, RingBuf, Stack},
};
use weir_capture_common::{
    dissect::Headers,
    facts::Facts,
    flow::{FlowKey, FragmentKey},
    ledger::{LEDGERS, Ledger},
    slot::{SEGMENT, SEGMENTS, Slot},
    socket::{Owner, PATH, REASONS, Waiting},
};

/// Ports of a datagram's first fragment.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Ports {
    pub src: u16,
    pub dst: u16,
}

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

type Segments<T> = ArrayOfMaps<btf_maps::Array<T, { SEGMENT as usize }, MMAPABLE>, { SEGMENTS as usize }>;

#[btf_map]
pub static INDEX: ArrayOfMaps<btf_maps::HashMap<FlowKey, u32, 1>, 2> = ArrayOfMaps::new();

#[btf_map]
pub static SLOTS: Segments<Slot> = Segments::new();

#[btf_map]
pub static FACTS: Segments<Facts> = Segments::new();

#[btf_map]
pub static FREE: ArrayOfMaps<btf_maps::Stack<u32, 1>, 1> = ArrayOfMaps::new();

/// What finds no room, for user space to add up.
#[map]
pub static SPILLED: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Slots for what finds no room there either, by protocol and port.
#[map]
pub static RESERVE: Stack<u32> = Stack::with_max_entries(1, 0);

/// The slots of recent flows: a place follows from the key, and has room for two numbers.
#[map]
pub static RECENT: Array<u64> = Array::with_max_entries(1, 0);

/// Datagrams in flight: a fragment follows its first one within milliseconds.
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, Ports> = LruHashMap::with_max_entries(8192, 0);

#[map]
pub static LEDGER: PerCpuArray<Ledger> = PerCpuArray::with_max_entries(LEDGERS, 0);

/// What was found in the packet at hand.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Scratch {
    pub headers: Headers,
    pub key: FlowKey,
}

/// What comes out of a map the verifier knows nothing of, so all ways through the dissector are one way behind it. And the stack is small.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// Ends of flows whose first packet is on its way from the socket to the interface.
#[map]
pub static WAITING: LruHashMap<FlowKey, Waiting> = LruHashMap::with_max_entries(8192, 0);

/// Packets that the kernel dropped, by reason.
#[map]
pub static DROPS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASONS, 0);

/// Files that processes execute. Whoever has been quiet for longest is forgotten.
#[map]
pub static EXECUTABLES: LruHashMap<u32, [u8; PATH]> = LruHashMap::with_max_entries(8192, 0);

#[unsafe(link_section = ".maps")]
#[unsafe(export_name = "OWNERS")]
pub static OWNERS: SocketStorage<Owner> = SocketStorage::new();

/// A value with each socket, in the form of BTF that loaders read (the library's own does not let connections inherit it).
#[repr(C)]
pub struct SocketStorage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; SOCKET_STORAGE_FLAGS],
}

/// `BPF_F_NO_PREALLOC`, which the kernel demands, and `BPF_F_CLONE`.
const SOCKET_STORAGE_FLAGS: usize = 1 | 1 << 9;

// SAFETY: the pointers only carry types; nobody follows them.
unsafe impl<T> Sync for SocketStorage<T> {}

impl<T> SocketStorage<T> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    /// The map, as helpers take it.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut core::ffi::c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}
