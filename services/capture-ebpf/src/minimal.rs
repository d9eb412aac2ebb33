//! What every program that counts flows has to do at least: the measure for the cost of the classifier. It is loaded by the benchmark only.

use aya_ebpf::{
    bindings::tcx_action_base::TCX_NEXT,
    macros::{classifier, map},
    maps::HashMap,
    programs::TcContext,
};

use crate::atomic;

/// Addresses, protocol and ports of an IPv4 packet without options, as they are on the wire.
type Key = [u32; 3];

#[map]
static MINIMAL: HashMap<Key, [u64; 2]> = HashMap::with_max_entries(1024, 0);

/// One lookup, two atomic additions.
#[classifier]
pub fn minimal(context: TcContext) -> i32 {
    if let Ok(key) = context.load::<Key>(26) {
        match MINIMAL.get_ptr_mut(&key) {
            // SAFETY: an element of the map, which nobody removes.
            Some(sums) => unsafe {
                atomic::add(sums.cast::<u64>(), 1);
                atomic::add(sums.cast::<u64>().add(1), u64::from(context.len()));
            },
            None => {
                let _full = MINIMAL.insert(&key, &[1, u64::from(context.len())], 0);
            }
        }
    }
    TCX_NEXT
}
