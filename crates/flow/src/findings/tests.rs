//! What is found in traffic made for it, and what is not found in traffic that only resembles it.

#![expect(clippy::float_cmp, reason = "the numbers are whole, or exact by construction")]

use std::net::IpAddr;

use serde_json::Value;

use super::{Finding, Findings, Kind, Severity, Thresholds};
use crate::packet::LinkType;
use crate::{Analyzer, Config, Frame, Record};

const SECOND: u64 = 1_000_000;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
const PUSH: u8 = 24;
const FIN: u8 = 17;

/// Frames of a capture, by time.
#[derive(Default)]
struct Capture {
    frames: Vec<(u64, Vec<u8>)>,
}

impl Capture {
    fn ip(&mut self, time: u64, src: &str, dst: &str, protocol: u8, payload: &[u8]) {
        let mut frame = vec![2; 12];
        match (src.parse().unwrap(), dst.parse().unwrap()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                frame.extend([8, 0, 0x45, 0]);
                frame.extend((20 + payload.len() as u16).to_be_bytes());
                frame.extend([0, 0, 0, 0, 64, protocol, 0, 0]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((payload.len() as u16).to_be_bytes());
                frame.extend([protocol, 64]);
                frame.extend(src.octets());
                frame.extend(dst.octets());
            }
            _ => panic!("two families"),
        }
        frame.extend(payload);
        self.frames.push((time, frame));
    }

    fn udp(&mut self, time: u64, src: (&str, u16), dst: (&str, u16), payload: &[u8]) {
        let mut datagram = Vec::new();
        for field in [src.1, dst.1, 8 + payload.len() as u16, 0] {
            datagram.extend(field.to_be_bytes());
        }
        datagram.extend(payload);
        self.ip(time, src.0, dst.0, 17, &datagram);
    }

    fn tcp(&mut self, time: u64, src: (&str, u16), dst: (&str, u16), numbers: (u32, u32), flags: u8, payload: &[u8]) {
        let mut segment = Vec::new();
        segment.extend(src.1.to_be_bytes());
        segment.extend(dst.1.to_be_bytes());
        segment.extend(numbers.0.to_be_bytes());
        segment.extend(numbers.1.to_be_bytes());
        segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        segment.extend(payload);
        self.ip(time, src.0, dst.0, 6, &segment);
    }

    fn syn(&mut self, time: u64, src: (&str, u16), dst: (&str, u16)) {
        self.tcp(time, src, dst, (100, 0), SYN, &[]);
    }

    /// A whole connection: what the client says, and what the server says.
    fn connection(&mut self, time: u64, client: (&str, u16), server: (&str, u16), said: &[u8], answer: &[u8]) {
        let (c, s) = (said.len() as u32, answer.len() as u32);
        self.syn(time, client, server);
        self.tcp(time + 100, server, client, (500, 101), SYN | ACK, &[]);
        self.tcp(time + 200, client, server, (101, 501), ACK, &[]);
        self.tcp(time + 300, client, server, (101, 501), PUSH, said);
        self.tcp(time + 400, server, client, (501, 101 + c), PUSH, answer);
        self.tcp(time + 500, client, server, (101 + c, 501 + s), FIN, &[]);
        self.tcp(time + 600, server, client, (501 + s, 102 + c), FIN, &[]);
        self.tcp(time + 700, client, server, (102 + c, 502 + s), ACK, &[]);
    }

    fn query(&mut self, time: u64, port: u16, name: &str, rcode: Option<u8>) {
        let mut message = vec![(port >> 8) as u8, port as u8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(label.len() as u8);
            message.extend(label.bytes());
        }
        message.extend([0, 0, 16, 0, 1]);
        self.udp(time, ("10.0.0.1", port), ("10.0.0.53", 53), &message);
        if let Some(rcode) = rcode {
            (message[2], message[3]) = (0x81, 0x80 | rcode);
            self.udp(time + 1000, ("10.0.0.53", 53), ("10.0.0.1", port), &message);
        }
    }

    fn arp(&mut self, time: u64, ip: [u8; 4], mac: u8) {
        let mut frame = vec![2; 12];
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
        frame.extend([2, 0, 0, 0, 0, mac]);
        frame.extend(ip);
        frame.extend([0; 10]);
        self.frames.push((time, frame));
    }

    fn findings(&self) -> Findings {
        self.findings_with(&Thresholds::default()).0
    }

    fn findings_with(&self, thresholds: &Thresholds) -> (Findings, Vec<Record>) {
        let mut analyzer = Analyzer::new(Config { thresholds: Box::new(*thresholds), ..Config::default() });
        let mut frames: Vec<_> = self.frames.iter().collect();
        frames.sort_by_key(|(time, _)| *time);
        for (time, data) in frames {
            let original_length = data.len() as u32;
            let time_us = 1_700_000_000 * SECOND + time;
            analyzer.packet(&Frame { time_us, link_type: LinkType::ETHERNET, data, original_length, interface: 0 });
        }
        while analyzer.finish_some() {}
        let records = analyzer.take_records().collect();
        (analyzer.into_summary().findings, records)
    }
}

/// The one finding of a kind.
fn only(findings: &Findings, kind: Kind) -> &Finding {
    let all: Vec<&Finding> = findings.list.iter().filter(|finding| finding.kind == kind).collect();
    assert_eq!(all.len(), 1, "{kind:?} in {:#?}", findings.list);
    all[0]
}

fn none(findings: &Findings, kind: Kind) {
    let all: Vec<&Finding> = findings.list.iter().filter(|finding| finding.kind == kind).collect();
    assert!(all.is_empty(), "{all:#?}");
}

fn number(finding: &Finding, name: &str) -> f64 {
    finding.evidence[name].as_f64().unwrap()
}

#[test]
fn a_scan_of_ports_names_its_source_its_target_and_its_first_frames() {
    let mut capture = Capture::default();
    for port in 1..=100 {
        let time = u64::from(port) * 10_000;
        capture.syn(time, ("10.0.0.9", 40000), ("10.0.0.2", port));
        capture.tcp(time + 100, ("10.0.0.2", port), ("10.0.0.9", 40000), (0, 101), RST | ACK, &[]);
    }
    let (findings, records) = capture.findings_with(&Thresholds::default());
    let scan = only(&findings, Kind::VerticalScan);
    assert_eq!(
        scan.summary,
        "10.0.0.9 tried about 101 ports of 10.0.0.2 in 1 s; 0 of 100 attempts found something open"
            .replace("101", &number(scan, "ports").to_string())
    );
    assert!((90.0..=100.0).contains(&number(scan, "ports")));
    assert_eq!((scan.packets[0], scan.packets[1], scan.flow_ids.len()), (1, 3, 16));
    none(&findings, Kind::HorizontalScan);
    none(&findings, Kind::Refused);
    let row = records.iter().find_map(|record| match record {
        Record::Finding(row) if row.kind == "port_scan_vertical" => Some(row),
        _ => None,
    });
    let row = row.unwrap();
    let detail: Value = serde_json::from_str(&row.detail).unwrap();
    assert_eq!((row.flow_id, row.severity.as_str()), (scan.flow_ids[0], "warning"));
    assert_eq!(detail["src_ip"], "10.0.0.9");
    assert_eq!(detail["flow_ids"][0], scan.flow_ids[0].to_string());
}

#[test]
fn a_scan_of_hosts_is_told_from_a_program_with_many_peers() {
    let mut scan = Capture::default();
    let mut peers = Capture::default();
    for n in 1..=60u16 {
        let host = format!("10.1.0.{n}");
        scan.syn(u64::from(n) * 1000, ("10.0.0.9", 40000 + n), (&host, 445));
        peers.syn(u64::from(n) * 1000, ("10.0.0.9", 40000), (&host, 20000 + n * 7));
    }
    let findings = scan.findings();
    assert_eq!(number(only(&findings, Kind::HorizontalScan), "ports"), 1.0);
    none(&findings, Kind::VerticalScan);
    assert_eq!(peers.findings().list, []);
}

#[test]
fn fewer_ports_than_the_threshold_are_no_scan_unless_an_upload_says_so() {
    let mut capture = Capture::default();
    for port in 1..=10 {
        capture.syn(u64::from(port) * 10_000, ("10.0.0.9", 40000), ("10.0.0.2", port));
    }
    none(&capture.findings(), Kind::VerticalScan);
    let thresholds = Thresholds::from_json(br#"{"port_scan_ports": 8}"#).unwrap();
    only(&capture.findings_with(&thresholds).0, Kind::VerticalScan);
}

#[test]
fn guesses_of_passwords_are_short_connections_one_after_the_other() {
    let mut guesses = Capture::default();
    let mut work = Capture::default();
    for n in 0..40u16 {
        let time = u64::from(n) * 2 * SECOND;
        guesses.connection(time, ("10.0.0.9", 40000 + n), ("10.0.0.2", 22), &[1; 600], &[1; 900]);
        work.connection(time * 30, ("10.0.0.9", 40000 + n), ("10.0.0.2", 22), &[1; 600], &[1; 900]);
    }
    assert_eq!(number(only(&guesses.findings(), Kind::BruteForce), "short_connections"), 40.0);
    none(&work.findings(), Kind::BruteForce);
}

#[test]
fn refused_logins_that_the_protocol_shows_are_guesses_too() {
    let mut capture = Capture::default();
    for n in 0..8u16 {
        let time = u64::from(n) * 2 * SECOND;
        capture.connection(time, ("10.0.0.9", 40000 + n), ("10.0.0.2", 21), b"PASS secret\r\n", b"530 no\r\n");
    }
    let (findings, records) = capture.findings_with(&Thresholds::default());
    assert_eq!(number(only(&findings, Kind::BruteForce), "refused_logins"), 8.0);
    let secret = only(&findings, Kind::CleartextCredentials);
    assert_eq!((secret.evidence["method"].as_str(), secret.packets[0]), (Some("ftp password"), 4));
    assert!(!format!("{records:?}").contains("secret\\r"), "a secret is never stored");
}

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn http2_frame(kind: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    const END_HEADERS: u8 = 4;
    let flags = if kind == 1 { END_HEADERS } else { 0 };
    [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream][..], payload].concat()
}

#[test]
fn logins_that_are_refused_over_http_2_count_as_those_over_http_1() {
    let (settings, request) = (http2_frame(4, 0, &[]), http2_frame(1, 1, b"\x82\x86\x84\x1f\x08\x04abcd"));
    let said = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings, &request].concat();
    // `:status` by its place in the static table, with a value of its own (RFC 7541 section 6.2.2).
    let answered = |status: &[u8]| [&settings[..], &http2_frame(1, 1, &[&[8, 3][..], status].concat())].concat();
    let mut found = Vec::new();
    for status in [b"401", b"403", b"200"] {
        let mut capture = Capture::default();
        for n in 0..8u16 {
            let time = u64::from(n) * 2 * SECOND;
            capture.connection(time, ("10.0.0.9", 40000 + n), ("10.0.0.2", 8080), &said, &answered(status));
        }
        found.push(capture.findings());
    }
    let refused = only(&found[0], Kind::BruteForce);
    assert_eq!((number(refused, "refused_logins"), refused.evidence["service"].as_str()), (8.0, Some("http")));
    assert_eq!((refused.dst_port, refused.packets[0], refused.flow_ids.len()), (Some(8080), 5, 8));
    assert_eq!(refused.summary, "10.0.0.9 was refused a login to http 8 times on 10.0.0.2 port 8080");
    // Forbidden is whoever is known.
    none(&found[1], Kind::BruteForce);
    none(&found[2], Kind::BruteForce);

    let mut old = Capture::default();
    for n in 0..8u16 {
        let time = u64::from(n) * 2 * SECOND;
        let (request, answer) =
            (b"GET / HTTP/1.1\r\nAuthorization: Basic YTpi\r\n\r\n", b"HTTP/1.1 401 Unauthorized\r\n\r\n");
        old.connection(time, ("10.0.0.9", 40000 + n), ("10.0.0.2", 8080), request, answer);
    }
    let old = old.findings();
    let old = only(&old, Kind::BruteForce);
    assert_eq!((&old.summary, old.confidence, &old.packets), (&refused.summary, refused.confidence, &refused.packets));
}

#[test]
fn floods_are_told_from_transfers() {
    let mut syns = Capture::default();
    for n in 0..1000u32 {
        let source = format!("198.51.{}.{}", n / 250, n % 250 + 1);
        syns.syn(u64::from(n) * 1000, (&source, 40000), ("10.0.0.2", 80));
    }
    let flood = syns.findings();
    let flood = only(&flood, Kind::SynFlood);
    assert_eq!((flood.severity, flood.dst_port, number(flood, "packets")), (Severity::Critical, Some(80), 1000.0));

    let (mut flood, mut transfer, mut pings) = (Capture::default(), Capture::default(), Capture::default());
    for n in 0..12_000u64 {
        flood.udp(n * 100, ("10.0.0.9", 4000), ("10.0.0.2", 1 + (n % 500) as u16), &[0; 20]);
        transfer.udp(n * 100, ("10.0.0.9", 4000), ("10.0.0.2", 5001), &[0; 1400]);
        pings.ip(n * 1000, "10.0.0.9", "10.0.0.2", 1, &[8, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
    }
    only(&flood.findings(), Kind::UdpFlood);
    only(&pings.findings(), Kind::IcmpFlood);
    none(&transfer.findings(), Kind::UdpFlood);
}

#[test]
fn large_answers_to_small_questions_are_amplification() {
    let (mut attack, mut normal) = (Capture::default(), Capture::default());
    for n in 0..100u16 {
        let server = format!("192.0.2.{}", n % 9 + 1);
        attack.udp(u64::from(n) * 1000, ("10.0.0.7", 4000 + n), (&server, 11211), &[0; 15]);
        normal.udp(u64::from(n) * 1000, ("10.0.0.7", 4000 + n), (&server, 123), &[0; 48]);
        attack.udp(u64::from(n) * 1000 + 500, (&server, 11211), ("10.0.0.7", 4000 + n), &[0; 1400]);
        normal.udp(u64::from(n) * 1000 + 500, (&server, 123), ("10.0.0.7", 4000 + n), &[0; 48]);
    }
    assert!(number(only(&attack.findings(), Kind::Amplification), "ratio") > 30.0);
    none(&normal.findings(), Kind::Amplification);
}

#[test]
fn data_in_names_is_told_from_many_names() {
    let (mut tunnel, mut normal) = (Capture::default(), Capture::default());
    for n in 0..200u64 {
        let noise: String = (0..40)
            .map(|i| char::from(b'a' + (n.wrapping_mul(2_654_435_761 + i * 40_503) >> (i % 13)) as u8 % 26))
            .collect();
        tunnel.query(n * 100_000, 2000 + n as u16, &format!("{noise}.t.example.com"), Some(0));
        normal.query(n * 100_000, 2000 + n as u16, &format!("host{n}.example.com"), Some(0));
    }
    let findings = tunnel.findings();
    let found = only(&findings, Kind::DnsTunnel);
    assert_eq!((found.evidence["domain"].as_str(), found.packets[0]), (Some("example.com"), 1));
    assert_eq!(normal.findings().list, []);
}

#[test]
fn servers_that_fail_or_do_not_answer_are_named() {
    let mut capture = Capture::default();
    for n in 0..40u16 {
        let rcode = [Some(0), Some(2), None, Some(3)][usize::from(n % 4)];
        capture.query(u64::from(n) * SECOND, 2000 + n, "www.example.com", rcode);
    }
    let findings = capture.findings();
    assert_eq!(number(only(&findings, Kind::DnsUnanswered), "percent"), 25.0);
    assert_eq!(number(only(&findings, Kind::DnsFailed), "count"), 10.0);
    none(&findings, Kind::DnsNxdomain);
    none(&findings, Kind::DnsSlow);
}

#[test]
fn a_beacon_keeps_its_rhythm_and_a_person_does_not() {
    let (mut beacon, mut person) = (Capture::default(), Capture::default());
    let mut time = 0;
    for n in 0..30u16 {
        let server = ("203.0.113.5", 443);
        beacon.connection(
            u64::from(n) * 60 * SECOND + u64::from(n % 3) * SECOND,
            ("10.0.0.9", 40000 + n),
            server,
            &[1; 200],
            &[1; 90],
        );
        person.connection(time, ("10.0.0.9", 40000 + n), server, &[1; 200], &[1; 90]);
        time += u64::from((n * 37) % 50 + 1) * 3 * SECOND;
    }
    let findings = beacon.findings();
    let found = only(&findings, Kind::Beacon);
    assert!((59.0..=61.0).contains(&number(found, "interval_s")));
    assert_eq!((found.severity, findings.rhythms.len()), (Severity::Warning, 1));
    none(&person.findings(), Kind::Beacon);
}

#[test]
fn what_leaves_the_network_in_bulk_is_found_and_what_enters_is_not() {
    let (mut out, mut within) = (Capture::default(), Capture::default());
    for n in 0..1000u32 {
        let chunk = [0u8; 1400];
        for (capture, server) in [(&mut out, "203.0.113.5"), (&mut within, "10.0.0.3")] {
            capture.tcp(u64::from(n) * 1000, ("10.0.0.9", 4000), (server, 443), (1 + n * 1400, 1), PUSH, &chunk);
        }
    }
    let thresholds = Thresholds { exfiltration_bytes: 1_000_000, ..Thresholds::default() };
    only(&out.findings_with(&thresholds).0, Kind::Exfiltration);
    none(&out.findings(), Kind::Exfiltration);
    none(&within.findings_with(&thresholds).0, Kind::Exfiltration);
}

#[test]
fn a_host_that_enters_many_others_is_found() {
    let (mut moves, mut client) = (Capture::default(), Capture::default());
    for n in 1..=12u16 {
        let host = format!("10.2.0.{n}");
        moves.connection(u64::from(n) * SECOND, ("10.0.0.9", 40000 + n), (&host, 445), &[1; 200], &[1; 200]);
        client.connection(u64::from(n) * SECOND, ("10.0.0.9", 40000 + n), (&host, 443), &[1; 200], &[1; 200]);
    }
    assert_eq!(number(only(&moves.findings(), Kind::LateralMovement), "hosts"), 12.0);
    none(&client.findings(), Kind::LateralMovement);
}

#[test]
fn an_address_that_two_cards_quarrel_about_is_worse_than_one_that_moved() {
    let (mut quarrel, mut moved) = (Capture::default(), Capture::default());
    for n in 0..6 {
        quarrel.arp(n * SECOND, [10, 0, 0, 1], 1 + (n % 2) as u8);
        moved.arp(n * SECOND, [10, 0, 0, 1], 1 + u8::from(n > 2));
    }
    let findings = quarrel.findings();
    let found = only(&findings, Kind::AddressConflict);
    assert_eq!((found.severity, found.packets.as_slice()), (Severity::Critical, &[1, 2, 3, 4, 5, 6][..]));
    assert_eq!(only(&moved.findings(), Kind::AddressConflict).severity, Severity::Warning);
    let mut healthy = Capture::default();
    (0..6).for_each(|n| healthy.arp(n * SECOND, [10, 0, 0, 1], 1));
    assert_eq!(healthy.findings().list, []);
}

#[test]
fn neighbours_of_ipv6_are_watched_too() {
    let mut capture = Capture::default();
    for n in 0..4u8 {
        let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
        message.extend("fe80::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        message.extend([2, 1, 2, 0, 0, 0, 0, n % 2]);
        capture.ip(u64::from(n) * SECOND, "fe80::1", "ff02::1", 58, &message);
    }
    only(&capture.findings(), Kind::AddressConflict);
}

#[test]
fn ports_that_do_not_answer_or_refuse_are_reported_once_for_all_clients() {
    let mut capture = Capture::default();
    for n in 0..4u16 {
        let time = u64::from(n) * SECOND;
        capture.syn(time, ("10.0.0.9", 40000 + n), ("10.0.0.2", 443));
        capture.syn(time, ("10.0.0.8", 40000 + n), ("10.0.0.3", 80));
        capture.tcp(time + 10, ("10.0.0.3", 80), ("10.0.0.8", 40000 + n), (0, 101), RST | ACK, &[]);
    }
    let findings = capture.findings();
    assert_eq!(number(only(&findings, Kind::Unanswered), "attempts"), 4.0);
    assert_eq!(only(&findings, Kind::Refused).dst_port, Some(80));
}

#[test]
fn the_errors_of_icmp_name_the_flow_that_they_are_about() {
    let mut capture = Capture::default();
    capture.udp(0, ("10.0.0.9", 4000), ("192.0.2.1", 9999), &[0; 1400]);
    let mut message = vec![3, 4, 0, 0, 0, 0, 0x05, 0x14];
    message.extend(&capture.frames[0].1[14..14 + 28]);
    capture.ip(1000, "10.0.0.254", "10.0.0.9", 1, &message);
    let (findings, records) = capture.findings_with(&Thresholds::default());
    let found = only(&findings, Kind::PathMtu);
    let udp = records.iter().find_map(|record| match record {
        Record::Flow(flow) if flow.protocol == 17 => Some(flow.flow_id),
        _ => None,
    });
    assert_eq!((found.flow_ids.first().copied(), found.packets.as_slice()), (udp, &[2][..]));
    assert_eq!((number(found, "path_mtu"), findings.icmp_errors["packet too big"]), (1300.0, 1));
}

#[test]
fn a_filter_that_says_so_is_told_from_a_host_that_is_not_there() {
    for (code, says) in [(1, "cannot be reached"), (10, "lets nothing through"), (13, "lets nothing through")] {
        let mut capture = Capture::default();
        for n in 0..3 {
            capture.udp(n * SECOND, ("10.0.0.9", 4000), ("192.0.2.1", 9999), &[0; 100]);
            let message = [&[3, code, 0, 0, 0, 0, 0, 0][..], &capture.frames[0].1[14..14 + 28]].concat();
            capture.ip(n * SECOND + 1000, "192.0.2.1", "10.0.0.9", 1, &message);
        }
        let findings = capture.findings();
        let summary = &only(&findings, Kind::Unreachable).summary;
        assert!(summary.contains(says), "{summary}");
    }
}

#[test]
fn a_large_segment_that_never_arrives_is_a_black_hole_and_lost_small_ones_are_not() {
    for (size, holes) in [(1400, 1), (100, 0)] {
        let mut capture = Capture::default();
        let (client, server) = (("10.0.0.9", 4000), ("192.0.2.1", 443));
        capture.connection(0, ("10.0.0.9", 3999), server, &[1; 10], &[1; 10]);
        capture.syn(SECOND, client, server);
        capture.tcp(SECOND + 100, server, client, (500, 101), SYN | ACK, &[]);
        capture.tcp(SECOND + 200, client, server, (101, 501), ACK, &[]);
        for n in 0..6 {
            capture.tcp(SECOND * (2 + (1 << n)), client, server, (101, 501), PUSH, &vec![7; size]);
        }
        let findings = capture.findings();
        let count = findings.list.iter().filter(|finding| finding.kind == Kind::PathMtuBlackHole).count();
        assert_eq!(count, holes, "{:#?}", findings.list);
    }
}

#[test]
fn a_path_that_took_segments_as_large_is_no_black_hole() {
    // As large, smaller, and half of what offload has made of two.
    for (passed, holes) in [(1400, 0), (1300, 1), (700, 0)] {
        let mut capture = Capture::default();
        let (client, server) = (("10.0.0.9", 4000), ("192.0.2.1", 443));
        // Another connection of the same hosts.
        capture.connection(0, ("10.0.0.9", 3999), server, &vec![1; passed], &[1; 10]);
        capture.syn(SECOND, client, server);
        capture.tcp(SECOND + 100, server, client, (500, 101), SYN | ACK, &[]);
        capture.tcp(SECOND + 200, client, server, (101, 501), ACK, &[]);
        for n in 0..6 {
            capture.tcp(SECOND * (2 + (1 << n)), client, server, (101, 501), PUSH, &[7; 1400]);
        }
        let findings = capture.findings();
        let count = findings.list.iter().filter(|finding| finding.kind == Kind::PathMtuBlackHole).count();
        assert_eq!(count, holes, "{:#?}", findings.list);
        // What is lost all the same is told.
        assert_eq!(findings.list.iter().filter(|finding| finding.kind == Kind::TransferStalled).count(), 1 - holes);
    }
}

#[test]
fn one_sided_connections_are_an_asymmetric_path_and_no_scan() {
    let mut capture = Capture::default();
    for n in 0..30u16 {
        let (client, server) = (("10.0.0.9", 40000 + n), ("192.0.2.1", 80));
        capture.syn(u64::from(n) * SECOND, client, server);
        for (number, step) in (0..5).map(|step| (101 + step * 10, u64::from(step) * 1000)) {
            capture.tcp(u64::from(n) * SECOND + 100 + step, client, server, (number, 501 + number), PUSH, &[1; 10]);
        }
    }
    let findings = capture.findings();
    assert_eq!(number(only(&findings, Kind::AsymmetricPath), "flows"), 30.0);
    none(&findings, Kind::Unanswered);
    none(&findings, Kind::SynFlood);
}

#[test]
fn silences_are_judged_by_what_the_flow_is() {
    let (mut stream, mut chat) = (Capture::default(), Capture::default());
    for n in 0..1000u64 {
        let late = if n >= 500 { 2 * SECOND } else { 0 };
        stream.udp(n * 20_000 + late, ("10.0.0.9", 16384), ("10.0.0.2", 16386), &[0; 172]);
        chat.udp(n * 300_000 + late, ("10.0.0.9", 16384), ("10.0.0.2", 16386), &[0; 172]);
    }
    let findings = stream.findings();
    let gap = only(&findings, Kind::StreamGap);
    assert_eq!((number(gap, "silence_ms"), gap.packets.as_slice()), (2020.0, &[501][..]));
    none(&chat.findings(), Kind::StreamGap);
}

#[test]
fn a_burst_stands_out_of_a_quiet_capture() {
    let mut capture = Capture::default();
    for n in 0..100u64 {
        capture.udp(n * 200_000, ("10.0.0.9", 4000), ("10.0.0.2", 5000), &[0; 100]);
    }
    none(&capture.findings(), Kind::Burst);
    for n in 0..2000u64 {
        capture.udp(10 * SECOND + n, ("10.0.0.9", 4001), ("10.0.0.2", 5000), &[0; 1400]);
    }
    assert_eq!(only(&capture.findings(), Kind::Burst).packets, [51]);
}

#[test]
fn findings_beyond_the_most_that_are_listed_are_counted() {
    let mut capture = Capture::default();
    for n in 0..30u16 {
        for attempt in 0..3 {
            let source = format!("10.9.0.{}", n + 1);
            capture.syn(u64::from(n) * SECOND + attempt, (&source, 4000 + attempt as u16), ("10.0.0.2", 1000 + n));
        }
    }
    let thresholds = Thresholds { findings_per_kind: 10, ..Thresholds::default() };
    let findings = capture.findings_with(&thresholds).0;
    assert_eq!((findings.list.len(), findings.left_out[&Kind::Unanswered]), (10, 20));
}
