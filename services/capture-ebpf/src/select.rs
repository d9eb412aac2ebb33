//! Filter and sampling. Both are off unless the constants say otherwise; the verifier then removes them.

use aya_ebpf::{
    macros::map,
    maps::{
        Array, HashMap,
        lpm_trie::{Key, LpmTrie},
    },
};
use weir_capture_common::{
    dissect::Headers,
    flow::{Address, FlowKey},
    ledger::Outcome,
    select::{Program, is_sampled, uses},
};

/// Bits of [`uses`].
#[unsafe(no_mangle)]
static SELECT_USES: u32 = 0;
/// One flow in so many is counted; 1 = all.
#[unsafe(no_mangle)]
static SAMPLE_ONE_IN: u32 = 1;
#[unsafe(no_mangle)]
static SAMPLE_SEED: u64 = 0;

/// The bits of all prefixes around an address stand at its longest one.
#[map]
static SELECT_ADDRESSES: LpmTrie<[u8; 16], u64> = LpmTrie::with_max_entries(1, 0);

#[map]
static SELECT_PORTS: Array<u64> = Array::with_max_entries(1, 0);

#[map]
static SELECT_PROTOCOLS: Array<u64> = Array::with_max_entries(256, 0);

#[map]
static SELECT_INTERFACES: HashMap<u32, u64> = HashMap::with_max_entries(1, 0);

#[map]
static SELECT_PROGRAM: Array<Program> = Array::with_max_entries(1, 0);

/// Why a packet of this flow is not to be counted; `None` = it is.
#[inline(always)]
pub fn ignored(key: &FlowKey, headers: &Headers, ifindex: u32) -> Option<Outcome> {
    // SAFETY: constants that are set before the program is loaded; volatile, or the compiler would take what stands here.
    let (used, one_in) =
        unsafe { ((&raw const SELECT_USES).read_volatile(), (&raw const SAMPLE_ONE_IN).read_volatile()) };
    if used & uses::FILTER != 0 && !accepted(headers, ifindex, used) {
        return Some(Outcome::Filtered);
    }
    if one_in > 1 {
        // SAFETY: as above.
        let seed = unsafe { (&raw const SAMPLE_SEED).read_volatile() };
        if !is_sampled(key, seed, one_in) {
            return Some(Outcome::NotSampled);
        }
    }
    None
}

/// Whether a flow is counted or not as a whole: it does not depend on the interface that shows the packet.
#[inline(always)]
pub fn is_of_flows() -> bool {
    // SAFETY: as above.
    unsafe { (&raw const SELECT_USES).read_volatile() & uses::INTERFACES == 0 }
}

#[inline(always)]
fn accepted(headers: &Headers, ifindex: u32, used: u32) -> bool {
    // Of the packet, not of its key: a key marks the addresses of flows in tunnels.
    let mut answers = 0;
    if used & uses::ADDRESSES != 0 {
        answers |= of_address(headers.src) | of_address(headers.dst);
    }
    if used & uses::PORTS != 0 {
        answers |= of(&SELECT_PORTS, headers.src_port.into()) | of(&SELECT_PORTS, headers.dst_port.into());
    }
    if used & uses::PROTOCOLS != 0 {
        answers |= of(&SELECT_PROTOCOLS, headers.protocol.into());
    }
    if used & uses::INTERFACES != 0 {
        // SAFETY: the value is copied at once, and user space writes it whole.
        answers |= unsafe { SELECT_INTERFACES.get(&ifindex) }.copied().unwrap_or(0);
    }
    SELECT_PROGRAM.get(0).is_some_and(|program| program.accepts(answers))
}

#[inline(always)]
fn of(bits: &Array<u64>, index: u32) -> u64 {
    bits.get(index).copied().unwrap_or(0)
}

#[inline(always)]
fn of_address(address: Address) -> u64 {
    let mut data = [0; 16];
    data[..8].copy_from_slice(&address.high.to_be_bytes());
    data[8..].copy_from_slice(&address.low.to_be_bytes());
    SELECT_ADDRESSES.get(Key::new(128, data)).copied().unwrap_or(0)
}
