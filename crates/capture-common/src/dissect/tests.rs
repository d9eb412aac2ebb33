use std::{vec, vec::Vec};

use proptest::prelude::*;

use super::*;

struct Bytes {
    content: Vec<u8>,
    ether_type: u16,
    vlan_tag: Option<u16>,
    segment_size: u32,
}

impl Frame for Bytes {
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

fn ethernet(ether_type: u16, rest: &[u8]) -> Bytes {
    let mut bytes = vec![0; 12];
    bytes.extend(ether_type.to_be_bytes());
    bytes.extend(rest);
    Bytes { content: bytes, ether_type, vlan_tag: None, segment_size: 0 }
}

fn ipv4_packet(protocol: u8, options: &[u8], fragment: u16, payload: &[u8]) -> Vec<u8> {
    let total = 20 + options.len() + payload.len();
    let mut packet = vec![0x40 | (5 + options.len() / 4) as u8, 0];
    packet.extend((total as u16).to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(options);
    packet.extend(payload);
    packet
}

fn ipv6_packet(next_header: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next_header, 64]);
    packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(payload);
    packet
}

/// Ports 4660 and 22136, 32 bytes of header, flags SYN.
const TCP_HEADER: [u8; 32] = {
    let mut header = [0; 32];
    (header[0], header[1], header[2], header[3]) = (0x12, 0x34, 0x56, 0x78);
    header[12] = 0x80;
    header[13] = 0x02;
    header
};
const UDP_HEADER: [u8; 8] = [0x12, 0x34, 0x56, 0x78, 0, 8, 0, 0];

fn ports_of(headers: &Headers) -> (u16, u16) {
    (headers.src_port, headers.dst_port)
}

#[test]
fn header_types_have_no_padding() {
    assert_eq!(size_of::<VlanTag>(), 4);
    assert_eq!(size_of::<Ipv4Header>(), 20);
    assert_eq!(size_of::<Ipv6Header>(), 40);
    assert_eq!(size_of::<Extension>(), 8);
    assert_eq!(size_of::<Ports>(), 4);
    assert_eq!(size_of::<TcpHeader>(), 16);
    assert_eq!(size_of::<IcmpHeader>(), 4);
}

#[test]
fn ipv4_options_come_before_the_ports() {
    let packet = ipv4_packet(TCP, &[1; 12], 0, &TCP_HEADER);
    let headers = dissect(&ethernet(IPV4, &packet), Link::Ethernet).unwrap();
    assert_eq!(ports_of(&headers), (0x1234, 0x5678));
    assert_eq!((headers.src, headers.dst), (Address::from_v4(0x0a00_0001), Address::from_v4(0x0a00_0002)));
    assert_eq!((headers.ip_bytes, headers.header_bytes), (64, 64));
    assert_eq!(headers.tcp_flags, 2);
}

#[test]
fn ethernet_padding_is_no_ip() {
    let mut packet = ipv4_packet(UDP, &[], 0, &UDP_HEADER);
    packet.resize(46, 0);
    let headers = dissect(&ethernet(IPV4, &packet), Link::Ethernet).unwrap();
    assert_eq!(headers.ip_bytes, 28);
}

#[test]
fn a_frame_shorter_than_it_says_has_the_bytes_that_are_there() {
    let mut packet = ipv4_packet(UDP, &[], 0, &[0; 100]);
    packet.truncate(60);
    assert_eq!(dissect(&ethernet(IPV4, &packet), Link::Ethernet).unwrap().ip_bytes, 60);
}

#[test]
fn a_device_without_link_layer_starts_with_ip() {
    let packet = ipv6_packet(UDP, &UDP_HEADER);
    let frame = Bytes { content: packet, ether_type: IPV6, vlan_tag: None, segment_size: 0 };
    let headers = dissect(&frame, Link::Ip).unwrap();
    assert_eq!(headers.src, Address { high: 0x2001_0db8_0000_0000, low: 1 });
    assert_eq!((ports_of(&headers), headers.ip_bytes, headers.header_bytes), ((0x1234, 0x5678), 48, 48));
}

#[test]
fn vlan_tags_are_found_in_the_frame_and_beside_it() {
    let packet = ipv4_packet(UDP, &[], 0, &UDP_HEADER);
    let mut tagged = vec![0x20, 0x05, 0x08, 0x00];
    tagged.extend(&packet);
    let one = dissect(&ethernet(VLAN_CUSTOMER, &tagged), Link::Ethernet).unwrap();
    assert_eq!((one.vlan, one.src_port, one.ip_bytes), (5, 0x1234, 28));

    let beside = Bytes { vlan_tag: Some(0xe007), ..ethernet(IPV4, &packet) };
    assert_eq!(dissect(&beside, Link::Ethernet).unwrap().vlan, 7);

    let both = Bytes { vlan_tag: Some(7), ..ethernet(VLAN_CUSTOMER, &tagged) };
    assert_eq!(dissect(&both, Link::Ethernet).unwrap().vlan, 5 << 12 | 7);

    let mut twice = vec![0x00, 0x09, 0x81, 0x00];
    twice.extend(&tagged);
    assert_eq!(dissect(&ethernet(VLAN_SERVICE, &twice), Link::Ethernet).unwrap().vlan, 5 << 12 | 9);
}

#[test]
fn ipv6_extension_headers_are_walked() {
    let mut payload = vec![ROUTING, 0, 0, 0, 0, 0, 0, 0];
    payload.extend([DESTINATION, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    payload.extend([AUTHENTICATION, 0, 0, 0, 0, 0, 0, 0]);
    payload.extend([TCP, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    payload.extend(TCP_HEADER);
    let headers = dissect(&ethernet(IPV6, &ipv6_packet(HOP_BY_HOP, &payload)), Link::Ethernet).unwrap();
    assert_eq!((headers.protocol, ports_of(&headers)), (TCP, (0x1234, 0x5678)));
    assert_eq!(headers.header_bytes, 40 + 8 + 16 + 8 + 24 + 32);
    assert_eq!(headers.header_bytes, headers.ip_bytes);
}

#[test]
fn a_later_fragment_has_no_ports() {
    let first = dissect(&ethernet(IPV4, &ipv4_packet(UDP, &[], 0x2000, &UDP_HEADER)), Link::Ethernet).unwrap();
    assert_eq!((first.fragment, first.fragment_id, first.src_port), (Fragment::First, 0x1234, 0x1234));
    let later = dissect(&ethernet(IPV4, &ipv4_packet(UDP, &[], 0x00b9, &UDP_HEADER)), Link::Ethernet).unwrap();
    assert_eq!((later.fragment, later.fragment_id, later.src_port), (Fragment::Later, 0x1234, 0));
    assert_eq!(later.ip_bytes, 28);
}

#[test]
fn ipv6_fragments_are_told_by_their_header() {
    let fragment = |offset_more: u16| {
        let mut payload = vec![UDP, 0];
        payload.extend(offset_more.to_be_bytes());
        payload.extend([0, 0, 0, 9]);
        payload.extend(UDP_HEADER);
        dissect(&ethernet(IPV6, &ipv6_packet(FRAGMENT, &payload)), Link::Ethernet).unwrap()
    };
    let first = fragment(1);
    assert_eq!((first.fragment, first.fragment_id, first.protocol, first.src_port), (Fragment::First, 9, UDP, 0x1234));
    let later = fragment(0x05a8);
    assert_eq!((later.fragment, later.protocol, later.src_port), (Fragment::Later, UDP, 0));
    assert_eq!(fragment(0).fragment, Fragment::Whole);
}

#[test]
fn icmp_types_stand_for_ports() {
    let request = dissect(&ethernet(IPV4, &ipv4_packet(1, &[], 0, &[8, 0, 0, 0, 0, 1, 0, 1])), Link::Ethernet).unwrap();
    assert_eq!(ports_of(&request), (8, 0));
}

#[test]
fn big_tcp_is_measured_by_the_frame() {
    let mut packet = ipv4_packet(TCP, &[], 0, &TCP_HEADER);
    packet.resize(150_000, 0);
    (packet[2], packet[3]) = (0, 0);
    let frame = Bytes { segment_size: 1448, ..ethernet(IPV4, &packet) };
    assert_eq!(dissect(&frame, Link::Ethernet).unwrap().ip_bytes, 150_000);

    let mut payload = vec![TCP, 0, 0xc2, 4, 0, 1, 0, 0];
    payload.extend(TCP_HEADER);
    let mut packet = ipv6_packet(HOP_BY_HOP, &payload);
    (packet[4], packet[5]) = (0, 0);
    packet.resize(150_000, 0);
    let frame = Bytes { segment_size: 1428, ..ethernet(IPV6, &packet) };
    let headers = dissect(&frame, Link::Ethernet).unwrap();
    assert_eq!((headers.ip_bytes, headers.header_bytes), (150_000 - 8, 40 + 32));
}

#[test]
fn segments_of_a_tunnelled_super_packet_repeat_the_inner_headers_too() {
    let inner = ipv4_packet(TCP, &[], 0, &TCP_HEADER);
    let inner6 = ipv6_packet(UDP, &UDP_HEADER);
    let ethernet_header = |ether_type: u16| [&[0; 12][..], &ether_type.to_be_bytes()].concat();
    let udp = |port: u16| [&[0x30, 0x39][..], &port.to_be_bytes(), &[0; 4]].concat();
    let vxlan = [udp(4789), vec![8, 0, 0, 0, 0, 0, 1, 0], ethernet_header(IPV4), inner.clone()].concat();
    let geneve =
        [udp(6081), vec![1, 0, 0x65, 0x58, 0, 0, 1, 0], vec![0; 4], ethernet_header(IPV6), inner6.clone()].concat();
    let gre = [vec![0x20, 0, 0x08, 0, 0, 0, 0, 1], inner.clone()].concat();
    for (protocol, outer, expected) in [
        (UDP, vxlan, 20 + 8 + 8 + 14 + 20 + 32),
        (UDP, geneve, 20 + 8 + 8 + 4 + 14 + 40 + 8),
        (47, gre, 20 + 8 + 20 + 32),
        (4, inner, 20 + 20 + 32),
        (41, inner6, 20 + 40 + 8),
        (UDP, udp(443), 20 + 8),
    ] {
        let frame = Bytes { segment_size: 1000, ..ethernet(IPV4, &ipv4_packet(protocol, &[], 0, &outer)) };
        assert_eq!(dissect(&frame, Link::Ethernet).unwrap().header_bytes, expected, "{protocol}");
    }
}

#[test]
fn what_is_no_ip_is_told_apart_from_what_is_broken() {
    assert_eq!(dissect(&ethernet(0x0806, &[0; 28]), Link::Ethernet), Err(Reject::NotIp(28)));
    assert_eq!(dissect(&ethernet(IPV4, &[0x45; 10]), Link::Ethernet), Err(Reject::Malformed(10)));
    assert_eq!(dissect(&ethernet(IPV4, &ipv6_packet(TCP, &TCP_HEADER)), Link::Ethernet), Err(Reject::Malformed(72)));
}

proptest! {
    #[test]
    fn no_frame_is_too_strange(
        bytes in prop::collection::vec(any::<u8>(), 0..200), ether_type in prop::sample::select(&[IPV4, IPV6, VLAN_CUSTOMER, 0x0806][..]),
        vlan_tag: Option<u16>, segment_size in 0..3u32, ip: bool,
    ) {
        let length = bytes.len() as u32;
        let frame = Bytes { content: bytes, ether_type, vlan_tag, segment_size };
        let link = if ip { Link::Ip } else { Link::Ethernet };
        if let Ok(headers) = dissect(&frame, link) {
            prop_assert!(headers.ip_bytes <= length);
            prop_assert!(headers.vlan < 1 << 24);
        }
    }
}

#[test]
fn most_packets_are_plain() {
    for (ether_type, packet) in [
        (IPV4, ipv4_packet(TCP, &[], 0x4000, &TCP_HEADER)),
        (IPV4, ipv4_packet(UDP, &[], 0, &UDP_HEADER)),
        (IPV6, ipv6_packet(TCP, &TCP_HEADER)),
        (IPV6, ipv6_packet(UDP, &UDP_HEADER)),
    ] {
        let frame = Bytes { vlan_tag: Some(7), segment_size: 1000, ..ethernet(ether_type, &packet) };
        assert_eq!(plain(&frame, Link::Ethernet), dissect(&frame, Link::Ethernet).ok());
        let frame = Bytes { content: packet, ether_type, vlan_tag: None, segment_size: 0 };
        assert_eq!(plain(&frame, Link::Ip), dissect(&frame, Link::Ip).ok());
    }
}

#[test]
fn what_needs_more_than_a_look_is_not_plain() {
    let vxlan = [0x30, 0x39, 0x12, 0xb5, 0, 8, 0, 0];
    for packet in [
        ipv4_packet(TCP, &[1; 4], 0, &TCP_HEADER),
        ipv4_packet(UDP, &[], 0x2000, &UDP_HEADER),
        ipv4_packet(UDP, &[], 0x00b9, &UDP_HEADER),
        ipv4_packet(UDP, &[], 0, &vxlan),
        ipv4_packet(47, &[], 0, &TCP_HEADER),
        ipv4_packet(TCP, &[], 0, &TCP_HEADER[..12]),
    ] {
        assert_eq!(plain(&ethernet(IPV4, &packet), Link::Ethernet), None);
    }
    let fragment = [&[UDP, 0, 0, 1, 0, 0, 0, 9][..], &UDP_HEADER].concat();
    assert_eq!(plain(&ethernet(IPV6, &ipv6_packet(FRAGMENT, &fragment)), Link::Ethernet), None);
    assert_eq!(plain(&ethernet(VLAN_CUSTOMER, &[0; 60]), Link::Ethernet), None);
}

proptest! {
    #[test]
    fn a_plain_packet_is_read_as_any_other(
        v6: bool, udp: bool, ip: bool, changed in prop::collection::vec((0usize..70, any::<u8>()), 0..4), length in 20usize..120,
        vlan_tag: Option<u16>, segment_size in 0..2u32,
    ) {
        let (protocol, header) = if udp { (UDP, &UDP_HEADER[..]) } else { (TCP, &TCP_HEADER[..]) };
        let (ether_type, packet) =
            if v6 { (IPV6, ipv6_packet(protocol, header)) } else { (IPV4, ipv4_packet(protocol, &[], 0, header)) };
        let mut content = if ip { packet } else { ethernet(ether_type, &packet).content };
        content.resize(length, 7);
        for (at, value) in changed {
            if let Some(byte) = content.get_mut(at) {
                *byte = value;
            }
        }
        let frame = Bytes { content, ether_type, vlan_tag, segment_size };
        let link = if ip { Link::Ip } else { Link::Ethernet };
        if let Some(headers) = plain(&frame, link) {
            prop_assert_eq!(Ok(headers), dissect(&frame, link));
        }
    }
}
