use proptest::prelude::*;

use super::*;

const LINKS: [u16; 16] = [0, 1, 9, 10, 12, 14, 50, 51, 101, 104, 108, 113, 226, 228, 239, 276];

fn run(frames: &[(u64, u16, Vec<u8>, u32)]) -> (Vec<Record>, Summary) {
    run_with(Config::default(), frames)
}

fn run_with(config: Config, frames: &[(u64, u16, Vec<u8>, u32)]) -> (Vec<Record>, Summary) {
    let mut analyzer = Analyzer::new(config);
    let mut records = Vec::new();
    for (time_us, link, data, extra) in frames {
        let original_length = (data.len() as u32).saturating_add(*extra);
        analyzer.packet(&Frame { time_us: *time_us, link_type: LinkType(*link), data, original_length, interface: 0 });
        records.extend(analyzer.take_records());
    }
    while analyzer.finish_some() {
        records.extend(analyzer.take_records());
    }
    records.extend(analyzer.take_records());
    (records, analyzer.into_summary())
}

fn flows(records: &[Record]) -> impl Iterator<Item = &weir_proto::Flow> {
    records.iter().filter_map(|record| match record {
        Record::Flow(flow) => Some(flow),
        _ => None,
    })
}

/// An IPv4 packet from 10.0.0.1 to 10.0.0.2.
fn ipv4(protocol: u8, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((20 + payload.len() as u16).to_be_bytes());
    packet.extend([0, 9]);
    packet.extend(flags.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(payload);
    packet
}

fn udp(src_port: u16, dst_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    for field in [src_port, dst_port, 8 + payload.len() as u16, 0] {
        datagram.extend(field.to_be_bytes());
    }
    datagram.extend(payload);
    datagram
}

fn ethernet(tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    for (index, tag) in tags.iter().enumerate() {
        frame.extend(if index == 0 && tags.len() > 1 { [0x88, 0xa8] } else { [0x81, 0] });
        frame.extend(tag.to_be_bytes());
    }
    frame.extend([0x08, 0]);
    frame.extend(packet);
    frame
}

#[test]
fn bytes_are_those_that_the_ip_header_claims_not_padding_and_not_what_was_captured() {
    let packet = ipv4(17, 0, &udp(1000, 2000, &[0; 100]));
    let mut padded = ethernet(&[], &ipv4(17, 0, &udp(1000, 2000, &[0; 2])));
    padded.resize(60, 0);
    let cut = ethernet(&[], &packet)[..64].to_vec();
    let (records, summary) = run(&[(1, 1, padded, 0), (2, 1, cut, 78)]);
    let flow = flows(&records).next().unwrap();
    assert_eq!((flow.tx_packets, flow.tx_bytes), (2, 30 + 128));
    assert_eq!((summary.frames.packets, summary.frames.bytes, summary.cut_frames), (2, 60 + 142, 1));
}

#[test]
fn the_outer_and_the_inner_vlan_stand_in_one_number() {
    let packet = ipv4(17, 0, &udp(1, 2, &[]));
    let (records, _) = run(&[(1, 1, ethernet(&[0x2005, 7], &packet), 0), (2, 1, ethernet(&[9], &packet), 0)]);
    assert_eq!(flows(&records).map(|flow| flow.vlan).collect::<Vec<_>>(), [5 | 7 << 12, 9]);
}

#[test]
fn fragments_count_into_the_flow_whose_ports_only_the_first_one_has() {
    let datagram = udp(4000, 53, b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03abc\0\0\x01\0\x01");
    let (first, second) = datagram.split_at(16);
    let (records, summary) = run(&[(5, 101, ipv4(17, 2, second), 0), (6, 101, ipv4(17, 0x2000, first), 0)]);
    let flow = flows(&records).next().unwrap();
    assert_eq!((flow.src_port, flow.dst_port, flow.tx_packets), (4000, 53, 2));
    assert_eq!((flow.start_time, flow.end_time), (5, 6));
    assert_eq!(summary.dns.queries, 1);
    assert!(records.iter().any(|record| matches!(record, Record::Dns(dns) if dns.qname == "abc")));
}

/// A query that goes out and its answer, of which the first fragment has so many bytes.
fn asked_in_fragments(first: usize) -> [Vec<u8>; 3] {
    let question = b"\x03abc\0\0\x10\0\x01";
    let query = ipv4(17, 0, &udp(4000, 53, &[&b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0"[..], question].concat()));
    let mut answer = [&b"\x12\x34\x81\x82\0\x01\0\x01\0\0\0\0"[..], question].concat();
    answer.extend(b"\xc0\x0c\0\x10\0\x01\0\0\0\x3c\0\x21\x20");
    answer.extend([b'x'; 32]);
    let datagram = udp(53, 4000, &answer);
    let (front, rest) = datagram.split_at(first);
    let back = |flags: u16, payload: &[u8]| {
        let mut packet = ipv4(17, flags, payload);
        packet[12..20].rotate_left(4);
        packet
    };
    [query, back(0x2000, front), back(first as u16 / 8, rest)]
}

fn dns(records: &[Record]) -> Vec<&weir_proto::Dns> {
    records.iter().filter_map(|record| if let Record::Dns(dns) = record { Some(dns) } else { None }).collect()
}

#[test]
fn an_answer_of_which_only_the_first_fragment_was_captured_is_one() {
    const SECOND: u64 = 1_000_000;
    let [query, front, rest] = asked_in_fragments(40);
    let other = ipv4(17, 0, &udp(1, 2, &[0; 20]));
    // Nothing comes; something comes, after a long rest or at once; the rest comes much too late.
    let behind: [&[(u64, &Vec<u8>)]; 4] = [
        &[],
        &[(60 * SECOND, &other)],
        &[(2 * SECOND, &other), (3 * SECOND, &other)],
        &[(3 * SECOND, &other), (9 * SECOND, &rest)],
    ];
    for more in behind {
        let mut frames = vec![(10, 101, query.clone(), 0), (30, 101, front.clone(), 0)];
        frames.extend(more.iter().map(|(time, frame)| (*time, 101, (*frame).clone(), 0)));
        let (records, summary) = run(&frames);
        let rows = dns(&records);
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(
            (rows[0].time, rows[0].rcode, rows[0].latency_us, rows[0].qname.as_str()),
            (10, Some(2), Some(20), "abc")
        );
        assert_eq!((summary.dns.queries, summary.dns.answers), (1, 1));
    }
    // All of it, and that which a snap length leaves of it.
    let (records, _) = run(&[(10, 101, query.clone(), 0), (30, 101, front.clone(), 0), (40, 101, rest, 0)]);
    assert_eq!(
        dns(&records).iter().map(|row| (row.answers.len(), row.latency_us)).collect::<Vec<_>>(),
        [(1, Some(30))]
    );
    let cut = front[..56].to_vec();
    let (records, _) = run(&[(10, 101, query, 0), (30, 101, cut, 4)]);
    assert_eq!(dns(&records).iter().map(|row| (row.rcode, row.latency_us)).collect::<Vec<_>>(), [(Some(2), Some(20))]);
}

#[test]
fn fragments_without_a_first_one_are_counted_without_ports() {
    let (records, summary) = run(&[(5, 101, ipv4(17, 2, &[0; 8]), 0)]);
    let flow = flows(&records).next().unwrap();
    assert_eq!((flow.src_port, flow.tx_packets, flow.tx_bytes, summary.orphan_fragments), (0, 1, 28, 1));
}

#[test]
fn a_packet_in_a_tunnel_is_counted_outside_and_inside() {
    let inner = ethernet(&[], &ipv4(17, 0, &udp(1, 2, &[7; 10])));
    let vxlan = [&[8, 0, 0, 0, 0, 0, 42, 0][..], &inner].concat();
    let (records, _) = run(&[(1, 101, ipv4(17, 0, &udp(9999, 4789, &vxlan)), 0)]);
    let seen: Vec<_> = flows(&records).map(|flow| (flow.tunnel.as_str(), flow.dst_port, flow.tx_bytes)).collect();
    assert_eq!(seen, [("", 4789, 20 + 8 + 8 + 14 + 38), ("vxlan:42", 2, 38)]);
}

#[test]
fn tunnels_within_tunnels_end_at_a_bound() {
    let packet = (0..50).fold(ipv4(17, 0, &udp(1, 2, &[])), |inner, _| ipv4(4, 0, &inner));
    let (records, summary) = run(&[(1, 101, packet, 0)]);
    assert_eq!(flows(&records).count(), MAX_DEPTH);
    assert_eq!(summary.unanalysed_inside[&Unanalysed::TooDeep], 1);
}

#[test]
fn what_is_not_ip_is_counted_by_what_it_is() {
    let mut arp = vec![2; 12];
    arp.extend([8, 6, 0, 0]);
    let (records, summary) = run(&[(1, 1, arp, 0), (2, 195, vec![0; 20], 0), (3, 1, vec![0; 5], 0)]);
    assert!(records.is_empty());
    let reasons: Vec<_> = summary.unanalysed.iter().map(|(reason, count)| (reason.to_string(), *count)).collect();
    assert_eq!(
        reasons,
        [("link type 195".to_owned(), 1), ("ethertype 0x0806".to_owned(), 1), ("truncated link header".to_owned(), 1)]
    );
}

fn frames() -> impl Strategy<Value = Vec<(u64, u16, Vec<u8>, u32)>> {
    let noise = proptest::collection::vec(any::<u8>(), 0..200);
    // Noise behind a valid beginning reaches the layers that noise alone never does.
    let likely = (0u8..150, any::<u16>(), 0usize..10, noise.clone()).prop_map(|(protocol, flags, ports, noise)| {
        let port = [53, 5353, 5355, 443, 4789, 6081, 2152, 3544, 1701, 4341][ports];
        let payload = if protocol == 17 { udp(1234, port, &noise) } else { noise };
        ethernet(&[], &ipv4(protocol, flags & 0x3fff, &payload))
    });
    let tcp = (any::<u32>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..80)).prop_map(
        |(sequence, flags, data)| {
            let mut segment = vec![0x30, 0x39, 0, 53];
            segment.extend((sequence % 300).to_be_bytes());
            segment.extend([0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0]);
            segment.extend(data);
            ethernet(&[], &ipv4(6, 0, &segment))
        },
    );
    let frame = prop_oneof![(Just(1u16), likely), (Just(1u16), tcp), (proptest::sample::select(&LINKS[..]), noise),];
    let time = prop_oneof![0u64..100_000_000, any::<u64>()];
    proptest::collection::vec((time, frame, 0u32..2000), 0..60)
        .prop_map(|frames| frames.into_iter().map(|(time, (link, data), extra)| (time, link, data, extra)).collect())
}

proptest! {
    #[test]
    fn any_frames_are_analysed_without_a_panic_and_twice_the_same(frames in frames()) {
        let config = Config {
            tracker: tracker::Limits { flows: 8, retired: 4, ..tracker::Limits::default() },
            fragments: fragments::Limits { entries: 4, bytes: 500, ..fragments::Limits::default() },
            dns: dns::Limits { pending: 4, ..dns::Limits::default() },
            streams: StreamLimits { bytes: 200 },
            ..Config::default()
        };
        let (records, summary) = run_with(config.clone(), &frames);
        prop_assert_eq!(summary.frames.packets, frames.len() as u64);
        let outside: u64 = flows(&records)
            .filter(|flow| flow.tunnel.is_empty())
            .map(|flow| flow.tx_packets + flow.rx_packets)
            .sum();
        let lost: u64 = summary.unanalysed.values().sum();
        prop_assert_eq!(outside + lost, frames.len() as u64, "each frame is in a flow or has a reason");
        let (again, _) = run_with(config, &frames);
        prop_assert_eq!(records, again);
    }
}

/// A TCP segment from port 1000 to 80.
fn tcp(sequence: u32, acknowledgement: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x03, 0xe8, 0, 80];
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledgement.to_be_bytes());
    segment.extend([0x50, flags, 0x10, 0, 0, 0, 0, 0]);
    segment.extend(data);
    segment
}

#[test]
fn a_packet_that_was_captured_twice_counts_twice_and_was_sent_once() {
    let numbered = |id: u8, hop_limit: u8, segment: &[u8]| {
        let mut packet = ipv4(6, 0, segment);
        (packet[5], packet[8]) = (id, hop_limit);
        ethernet(&[], &packet)
    };
    let data = tcp(100, 7, 0x18, &[5; 100]);
    let (records, summary) = run(&[
        (1_000_000, 1, numbered(1, 64, &data), 0),
        (1_000_020, 1, numbered(1, 64, &data), 0),
        (1_000_030, 1, numbered(1, 63, &data), 0),
        // The timer ran out: another packet with the same bytes.
        (1_300_000, 1, numbered(2, 64, &data), 0),
    ]);
    let flow = flows(&records).next().unwrap();
    assert_eq!((flow.tx_packets, flow.tx_bytes), (4, 4 * 140));
    assert_eq!(flow.tx_retransmits, Some(1));
    assert_eq!((summary.duplicates, summary.routed_duplicates), (2, 1));
}

/// The same packet the other way.
fn back(mut packet: Vec<u8>) -> Vec<u8> {
    let (first, second) = packet[12..20].split_at_mut(4);
    first.swap_with_slice(second);
    let (first, second) = packet[20..24].split_at_mut(2);
    first.swap_with_slice(second);
    packet
}

#[test]
fn directions_under_different_tags_are_one_flow() {
    let forth = |sequence, acknowledgement, flags, data| ipv4(6, 0, &tcp(sequence, acknowledgement, flags, data));
    let (syn, syn_ack) = (forth(100, 0, 2, &[]), back(forth(500, 101, 0x12, &[])));
    let (data, ack) = (forth(101, 501, 0x18, &[1; 9]), back(forth(501, 110, 0x10, &[])));
    let query = ipv4(17, 0, &udp(4000, 53, b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03abc\0\0\x01\0\x01"));
    let answer = back(ipv4(17, 0, &udp(4000, 53, b"\x12\x34\x81\0\0\x01\0\0\0\0\0\0\x03abc\0\0\x01\0\x01")));
    let tagged = |time: u64, tags: &[u16], packet: &[u8]| (time, 1, ethernet(tags, packet), 0);
    let (records, _) = run(&[
        tagged(10, &[7], &syn),
        tagged(20, &[], &syn_ack),
        tagged(30, &[7], &data),
        tagged(40, &[], &ack),
        tagged(50, &[], &query),
        tagged(60, &[8], &answer),
    ]);
    let seen: Vec<_> = flows(&records).map(|flow| (flow.vlan, flow.tx_packets, flow.rx_packets)).collect();
    assert_eq!(seen, [(7, 2, 2), (0, 1, 1)]);
    assert_eq!(flows(&records).next().unwrap().handshake_us, Some(20));
    assert!(records.iter().any(|record| matches!(record, Record::Dns(dns) if dns.latency_us == Some(10))));
    // Each packet before and behind a router, and answers of others.
    let (records, _) = run(&[
        tagged(10, &[7], &syn),
        tagged(11, &[8], &syn),
        tagged(20, &[8], &syn_ack),
        tagged(21, &[7], &syn_ack),
        tagged(30, &[9], &back(forth(500, 2 << 20, 0x12, &[]))),
        tagged(50, &[7], &query),
        tagged(6_000_000, &[8], &answer),
    ]);
    let seen: Vec<_> = flows(&records).map(|flow| (flow.vlan, flow.tx_packets, flow.rx_packets)).collect();
    assert_eq!(seen, [(7, 1, 1), (8, 1, 1), (9, 0, 1), (7, 1, 0), (8, 1, 0)]);
}

#[test]
fn packets_without_a_time_count_and_move_no_clock() {
    let frame = ethernet(&[], &ipv4(17, 0, &udp(1, 2, &[1])));
    let times = [0, 5_000_000, 4_000_000, 6_000_000, 5_999_999];
    let (_, summary) = run(&times.map(|time| (time, 1, frame.clone(), 0)));
    assert_eq!((summary.first_time, summary.last_time), (Some(4_000_000), Some(6_000_000)));
    assert_eq!((summary.clock_steps_back, summary.largest_step_back_us), (2, 1_000_000));
    assert_eq!((summary.series.start() / 1_000_000, summary.frames.packets), (5, 5), "it begins with the first time");
}

#[test]
fn names_that_the_capture_tells_stand_where_the_traffic_tells_none() {
    let mut analyzer = Analyzer::new(Config::default());
    let data = ethernet(&[], &ipv4(17, 0, &udp(1, 2, &[1])));
    let original_length = data.len() as u32;
    analyzer.packet(&Frame { time_us: 1, link_type: LinkType(1), data: &data, original_length, interface: 0 });
    // Many programs write the names last.
    analyzer.name(std::net::Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped().octets(), "printer.example");
    while analyzer.finish_some() {}
    let records: Vec<_> = analyzer.take_records().collect();
    let flow = flows(&records).next().unwrap();
    assert_eq!((flow.src_name.as_str(), flow.dst_name.as_str()), ("", "printer.example"));
}

#[test]
fn the_ends_of_a_tunnel_stand_with_what_is_in_it() {
    let inner = || ipv4(17, 0, &udp(7, 9, &[1, 2, 3]));
    let gre = |kind: [u8; 2], rest: &[u8], inner: &[u8]| [&[0, 0], &kind[..], rest, inner].concat();
    let in_udp = |port: u16, head: &[u8], inner: &[u8]| udp(5000, port, &[head, inner].concat());
    let vxlan = [8, 0, 0, 0, 0, 0, 42, 0];
    let mut six = vec![0x60, 0, 0, 0, 0, 9, 17, 64];
    six.extend([[0x20; 16], [0x21; 16]].concat());
    six.extend(udp(7, 9, &[1]));
    let carried: [(u8, Vec<u8>, &str); 11] = [
        (17, in_udp(4789, &vxlan, &ethernet(&[], &inner())), "vxlan:42"),
        (17, in_udp(6081, &[0, 0, 0x65, 0x58, 0, 0, 7, 0], &ethernet(&[], &inner())), "geneve:7"),
        (47, gre([8, 0], &[], &inner()), "gre"),
        (47, gre([0x88, 0xbe], &[], &ethernet(&[], &inner())), "gre"),
        (47, gre([0x22, 0xeb], &[0; 12], &ethernet(&[], &inner())), "gre"),
        (4, inner(), "ipip"),
        (41, six, "ip6"),
        (17, in_udp(2152, &[0x30, 0xff, 0, 4, 0, 0, 0, 1], &inner()), "gtp"),
        (17, in_udp(1701, &[0, 2, 0, 1, 0, 2, 0xff, 3, 0, 0x21], &inner()), "l2tp"),
        (97, [&[0x30, 0][..], &ethernet(&[], &inner())].concat(), "etherip"),
        (137, [&[0, 1, 0x11, 64][..], &inner()].concat(), "mpls"),
    ];
    let mapped = |last| u64::from_be_bytes([0, 0, 0xff, 0xff, 10, 0, 0, last]);
    for (protocol, payload, name) in carried {
        let outer = ipv4(protocol, 0, &payload);
        let (records, summary) = run(&[(1, 1, ethernet(&[], &outer), 0)]);
        let flow =
            flows(&records).find(|flow| !flow.tunnel.is_empty()).unwrap_or_else(|| panic!("{name}: {summary:?}"));
        assert_eq!((flow.tunnel.as_str(), flow.dst_port), (name, 9));
        let ends = (flow.tunnel_src_high, flow.tunnel_src_low, flow.tunnel_dst_high, flow.tunnel_dst_low);
        assert_eq!(ends, (0, mapped(1), 0, mapped(2)), "{name}");
        let carrier = flows(&records).find(|flow| flow.tunnel.is_empty()).unwrap();
        assert_eq!((carrier.tunnel_src_low, carrier.tunnel_dst_low), (0, 0), "{name}");
    }
    // Of tunnels in each other, the outermost has the ends.
    let nested = ipv4(4, 0, &ipv4(17, 0, &in_udp(4789, &vxlan, &ethernet(&[], &inner()))));
    let (records, _) = run(&[(1, 1, ethernet(&[], &nested), 0)]);
    let flow = flows(&records).find(|flow| flow.tunnel == "ipip/vxlan:42").unwrap();
    assert_eq!(flow.tunnel_dst_low, mapped(2));
}

#[test]
fn labels_and_sessions_of_the_link_are_no_tunnel_with_ends() {
    let inner = ipv4(17, 0, &udp(7, 9, &[1, 2, 3]));
    let link = |kind: [u8; 2], head: &[u8]| [&[2; 12][..], &kind, head, &inner].concat();
    let session = [&[0x11, 0, 0, 5, 0, inner.len() as u8 + 2][..], &[0, 0x21]].concat();
    for frame in [link([0x88, 0x64], &session), link([0x88, 0x47], &[0, 1, 0x10, 64, 0, 2, 0x11, 64])] {
        let (records, _) = run(&[(1, 1, frame, 0)]);
        let flow = flows(&records).next().unwrap();
        assert_eq!((flow.tunnel.as_str(), flow.tunnel_src_low, flow.dst_port), ("", 0, 9));
    }
}
