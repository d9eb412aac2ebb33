//! Which packets carry another one, and where it starts.
//!
//! The flow is the inner one. Its bytes are those of the outer packet, as they are on the wire; and every segment of a super-packet repeats all
//! headers up to the inner transport header.

use super::{Frame, IPV4, IPV6, UDP};
use crate::facts::tunnel;

const IPIP: u8 = 4;
const IPV6_IN_IP: u8 = 41;
const GRE: u8 = 47;
/// IANA's port for VXLAN, and the one that Linux uses by default.
const VXLAN: [u16; 2] = [4789, 8472];
const GENEVE: u16 = 6081;
/// `EtherType` of an Ethernet frame in GRE or Geneve.
const ETHERNET_IN: u16 = 0x6558;

/// First bytes of a GRE (RFC 2784, RFC 2890), VXLAN (RFC 7348) or Geneve (RFC 8926) header.
#[derive(Clone, Copy)]
#[repr(C)]
struct Encapsulation {
    flags: u8,
    version: u8,
    ether_type: u16,
    network: u32,
}

// SAFETY: integers only, laid out without padding.
unsafe impl super::Plain for Encapsulation {}

/// A network layer inside another.
#[derive(Clone, Copy)]
pub(super) struct Inner {
    /// One of [`tunnel`].
    pub(super) kind: u32,
    /// The network's number, where there is one.
    pub(super) id: u32,
    /// Where the inner network header is.
    pub(super) at: u32,
    pub(super) ether_type: u16,
}

/// Whether it is worth looking.
#[inline(always)]
pub(super) fn may_be(protocol: u8, dst_port: u16) -> bool {
    match protocol {
        IPIP | IPV6_IN_IP | GRE => true,
        UDP => dst_port == VXLAN[0] || dst_port == VXLAN[1] || dst_port == GENEVE,
        _ => false,
    }
}

/// What a packet of this protocol carries behind its network header (at `at`), if it is a tunnel that Weir knows.
#[inline(always)]
pub(super) fn inside<F: Frame>(frame: &F, at: u32, protocol: u8, dst_port: u16) -> Option<Inner> {
    match protocol {
        IPIP => Some(Inner { kind: tunnel::IPIP, id: 0, at, ether_type: IPV4 }),
        IPV6_IN_IP => Some(Inner { kind: tunnel::IP6, id: 0, at, ether_type: IPV6 }),
        GRE => {
            let gre = frame.load::<Encapsulation>(at)?;
            // Version 1 is PPTP's; routing is long deprecated.
            if gre.version & 0x07 != 0 || gre.flags & 0x40 != 0 {
                return None;
            }
            let optional = (gre.flags >> 7 & 1) + (gre.flags >> 5 & 1) + (gre.flags >> 4 & 1);
            // The key differs by direction in some networks, so it does not name the tunnel.
            behind_ethernet(frame, at + 4 + u32::from(optional) * 4, u16::from_be(gre.ether_type), tunnel::GRE, 0)
        }
        UDP if dst_port == VXLAN[0] || dst_port == VXLAN[1] => {
            let vxlan = frame.load::<Encapsulation>(at + 8)?;
            if vxlan.flags & 0x08 == 0 {
                return None;
            }
            behind_ethernet(frame, at + 16, ETHERNET_IN, tunnel::VXLAN, u32::from_be(vxlan.network) >> 8)
        }
        UDP if dst_port == GENEVE => {
            let geneve = frame.load::<Encapsulation>(at + 8)?;
            let options = u32::from(geneve.flags & 0x3f) * 4;
            let id = u32::from_be(geneve.network) >> 8;
            behind_ethernet(frame, at + 16 + options, u16::from_be(geneve.ether_type), tunnel::GENEVE, id)
        }
        _ => None,
    }
}

#[inline(always)]
fn behind_ethernet<F: Frame>(frame: &F, at: u32, ether_type: u16, kind: u32, id: u32) -> Option<Inner> {
    if ether_type != ETHERNET_IN {
        return Some(Inner { kind, id, at, ether_type });
    }
    let inner = frame.load::<Encapsulation>(at + 10)?;
    Some(Inner { kind, id, at: at + 14, ether_type: u16::from_be(inner.ether_type) })
}
