//! Frames that no ordinary program sends: made by hand, put on the wire through a packet socket.

use std::{fs::File, io::Write as _, net::UdpSocket, os::fd::AsRawFd as _};

use weir_capture::interfaces::{Interface, Selection, link_of};
use weir_capture_common::{dissect::Link, ledger::Outcome};
use weir_proto::Flow;

use crate::{
    exact::{assert_equals_interface, down, pair, up},
    support::{
        capturing::{Capturing, dst, src},
        host::Host,
        skipped,
    },
};

const DATAGRAM_PORTS: [u8; 4] = [0x30, 0x39, 0xd4, 0x31];

/// From 192.0.2.1 port 12345 to 192.0.2.2 port 54321, 28 bytes.
fn datagram(fragment: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 77];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    packet.extend(DATAGRAM_PORTS);
    packet.extend([0, 8, 0, 0]);
    packet
}

/// Puts a frame on the wire; `protocol` stands first behind the addresses.
pub(crate) fn send(host: &Host, name: &str, protocol: u16, rest: &[u8]) {
    let index = host.index(name);
    let mut frame = vec![0x02, 0, 0, 0, 0, 2, 0x02, 0, 0, 0, 0, 1];
    frame.extend(protocol.to_be_bytes());
    frame.extend(rest);
    host.run(move || {
        // SAFETY: no pointers.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        assert!(socket >= 0);
        // SAFETY: zeroes are a valid address.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_protocol = protocol.to_be();
        to.sll_ifindex = index as i32;
        // SAFETY: the frame and the address are alive during the call.
        let sent = unsafe {
            libc::sendto(
                socket,
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const to).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
        // SAFETY: the descriptor of above.
        unsafe { libc::close(socket) };
    });
}

fn is_datagram(flow: &Flow) -> bool {
    flow.protocol == 17 && src(flow).to_string() == "192.0.2.1" && dst(flow).to_string() == "192.0.2.2"
}

#[test]
fn tags_padding_fragments_and_strange_frames_are_counted_as_what_they_are() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let (at_a, at_b) = (Capturing::on(&a, &["a0"], &[]), Capturing::on(&b, &["b0"], &[]));
    up(&a, &b);

    let tag = |id: u8, protocol: u16| [&[0x60, id], protocol.to_be_bytes().as_slice()].concat();
    send(&a, "a0", 0x8100, &[tag(5, 0x0800), datagram(0)].concat());
    send(&a, "a0", 0x88a8, &[tag(9, 0x8100), tag(5, 0x0800), datagram(0)].concat());
    send(&a, "a0", 0x0800, &[datagram(0), vec![0; 18]].concat());
    send(&a, "a0", 0x0800, &datagram(0x00b9));
    send(&a, "a0", 0x0800, &[0x55; 40]);
    send(&a, "a0", 0x88cc, &[1; 50]);

    down(&a, &b);
    let (counted, (at_a, at_b)) = (a.counters("a0"), (at_a.stop(), at_b.stop()));
    for result in [&at_a, &at_b] {
        let mut found: Vec<_> = (result.flows.iter().filter(|flow| is_datagram(flow)))
            .map(|flow| (flow.vlan, flow.src_port, flow.dst_port, flow.tx_packets, flow.tx_bytes))
            .collect();
        found.sort_unstable();
        let expected =
            [(0, 0, 0, 1, 28), (0, 12345, 54321, 1, 28), (5, 12345, 54321, 1, 28), (5 << 12 | 9, 12345, 54321, 1, 28)];
        assert_eq!(found, expected);
        let ledger = &result.totals.ledger;
        assert_eq!(ledger.fragments_without_ports, 1);
        assert_eq!(ledger.entry(Outcome::Malformed).packets, 1, "{ledger:?}");
        // The one by hand; and the stack's own ARP, if it had any.
        assert!(ledger.entry(Outcome::NotIp).packets >= 1, "{ledger:?}");
    }
    // Tags (4 bytes, then 8) and padding (18) are on the wire and not in IP.
    let mut counted = counted;
    counted.1.bytes -= 4 + 8 + 18;
    assert_equals_interface("a", &at_a, counted);
}

/// An IP packet of this protocol from 10.9.0.1 to 10.9.0.2.
fn outer(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, protocol, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
    packet.extend(payload);
    packet
}

#[test]
fn what_is_wrapped_counts_to_the_flow_inside() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let at_b = Capturing::on(&b, &["b0"], &[]);
    up(&a, &b);
    let udp = |port: u16, rest: &[u8]| {
        let mut datagram = vec![0x30, 0x39];
        datagram.extend(port.to_be_bytes());
        datagram.extend((8 + rest.len() as u16).to_be_bytes());
        datagram.extend([0, 0]);
        datagram.extend(rest);
        datagram
    };
    let ethernet = [&[2; 12][..], &[8, 0], &datagram(0)].concat();
    let vxlan = |id: u8| outer(17, &udp(4789, &[&[8, 0, 0, 0, 0, 0, id, 0][..], &ethernet].concat()));
    let geneve = outer(17, &udp(6081, &[&[1, 0, 0x65, 0x58, 0, 0, 7, 0, 1, 2, 3, 4][..], &ethernet].concat()));
    let gre = outer(47, &[&[0x20, 0, 8, 0, 0, 0, 0, 9][..], &datagram(0)].concat());
    let packets = [vxlan(5), vxlan(5), vxlan(6), geneve, gre, outer(4, &datagram(0)), datagram(0)];
    for packet in &packets {
        send(&a, "a0", 0x0800, packet);
    }
    // Two labels, the second is the last.
    send(&a, "a0", 0x8847, &[&[0, 1, 0, 64, 0, 2, 1, 64][..], &datagram(0)].concat());
    // ARP in VXLAN makes no flow inside, so it counts outside.
    let arp = [&[8, 0, 0, 0, 0, 0, 5, 0][..], &[2; 12], &[8, 6], &[0; 28]].concat();
    send(&a, "a0", 0x0800, &outer(17, &udp(4789, &arp)));
    down(&a, &b);
    let result = at_b.stop();
    let mut found: Vec<_> = (result.flows.iter().filter(|flow| is_datagram(flow)))
        .map(|flow| (flow.tunnel.as_str(), flow.src_port, flow.tx_packets, flow.tx_bytes, flow.tunnel_dst_low as u8))
        .collect();
    found.sort_unstable();
    let expected = [
        ("", 12345, 2, 2 * 28, 0),
        ("geneve:7", 12345, 1, 20 + 8 + 12 + 14 + 28, 2),
        ("gre", 12345, 1, 20 + 8 + 28, 2),
        ("ipip", 12345, 1, 20 + 28, 2),
        ("vxlan:5", 12345, 2, 2 * (20 + 8 + 8 + 14 + 28), 2),
        ("vxlan:6", 12345, 1, 20 + 8 + 8 + 14 + 28, 2),
    ];
    assert_eq!(found, expected);
    let outside = result.total(|flow| flow.dst_port == 4789 && flow.tunnel.is_empty());
    assert_eq!((outside.tx_packets, outside.tx_bytes), (1, 20 + 8 + 8 + 14 + 28));
}

#[test]
fn a_device_without_link_layer_is_read_from_its_ip_header() {
    if skipped() {
        return;
    }
    let host = Host::new();
    let tun = host.run(|| {
        let tun = File::options().read(true).write(true).open("/dev/net/tun").ok()?;
        // SAFETY: zeroes are a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(b"tun0") {
            *to = *from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
        // SAFETY: an ifreq, alive during the call.
        let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &raw const request) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        Some(tun)
    });
    let Some(mut tun) = tun else {
        eprintln!("skipped: this machine has no /dev/net/tun");
        return;
    };
    host.address("tun0", "10.79.0.1/24");
    let link = link_of(0xfffe);
    assert_eq!(link, Some(Link::Ip));
    let capturing = Capturing::idle(&host, &[]);
    let interface = Interface { index: host.index("tun0"), name: "tun0".into(), link };
    capturing.select(Selection { present: vec![interface], missing: Vec::new() });
    capturing.wait_until_attached();
    host.up("tun0");

    tun.write_all(&datagram(0)).unwrap();
    host.run(|| UdpSocket::bind("10.79.0.1:5000").unwrap().send_to(&[1; 100], "10.79.0.2:6000").unwrap());

    host.down("tun0");
    let result = capturing.stop();
    let came = result.total(is_datagram);
    assert_eq!((came.tx_packets, came.tx_bytes), (1, 28), "{:#?}", result.flows);
    let went = result.total(|flow| (flow.src_port, flow.dst_port) == (5000, 6000));
    assert_eq!((went.tx_packets, went.tx_bytes), (1, 128));
    assert_eq!(result.totals.ledger.entry(Outcome::Malformed).packets, 0);
}
