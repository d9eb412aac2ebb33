//! How much of a tunnelled super-packet every segment repeats: all headers up to the inner transport header.
//!
//! Only the length: the flow is the outer one. Nothing but the inner packet's segment size says where a tunnelled super-packet is cut, so without
//! this its bytes would come out too small.

use super::{
    Frame, IPV4, IPV6, UDP,
    header::{Ipv4Header, Ports, TcpHeader},
};
use crate::initiator::TCP;

const IPIP: u8 = 4;
const IPV6_IN_IP: u8 = 41;
const GRE: u8 = 47;
/// IANA's port for VXLAN, and the one that Linux uses by default.
const VXLAN: [u16; 2] = [4789, 8472];
const GENEVE: u16 = 6081;
/// `EtherType` of an Ethernet frame in GRE or Geneve.
const ETHERNET_IN: u16 = 0x6558;

/// First bytes of a GRE (RFC 2784, RFC 2890) or Geneve (RFC 8926) header.
#[derive(Clone, Copy)]
#[repr(C)]
struct Encapsulation {
    flags: u8,
    version: u8,
    ether_type: u16,
}

// SAFETY: integers only, laid out without padding.
unsafe impl super::Plain for Encapsulation {}

/// Bytes from the outer transport header (at `at`) to the end of the inner one; 0 = this is no tunnel that Weir knows.
#[inline(always)]
pub(super) fn header_bytes<F: Frame>(frame: &F, at: u32, protocol: u8) -> u32 {
    match inner_network(frame, at, protocol).and_then(|(offset, ether_type)| behind(frame, offset, ether_type)) {
        Some(end) => end - at,
        None => 0,
    }
}

/// Offset and `EtherType` of the inner network header.
#[inline(always)]
fn inner_network<F: Frame>(frame: &F, at: u32, protocol: u8) -> Option<(u32, u16)> {
    match protocol {
        IPIP => Some((at, IPV4)),
        IPV6_IN_IP => Some((at, IPV6)),
        GRE => {
            let gre = frame.load::<Encapsulation>(at)?;
            let optional = (gre.flags >> 7 & 1) + (gre.flags >> 5 & 1) + (gre.flags >> 4 & 1);
            behind_ethernet(frame, at + 4 + u32::from(optional) * 4, u16::from_be(gre.ether_type))
        }
        UDP => {
            let port = u16::from_be(frame.load::<Ports>(at)?.dst);
            if port == VXLAN[0] || port == VXLAN[1] {
                return behind_ethernet(frame, at + 16, ETHERNET_IN);
            }
            if port != GENEVE {
                return None;
            }
            let geneve = frame.load::<Encapsulation>(at + 8)?;
            behind_ethernet(frame, at + 16 + u32::from(geneve.flags & 0x3f) * 4, u16::from_be(geneve.ether_type))
        }
        _ => None,
    }
}

#[inline(always)]
fn behind_ethernet<F: Frame>(frame: &F, at: u32, ether_type: u16) -> Option<(u32, u16)> {
    if ether_type != ETHERNET_IN {
        return Some((at, ether_type));
    }
    let inner = frame.load::<Encapsulation>(at + 10)?;
    Some((at + 14, u16::from_be(inner.ether_type)))
}

/// Offset of what follows the inner transport header.
#[inline(always)]
fn behind<F: Frame>(frame: &F, at: u32, ether_type: u16) -> Option<u32> {
    let ip = frame.load::<Ipv4Header>(at)?;
    let (transport, protocol) = match ether_type {
        IPV4 => (at + u32::from(ip.version_length & 0x0f) * 4, ip.protocol),
        // Byte 6 is IPv6's next header; in IPv4's layout it is the upper one of the fragment field.
        IPV6 => (at + 40, (u16::from_be(ip.fragment) >> 8) as u8),
        _ => return None,
    };
    match protocol {
        TCP => Some(transport + u32::from(frame.load::<TcpHeader>(transport)?.offset >> 4) * 4),
        UDP => Some(transport + 8),
        _ => None,
    }
}
