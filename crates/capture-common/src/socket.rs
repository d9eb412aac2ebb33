//! What the programs at sockets and tracepoints share with user space.

use crate::{
    facts::Local,
    flow::{Address, Side},
    icmp,
    initiator::TCP,
};

/// Kept with each socket (`BPF_MAP_TYPE_SK_STORAGE`); a connection that is accepted starts with a copy of its listening socket's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Owner {
    /// Process that opened the socket, or had it open when capture started; 0 = not known.
    pub pid: u32,
    /// TCP's state when this was last looked at.
    pub state: u32,
    /// Cookie of its network namespace; 0 = not known.
    pub netns: u64,
    /// Name of the thread that opened it.
    pub comm: [u8; 16],
    /// `CLOCK_BOOTTIME` in nanoseconds until when there is no need to look again.
    pub due: u64,
    /// TCP's retransmits when this was last looked at.
    pub retransmits: u32,
    /// Hash of the peer that was last told of; a socket that is not connected has many.
    pub peer: u32,
}

/// An end of a flow that is not in the table yet: its socket sends before the interface sees the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Waiting {
    /// Which end: 0 = side A, 1 = side B.
    pub side: u32,
    /// So that no byte is undefined.
    pub reserved: u32,
    /// Who it is.
    pub local: Local,
}

impl Waiting {
    /// Of one side.
    #[inline(always)]
    #[must_use]
    pub fn new(side: Side, local: Local) -> Self {
        Self { side: side as u32, reserved: 0, local }
    }
}

/// Offsets of fields in the running kernel's structures, from its BTF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Layout {
    /// `sk_buff.head`, a pointer.
    pub skb_head: u32,
    /// `sk_buff.network_header`, 16 bits.
    pub skb_network_header: u32,
    /// `sk_buff.protocol`, 16 bits in network order.
    pub skb_protocol: u32,
    /// `linux_binprm.filename`, a pointer.
    pub binprm_filename: u32,
    /// `task_struct.tgid`, 32 bits.
    pub task_tgid: u32,
    /// `task_struct.comm`, 16 bytes.
    pub task_comm: u32,
    /// `sock_common.skc_family`, 16 bits; this and the next are 0 where they are not known.
    pub sock_family: u32,
    /// `sock_common.skc_daddr`, 32 bits in network order.
    pub sock_daddr: u32,
    /// `sock_common.skc_rcv_saddr`, 32 bits in network order.
    pub sock_rcv_saddr: u32,
    /// `sock_common.skc_v6_daddr`, 16 bytes.
    pub sock_v6_daddr: u32,
    /// `sock_common.skc_v6_rcv_saddr`, 16 bytes.
    pub sock_v6_rcv_saddr: u32,
    /// `sock_common.skc_dport`, 16 bits in network order.
    pub sock_dport: u32,
    /// `inet_sock.inet_sport`, 16 bits in network order: the local port, also of a socket that is on its way out and has given it up.
    pub sock_sport: u32,
    /// `sock_common.skc_net`, a pointer.
    pub sock_net: u32,
    /// `net.net_cookie`, 64 bits.
    pub net_cookie: u32,
}

/// Offset of `socket.sk`, as every kernel since 5.3 has it: a program cannot follow it elsewhere. User space looks before it loads the program.
pub const SOCKET_SK: usize = 24;

/// Longest path of an executable that is kept, with its final zero; longer ones are cut.
pub const PATH: usize = 128;

/// Reasons of drops that have a number of their own; others are added to the last one.
pub const REASONS: u32 = 256;

/// The kernel freed the packet without dropping it: `SKB_NOT_DROPPED_YET`, `SKB_CONSUMED` (include/net/dropreason-core.h).
pub const CONSUMED: u32 = 1;
/// It was dropped, and nobody says why: `SKB_DROP_REASON_NOT_SPECIFIED`.
pub const NOT_SPECIFIED: u32 = 2;

/// Numbers of reasons for drops that say nothing of the flow; 0 = the running kernel does not have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Harmless {
    /// `SKB_DROP_REASON_QUEUE_PURGE`: a queue goes with what lies in it. Of TCP that was taken and acknowledged: at the end of most connections it is
    /// the other end's FIN, which nobody reads.
    pub queue_purge: u32,
    /// `SKB_DROP_REASON_OTHERHOST`: a stack has seen what was sent to another one, as on a bridge that does not know where that is.
    pub other_host: u32,
    /// `SKB_DROP_REASON_PACKET_SOCK_ERROR`: who listens to the interface does not keep up, and misses its copy.
    pub packet_socket: u32,
    /// `SKB_DROP_REASON_NO_SOCKET`. Of ICMP: the answer to a ping is offered to sockets for pings alone after raw sockets have got it.
    pub no_socket: u32,
    /// `SKB_DROP_REASON_TCP_OLD_SEQUENCE`: keep-alives and probes of a window are made to be refused, and answered (RFC 9293 section 3.8.4).
    pub old_sequence: u32,
}

impl Harmless {
    /// Whether a reason is one of them, for a packet of this protocol with so much payload.
    #[inline(always)]
    #[must_use]
    pub fn has(&self, reason: u32, protocol: u8, payload: u32) -> bool {
        let of_protocol = match protocol {
            TCP => reason == self.queue_purge || (reason == self.old_sequence && payload <= 1),
            icmp::ICMP | icmp::ICMPV6 => reason == self.no_socket,
            _ => false,
        };
        of_protocol || reason == self.other_host || reason == self.packet_socket
    }
}

/// Whether an address is a loopback address: every network namespace has it.
#[inline(always)]
#[must_use]
pub fn is_loopback(address: Address) -> bool {
    let v4 = address.low >> 24 == 0x00ff_ff7f;
    address.high == 0 && (v4 || address.low == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_addresses_are_known() {
        assert!(is_loopback(Address::from_v4(0x7f00_0001)));
        assert!(is_loopback(Address::from_v4(0x7f12_3456)));
        assert!(is_loopback(Address { high: 0, low: 1 }));
        assert!(!is_loopback(Address::from_v4(0x0a00_0001)));
        assert!(!is_loopback(Address { high: 1, low: 1 }));
    }

    #[test]
    fn a_refused_keep_alive_is_no_loss_and_refused_data_is() {
        let reasons = Harmless { queue_purge: 2, other_host: 3, packet_socket: 4, no_socket: 5, old_sequence: 6 };
        assert!(reasons.has(6, TCP, 0) && reasons.has(6, TCP, 1) && !reasons.has(6, TCP, 2) && !reasons.has(6, 17, 0));
        assert!(reasons.has(2, TCP, 100) && !reasons.has(2, 17, 100));
        assert!(reasons.has(5, 1, 56) && reasons.has(5, 58, 56) && !reasons.has(5, 17, 56) && !reasons.has(5, TCP, 0));
        assert!(reasons.has(3, 17, 9) && reasons.has(4, TCP, 9) && !reasons.has(7, TCP, 9));
    }

    #[test]
    fn what_crosses_the_border_has_no_padding() {
        assert_eq!(size_of::<Owner>(), 48);
        assert_eq!(size_of::<Waiting>(), 56);
        assert_eq!(size_of::<Layout>(), 60);
    }
}
