//! Programs at tracepoints: what the kernel drops and why, who resets connections, and what processes execute.
//!
//! Where fields lie differs by kernel: user space reads it from the kernel's BTF and sets [`LAYOUT`] before it loads these programs.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes},
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use weir_capture_common::{
    dissect::{Fragment, Frame, Headers, Link, Plain, outer},
    facts::reset,
    flow::{Address, FlowKey, Side},
    initiator::TCP,
    socket::{CONSUMED, Harmless, Layout, NOT_SPECIFIED, PATH, REASONS, is_loopback},
};

use crate::{
    atomic,
    maps::{DROPS, EXECUTABLES},
    sockets,
};

#[unsafe(no_mangle)]
static LAYOUT: Layout = Layout {
    skb_head: 0,
    skb_network_header: 0,
    skb_protocol: 0,
    binprm_filename: 0,
    task_tgid: 0,
    task_comm: 0,
    sock_family: 0,
    sock_daddr: 0,
    sock_rcv_saddr: 0,
    sock_v6_daddr: 0,
    sock_v6_rcv_saddr: 0,
    sock_dport: 0,
    sock_sport: 0,
    sock_net: 0,
    net_cookie: 0,
};

/// Numbers of reasons for which the kernel frees packets that are no loss.
#[unsafe(no_mangle)]
static HARMLESS: Harmless = Harmless { queue_purge: 0, other_host: 0, packet_socket: 0, no_socket: 0, old_sequence: 0 };

const AF_INET: u16 = 2;

/// In `network_header`: not set.
const NO_HEADER: u16 = 0xffff;

/// `skb:kfree_skb` (skb, location, reason).
#[raw_tracepoint]
pub fn packet_dropped(context: RawTracePointContext) -> i32 {
    let (skb, reason) = (context.arg::<u64>(0), context.arg::<u32>(2));
    if reason > CONSUMED {
        if let Some(count) = DROPS.get_ptr_mut(reason.min(REASONS - 1)) {
            // SAFETY: this CPU's own element; an interrupt that comes between loses one of two, so it is atomic.
            unsafe { atomic::add(count, 1) };
        }
        // A reason that nobody has given says nothing of the flow.
        if reason > NOT_SPECIFIED {
            let _unknown_flow = attribute(skb, reason);
        }
    }
    0
}

#[inline(always)]
fn attribute(skb: u64, reason: u32) -> Option<()> {
    let headers = headers(skb)?;
    // SAFETY: a constant that is set before the program is loaded.
    let harmless = unsafe { (&raw const HARMLESS).read_volatile() };
    if harmless.has(reason, headers.protocol, headers.segment.payload) {
        return None;
    }
    let (key, _) = FlowKey::new(&headers);
    let facts = sockets::find(&key)?;
    // SAFETY: a pointer into the array of facts.
    unsafe {
        (*facts).drop_reason = reason;
        atomic::add32(&raw mut (*facts).drops, 1);
    }
    Some(())
}

/// `tcp:tcp_send_reset` (sk, skb, reason): in answer to a packet, or because the connection is given up.
#[raw_tracepoint]
pub fn reset_sent(context: RawTracePointContext) -> i32 {
    let (sk, skb, reason) = (context.arg::<u64>(0), context.arg::<u64>(1), context.arg::<u32>(2));
    let found = if skb == 0 { of_socket(sk) } else { of_packet(skb).map(|(key, sender)| (key, sender.other())) };
    let _unknown_flow = found.and_then(|(key, side)| {
        let facts = sockets::find(&key)?;
        // SAFETY: a pointer into the array of facts.
        unsafe {
            (*facts).reset_reason = reason;
            atomic::or32(&raw mut (*facts).reset_marks, reset::sent(side));
        }
        Some(())
    });
    0
}

/// `tcp:tcp_receive_reset` (sk): one that fits the connection, and so ends it.
#[raw_tracepoint]
pub fn reset_received(context: RawTracePointContext) -> i32 {
    let _unknown_flow = of_socket(context.arg::<u64>(0)).and_then(|(key, side)| {
        let facts = sockets::find(&key)?;
        // SAFETY: a pointer into the array of facts.
        unsafe { atomic::or32(&raw mut (*facts).reset_marks, reset::taken(side)) };
        Some(())
    });
    0
}

/// The flow of a packet in the kernel, and who sent it.
#[inline(always)]
fn of_packet(skb: u64) -> Option<(FlowKey, Side)> {
    headers(skb).map(|headers| FlowKey::new(&headers))
}

/// The headers of a packet in the kernel, if they tell which flow it belongs to.
#[inline(always)]
fn headers(skb: u64) -> Option<Headers> {
    let layout = layout();
    let header: u16 = read(skb + u64::from(layout.skb_network_header))?;
    let head: u64 = read(skb + u64::from(layout.skb_head))?;
    let protocol: u16 = read(skb + u64::from(layout.skb_protocol))?;
    if header == 0 || header == NO_HEADER {
        return None;
    }
    let packet = Dropped { network: head + u64::from(header), ether_type: u16::from_be(protocol) };
    let mut headers = Headers::default();
    outer(&packet, Link::Ip, &mut headers).ok()?;
    // Every network namespace has these addresses, and here nobody says which it is.
    if headers.fragment == Fragment::Later || is_loopback(headers.src) || is_loopback(headers.dst) {
        return None;
    }
    Some(headers)
}

/// The flow of a TCP socket, and the side that the socket is at.
#[inline(always)]
fn of_socket(sk: u64) -> Option<(FlowKey, Side)> {
    let layout = layout();
    let mut headers = Headers { protocol: TCP, ..Headers::default() };
    if read::<u16>(sk + u64::from(layout.sock_family))? == AF_INET {
        let ends = [layout.sock_rcv_saddr, layout.sock_daddr];
        headers.src = Address::from_v4(u32::from_be(read(sk + u64::from(ends[0]))?));
        headers.dst = Address::from_v4(u32::from_be(read(sk + u64::from(ends[1]))?));
    } else {
        headers.src = v6(sk + u64::from(layout.sock_v6_rcv_saddr))?;
        headers.dst = v6(sk + u64::from(layout.sock_v6_daddr))?;
    }
    headers.src_port = u16::from_be(read(sk + u64::from(layout.sock_sport))?);
    headers.dst_port = u16::from_be(read(sk + u64::from(layout.sock_dport))?);
    if is_loopback(headers.src) || is_loopback(headers.dst) {
        return None;
    }
    Some(FlowKey::new(&headers))
}

#[inline(always)]
fn v6(at: u64) -> Option<Address> {
    let halves = [read::<u64>(at)?, read::<u64>(at + 8)?];
    Some(Address { high: u64::from_be(halves[0]), low: u64::from_be(halves[1]) })
}

/// A packet that the kernel frees, from its network header on.
struct Dropped {
    network: u64,
    ether_type: u16,
}

impl Frame for Dropped {
    #[inline(always)]
    fn load<T: Plain>(&self, offset: u32) -> Option<T> {
        read(self.network + u64::from(offset))
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        // Only its addresses and ports are wanted.
        u16::MAX.into()
    }

    #[inline(always)]
    fn ether_type(&self) -> u16 {
        self.ether_type
    }

    #[inline(always)]
    fn vlan_tag(&self) -> Option<u16> {
        None
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        0
    }
}

/// `sched:sched_process_exec` (task, old pid, binprm).
#[raw_tracepoint]
pub fn process_executes(context: RawTracePointContext) -> i32 {
    let binprm = context.arg::<u64>(2);
    let _without = executes(binprm);
    0
}

#[inline(always)]
fn executes(binprm: u64) -> Option<()> {
    let name: u64 = read(binprm + u64::from(layout().binprm_filename))?;
    let mut path = [0u8; PATH];
    // SAFETY: the helper reads any address, or says that it cannot.
    unsafe { bpf_probe_read_kernel_str_bytes(name as *const u8, &mut path) }.ok()?;
    if is_self(&path) {
        // The file stays the one that is known of this process, or of the one that it was forked from.
        return None;
    }
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    EXECUTABLES.insert(&pid, &path, 0).ok()
}

/// Whether a process executes itself once more, as shells do that are many programs in one file.
#[inline(always)]
fn is_self(path: &[u8; PATH]) -> bool {
    const SELF: &[u8; 15] = b"/proc/self/exe\0";
    let mut same = true;
    for at in 0..SELF.len() {
        same &= path[at] == SELF[at];
    }
    same
}

/// `sched:sched_process_fork` (parent, child): a child executes what its parent does.
#[raw_tracepoint]
pub fn process_forks(context: RawTracePointContext) -> i32 {
    let child = context.arg::<u64>(1);
    let _thread = forks(child);
    0
}

#[inline(always)]
fn forks(child: u64) -> Option<()> {
    let parent = (bpf_get_current_pid_tgid() >> 32) as u32;
    let child: u32 = read(child + u64::from(layout().task_tgid))?;
    if child == parent {
        return None;
    }
    // SAFETY: copied at once.
    let path = unsafe { *EXECUTABLES.get(&parent)? };
    EXECUTABLES.insert(&child, &path, 0).ok()
}

#[inline(always)]
pub fn layout() -> Layout {
    // SAFETY: a constant that is set before the program is loaded; volatile, or the compiler would take what stands here.
    unsafe { (&raw const LAYOUT).read_volatile() }
}

#[inline(always)]
pub fn read<T>(address: u64) -> Option<T> {
    // SAFETY: the helper reads any address, or says that it cannot; callers ask for integers.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}
