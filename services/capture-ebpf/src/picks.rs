//! Copies packets that may name what a flow is about to user space. Off unless the constant says otherwise; the verifier then removes it.

use aya_ebpf::{
    helpers::generated::bpf_skb_load_bytes,
    macros::map,
    maps::{LruHashMap, PerCpuArray, RingBuf},
};
use weir_capture_common::{
    dissect::{Fragment, Frame as _, Headers, Link},
    flow::{FlowKey, Side},
    picks::{Continued, HTTP2_REST, Head, Kind, Look, Pick, SNAP, begins, is_http2_preface, look, missing},
};

use crate::frame::SkBuff;

/// 1 = packets are picked.
#[unsafe(no_mangle)]
static PICKS_ON: u32 = 0;

/// `BPF_RB_NO_WAKEUP`: user space looks by itself, some times a second.
const NO_WAKEUP: u64 = 1;

#[map]
static PICKS: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Picked, and lost because the buffer was full.
#[map]
static PICK_COUNTS: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

#[map]
static PICK_SCRATCH: PerCpuArray<Pick> = PerCpuArray::with_max_entries(1, 0);

/// Bytes that are missing of TLS records, and of HTTP/2 connections.
#[map]
static CONTINUED: LruHashMap<Continued, u32> = LruHashMap::with_max_entries(4096, 0);

/// What is known of the packet's flow.
pub struct Seen {
    /// When its first packet came.
    pub first_seen: u64,
    /// Packets of this direction before this one.
    pub before: u64,
}

/// Whether a packet may be one to look at; `before` as in [`Seen`].
#[inline(always)]
pub fn may_want(headers: &Headers, before: u64) -> bool {
    // SAFETY: a constant that is set before the program is loaded.
    unsafe { (&raw const PICKS_ON).read_volatile() != 0 && look(headers, before) != Look::No }
}

/// Whose a packet is, and where.
pub struct Of<'a> {
    pub key: &'a FlowKey,
    pub side: Side,
    pub seen: &'a Seen,
    pub link: Link,
    /// Number of the interface.
    pub interface: u32,
}

/// Looks at a packet that was counted.
#[inline(always)]
pub fn look_at(frame: &SkBuff, headers: &Headers, of: &Of, now: u64) {
    let Of { key, side, seen, link, interface } = *of;
    // SAFETY: a constant that is set before the program is loaded.
    if unsafe { (&raw const PICKS_ON).read_volatile() } == 0 {
        return;
    }
    let kind = match look(headers, seen.before) {
        Look::No => return,
        Look::Pick => Kind::Dns,
        Look::Payload => match of_payload(frame, headers, key, side) {
            Some(kind) => kind,
            None => return,
        },
    };
    let link = match link {
        Link::Ethernet => 0,
        Link::Ip => 1,
    };
    let link = link | u64::from(headers.tunnel.kind) << 8;
    let (first_seen, original, kind) = (seen.first_seen, frame.length(), kind as u32);
    pick(frame, &Head { key: *key, first_seen, now, ifindex: interface, original, kind, link, captured: 0 });
}

#[inline(always)]
fn of_payload(frame: &SkBuff, headers: &Headers, key: &FlowKey, side: Side) -> Option<Kind> {
    if headers.fragment != Fragment::Whole {
        return None;
    }
    let payload = headers.ip_bytes.saturating_sub(headers.header_bytes);
    let mut waiting = Continued { key: *key, side: side as u64 };
    let start = start(frame, headers.payload_at);
    if let Some(kind) = begins(headers.protocol, start) {
        if kind == Kind::Tls && missing(start, payload) > 0 {
            let _ = CONTINUED.insert(&waiting, &missing(start, payload), 0);
        }
        if is_http2_preface(start) {
            // Its frames say nothing alone: both directions from their beginning on.
            let _ = CONTINUED.insert(&waiting, &HTTP2_REST, 0);
            // One key for both: the stack of a program is small.
            waiting.side = side.other() as u64;
            let _ = CONTINUED.insert(&waiting, &HTTP2_REST, 0);
        }
        return Some(kind);
    }
    // SAFETY: the value is copied at once.
    let rest = unsafe { *CONTINUED.get(&waiting)? };
    if rest <= payload {
        let _ = CONTINUED.remove(&waiting);
    } else {
        let _ = CONTINUED.insert(&waiting, &(rest - payload), 0);
    }
    Some(Kind::Continued)
}

/// The first eight bytes of a payload. Of a shorter one five, as many as the header of a TLS record that is sent alone; what is shorter still begins
/// nothing, but may end something.
#[inline(always)]
fn start(frame: &SkBuff, at: u32) -> [u8; 8] {
    if let Some(start) = frame.load::<[u8; 8]>(at) {
        return start;
    }
    let [a, b, c, d, e] = frame.load::<[u8; 5]>(at).unwrap_or_default();
    [a, b, c, d, e, 0, 0, 0]
}

#[inline(always)]
fn pick(frame: &SkBuff, head: &Head) {
    let (Some(scratch), Some(counts)) = (PICK_SCRATCH.get_ptr_mut(0), PICK_COUNTS.get_ptr_mut(0)) else { return };
    let length = frame.length();
    let captured = if length > SNAP as u32 { SNAP as u32 } else { length };
    if captured == 0 {
        return;
    }
    // SAFETY: this CPU's own elements; the helpers stay within the bounds that were just made.
    unsafe {
        (*scratch).head = *head;
        (*scratch).head.captured = captured;
        if bpf_skb_load_bytes(frame.pointer(), 0, (&raw mut (*scratch).data).cast(), captured) != 0 {
            return;
        }
        let bytes = core::slice::from_raw_parts(scratch.cast::<u8>(), size_of::<Head>() + captured as usize);
        let lost = PICKS.output::<[u8]>(bytes, NO_WAKEUP).is_err();
        (*counts)[usize::from(lost)] += 1;
    }
}
