//! What the kernel program and `weir-capture` share: the shapes of the maps, and every decision about a packet that can be made without
//! the kernel, so that it can be tested on any host.
//!
//! # The path of a packet
//!
//! 1. [`dissect::dissect`] finds addresses, ports, flags and length behind VLAN tags, IPv4 options and IPv6 extension headers.
//! 2. [`wire::size`] turns a GSO or GRO super-packet into the packets and bytes that are on the wire.
//! 3. [`flow::FlowKey::new`] gives both directions of a conversation one key, and the [`flow::Side`] that sent the packet.
//! 4. [`select`] says whether the flow is to be counted at all.
//! 5. The kernel looks the key up in the index (key to slot number), unless it finds it among the recent flows, and adds to the slot's [`slot::Counters`] of that side, if this hook
//!    [owns](slot::Counters::owned_by) that direction of the flow.
//! 6. [`picks`] says whether user space wants to read it.
//! 7. Whatever became of the packet, it is counted in the [`ledger::Ledger`].
//!
//! A plain packet ([`dissect::plain`]) of a recent flow takes the short way: steps 1 to 3 in place, the slot, the ledger.
//!
//! Nothing here allocates, panics or depends on the standard library.

#![no_std]
#![expect(
    clippy::inline_always,
    reason = "a call is a new stack frame of the 512 bytes that a kernel program has, or a new function to verify"
)]

#[cfg(test)]
extern crate std;

pub mod contained;
pub mod dissect;
pub mod facts;
pub mod flow;
pub mod icmp;
pub mod initiator;
pub mod ledger;
pub mod picks;
pub mod select;
pub mod sequence;
pub mod slot;
pub mod socket;
pub mod spill;
pub mod wire;

/// Names of the maps and programs in the object that `capture-ebpf` compiles to.
pub mod names {
    /// Array of two hashes: [`FlowKey`](crate::flow::FlowKey) to the number of its slot. The second one is there only while the table is resized.
    pub const INDEX: &str = "INDEX";
    /// Array of segments: memory-mappable arrays of [`SEGMENT`](crate::slot::SEGMENT) [`Slot`](crate::slot::Slot)s.
    pub const SLOTS: &str = "SLOTS";
    /// As above, of [`Facts`](crate::facts::Facts).
    pub const FACTS: &str = "FACTS";
    /// Per-CPU array: what the kernel dropped, by reason.
    pub const DROPS: &str = "DROPS";
    /// LRU hash: process id to the file it executes.
    pub const EXECUTABLES: &str = "EXECUTABLES";
    /// Array of one stack: the numbers of free slots.
    pub const FREE: &str = "FREE";
    /// Stack of the numbers of free slots for [overflow](crate::flow::FlowKey::overflow).
    pub const RESERVE: &str = "RESERVE";
    /// Array: numbers of the slots of recent flows, two at each place.
    pub const RECENT: &str = "RECENT";
    /// Constant: the number of those places less one; they are a power of two.
    pub const RECENT_MASK: &str = "RECENT_MASK";
    /// LRU hash: [`FragmentKey`](crate::flow::FragmentKey) to ports.
    pub const FRAGMENTS: &str = "FRAGMENTS";
    /// Per-CPU array of [`Ledger`](crate::ledger::Ledger)s, by [place](crate::ledger::place).
    pub const LEDGER: &str = "LEDGER";
    /// LRU hash: [`FlowKey`](crate::flow::FlowKey) to [`Waiting`](crate::socket::Waiting).
    pub const WAITING: &str = "WAITING";
    /// With each socket: [`Owner`](crate::socket::Owner).
    pub const OWNERS: &str = "OWNERS";
    /// LRU hash: bytes that are missing of TLS records.
    pub const CONTINUED: &str = "CONTINUED";
    /// LPM trie: address to the bits of the filter's questions that it answers with yes.
    pub const SELECT_ADDRESSES: &str = "SELECT_ADDRESSES";
    /// Array: port to bits.
    pub const SELECT_PORTS: &str = "SELECT_PORTS";
    /// Array: protocol to bits.
    pub const SELECT_PROTOCOLS: &str = "SELECT_PROTOCOLS";
    /// Hash: index of an interface to bits.
    pub const SELECT_INTERFACES: &str = "SELECT_INTERFACES";
    /// Array with one [`Program`](crate::select::Program).
    pub const SELECT_PROGRAM: &str = "SELECT_PROGRAM";
    /// Constant: bits of [`uses`](crate::select::uses).
    pub const SELECT_USES: &str = "SELECT_USES";
    /// Constant: one flow in so many is counted.
    pub const SAMPLE_ONE_IN: &str = "SAMPLE_ONE_IN";
    /// Constant: makes samples differ.
    pub const SAMPLE_SEED: &str = "SAMPLE_SEED";
    /// Ring buffer of [`Spill`](crate::spill::Spill)s.
    pub const SPILLED: &str = "SPILLED";
    /// Constant: 1 = packets that find no room in the table go there.
    pub const SPILL_ON: &str = "SPILL_ON";
    /// Ring buffer of [`Pick`](crate::picks::Pick)s.
    pub const PICKS: &str = "PICKS";
    /// Per-CPU array: packets that were picked, and such as found no room.
    pub const PICK_COUNTS: &str = "PICK_COUNTS";
    /// Constant: 1 = packets are picked.
    pub const PICKS_ON: &str = "PICKS_ON";
    /// Programs for devices whose frames start with an Ethernet header: what comes in.
    pub const ETHERNET_INGRESS: &str = "ethernet_ingress";
    /// As above: what goes out.
    pub const ETHERNET_EGRESS: &str = "ethernet_egress";
    /// Programs for devices whose frames start with the IP header (tun, WireGuard): what comes in.
    pub const IP_INGRESS: &str = "ip_ingress";
    /// As above: what goes out.
    pub const IP_EGRESS: &str = "ip_egress";
    /// As the four above, for interfaces in the network namespaces of containers, each of which has a small program that calls one of these.
    pub const CONTAINED_ETHERNET_INGRESS: &str = "contained_ethernet_ingress";
    /// As above: what goes out.
    pub const CONTAINED_ETHERNET_EGRESS: &str = "contained_ethernet_egress";
    /// As above, of frames that start with the IP header: what comes in.
    pub const CONTAINED_IP_INGRESS: &str = "contained_ip_ingress";
    /// As above: what goes out.
    pub const CONTAINED_IP_EGRESS: &str = "contained_ip_egress";
    /// Array of these programs, by [place](crate::contained::places).
    pub const CONTAINED_PROGRAMS: &str = "CONTAINED_PROGRAMS";
    /// Per-CPU array of one [`Here`](crate::contained::Here): where the packet at hand is.
    pub const HERE: &str = "HERE";
    /// Hash: [`Spot`](crate::contained::Spot) to the mask of flows that are seen there.
    pub const MASKS: &str = "MASKS";
    /// Constant: 1 = there may be something in it.
    pub const MASKS_ON: &str = "MASKS_ON";
    /// The least that a program that counts flows does; for the benchmark.
    pub const MINIMAL: &str = "minimal";
    /// Program at cgroups: a process opens a socket.
    pub const SOCKET_OPENS: &str = "socket_opens";
    /// Program at cgroups: a socket sends.
    pub const SOCKET_SENDS: &str = "socket_sends";
    /// Program at cgroups: a socket receives.
    pub const SOCKET_RECEIVES: &str = "socket_receives";
    /// Program at the tracepoint `skb:kfree_skb`.
    pub const PACKET_DROPPED: &str = "packet_dropped";
    /// Program at the tracepoint `sched:sched_process_exec`.
    pub const PROCESS_EXECUTES: &str = "process_executes";
    /// Program at the tracepoint `sched:sched_process_fork`.
    pub const PROCESS_FORKS: &str = "process_forks";
    /// Program at the tracepoint `tcp:tcp_send_reset`.
    pub const RESET_SENT: &str = "reset_sent";
    /// Program at the tracepoint `tcp:tcp_receive_reset`.
    pub const RESET_RECEIVED: &str = "reset_received";
    /// Iterator over open files: sockets that were there before.
    pub const SOCKETS_BEFORE: &str = "sockets_before";
    /// Constant: where a field lies in a structure of the running kernel, in the order of [`Layout`](crate::socket::Layout).
    pub const LAYOUT: &str = "LAYOUT";
    /// Constant: the cookie of the network namespace that is captured in.
    pub const HOME: &str = "HOME";
    /// Constant: whether the kernel tells of which MPTCP socket a TCP socket is a part.
    pub const MPTCP: &str = "MPTCP";
    /// Constant: reasons for which the kernel frees what is no loss, as [`Harmless`](crate::socket::Harmless).
    pub const HARMLESS: &str = "HARMLESS";
}
