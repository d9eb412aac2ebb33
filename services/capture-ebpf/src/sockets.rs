//! Programs at the root of the cgroups: who is at the local ends of flows, and what TCP says of itself there.
//!
//! They see each packet with its socket, also that of a container, before network namespaces and interfaces part them. A socket keeps with it
//! when it has to be looked at again, so that most packets cost one lookup.

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    helpers::generated::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_netns_cookie, bpf_get_socket_cookie,
        bpf_ktime_get_boot_ns, bpf_sk_cgroup_id, bpf_sk_fullsock, bpf_sk_storage_get, bpf_skc_to_mptcp_sock,
        bpf_tcp_sock,
    },
    macros::{cgroup_skb, cgroup_sock},
    programs::{SkBuffContext, SockContext},
};
use weir_capture_common::{
    dissect::{Fragment, Headers, Link, outer},
    facts::{Facts, Local, PROCESS, SOCKET, TCP_STATE},
    flow::{FlowKey, Side},
    initiator::TCP,
    socket::{Owner, Waiting, is_loopback},
};

use crate::{
    frame::SkBuff,
    maps::{OWNERS, WAITING},
    place, table,
};

/// The cookie of the network namespace that is captured in.
#[unsafe(no_mangle)]
static HOME: u64 = 0;

/// Whether this kernel tells which MPTCP socket a TCP socket belongs to (5.19).
#[unsafe(no_mangle)]
static MPTCP: u32 = 0;

/// `SK_PASS` of these program types.
const ALLOW: i32 = 1;
/// How often TCP is asked again while nothing is sent again.
const TCP_NS: u64 = 100_000_000;
/// How often other sockets are looked at again: their flow may have ended and begun anew.
const OTHER_NS: u64 = 1_000_000_000;

const TCP_SYN_SENT: u32 = 2;
const TCP_LISTEN: u32 = 10;
const TCP_NEW_SYN_RECV: u32 = 12;

/// A process opens a socket.
#[cgroup_sock(sock_create)]
pub fn socket_opens(context: SockContext) -> i32 {
    // SAFETY: the context is the socket here; the verifier knows the helper's result as a pointer to an Owner, or null.
    unsafe {
        let owner: *mut Owner = bpf_sk_storage_get(
            OWNERS.as_ptr(),
            context.sock.cast(),
            core::ptr::null_mut(),
            u64::from(BPF_SK_STORAGE_GET_F_CREATE),
        )
        .cast();
        if !owner.is_null() {
            (*owner).pid = (bpf_get_current_pid_tgid() >> 32) as u32;
            (*owner).netns = bpf_get_netns_cookie(context.sock.cast());
            let mut comm = [0u8; 16];
            bpf_get_current_comm(comm.as_mut_ptr().cast(), 16);
            (*owner).comm = comm;
        }
    }
    ALLOW
}

/// A socket sends.
#[cgroup_skb]
pub fn socket_sends(context: SkBuffContext) -> i32 {
    look(&context, true);
    ALLOW
}

/// A socket receives.
#[cgroup_skb]
pub fn socket_receives(context: SkBuffContext) -> i32 {
    look(&context, false);
    ALLOW
}

#[inline(always)]
fn look(context: &SkBuffContext, egress: bool) -> Option<()> {
    // SAFETY: fields of the context, and helpers that the verifier knows to give a pointer or null.
    unsafe {
        let sk = (*context.skb.skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return None;
        }
        let sk = bpf_sk_fullsock(sk);
        if sk.is_null() {
            return None;
        }
        let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        let owner: *mut Owner = bpf_sk_storage_get(OWNERS.as_ptr(), sk.cast(), core::ptr::null_mut(), create).cast();
        if owner.is_null() {
            return None;
        }
        let now = bpf_ktime_get_boot_ns();
        let mut local = Local::default();
        let (mut again, mut listens) = (OTHER_NS, false);
        if (*sk).protocol == u32::from(TCP) {
            let state = (*sk).state;
            listens = state == TCP_LISTEN || state == TCP_NEW_SYN_RECV;
            again = TCP_NS;
            if !listens {
                let tcp = bpf_tcp_sock(sk);
                if tcp.is_null() {
                    return None;
                }
                let retransmits = (*tcp).total_retrans;
                if now < (*owner).due && state == (*owner).state && retransmits == (*owner).retransmits {
                    return None;
                }
                local.retransmits = retransmits;
                local.srtt_us = if state == TCP_SYN_SENT { 0 } else { (*tcp).srtt_us >> 3 };
                local.marks = TCP_STATE;
            }
            (*owner).state = state;
            (*owner).retransmits = local.retransmits;
        } else if (*sk).dst_port != 0 && now < (*owner).due {
            return None;
        }
        let (mut key, side) = key(context, egress)?;
        let peer = key.spread();
        if local.marks == 0 && !listens && peer == (*owner).peer && now < (*owner).due {
            return None;
        }
        (*owner).peer = peer;
        (*owner).due = now + again;
        if (*owner).pid == 0 && (*sk).protocol == u32::from(TCP) {
            inherit(owner, sk);
        }
        key.apart(mask_of(owner, context, &key)?);
        identify(&mut local, owner, sk, context);
        if let Some(facts) = find(&key) {
            tell(facts, side, &local);
        } else if egress {
            // Without it the next packet will tell.
            let _ = WAITING.insert(&key, &Waiting::new(side, local), 0);
        }
    }
    Some(())
}

/// The kernel itself opens the TCP sockets of an MPTCP socket: who has opened that one has opened them. A listening one hands it on to each
/// connection, also to those of plain TCP.
#[inline(always)]
unsafe fn inherit(owner: *mut Owner, sk: *mut bpf_sock) {
    // SAFETY: helpers that the verifier knows to give a pointer or null; a constant that is set before the program is loaded.
    unsafe {
        if (&raw const MPTCP).read_volatile() == 0 {
            return;
        }
        let whole = bpf_skc_to_mptcp_sock(sk.cast());
        if whole.is_null() {
            return;
        }
        let opened: *const Owner =
            bpf_sk_storage_get(OWNERS.as_ptr(), whole.cast(), core::ptr::null_mut(), 0).cast_const().cast();
        if !opened.is_null() {
            (*owner).pid = (*opened).pid;
            (*owner).comm = (*opened).comm;
            (*owner).netns = (*opened).netns;
        }
    }
}

/// The flow of a packet, and the side of this socket.
#[inline(always)]
fn key(context: &SkBuffContext, egress: bool) -> Option<(FlowKey, Side)> {
    let mut headers = Headers::default();
    outer(&SkBuff::new(&context.skb), Link::Ip, &mut headers).ok()?;
    if headers.fragment == Fragment::Later {
        return None;
    }
    let (key, sender) = FlowKey::new(&headers);
    Some((key, if egress { sender } else { sender.other() }))
}

/// What keeps the flow apart from the same addresses elsewhere; `None` = it may be of another network namespace that has the same addresses.
#[inline(always)]
unsafe fn mask_of(owner: *const Owner, context: &SkBuffContext, key: &FlowKey) -> Option<u64> {
    // SAFETY: as the caller says; HOME is a constant that is set before the program is loaded.
    unsafe {
        let netns = (*owner).netns;
        if netns == (&raw const HOME).read_volatile() {
            return Some(0);
        }
        match place::mask(netns, (*context.skb.skb).ifindex) {
            None if is_loopback(key.a) => None,
            mask => Some(mask.unwrap_or(0)),
        }
    }
}

/// Writes down whose socket it is.
#[inline(always)]
unsafe fn identify(local: &mut Local, owner: *mut Owner, sk: *mut bpf_sock, context: &SkBuffContext) {
    // SAFETY: as the caller says.
    unsafe {
        local.cgroup = bpf_sk_cgroup_id(sk.cast());
        local.cookie = bpf_get_socket_cookie(context.skb.skb.cast());
        local.marks |= SOCKET;
        if (*owner).pid != 0 {
            local.pid = (*owner).pid;
            local.comm = (*owner).comm;
            local.marks |= PROCESS;
        }
    }
}

/// The facts of a flow that is in the table.
#[inline(always)]
pub fn find(key: &FlowKey) -> Option<*mut Facts> {
    let (_, number) = table::look_up(key)?;
    table::facts(number)
}

/// Writes down who is at a side.
#[inline(always)]
pub fn tell(facts: *mut Facts, side: Side, local: &Local) {
    // SAFETY: a pointer into the array. What is written is whole words; two that write at once say nearly the same.
    unsafe {
        let known = match side {
            Side::A => &raw mut (*facts).at_a,
            Side::B => &raw mut (*facts).at_b,
        };
        if (*known).marks & PROCESS == 0 || local.marks & PROCESS != 0 {
            (*known).pid = local.pid;
            (*known).comm = local.comm;
        }
        (*known).cgroup = local.cgroup;
        (*known).cookie = local.cookie;
        if local.marks & TCP_STATE != 0 {
            (*known).srtt_us = local.srtt_us;
            (*known).retransmits = local.retransmits;
        }
        (*known).marks |= local.marks;
    }
}
