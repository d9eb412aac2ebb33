//! The headers of a frame, of all link types, and what is inside tunnels.

use weir_flow::packet::{IpPacket, LinkType, Network, Transport, ip, link, transport, tunnel};

/// Link types that are dissected, so that a byte chooses one.
pub(crate) const LINKS: [u16; 48] = [
    1, 0, 6, 7, 8, 9, 10, 12, 14, 50, 51, 100, 101, 104, 105, 106, 107, 108, 109, 113, 117, 119, 122, 123, 127, 129,
    138, 163, 166, 178, 192, 204, 226, 228, 229, 239, 240, 241, 242, 258, 274, 276, 281, 282, 284, 285, 147, 65_535,
];

/// Byte 0: the link type; the rest: the frame.
pub(crate) fn run(data: &[u8]) {
    let Some((&choice, frame)) = data.split_first() else { return };
    let link_type = LinkType(LINKS[usize::from(choice) % LINKS.len()]);
    for part in link::subframes(link_type, frame, frame.len() as u32).map_while(Result::ok) {
        assert!(is_within(part.data, frame) && part.data.len() <= part.length as usize, "{part:?}");
        if let Ok(network) = link::network(link::Subframe::LINK_TYPE, part.data) {
            inside(frame, &network, 0);
        }
    }
    let Ok(network) = link::network(link_type, frame) else { return };
    inside(frame, &network, 0);
    for cut in [frame.len() / 4, frame.len() / 2, frame.len().saturating_sub(1)] {
        shorter(link_type, frame, &network, cut);
    }
}

fn inside(frame: &[u8], network: &Network<'_>, depth: u8) {
    assert!(is_within(network.packet, frame), "a packet that is not in its frame");
    let wire = network.packet.len() as u32;
    let Ok(packet) = ip::parse(network.packet, wire) else { return };
    assert!(packet.length <= wire && packet.payload_length <= packet.length, "{packet:?}");
    assert!(packet.payload.len() as u32 <= packet.payload_length, "{packet:?}");
    assert!(is_within(packet.payload, network.packet));
    if packet.fragment.is_some() || depth == 8 {
        return;
    }
    let inner = match transport::parse(packet.protocol, packet.payload, packet.payload_length) {
        Transport::Tcp(tcp) => {
            assert!(tcp.payload.len() as u32 <= tcp.payload_length && is_within(tcp.payload, packet.payload));
            let _ = weir_flow::tcp::Options::parse(tcp.options);
            return;
        }
        Transport::Udp { src_port, dst_port, payload } => tunnel::in_udp(src_port, dst_port, payload),
        Transport::Other => tunnel::in_ip(packet.protocol, packet.payload),
        Transport::Ports { .. } | Transport::Icmp { .. } => return,
    };
    if let Some((_, Ok(network))) = inner {
        inside(packet.payload, &network, depth + 1);
    }
}

/// A capture that kept less of a frame says the same of it, or that it cannot say.
fn shorter(link_type: LinkType, frame: &[u8], whole: &Network<'_>, cut: usize) {
    let wire = whole.packet.len() as u32;
    let Ok(part) = link::network(link_type, &frame[..cut]) else { return };
    let (Ok(part), Ok(whole)) = (ip::parse(part.packet, wire), ip::parse(whole.packet, wire)) else { return };
    let said = |packet: &IpPacket<'_>| (packet.version, packet.src, packet.dst, packet.length);
    assert_eq!(said(&part), said(&whole), "less of a frame says something else");
}

fn is_within(part: &[u8], whole: &[u8]) -> bool {
    part.is_empty()
        || (whole.as_ptr_range().start <= part.as_ptr_range().start
            && part.as_ptr_range().end <= whole.as_ptr_range().end)
}
