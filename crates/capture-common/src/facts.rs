//! What is known of a flow beside its sums: a second array, with the same numbers as the slots.
//!
//! Nothing here adds packets or bytes. The classifier writes the times of the handshake and which other interfaces saw the flow; the programs
//! at sockets write who is at its ends and what TCP says of itself; the one at `skb:kfree_skb` counts what the kernel dropped. User
//! space reads, and zeroes it together with the slot.

use crate::flow::{Address, Side};

/// Interfaces beside the counting ones that are remembered.
pub const OTHERS: usize = 4;

/// What is known of one flow. 192 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Facts {
    /// `CLOCK_BOOTTIME` in nanoseconds of the initiator's last SYN before it was answered; 0 = not seen.
    pub syn: u64,
    /// The same of the responder's SYN with ACK.
    pub syn_ack: u64,
    /// The same of the acknowledgement that ended the handshake.
    pub ack: u64,
    /// Times that the kernel dropped an `sk_buff` of the flow.
    pub drops: u32,
    /// Why it did so last: `enum skb_drop_reason` of the running kernel.
    pub drop_reason: u32,
    /// Indexes of interfaces that saw packets which another one counted; 0 = none.
    pub others: [u32; OTHERS],
    /// What the flow was wrapped in.
    pub tunnel: Tunnel,
    /// Who is at side A.
    pub at_a: Local,
    /// Who is at side B.
    pub at_b: Local,
    /// Which TCP on this host says that it has sent or taken a reset: [`reset`].
    pub reset_marks: u32,
    /// Why one has sent it: `enum sk_rst_reason` of the running kernel.
    pub reset_reason: u32,
}

impl Facts {
    /// Who is at a side.
    #[inline(always)]
    #[must_use]
    pub fn at(&self, side: Side) -> &Local {
        match side {
            Side::A => &self.at_a,
            Side::B => &self.at_b,
        }
    }
}

/// A tunnel, as the flow's first packet had it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Tunnel {
    /// One of [`tunnel`]; 0 = none.
    pub kind: u32,
    /// Its network identifier or key, where it has one.
    pub id: u32,
    /// Who sent the first packet through it.
    pub src: Address,
    /// To whom.
    pub dst: Address,
}

/// Values of [`Tunnel::kind`].
pub mod tunnel {
    /// RFC 7348.
    pub const VXLAN: u32 = 1;
    /// RFC 8926.
    pub const GENEVE: u32 = 2;
    /// RFC 2784.
    pub const GRE: u32 = 3;
    /// RFC 2003, RFC 2473: IPv4 inside.
    pub const IPIP: u32 = 4;
    /// RFC 4213, RFC 2473: IPv6 inside.
    pub const IP6: u32 = 5;
}

/// Bits of [`Facts::reset_marks`].
pub mod reset {
    use crate::flow::Side;

    /// The TCP at this side has sent a reset.
    #[inline(always)]
    #[must_use]
    pub const fn sent(side: Side) -> u32 {
        1 << side as u32
    }

    /// The TCP at this side has taken one, and so ended the connection.
    #[inline(always)]
    #[must_use]
    pub const fn taken(side: Side) -> u32 {
        4 << side as u32
    }
}

/// In [`Local::marks`]: there is a socket, and its cgroup is known.
pub const SOCKET: u32 = 1;
/// In [`Local::marks`]: the process that opened the socket is known.
pub const PROCESS: u32 = 2;
/// In [`Local::marks`]: what TCP says of itself is known.
pub const TCP_STATE: u32 = 4;

/// An end of a flow that is a socket of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Local {
    /// Id of the socket's cgroup in the v2 tree.
    pub cgroup: u64,
    /// `SO_COOKIE`.
    pub cookie: u64,
    /// Process that opened the socket; of an accepted connection the one that opened the listening socket.
    pub pid: u32,
    /// TCP's smoothed round trip time, in microseconds; 0 = not measured yet.
    pub srtt_us: u32,
    /// Segments that TCP has sent again since the connection was opened.
    pub retransmits: u32,
    /// [`SOCKET`], [`PROCESS`], [`TCP_STATE`].
    pub marks: u32,
    /// Name of the process's thread that opened the socket, zero-terminated where it is shorter.
    pub comm: [u8; 16],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_three_cache_lines() {
        assert_eq!(size_of::<Local>(), 48);
        assert_eq!(size_of::<Facts>(), 192);
    }
}
