//! The network layer: IPv4 with options, IPv6 with extension headers.

use super::{Layer, Unanalysed};
use crate::bytes::{after, array_at, u8_at, u16_at, u32_at, up_to};

/// IANA protocol numbers that this crate acts on.
pub mod protocol {
    /// RFC 792.
    pub const ICMP: u8 = 1;
    /// RFC 2003: IPv4 in IP.
    pub const IPIP: u8 = 4;
    /// RFC 9293.
    pub const TCP: u8 = 6;
    /// RFC 768.
    pub const UDP: u8 = 17;
    /// RFC 4340.
    pub const DCCP: u8 = 33;
    /// RFC 4213: IPv6 in IP.
    pub const IPV6: u8 = 41;
    /// RFC 2784.
    pub const GRE: u8 = 47;
    /// RFC 4443.
    pub const ICMPV6: u8 = 58;
    /// RFC 9260.
    pub const SCTP: u8 = 132;
    /// RFC 3828.
    pub const UDP_LITE: u8 = 136;
}

/// One network-layer packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpPacket<'a> {
    /// 4 or 6.
    pub version: u8,
    /// Network order, IPv4 mapped.
    pub src: [u8; 16],
    /// Network order, IPv4 mapped.
    pub dst: [u8; 16],
    /// Identification field of IPv4; 0 for IPv6.
    pub id: u16,
    /// IANA number of the first header that is neither an IPv6 extension nor an authentication header.
    pub protocol: u8,
    /// Bytes on the wire, from the first byte of the IP header to the end of its payload.
    pub length: u32,
    /// What the capture kept of the upper layer.
    pub payload: &'a [u8],
    /// Bytes of the upper layer on the wire.
    pub payload_length: u32,
    /// Set where the packet is a fragment.
    pub fragment: Option<Fragment>,
}

/// Where a fragment belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification field.
    pub id: u32,
    /// Bytes of the payload before this one's.
    pub offset: u32,
    /// Whether others follow.
    pub more: bool,
}

/// IPv6 extension headers in one packet beyond which it is taken for hostile.
const MAX_EXTENSIONS: usize = 16;

/// Reads an IPv4 or IPv6 packet of which `data` was captured and `wire_length` bytes (or more) were sent.
pub fn parse(data: &[u8], wire_length: u32) -> Result<IpPacket<'_>, Unanalysed> {
    match u8_at(data, 0).map(|first| first >> 4) {
        Some(4) => ipv4(data, wire_length),
        Some(6) => ipv6(data, wire_length),
        Some(_) => Err(Unanalysed::Malformed(Layer::Link)),
        None => Err(Unanalysed::Truncated(Layer::Link)),
    }
}

/// RFC 791.
fn ipv4(data: &[u8], wire_length: u32) -> Result<IpPacket<'_>, Unanalysed> {
    let header: [u8; 20] = array_at(data, 0).ok_or(Unanalysed::Truncated(Layer::Ipv4))?;
    let header_length = u32::from(header[0] & 0x0f) * 4;
    let total = match u32::from(u16::from_be_bytes([header[2], header[3]])) {
        // Segmentation offload leaves the field empty in what the sender's side captures.
        0 => wire_length,
        total => total.min(wire_length),
    };
    if header_length < 20 || total < header_length {
        return Err(Unanalysed::Malformed(Layer::Ipv4));
    }
    let flags = u16::from_be_bytes([header[6], header[7]]);
    let (more, offset) = (flags & 0x2000 != 0, u32::from(flags & 0x1fff) * 8);
    let fragment = (more || offset > 0).then(|| Fragment {
        id: u32::from(u16::from_be_bytes([header[4], header[5]])),
        offset,
        more,
    });
    let mut packet = IpPacket {
        version: 4,
        src: mapped([header[12], header[13], header[14], header[15]]),
        dst: mapped([header[16], header[17], header[18], header[19]]),
        id: u16::from_be_bytes([header[4], header[5]]),
        protocol: header[9],
        length: total,
        payload: after(up_to(data, total as usize), header_length as usize),
        payload_length: total - header_length,
        fragment,
    };
    if fragment.is_none_or(|fragment| fragment.offset == 0) {
        packet.skip_authentication();
    }
    Ok(packet)
}

/// RFC 8200.
fn ipv6(data: &[u8], wire_length: u32) -> Result<IpPacket<'_>, Unanalysed> {
    const HEADER: u32 = 40;
    let header: [u8; 40] = array_at(data, 0).ok_or(Unanalysed::Truncated(Layer::Ipv6))?;
    if wire_length < HEADER {
        return Err(Unanalysed::Malformed(Layer::Ipv6));
    }
    let length = match u32::from(u16::from_be_bytes([header[4], header[5]])) {
        // A jumbogram (RFC 2675) or segmentation offload.
        0 => wire_length,
        payload => (HEADER + payload).min(wire_length),
    };
    let mut packet = IpPacket {
        version: 6,
        src: array_at(&header, 8).unwrap_or_default(),
        dst: array_at(&header, 24).unwrap_or_default(),
        id: 0,
        protocol: header[6],
        length,
        payload: after(up_to(data, length as usize), HEADER as usize),
        payload_length: length - HEADER,
        fragment: None,
    };
    for _ in 0..MAX_EXTENSIONS {
        if !packet.skip_extension() {
            return Ok(packet);
        }
    }
    Err(Unanalysed::TooDeep)
}

impl IpPacket<'_> {
    /// Steps over one extension header; false where there is none, or none that can be read.
    fn skip_extension(&mut self) -> bool {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const DESTINATION: u8 = 60;
        const HIP: u8 = 139;
        const SHIM6: u8 = 140;
        match self.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION | HIP | SHIM6 => {
                let Some(units) = u8_at(self.payload, 1) else { return false };
                self.skip((u32::from(units) + 1) * 8)
            }
            FRAGMENT => self.enter_fragment(),
            _ => self.skip_authentication(),
        }
    }

    /// RFC 4302: the authentication header does not hide what follows it.
    fn skip_authentication(&mut self) -> bool {
        const AUTHENTICATION: u8 = 51;
        if self.protocol != AUTHENTICATION {
            return false;
        }
        let Some(units) = u8_at(self.payload, 1) else { return false };
        self.skip((u32::from(units) + 2) * 4)
    }

    /// The upper layer of any but the first fragment is not a header, so the walk ends there.
    fn enter_fragment(&mut self) -> bool {
        let (Some(field), Some(id)) = (u16_at(self.payload, 2), u32_at(self.payload, 4)) else { return false };
        let (offset, more) = (u32::from(field & 0xfff8), field & 1 == 1);
        if !self.skip(8) {
            return false;
        }
        // A lone fragment is a whole packet (RFC 6946).
        if more || offset > 0 {
            self.fragment = Some(Fragment { id, offset, more });
        }
        offset == 0
    }

    /// Moves on to the next header; false where it lies beyond what was captured or sent.
    fn skip(&mut self, length: u32) -> bool {
        let (Some(next), Some(rest)) = (u8_at(self.payload, 0), self.payload.get(length as usize..)) else {
            return false;
        };
        self.protocol = next;
        self.payload = rest;
        self.payload_length = self.payload_length.saturating_sub(length);
        true
    }
}

fn mapped(v4: [u8; 4]) -> [u8; 16] {
    std::net::Ipv4Addr::from(v4).to_ipv6_mapped().octets()
}
