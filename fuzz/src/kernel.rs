//! What the kernel program makes of a frame, held against what an analysis makes of it.

use weir_capture_common::dissect::{self, Fragment, Frame, Headers, Link, Plain};
use weir_capture_common::flow::{Address, FlowKey};
use weir_capture_common::{initiator, picks, wire};
use weir_flow::packet::{LinkType, Transport, ip, link, transport};

struct Bytes<'a> {
    content: &'a [u8],
    ether_type: u16,
    vlan_tag: Option<u16>,
    segment_size: u32,
}

impl Frame for Bytes<'_> {
    fn load<T: Plain>(&self, offset: u32) -> Option<T> {
        let bytes = self.content.get(offset as usize..)?.get(..size_of::<T>())?;
        // SAFETY: the slice is as long as T, and any bytes are a T.
        Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
    }
    fn length(&self) -> u32 {
        self.content.len() as u32
    }
    fn ether_type(&self) -> u16 {
        self.ether_type
    }
    fn vlan_tag(&self) -> Option<u16> {
        self.vlan_tag
    }
    fn segment_size(&self) -> u32 {
        self.segment_size
    }
}

/// Byte 0: which link, and whether the kernel took a tag out; bytes 1 and 2: the payload of a segment; the rest: the frame.
pub(crate) fn run(data: &[u8]) {
    let Some(([choice, low, high], content)) = data.split_first_chunk::<3>() else { return };
    let is_ethernet = choice & 1 == 0;
    let ether_type = match (is_ethernet, content) {
        (true, [_, _, _, _, _, _, _, _, _, _, _, _, high, low, ..]) => u16::from_be_bytes([*high, *low]),
        (true, _) => return,
        (false, [first, ..]) if first >> 4 == 6 => 0x86dd,
        (false, _) => 0x0800,
    };
    let segment_size = u32::from(u16::from_le_bytes([*low, *high]));
    let frame = Bytes { content, ether_type, vlan_tag: (choice & 2 != 0).then_some(7), segment_size };
    let link = if is_ethernet { Link::Ethernet } else { Link::Ip };
    let mut headers = Headers::default();
    if dissect::outer(&frame, link, &mut headers).is_err() {
        return;
    }
    check(&frame, &headers);
    agree(&headers, is_ethernet, content);
    let outer = headers;
    dissect::enter(&frame, &mut headers);
    check(&frame, &headers);
    assert!(dissect::may_carry(&outer) || headers == outer, "a tunnel where none may be");
    assert_eq!(dissect::dissect(&frame, link), Ok(headers));
}

fn check(frame: &Bytes<'_>, headers: &Headers) {
    assert!(headers.ip_bytes <= frame.length(), "{headers:?}");
    let size = wire::size(headers.ip_bytes, headers.header_bytes, 0, frame.segment_size);
    assert!(size.packets >= 1 && size.bytes >= u64::from(headers.ip_bytes), "{size:?} of {headers:?}");
    let (key, side) = FlowKey::new(headers);
    assert_eq!(FlowKey::new(headers), (key, side));
    let _ = (initiator::of_first_packet(headers, side), picks::look(headers, 0));
}

/// Where both read a packet, they read the same.
fn agree(headers: &Headers, is_ethernet: bool, content: &[u8]) {
    let link_type = if is_ethernet { LinkType::ETHERNET } else { LinkType::RAW };
    let Ok(network) = link::network(link_type, content) else { return };
    let Ok(packet) = ip::parse(network.packet, network.packet.len() as u32) else { return };
    if packet.protocol != headers.protocol {
        // Each follows as many headers as it can afford.
        return;
    }
    let field = if packet.version == 4 { 2 } else { 4 };
    if network.packet.get(field..field + 2).is_some_and(|length| length == [0, 0]) {
        // Only the kernel knows whether it is a super-packet that is too long for the field.
        return;
    }
    let octets = |address: Address| [address.high.to_be_bytes(), address.low.to_be_bytes()].concat();
    assert_eq!((octets(headers.src), octets(headers.dst)), (packet.src.to_vec(), packet.dst.to_vec()), "addresses");
    assert_eq!(headers.ip_bytes, packet.length, "length");
    let later = packet.fragment.is_some_and(|fragment| fragment.offset > 0);
    assert_eq!(headers.fragment == Fragment::Later, later, "fragment");
    if later {
        return;
    }
    match transport::parse(packet.protocol, packet.payload, packet.payload_length) {
        // The kernel reads whole headers only.
        Transport::Tcp(tcp) if packet.payload.len() >= 20 => {
            assert_eq!(
                (headers.src_port, headers.dst_port, headers.tcp_flags),
                (tcp.src_port, tcp.dst_port, tcp.flags)
            );
        }
        Transport::Udp { src_port, dst_port, .. } | Transport::Ports { src_port, dst_port }
            if headers.src_port != 0 =>
        {
            assert_eq!((headers.src_port, headers.dst_port), (src_port, dst_port));
        }
        _ => {}
    }
}
