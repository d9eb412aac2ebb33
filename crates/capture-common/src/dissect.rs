//! Headers of a frame: Ethernet with VLAN tags, IPv4 with options, IPv6 with extension headers, up to the ports.
//!
//! Written once for the kernel and for the tests: [`Frame`] is an `sk_buff` there and a slice here. Only what it loads through
//! [`Frame::load`] is trusted to exist; every loop is bounded, as the verifier wants.

mod header;
mod tunnel;

use header::{Extension, IcmpHeader, Ipv4Header, Ipv6Header, Ports, TcpHeader, VlanTag};

use crate::{facts::Tunnel, flow::Address, icmp, initiator::TCP, sequence::Segment};

/// A header that any bytes are a value of.
///
/// # Safety
///
/// Every bit pattern of the type's size is valid, and it has no padding.
pub unsafe trait Plain: Copy {}

/// A frame as a hook sees it.
pub trait Frame {
    /// Reads a header at an offset from the frame's start; `None` if the frame ends before the header does.
    fn load<T: Plain>(&self, offset: u32) -> Option<T>;
    /// Length of the frame in bytes, with the link-layer header.
    fn length(&self) -> u32;
    /// `EtherType` of what follows the link-layer header, in host order; of the first VLAN tag where one is still in the frame.
    fn ether_type(&self) -> u16;
    /// The VLAN tag control information that the device or the kernel has taken out of the frame.
    fn vlan_tag(&self) -> Option<u16>;
    /// `gso_size`: the payload of each segment of a super-packet; 0 = none.
    fn segment_size(&self) -> u32;
}

/// What a frame starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// The IP header.
    Ip,
}

/// Whether a packet is a fragment (RFC 791, RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragment {
    /// A whole datagram.
    #[default]
    Whole,
    /// The first fragment: it has the ports.
    First,
    /// A later fragment: its ports are those of the first one.
    Later,
}

/// What was found in a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Sender.
    pub src: Address,
    /// Receiver.
    pub dst: Address,
    /// Sender's port; 0 where the protocol has none or the transport header is not there. ICMP: see [`icmp::ports`].
    pub src_port: u16,
    /// Receiver's port.
    pub dst_port: u16,
    /// IANA number of the upper layer's protocol.
    pub protocol: u8,
    /// The header's 14th byte; 0 if not TCP.
    pub tcp_flags: u8,
    /// What TCP's header says of the sequence; zeroes if not TCP.
    pub segment: Segment,
    /// Whether and which fragment.
    pub fragment: Fragment,
    /// Outer VLAN id, and the inner one in bits 12 to 23; 0 = untagged.
    pub vlan: u32,
    /// Identification of the datagram; only if it is a fragment.
    pub fragment_id: u32,
    /// From the network header to the end of its payload; of a tunnel's the outer one.
    pub ip_bytes: u32,
    /// Network header, extension headers and transport header; of a tunnel all up to the inner transport header.
    pub header_bytes: u32,
    /// What the packet is wrapped in; the addresses and ports are those inside.
    pub tunnel: Tunnel,
    /// Offset in the frame of the transport header.
    pub transport_at: u32,
    /// Offset in the frame of what follows these headers.
    pub payload_at: u32,
}

/// Why a frame belongs to no flow, and its bytes behind the link-layer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// It is no IP packet.
    NotIp(u32),
    /// It says that it is one, and its IP header contradicts itself or ends too early.
    Malformed(u32),
}

const ETHERNET_HEADER: u32 = 14;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN_CUSTOMER: u16 = 0x8100;
const VLAN_SERVICE: u16 = 0x88a8;
const VLAN_TAGS: usize = 3;
const MPLS_UNICAST: u16 = 0x8847;
const MPLS_MULTICAST: u16 = 0x8848;
const MPLS_LABELS: usize = 8;
/// In a label: it is the last one.
const MPLS_LAST: u32 = 0x100;
const EXTENSION_HEADERS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
const SCTP: u8 = 132;
const MOBILITY: u8 = 135;
const UDP_LITE: u8 = 136;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// Finds the headers of a frame: [`outer`], and what they are [wrapped](enter) around.
#[inline(always)]
pub fn dissect<F: Frame>(frame: &F, link: Link) -> Result<Headers, Reject> {
    let mut headers = Headers::default();
    outer(frame, link, &mut headers)?;
    enter(frame, &mut headers);
    Ok(headers)
}

/// Finds the first network and transport headers of a frame.
///
/// A program for the kernel calls this and [`enter`] one after the other, with all that is known forgotten in between: the verifier would follow
/// each way through the first into each through the second. `headers` are empty before.
#[inline(always)]
pub fn outer<F: Frame>(frame: &F, link: Link, headers: &mut Headers) -> Result<(), Reject> {
    let (offset, ether_type) = match link {
        Link::Ethernet => behind_vlan_tags(frame, &mut headers.vlan),
        Link::Ip => (0, frame.ether_type()),
    };
    let (offset, ether_type) = behind_labels(frame, offset, ether_type);
    let available = frame.length().saturating_sub(offset);
    let Some(transport) = network(frame, offset, ether_type, available, headers)? else {
        return Err(Reject::Malformed(available));
    };
    headers.transport_at = transport.at;
    headers.header_bytes = transport.at - offset - transport.jumbo_option;
    headers.payload_at = transport.at;
    if headers.fragment != Fragment::Later {
        let length = ports(frame, transport.at, headers);
        headers.header_bytes += length;
        headers.payload_at += length;
    }
    measure(headers);
    Ok(())
}

/// The headers of the plain case, which most packets are: IPv4 without options or IPv6 without extension headers, no fragment, no tag in the
/// frame, TCP or UDP, and nothing that may be wrapped around another packet. They are what [`dissect`] finds; `None` says only that this has to be asked.
///
/// Without loops, and all offsets are constants: a frame that reads the packet in place needs one comparison for each header.
#[inline(always)]
pub fn plain<F: Frame>(frame: &F, link: Link) -> Option<Headers> {
    let mut headers = Headers::default();
    let offset = match link {
        Link::Ethernet => {
            headers.vlan = u32::from(frame.vlan_tag().unwrap_or(0) & 0x0fff);
            ETHERNET_HEADER
        }
        Link::Ip => 0,
    };
    let available = frame.length().saturating_sub(offset);
    let (at, length) = match frame.ether_type() {
        IPV4 => {
            let header = size_of::<Ipv4Header>() as u32;
            if ipv4(frame, offset, available, &mut headers)?.at != offset + header {
                return None;
            }
            (offset + header, header)
        }
        IPV6 => {
            let header = size_of::<Ipv6Header>() as u32;
            plain_ipv6(frame, offset, available, &mut headers)?;
            (offset + header, header)
        }
        _ => return None,
    };
    if headers.fragment != Fragment::Whole || (headers.protocol != TCP && headers.protocol != UDP) {
        return None;
    }
    let transport = ports(frame, at, &mut headers);
    if transport == 0 || may_carry(&headers) {
        return None;
    }
    headers.transport_at = at;
    headers.payload_at = at + transport;
    headers.header_bytes = length + transport;
    measure(&mut headers);
    Some(headers)
}

/// Puts the headers inside a tunnel in the place of those around it, where Weir knows the tunnel and there is an IP packet inside.
#[inline(always)]
pub fn enter<F: Frame>(frame: &F, headers: &mut Headers) {
    if headers.fragment != Fragment::Whole {
        return;
    }
    let Some(inner) = tunnel::inside(frame, headers.transport_at, headers.protocol, headers.dst_port) else { return };
    let (ip_bytes, outer_end) = (headers.ip_bytes, headers.payload_at);
    (headers.tunnel.src, headers.tunnel.dst) = (headers.src, headers.dst);
    let available = frame.length().saturating_sub(inner.at);
    // What is no IP packet leaves the headers as they are.
    let Ok(Some(transport)) = network(frame, inner.at, inner.ether_type, available, headers) else {
        headers.tunnel = Tunnel::default();
        return;
    };
    (headers.tunnel.kind, headers.tunnel.id) = (inner.kind, inner.id);
    headers.ip_bytes = ip_bytes;
    (headers.src_port, headers.dst_port, headers.tcp_flags) = (0, 0, 0);
    headers.transport_at = transport.at;
    headers.payload_at = transport.at;
    if headers.fragment != Fragment::Later {
        headers.payload_at += ports(frame, transport.at, headers);
    }
    // Every segment of a super-packet repeats all that stands before the innermost payload.
    headers.header_bytes += headers.payload_at - outer_end;
    measure(headers);
}

/// Whether headers of this kind may be around others.
#[inline(always)]
#[must_use]
pub fn may_carry(headers: &Headers) -> bool {
    tunnel::may_be(headers.protocol, headers.dst_port)
}

/// How much of the packet is TCP's payload.
#[inline(always)]
fn measure(headers: &mut Headers) {
    if headers.protocol == TCP && headers.fragment != Fragment::Later {
        headers.segment.payload = headers.ip_bytes.saturating_sub(headers.header_bytes);
    }
}

/// Reads a network header; `None` = it contradicts itself or ends too early.
#[inline(always)]
fn network<F: Frame>(
    frame: &F,
    offset: u32,
    ether_type: u16,
    available: u32,
    headers: &mut Headers,
) -> Result<Option<Transport>, Reject> {
    match ether_type {
        IPV4 => Ok(ipv4(frame, offset, available, headers)),
        IPV6 => Ok(ipv6(frame, offset, available, headers)),
        _ => Err(Reject::NotIp(available)),
    }
}

/// Skips MPLS labels (RFC 3032); what follows them says by its first bits which IP it is.
#[inline(always)]
fn behind_labels<F: Frame>(frame: &F, offset: u32, ether_type: u16) -> (u32, u16) {
    if ether_type != MPLS_UNICAST && ether_type != MPLS_MULTICAST {
        return (offset, ether_type);
    }
    let mut at = offset;
    for _ in 0..MPLS_LABELS {
        let Some(label) = frame.load::<u32>(at) else { break };
        at += 4;
        if u32::from_be(label) & MPLS_LAST != 0 {
            return match frame.load::<u32>(at).map(|word| u32::from_be(word) >> 28) {
                Some(4) => (at, IPV4),
                Some(6) => (at, IPV6),
                _ => (offset, ether_type),
            };
        }
    }
    (offset, ether_type)
}

/// Offset and `EtherType` of the network header; collects the VLAN ids on the way.
#[inline(always)]
fn behind_vlan_tags<F: Frame>(frame: &F, vlan: &mut u32) -> (u32, u16) {
    let mut shift = 0;
    if let Some(control) = frame.vlan_tag() {
        *vlan = u32::from(control & 0x0fff);
        shift = 12;
    }
    let mut offset = ETHERNET_HEADER;
    let mut ether_type = frame.ether_type();
    for _ in 0..VLAN_TAGS {
        if ether_type != VLAN_CUSTOMER && ether_type != VLAN_SERVICE {
            break;
        }
        let Some(tag) = frame.load::<VlanTag>(offset) else {
            break;
        };
        if shift < 24 {
            *vlan |= u32::from(u16::from_be(tag.control) & 0x0fff) << shift;
            shift += 12;
        }
        ether_type = u16::from_be(tag.ether_type);
        offset += size_of::<VlanTag>() as u32;
    }
    (offset, ether_type)
}

/// Where the network header ends.
struct Transport {
    at: u32,
    /// Bytes of the header that the kernel has put into a super-packet and that no segment carries.
    jumbo_option: u32,
}

#[inline(always)]
fn ipv4<F: Frame>(frame: &F, offset: u32, available: u32, headers: &mut Headers) -> Option<Transport> {
    let ip = frame.load::<Ipv4Header>(offset)?;
    let header_bytes = u32::from(ip.version_length & 0x0f) * 4;
    let total = match u32::from(u16::from_be(ip.total_length)) {
        // BIG TCP: too long for the field (Linux, net/ipv4/ip_output.c, iph_set_totlen).
        0 if frame.segment_size() > 0 => available,
        total => total,
    };
    if ip.version_length >> 4 != 4 || header_bytes < 20 || total < header_bytes {
        return None;
    }
    headers.src = Address::from_v4(u32::from_be(ip.src));
    headers.dst = Address::from_v4(u32::from_be(ip.dst));
    headers.protocol = ip.protocol;
    headers.ip_bytes = total.min(available);
    let fragment = u16::from_be(ip.fragment);
    headers.fragment = fragment_of(fragment & 0x1fff != 0, fragment & 0x2000 != 0);
    headers.fragment_id = u32::from(u16::from_be(ip.id));
    Some(Transport { at: offset + header_bytes, jumbo_option: 0 })
}

#[inline(always)]
fn fragment_of(has_offset: bool, more_follow: bool) -> Fragment {
    match (has_offset, more_follow) {
        (true, _) => Fragment::Later,
        (false, true) => Fragment::First,
        (false, false) => Fragment::Whole,
    }
}

#[inline(always)]
fn ipv6<F: Frame>(frame: &F, offset: u32, available: u32, headers: &mut Headers) -> Option<Transport> {
    let ip = frame.load::<Ipv6Header>(offset)?;
    if u32::from_be(ip.version_class_label) >> 28 != 6 {
        return None;
    }
    headers.src = address(ip.src);
    headers.dst = address(ip.dst);
    let payload = u32::from(u16::from_be(ip.payload_length));
    let header = size_of::<Ipv6Header>() as u32;
    let is_super_packet = frame.segment_size() > 0;
    // A jumbogram (RFC 2675) or a BIG TCP super-packet: too long for the field.
    let jumbo = payload == 0 && (is_super_packet || ip.next_header == HOP_BY_HOP);
    headers.ip_bytes = if jumbo { available } else { (header + payload).min(available) };
    let at = extension_headers(frame, offset + header, ip.next_header, headers);
    let at = at.min(offset + available);
    // The kernel puts an option of 8 bytes into BIG TCP super-packets and takes it out of the segments (Linux, net/ipv6/ip6_offload.c).
    let has_option = jumbo && is_super_packet && ip.next_header == HOP_BY_HOP && at >= offset + header + 8;
    let jumbo_option = if has_option { 8 } else { 0 };
    headers.ip_bytes -= jumbo_option;
    Some(Transport { at, jumbo_option })
}

/// As [`ipv6`], of what is no jumbogram and has no extension headers.
#[inline(always)]
fn plain_ipv6<F: Frame>(frame: &F, offset: u32, available: u32, headers: &mut Headers) -> Option<()> {
    let ip = frame.load::<Ipv6Header>(offset)?;
    let payload = u32::from(u16::from_be(ip.payload_length));
    if u32::from_be(ip.version_class_label) >> 28 != 6 || payload == 0 {
        return None;
    }
    headers.src = address(ip.src);
    headers.dst = address(ip.dst);
    headers.protocol = ip.next_header;
    headers.ip_bytes = (size_of::<Ipv6Header>() as u32 + payload).min(available);
    Some(())
}

#[inline(always)]
fn address(words: [u32; 4]) -> Address {
    let half = |high: u32, low: u32| u64::from(u32::from_be(high)) << 32 | u64::from(u32::from_be(low));
    Address { high: half(words[0], words[1]), low: half(words[2], words[3]) }
}

/// Walks the extension headers (RFC 8200 section 4) and returns the offset of what follows them. A chain that is longer than any in use, or that
/// ends too early, stays at the header where that shows: the packet counts, under that header's number.
#[inline(always)]
fn extension_headers<F: Frame>(frame: &F, start: u32, first: u8, headers: &mut Headers) -> u32 {
    let mut at = start;
    headers.protocol = first;
    for _ in 0..EXTENSION_HEADERS {
        let units = match headers.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY | HIP | SHIM6 => 8,
            AUTHENTICATION => 4,
            FRAGMENT => 0,
            _ => return at,
        };
        let Some(extension) = frame.load::<Extension>(at) else {
            return at;
        };
        at += match units {
            8 => (u32::from(extension.length) + 1) * 8,
            4 => (u32::from(extension.length) + 2) * 4,
            _ => 8,
        };
        headers.protocol = extension.next_header;
        if units == 0 {
            let bits = u16::from_be(extension.rest);
            headers.fragment = fragment_of(bits & 0xfff8 != 0, bits & 1 != 0);
            headers.fragment_id = u32::from_be(extension.id);
            if headers.fragment == Fragment::Later {
                return at;
            }
        }
    }
    at
}

/// Reads the ports and returns the transport header's length; without a transport header both stay 0.
#[inline(always)]
fn ports<F: Frame>(frame: &F, at: u32, headers: &mut Headers) -> u32 {
    match headers.protocol {
        TCP => {
            let Some(tcp) = frame.load::<TcpHeader>(at) else {
                return 0;
            };
            set_ports(tcp.ports, headers);
            headers.tcp_flags = tcp.flags;
            headers.segment = Segment {
                sequence: u32::from_be(tcp.sequence),
                acknowledgement: u32::from_be(tcp.acknowledgement),
                payload: 0,
                window: u16::from_be(tcp.window),
                flags: tcp.flags,
            };
            u32::from(tcp.offset >> 4) * 4
        }
        UDP | UDP_LITE | DCCP | SCTP => {
            let Some(found) = frame.load::<Ports>(at) else {
                return 0;
            };
            set_ports(found, headers);
            if headers.protocol == SCTP { 12 } else { 8 }
        }
        icmp::ICMP | icmp::ICMPV6 => {
            let Some(message) = frame.load::<IcmpHeader>(at) else {
                return 0;
            };
            (headers.src_port, headers.dst_port) = icmp::ports(headers.protocol, message.kind, message.code);
            8
        }
        _ => 0,
    }
}

#[inline(always)]
fn set_ports(found: Ports, headers: &mut Headers) {
    headers.src_port = u16::from_be(found.src);
    headers.dst_port = u16::from_be(found.dst);
}

#[cfg(test)]
mod tests;
