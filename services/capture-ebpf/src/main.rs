//! The classifier: counts every packet that passes an interface, into its flow and into the ledger.
//!
//! All decisions about a packet are in `weir-capture-common`, where they are tested; here is what needs the kernel: maps and the `sk_buff`.
//! The life of a slot, and why no count is lost between the two worlds, is told in `weir_capture_common::slot`.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod atomic;
mod earlier;
mod frame;
mod maps;
mod minimal;
mod picks;
mod place;
mod select;
mod sockets;
mod spill;
mod table;
mod traces;

use aya_ebpf::{
    bindings::{__sk_buff, tcx_action_base::TCX_NEXT},
    helpers::bpf_ktime_get_boot_ns,
    macros::classifier,
    programs::TcContext,
};
use weir_capture_common::{
    dissect::{Fragment, Frame, Headers, Link, Reject, enter, may_carry, outer, plain},
    flow::{FlowKey, FragmentKey},
    initiator,
    ledger::{Ledger, Outcome},
    slot,
    wire::{self, Size},
};

use crate::{
    frame::{Linear, SkBuff},
    place::Place,
};

#[classifier]
pub fn ethernet_ingress(context: TcContext) -> i32 {
    count(&context, Link::Ethernet, false, false)
}

#[classifier]
pub fn ethernet_egress(context: TcContext) -> i32 {
    count(&context, Link::Ethernet, true, false)
}

#[classifier]
pub fn ip_ingress(context: TcContext) -> i32 {
    count(&context, Link::Ip, false, false)
}

#[classifier]
pub fn ip_egress(context: TcContext) -> i32 {
    count(&context, Link::Ip, true, false)
}

#[classifier]
pub fn contained_ethernet_ingress(context: TcContext) -> i32 {
    count(&context, Link::Ethernet, false, true)
}

#[classifier]
pub fn contained_ethernet_egress(context: TcContext) -> i32 {
    count(&context, Link::Ethernet, true, true)
}

#[classifier]
pub fn contained_ip_ingress(context: TcContext) -> i32 {
    count(&context, Link::Ip, false, true)
}

#[classifier]
pub fn contained_ip_egress(context: TcContext) -> i32 {
    count(&context, Link::Ip, true, true)
}

/// Counts a packet and leaves it to the next program; `contained` = it is in a container.
#[inline(always)]
fn count(context: &TcContext, link: Link, egress: bool, contained: bool) -> i32 {
    if continues(context, link, egress, contained).is_none() {
        match (link, egress, contained) {
            (Link::Ethernet, false, false) => count_any::<0>(context.skb.skb),
            (Link::Ethernet, true, false) => count_any::<1>(context.skb.skb),
            (Link::Ip, false, false) => count_any::<2>(context.skb.skb),
            (Link::Ip, true, false) => count_any::<3>(context.skb.skb),
            (Link::Ethernet, false, true) => count_any::<4>(context.skb.skb),
            (Link::Ethernet, true, true) => count_any::<5>(context.skb.skb),
            (Link::Ip, false, true) => count_any::<6>(context.skb.skb),
            (Link::Ip, true, true) => count_any::<7>(context.skb.skb),
        }
    }
    TCX_NEXT
}

/// The short way: counts a plain packet of a recent flow, without a call of the kernel but for the time. `None` = it has counted nothing.
#[inline(always)]
fn continues(context: &TcContext, link: Link, egress: bool, contained: bool) -> Option<()> {
    if !select::is_of_flows() {
        return None;
    }
    let frame = SkBuff::new(&context.skb);
    let headers = plain(&Linear::new(&context.skb), link)?;
    let place = place::of(&frame, contained)?;
    let (mut key, side) = FlowKey::new(&headers);
    key.apart(place.mask);
    let (slot, number) = table::find_recent(&key)?;
    if !table::is_steady(slot, side, &headers) {
        return None;
    }
    // SAFETY: this CPU's own element; classifiers run with bottom halves disabled, so none interrupts another on one CPU.
    let ledger = unsafe { &mut *maps::LEDGER.get_ptr_mut(place.ledger)? };
    let segment_size = frame.segment_size();
    if segment_size > 0 {
        ledger.super_packets += 1;
    }
    let size = wire::size(headers.ip_bytes, headers.header_bytes, frame.segments(), segment_size);
    let packet = table::Packet {
        headers: &headers,
        room: table::Room::Own,
        key: &mut key,
        side,
        initiator: side,
        own: egress && frame.is_own(),
        size,
        hook: slot::hook(place.number, egress),
        // SAFETY: a helper without arguments.
        now: unsafe { bpf_ktime_get_boot_ns() },
    };
    let outcome = table::continues(slot, number, &packet);
    ledger.record(outcome, size);
    Some(())
}

/// The long way, for all that is rare or new. A program of its own for the verifier, and so that the short way stays short.
#[inline(never)]
fn count_any<const HOOK: u32>(skb: *mut __sk_buff) {
    let context = TcContext::new(skb);
    let (link, egress, contained) =
        (if HOOK & 2 == 0 { Link::Ethernet } else { Link::Ip }, HOOK & 1 == 1, HOOK & 4 == 4);
    let frame = SkBuff::new(&context.skb);
    // The places of a per-CPU array are always there.
    if let Some(place) = place::of(&frame, contained)
        && let Some(ledger) = maps::LEDGER.get_ptr_mut(place.ledger)
    {
        // SAFETY: this CPU's own element; classifiers run with bottom halves disabled, so none interrupts another on one CPU.
        let ledger = unsafe { &mut *ledger };
        let (outcome, size) = account(&frame, link, &place, egress, ledger);
        ledger.record(outcome, size);
    }
}

#[inline(always)]
fn account(frame: &SkBuff, link: Link, place: &Place, egress: bool, ledger: &mut Ledger) -> (Outcome, Size) {
    let Some(scratch) = maps::SCRATCH.get_ptr_mut(0) else {
        return (Outcome::TableBusy, wire::size(frame.length(), 0, 0, 0));
    };
    // SAFETY: this CPU's own element; classifiers run with bottom halves disabled, so none interrupts another on one CPU.
    let maps::Scratch { headers, key } = unsafe { &mut *scratch };
    *headers = Headers::default();
    match outer(frame, link, headers) {
        Ok(()) => {}
        Err(Reject::NotIp(bytes)) => return (Outcome::NotIp, wire::size(bytes, 0, 0, 0)),
        Err(Reject::Malformed(bytes)) => return (Outcome::Malformed, wire::size(bytes, 0, 0, 0)),
    }
    forget();
    if may_carry(headers) {
        enter(frame, headers);
        forget();
    }
    let segment_size = frame.segment_size();
    if segment_size > 0 {
        ledger.super_packets += 1;
    }
    let size = wire::size(headers.ip_bytes, headers.header_bytes, frame.segments(), segment_size);
    follow_fragments(headers, place.mask, ledger);
    let side;
    (*key, side) = FlowKey::new(headers);
    key.apart(place.mask);
    if let Some(outcome) = select::ignored(key, headers, place.number) {
        return (outcome, size);
    }
    let headers = &*headers;
    let mut packet = table::Packet {
        headers,
        room: table::Room::Own,
        key,
        side,
        initiator: initiator::of_first_packet(headers, side),
        own: egress && frame.is_own(),
        size,
        hook: slot::hook(place.number, egress),
        // SAFETY: a helper without arguments.
        now: unsafe { bpf_ktime_get_boot_ns() },
    };
    let mut seen = picks::Seen { first_seen: packet.now, before: 0 };
    let outcome = table::add(&mut packet, &mut seen, ledger);
    if outcome == Outcome::Accounted && packet.room == table::Room::Own {
        let of = picks::Of { key: packet.key, side, seen: &seen, link, interface: place.number };
        picks::look_at(frame, headers, &of, packet.now);
    }
    (outcome, size)
}

/// Has the compiler read the headers from their map again, of which the verifier knows nothing: all ways through the dissector end here.
#[inline(always)]
fn forget() {
    // SAFETY: no instruction at all; it may be thought to change any memory.
    unsafe { core::arch::asm!("") };
}

/// Gives a later fragment the ports of the first one.
#[inline(always)]
fn follow_fragments(headers: &mut Headers, mask: u64, ledger: &mut Ledger) {
    if headers.fragment == Fragment::Whole {
        return;
    }
    let mut key = FragmentKey::new(headers, headers.fragment_id);
    key.apart(mask);
    if headers.fragment == Fragment::First {
        let ports = maps::Ports { src: headers.src_port, dst: headers.dst_port };
        // Without it the later fragments are accounted without ports, and counted as such.
        let _ = maps::FRAGMENTS.insert(&key, &ports, 0);
        return;
    }
    // SAFETY: the value is copied at once; at worst it is another datagram's that took the element in this moment.
    match unsafe { maps::FRAGMENTS.get(&key) } {
        Some(&maps::Ports { src, dst }) => (headers.src_port, headers.dst_port) = (src, dst),
        None => ledger.fragments_without_ports += 1,
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel lends its GPL-only helpers to programs under this licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
