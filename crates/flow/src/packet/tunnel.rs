//! Encapsulations that carry another network layer: which packets hold one, and where it starts.

use super::ip::protocol;
use super::link::{self, Network};
use super::{Layer, Unanalysed};
use crate::bytes::{after, array_at, u8_at, u16_at, u24_at, u32_at};

/// An encapsulation and what names the tunnel in it, where that is the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tunnel {
    /// IPv4 in IPv4 or IPv6 (RFC 2003, RFC 2473).
    IpIp,
    /// IPv6 in IPv4 or IPv6 (RFC 4213, RFC 2473).
    Ip6,
    /// RFC 2784, in UDP RFC 8086.
    Gre,
    /// RFC 7348, with its network identifier.
    Vxlan(u32),
    /// RFC 8926, with its network identifier.
    Geneve(u32),
    /// GTP-U (3GPP TS 29.281); its endpoint identifiers differ by direction.
    Gtp,
    /// RFC 4380.
    Teredo,
    /// RFC 2661, RFC 3931; its identifiers differ by direction.
    L2tp,
    /// RFC 9300.
    Lisp,
    /// Ethernet in IP (RFC 3378, RFC 8986).
    EtherIp,
    /// Between an access point and its controller (RFC 5415).
    Capwap,
    /// MPLS in IP or UDP (RFC 4023, RFC 7510); its labels differ by direction.
    Mpls,
}

impl std::fmt::Display for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::IpIp => f.write_str("ipip"),
            Self::Ip6 => f.write_str("ip6"),
            Self::Gre => f.write_str("gre"),
            Self::Vxlan(id) => write!(f, "vxlan:{id}"),
            Self::Geneve(id) => write!(f, "geneve:{id}"),
            Self::Gtp => f.write_str("gtp"),
            Self::Teredo => f.write_str("teredo"),
            Self::L2tp => f.write_str("l2tp"),
            Self::Lisp => f.write_str("lisp"),
            Self::EtherIp => f.write_str("etherip"),
            Self::Capwap => f.write_str("capwap"),
            Self::Mpls => f.write_str("mpls"),
        }
    }
}

/// A tunnel and the network layer inside it, or why there is none.
pub type Inner<'a> = (Tunnel, Result<Network<'a>, Unanalysed>);

/// What an IP payload of this protocol carries, if it is a tunnel.
#[must_use]
pub fn in_ip(protocol: u8, payload: &[u8]) -> Option<Inner<'_>> {
    match protocol {
        protocol::IPIP => Some((Tunnel::IpIp, link::typed(0x0800, payload))),
        protocol::IPV6 => Some((Tunnel::Ip6, link::typed(0x86dd, payload))),
        protocol::GRE => Some((Tunnel::Gre, gre(payload))),
        97 => Some((Tunnel::EtherIp, link::ethernet(after(payload, 2)))),
        115 => l2tp_session(payload),
        143 => Some((Tunnel::EtherIp, link::ethernet(payload))),
        137 => Some((Tunnel::Mpls, link::typed(0x8847, payload))),
        _ => None,
    }
}

/// What a UDP datagram between these ports carries, if it is a tunnel.
#[must_use]
pub fn in_udp(src_port: u16, dst_port: u16, payload: &[u8]) -> Option<Inner<'_>> {
    match dst_port {
        4789 | 8472 => vxlan(payload),
        4790 => vxlan_gpe(payload),
        4754 => Some((Tunnel::Gre, gre(payload))),
        6081 => geneve(payload),
        6635 => Some((Tunnel::Mpls, link::typed(0x8847, payload))),
        2152 => gtp(payload),
        3544 => teredo(payload),
        1701 => l2tp(payload),
        5247 => capwap(payload),
        4341 => ip_at(payload, 8).map(|inner| (Tunnel::Lisp, inner)),
        _ => match src_port {
            2152 => gtp(payload),
            3544 => teredo(payload),
            1701 => l2tp(payload),
            5247 => capwap(payload),
            _ => None,
        },
    }
}

/// RFC 2784 with the key and sequence number of RFC 2890; version 1 is PPTP's (RFC 2637).
fn gre(data: &[u8]) -> Result<Network<'_>, Unanalysed> {
    const TRUNCATED: Unanalysed = Unanalysed::Truncated(Layer::Shim);
    let flags = u16_at(data, 0).ok_or(TRUNCATED)?;
    let protocol = u16_at(data, 2).ok_or(TRUNCATED)?;
    let bit = |mask: u16, length: usize| if flags & mask != 0 { length } else { 0 };
    if flags & 0x0007 == 1 {
        let rest = after(data, 8 + bit(0x1000, 4) + bit(0x0080, 4));
        return if rest.is_empty() { Err(Unanalysed::Ppp(0)) } else { link::ppp(rest) };
    }
    // Routing (RFC 1701) has a list of its own length and is long deprecated.
    if flags & 0x4000 != 0 || flags & 0x0007 != 0 {
        return Err(Unanalysed::Malformed(Layer::Shim));
    }
    let rest = after(data, 4 + bit(0x8000, 4) + bit(0x2000, 4) + bit(0x1000, 4));
    match protocol {
        // Transparent Ethernet bridging.
        0x6558 => link::ethernet(rest),
        // ERSPAN type II has a header of 8 bytes where a sequence number is present, type I none.
        0x88be => link::ethernet(after(rest, bit(0x1000, 8))),
        // ERSPAN type III: 12 bytes, and 8 more where its last bit says so. Frame type 2 is IP.
        0x22eb => {
            let flags = u16_at(rest, 10).ok_or(TRUNCATED)?;
            let rest = after(rest, if flags & 1 == 1 { 20 } else { 12 });
            if flags >> 10 & 0x1f == 2 { ip_at(rest, 0).ok_or(TRUNCATED)? } else { link::ethernet(rest) }
        }
        0x880b => link::ppp(rest),
        // WCCP: version 2 has a header of its own, which does not look like IP.
        0x883e => {
            link::typed(0x0800, after(rest, if u8_at(rest, 0).is_some_and(|first| first >> 4 == 4) { 0 } else { 4 }))
        }
        other => link::typed(other, rest),
    }
}

fn vxlan(data: &[u8]) -> Option<Inner<'_>> {
    // The flag says that there is an identifier; without it this is something else on the same port.
    if u8_at(data, 0)? & 0x08 == 0 {
        return None;
    }
    Some((Tunnel::Vxlan(u24_at(data, 4)?), link::ethernet(data.get(8..)?)))
}

fn vxlan_gpe(data: &[u8]) -> Option<Inner<'_>> {
    let rest = data.get(8..)?;
    let inner = match u8_at(data, 3)? {
        1 => link::typed(0x0800, rest),
        2 => link::typed(0x86dd, rest),
        3 => link::ethernet(rest),
        4 => link::typed(0x894f, rest),
        5 => link::typed(0x8847, rest),
        _ => return None,
    };
    Some((Tunnel::Vxlan(u24_at(data, 4)?), inner))
}

fn geneve(data: &[u8]) -> Option<Inner<'_>> {
    let first = u8_at(data, 0)?;
    if first >> 6 != 0 {
        return None;
    }
    let rest = data.get(8 + usize::from(first & 0x3f) * 4..)?;
    let inner = match u16_at(data, 2)? {
        0x6558 => link::ethernet(rest),
        other => link::typed(other, rest),
    };
    Some((Tunnel::Geneve(u24_at(data, 4)?), inner))
}

/// Version 1, message type 255: a packet of a user.
fn gtp(data: &[u8]) -> Option<Inner<'_>> {
    let flags = u8_at(data, 0)?;
    if flags >> 4 != 3 || u8_at(data, 1)? != 0xff {
        return None;
    }
    let mut offset = 8;
    if flags & 0x07 != 0 {
        let mut next = u8_at(data, 11)?;
        offset = 12;
        // Each extension says its length in units of 4 bytes; the bound keeps a zero from looping.
        for _ in 0..8 {
            if next == 0 || flags & 0x04 == 0 {
                break;
            }
            offset += usize::from(u8_at(data, offset)?.max(1)) * 4;
            next = u8_at(data, offset - 1)?;
        }
    }
    ip_at(data, offset).map(|inner| (Tunnel::Gtp, inner))
}

/// Skips the authentication and origin indications of RFC 4380.
fn teredo(data: &[u8]) -> Option<Inner<'_>> {
    let mut offset = 0;
    if u16_at(data, 0)? == 1 {
        offset += 13 + usize::from(u8_at(data, 2)?) + usize::from(u8_at(data, 3)?);
    }
    if u16_at(data, offset)? == 0 {
        offset += 8;
    }
    (u8_at(data, offset)? >> 4 == 6).then(|| (Tunnel::Teredo, link::typed(0x86dd, after(data, offset))))
}

/// Data messages of versions 2 and 3.
fn l2tp(data: &[u8]) -> Option<Inner<'_>> {
    const CONTROL: u16 = 0x8000;
    let flags = u16_at(data, 0)?;
    if flags & (CONTROL | 0x000f) == 3 {
        return l2tp_session(data.get(4..)?);
    }
    let bit = |mask: u16, length: usize| if flags & mask != 0 { length } else { 0 };
    if flags & CONTROL != 0 || flags & 0x000f != 2 {
        return None;
    }
    let mut offset = 6 + bit(0x4000, 2) + bit(0x0800, 4);
    if flags & 0x0200 != 0 {
        offset += 2 + usize::from(u16_at(data, offset)?);
    }
    Some((Tunnel::L2tp, link::ppp(data.get(offset..)?)))
}

/// Version 3 from its session on; session 0 is control. How long the cookie is, and whether a sublayer follows it, only the two ends know, so
/// what they carry has to look right.
fn l2tp_session(data: &[u8]) -> Option<Inner<'_>> {
    if u32_at(data, 0)? == 0 {
        return None;
    }
    let inner = [4, 8, 12, 16].into_iter().find_map(|offset| {
        let rest = data.get(offset..)?;
        let found = if rest.starts_with(&[0xff, 0x03]) { link::ppp(rest) } else { link::ethernet(rest) };
        found.ok().filter(|network| link::is_ip(network.packet))
    })?;
    Some((Tunnel::L2tp, Ok(inner)))
}

/// The data channel where it is not encrypted: frames of 802.3, or of 802.11 as the radio has them. Of fragments the first one has headers.
fn capwap(data: &[u8]) -> Option<Inner<'_>> {
    const KEEP_ALIVE: u8 = 0x08;
    let [preamble, length, binding, flags, _, _, offset_high, offset_low]: [u8; 8] = array_at(data, 0)?;
    let header = usize::from(length >> 3) * 4;
    if preamble != 0 || header < 8 || flags & KEEP_ALIVE != 0 || u16::from_be_bytes([offset_high, offset_low]) > 7 {
        return None;
    }
    let rest = data.get(header..)?;
    let inner = match (binding >> 1 & 0x1f, binding & 1) {
        (_, 0) => link::ethernet(rest),
        (1, _) => link::wlan(rest),
        _ => return None,
    };
    Some((Tunnel::Capwap, inner))
}

/// A bare IP packet at `offset`, told by its version.
fn ip_at(data: &[u8], offset: usize) -> Option<Result<Network<'_>, Unanalysed>> {
    match u8_at(data, offset)? >> 4 {
        4 => Some(link::typed(0x0800, after(data, offset))),
        6 => Some(link::typed(0x86dd, after(data, offset))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: [u8; 4] = [0x45, 0, 0, 20];
    const SNAP: [u8; 8] = [0xaa, 0xaa, 3, 0, 0, 0, 8, 0];
    const ETHERNET: [u8; 14] = [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 8, 0];

    fn packet(inner: Option<Inner<'_>>) -> (String, Vec<u8>) {
        let (tunnel, network) = inner.unwrap();
        (tunnel.to_string(), network.unwrap().packet.to_vec())
    }

    #[test]
    fn what_an_ip_payload_carries_is_found() {
        for (protocol, parts, name) in [
            (4, &[&[][..]][..], "ipip"),
            (47, &[&[0, 0, 8, 0]], "gre"),
            (47, &[&[0xb0, 0, 8, 0], &[9; 12]], "gre"),
            (47, &[&[0, 0, 0x65, 0x58], &ETHERNET], "gre"),
            (47, &[&[0x10, 0, 0x88, 0xbe], &[9; 4], &[9; 8], &ETHERNET], "gre"),
            (47, &[&[0x10, 0, 0x22, 0xeb], &[9; 4], &[0; 12], &ETHERNET], "gre"),
            (47, &[&[0x10, 0, 0x22, 0xeb], &[9; 4], &[1; 20], &ETHERNET], "gre"),
            (47, &[&[0x30, 0x81, 0x88, 0x0b], &[9; 12], &[0xff, 3, 0, 0x21]], "gre"),
            (47, &[&[0x10, 0, 0x22, 0xeb], &[9; 4], &[9; 10], &[0x08, 0]], "gre"),
            (47, &[&[0, 0, 0x88, 0x3e], &[0; 4]], "gre"),
            (97, &[&[0x30, 0], &ETHERNET], "etherip"),
            (115, &[&[0, 0, 0, 1], &ETHERNET], "l2tp"),
            (115, &[&[0, 0, 0, 1], &[9; 8], &[0x40, 0, 0, 1], &ETHERNET], "l2tp"),
            (115, &[&[0, 0, 0, 1], &[9; 4], &[0xff, 3, 0, 0x21]], "l2tp"),
        ] {
            let payload = [parts.concat(), IP.to_vec()].concat();
            assert_eq!(packet(in_ip(protocol, &payload)), (name.to_owned(), IP.to_vec()));
        }
        assert!(in_ip(17, &IP).is_none());
        assert!(in_ip(115, &[&[0; 4][..], &ETHERNET, &IP].concat()).is_none(), "session 0 is control");
        assert!(in_ip(115, &[9; 60]).is_none());
    }

    #[test]
    fn what_a_datagram_carries_is_found_and_told_from_what_is_not_a_tunnel() {
        for (port, parts, name) in [
            (4789, &[&[8, 0, 0, 0, 0, 0, 42, 0][..], &ETHERNET][..], "vxlan:42"),
            (4790, &[&[0x0c, 0, 0, 1, 0, 0, 42, 0]], "vxlan:42"),
            (4790, &[&[0x0c, 0, 0, 4, 0, 0, 42, 0], &[0, 2, 1, 1], &[9; 4]], "vxlan:42"),
            (4790, &[&[0x0c, 0, 0, 5, 0, 0, 42, 0], &[0, 2, 1, 64]], "vxlan:42"),
            (6081, &[&[1, 0, 0x65, 0x58, 0, 1, 0, 0], &[9; 4], &ETHERNET], "geneve:256"),
            (2152, &[&[0x30, 0xff, 0, 4, 0, 0, 0, 1]], "gtp"),
            (2152, &[&[0x34, 0xff, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0x85], &[1, 9, 9, 0]], "gtp"),
            (1701, &[&[0, 2, 0, 1, 0, 2], &[0xff, 3, 0, 0x21]], "l2tp"),
            (1701, &[&[0, 3, 0, 0, 0, 0, 0, 1], &[0; 4], &ETHERNET], "l2tp"),
            (4341, &[&[0; 8]], "lisp"),
            (5247, &[&[0, 0x10, 0, 0, 0, 0, 0, 0], &ETHERNET], "capwap"),
            // The radio's header, and a frame of 802.11 whose first two bytes are swapped, or are not.
            (5247, &[&[0, 0x20, 3, 0x20], &[0; 12], &[0x01, 0x08], &[7; 22], &SNAP], "capwap"),
            (5247, &[&[0, 0x10, 3, 0, 0, 0, 0, 0], &[0x02, 0x88], &[7; 22], &[0; 2], &SNAP], "capwap"),
            (5247, &[&[0, 0x10, 3, 0, 0, 0, 0, 0], &[0x08, 0x01], &[7; 22], &SNAP], "capwap"),
        ] {
            let payload = [parts.concat(), IP.to_vec()].concat();
            assert_eq!(packet(in_udp(9, port, &payload)), (name.to_owned(), IP.to_vec()));
            assert!(in_udp(9, port, b"hello").is_none(), "{name}");
        }
        // Keep-alives, encrypted data, the rest of a fragmented frame, another radio.
        for header in [
            [0, 0x10, 2, 8, 0, 0, 0, 0],
            [1, 0x10, 2, 0, 0, 0, 0, 0],
            [0, 0x10, 2, 0x80, 0, 0, 0, 8],
            [0, 0x10, 5, 0, 0, 0, 0, 0],
        ] {
            assert!(in_udp(9, 5247, &[&header[..], &ETHERNET, &IP].concat()).is_none(), "{header:?}");
        }
        let teredo = [&[0, 1, 0, 0][..], &[0; 9], &[0; 8], &[0x60]].concat();
        assert_eq!(packet(in_udp(3544, 9, &teredo)), ("teredo".to_owned(), vec![0x60]));
    }
}
