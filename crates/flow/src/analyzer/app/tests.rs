use std::net::Ipv4Addr;

use weir_proto::{Flow, Http, Tls};

use super::super::{Analyzer, Config, Frame, Record, StreamLimits, Summary};
use crate::packet::LinkType;
use crate::tls::test_hello;

const CLIENT: u8 = 1;
const SERVER: u8 = 2;

/// An IPv4 packet between 10.0.0.`from` and 10.0.0.`to`.
fn ipv4(protocol: u8, from: u8, to: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len() as u16).to_be_bytes();
    let head = [0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, from, 10, 0, 0, to];
    [&head[..], payload].concat()
}

fn udp(from: (u8, u16), to: (u8, u16), payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len() as u16).to_be_bytes();
    let datagram = [&from.1.to_be_bytes()[..], &to.1.to_be_bytes(), &length, &[0, 0], payload].concat();
    ipv4(17, from.0, to.0, &datagram)
}

/// A segment of the connection from port 40000 of the client to `port` of the server.
fn tcp(from_client: bool, port: u16, sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let (ports, from, to) =
        if from_client { ([40_000, port], CLIENT, SERVER) } else { ([port, 40_000], SERVER, CLIENT) };
    let mut segment = ports.map(u16::to_be_bytes).concat();
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    ipv4(6, from, to, &segment)
}

const SYN: u8 = 2;
const ACK: u8 = 16;

struct Rows {
    flows: Vec<Flow>,
    tls: Vec<Tls>,
    http: Vec<Http>,
    summary: Summary,
}

fn analysed(config: Config, packets: &[(u64, Vec<u8>)]) -> Rows {
    let mut analyzer = Analyzer::new(config);
    for (time_us, data) in packets {
        let original_length = data.len() as u32;
        analyzer.packet(&Frame { time_us: *time_us, link_type: LinkType(101), data, original_length, interface: 0 });
    }
    while analyzer.finish_some() {}
    let mut rows = Rows { flows: vec![], tls: vec![], http: vec![], summary: Summary::default() };
    for record in analyzer.take_records() {
        match record {
            Record::Flow(flow) => rows.flows.push(flow),
            Record::Tls(tls) => rows.tls.push(tls),
            Record::Http(http) => rows.http.push(http),
            Record::Dns(_) | Record::Finding(_) => {}
        }
    }
    rows.summary = analyzer.into_summary();
    rows
}

fn rows(packets: &[(u64, Vec<u8>)]) -> Rows {
    analysed(Config::default(), packets)
}

/// The answer to the client that `weir.example` is the server, for 60 s.
fn answer() -> Vec<u8> {
    let mut message = b"\x12\x34\x81\x80\0\x01\0\x01\0\0\0\0\x04weir\x07example\0\0\x01\0\x01".to_vec();
    message.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04\x0a\0\0\x02");
    udp((9, 53), (CLIENT, 5000), &message)
}

fn hello(name: &str) -> Vec<u8> {
    let body = test_hello(name);
    let message = [&[1][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat();
    [&[22, 3, 1][..], &(message.len() as u16).to_be_bytes(), &message].concat()
}

#[test]
fn an_address_has_the_name_under_which_the_client_asked_for_it() {
    let second = 1_000_000;
    let packets = [
        (second, answer()),
        (2 * second, tcp(true, 80, 0, SYN, &[])),
        (3 * second, udp((8, 1000), (SERVER, 1000), b"who never asked")),
        (70 * second, tcp(true, 81, 0, SYN, &[])),
    ];
    let names: Vec<_> = rows(&packets).flows.iter().map(|flow| (flow.dst_port, flow.dst_name.clone())).collect();
    let name = |port| names.iter().find(|entry| entry.0 == port).unwrap().1.as_str();
    assert_eq!((name(80), name(1000), name(81)), ("weir.example", "", ""));
}

#[test]
fn the_name_in_a_hello_is_that_of_the_server_and_a_hello_without_an_answer_is_a_row() {
    let hello = hello("Other.weir.example");
    let (first, second) = hello.split_at(100);
    // The second segment comes first.
    let packets = [
        (1, answer()),
        (2, tcp(true, 443, 9, SYN, &[])),
        (3, tcp(true, 443, 110, ACK, second)),
        (4, tcp(true, 443, 10, ACK, first)),
    ];
    let rows = rows(&packets);
    let flow = rows.flows.iter().find(|flow| flow.dst_port == 443).unwrap();
    assert_eq!((flow.dst_name.as_str(), flow.src_name.as_str(), flow.app.as_str()), ("other.weir.example", "", "tls"));
    assert_eq!((rows.tls.len(), rows.tls[0].sni.as_str(), rows.tls[0].chosen_version), (1, "Other.weir.example", 0));
    assert_eq!((rows.tls[0].time, rows.tls[0].dst_port, rows.tls[0].protocol), (4, 443, 6));
}

#[test]
fn a_hello_that_came_with_a_syn_and_again_behind_it_is_one() {
    let hello = hello("weir.example");
    let rows = rows(&[
        (1, tcp(true, 443, 0, SYN, &hello)),
        (2, tcp(true, 443, 0, SYN, &[])),
        (3, tcp(false, 443, 0, SYN | ACK, &[])),
        (4, tcp(true, 443, 1, ACK, &hello)),
    ]);
    assert_eq!((rows.tls.len(), rows.summary.tls.hellos), (1, 1));
}

#[test]
fn a_response_is_followed_over_bytes_that_were_not_captured() {
    let get = b"GET /1 HTTP/1.1\r\nHost: weir.example\r\n\r\n";
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n";
    let end = head.len() as u32 + 300_000;
    let mut packets = vec![
        (1, tcp(true, 8080, 0, SYN, &[])),
        (2, tcp(false, 8080, 0, SYN | ACK, &[])),
        (3, tcp(true, 8080, 1, ACK, get)),
        (9, tcp(false, 8080, 1, ACK, head)),
    ];
    // The first of the body's segments is missing; the others wait for it until there is no room.
    for at in (1000..300_000).step_by(1000) {
        packets.push((10, tcp(false, 8080, 1 + head.len() as u32 + at, ACK, &[b'x'; 1000])));
    }
    packets.push((20, tcp(true, 8080, 1 + get.len() as u32, ACK, get)));
    packets.push((24, tcp(false, 8080, 1 + end, ACK, b"HTTP/1.1 404 Not Found\r\n\r\n")));
    let rows = rows(&packets);
    let seen: Vec<_> = rows.http.iter().map(|row| (row.status, row.latency_us, row.authority.as_str())).collect();
    assert_eq!(seen, [(Some(200), Some(6), "weir.example"), (Some(404), Some(4), "weir.example")]);
    assert_eq!((rows.summary.http.requests, rows.summary.http.responses), (2, 2));
}

#[test]
fn requests_behind_one_that_was_not_captured_meet_their_responses() {
    let request = |name: u8| format!("GET /{name} HTTP/1.1\r\nHost: weir.example\r\n\r\n").into_bytes();
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let (asked, answered) = (request(0).len() as u32, response.len() as u32);
    let data = |from_client: bool, number: u32| {
        let (sequence, acknowledgement) =
            if from_client { (number * asked, number * answered) } else { (number * answered, (number + 1) * asked) };
        let bytes = if from_client { request(number as u8) } else { response.to_vec() };
        let mut packet = tcp(from_client, 80, 1 + sequence, ACK, &bytes);
        packet[28..32].copy_from_slice(&(1 + acknowledgement).to_be_bytes());
        packet
    };
    let rows = rows(&[
        (1, tcp(true, 80, 0, SYN, &[])),
        (2, tcp(false, 80, 0, SYN | ACK, &[])),
        (10, data(true, 0)),
        (15, data(false, 0)),
        // The second request was not captured, of the third one the response.
        (25, data(false, 1)),
        (30, data(true, 2)),
        (40, data(true, 3)),
        (45, data(false, 3)),
    ]);
    let seen: Vec<_> = rows.http.iter().map(|row| (row.path.as_str(), row.status, row.latency_us)).collect();
    assert_eq!(
        seen,
        [("/0", Some(200), Some(5)), ("", Some(200), None), ("/2", None, None), ("/3", Some(200), Some(5))]
    );
}

#[test]
fn tls_is_found_within_a_tunnel_that_http_or_socks_opened() {
    let hello = hello("weir.example");
    let open: [(&str, &[u8], &[u8]); 3] = [
        ("http", b"CONNECT weir.example:443 HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"),
        ("socks", b"\x05\x01\0", b"\x05\0"),
        ("socks", b"\x04\x01\x01\xbb\x0a\0\0\x02me\0", b"\0\x5a\0\0\0\0\0\0"),
    ];
    for (name, ask, grant) in open {
        let at = 1 + ask.len() as u32;
        let rows = rows(&[
            (1, tcp(true, 1080, 0, SYN, &[])),
            (2, tcp(true, 1080, 1, ACK, ask)),
            (3, tcp(false, 1080, 1, ACK, grant)),
            (4, tcp(true, 1080, at, ACK, &hello)),
        ]);
        assert_eq!((rows.flows[0].app.as_str(), rows.tls.len()), ("tls", 1), "{name}");
        assert_eq!(rows.http.len(), usize::from(name == "http"));
    }
}

/// Whether the client sends it, and what.
type Piece<'a> = (bool, &'a [u8]);

#[test]
fn tls_is_found_where_a_protocol_goes_on_as_it() {
    let hello = hello("weir.example");
    let ask_postgres = &[0, 0, 0, 8, 4, 210, 22, 47];
    let ask_ldap = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
    let ask_rdp = &[3, 0, 0, 19, 14, 0xe0, 0, 0, 0, 0, 0, 1, 0, 8, 0, 3, 0, 0, 0];
    let cases: [(&str, &[Piece<'_>]); 5] = [
        ("postgres", &[(true, ask_postgres), (false, b"S"), (true, &hello)]),
        ("ldap", &[(true, ask_ldap), (false, b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\0\x04\0\x04\0"), (true, &hello)]),
        (
            "rdp",
            &[
                (true, ask_rdp),
                (false, &[3, 0, 0, 19, 14, 0xd0, 0, 0, 18, 52, 0, 2, 0, 8, 0, 1, 0, 0, 0]),
                (true, &hello),
            ],
        ),
        (
            "smtp",
            &[
                (false, b"220 mail.example ESMTP\r\n"),
                (true, b"EHLO a\r\n"),
                (false, b"250 STARTTLS\r\n"),
                (true, b"STARTTLS\r\n"),
                (false, b"220 go on\r\n"),
                (true, &hello[..40]),
                (true, &hello[40..]),
            ],
        ),
        ("nats", &[(false, b"INFO {\"tls_required\":true}\r\n"), (true, &hello)]),
    ];
    for (name, pieces) in cases {
        let mut next = [1, 1];
        let mut packets = vec![(1, tcp(true, 9999, 0, SYN, &[])), (1, tcp(false, 9999, 0, SYN | ACK, &[]))];
        for (time, (from_client, piece)) in (2..).zip(pieces) {
            let sequence = &mut next[usize::from(*from_client)];
            packets.push((time, tcp(*from_client, 9999, *sequence, ACK, piece)));
            *sequence += piece.len() as u32;
        }
        let rows = rows(&packets);
        let seen: Vec<_> = rows.tls.iter().map(|row| row.sni.as_str()).collect();
        assert_eq!((rows.flows[0].app.as_str(), seen), (name, vec!["weir.example"]));
        assert_eq!(rows.flows[0].dst_name, "weir.example");
    }
}

#[test]
fn tls_and_http_are_found_behind_the_header_of_a_balancer() {
    let hello = hello("weir.example");
    let text = b"PROXY TCP4 10.9.9.9 10.0.0.2 40000 443\r\n";
    let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\x09\x09\x09\x0a\0\0\x02\x9c\x40\x01\xbb";
    let get = b"GET / HTTP/1.1\r\nHost: weir.example\r\n\r\n";
    for header in [&text[..], binary] {
        for (app, said) in [("tls", &hello[..]), ("http", get)] {
            let bytes = [header, said].concat();
            // Together, apart, and cut within the header.
            for cut in [bytes.len(), header.len(), 9] {
                let (first, second) = bytes.split_at(cut);
                let rows = rows(&[
                    (1, tcp(true, 443, 0, SYN, &[])),
                    (2, tcp(true, 443, 1, ACK, first)),
                    (3, tcp(true, 443, 1 + cut as u32, ACK, second)),
                ]);
                let names = rows
                    .tls
                    .iter()
                    .map(|row| row.sni.as_str())
                    .chain(rows.http.iter().map(|row| row.authority.as_str()));
                assert_eq!((rows.flows[0].app.as_str(), names.collect::<Vec<_>>()), (app, vec!["weir.example"]));
            }
        }
    }
}

#[test]
fn tls_whose_handshake_was_before_the_capture_is_known_by_its_records() {
    let data = [&[0x17, 3, 3, 0, 40][..], &[7; 40], &[0x17, 3, 3, 0x05, 0xb0], &[9; 100]].concat();
    let alert = [&[0x15, 3, 3, 0, 26][..], &[7; 26]].concat();
    // The next record is none; longer than a record can be; of no version; an alert that is no end.
    let others = [
        [&[0x17, 3, 3, 0, 40][..], &[7; 80]].concat(),
        [&[0x17, 3, 3, 0x50, 0][..], &[7; 80]].concat(),
        [&[0x17, 3, 9, 0, 40][..], &[7; 40]].concat(),
        [&[0x15, 3, 3, 0, 26][..], &[7; 50]].concat(),
    ];
    for (app, piece) in [("tls", data), ("tls", alert)].into_iter().chain(others.map(|other| ("", other))) {
        let rows = rows(&[(1, tcp(true, 443, 1000, ACK, &piece))]);
        assert_eq!((rows.flows[0].app.as_str(), rows.tls.len()), (app, 0), "{piece:?}");
    }
    let mut datagram = vec![23, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 30];
    datagram.extend([7; 30]);
    let rows = rows(&[(1, udp((CLIENT, 5000), (SERVER, 4433), &datagram))]);
    assert_eq!(rows.flows[0].app, "dtls");
}

#[test]
fn datagrams_of_upnp_are_requests_and_a_call_has_its_jitter() {
    let search = b"M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\n\r\n";
    let mut packets = vec![(1, udp((CLIENT, 5000), (SERVER, 1900), search))];
    for number in 0..40u8 {
        let mut packet = vec![0x80, 0, 0, number];
        packet.extend((u32::from(number) * 160).to_be_bytes());
        packet.extend([7; 164]);
        let time = u64::from(number) * 20_000;
        packets.push((time, udp((CLIENT, 6000), (SERVER, 6000), &packet)));
        let late = if number % 2 == 0 { 0 } else { 3000 };
        packets.push((time + late, udp((SERVER, 6000), (CLIENT, 6000), &packet)));
    }
    let rows = rows(&packets);
    assert_eq!((rows.http[0].method.as_str(), rows.http[0].dst_port), ("M-SEARCH", 1900));
    let call = rows.flows.iter().find(|flow| flow.dst_port == 6000).unwrap();
    assert_eq!((call.app.as_str(), call.tx_jitter_us), ("rtp", Some(0)));
    assert!(call.rx_jitter_us.is_some_and(|jitter| (2500..3000).contains(&jitter)), "{:?}", call.rx_jitter_us);
}

#[test]
fn streams_beyond_the_budget_are_counted_as_not_followed() {
    let config = Config { streams: StreamLimits { bytes: 4000 }, ..Config::default() };
    let packets: Vec<_> = (0..50u16)
        .flat_map(|port| {
            [(1, tcp(true, port + 1000, 0, SYN, &[])), (2, tcp(true, port + 1000, 1, ACK, b"GET / HTTP/1.1\r\nHost: "))]
        })
        .collect();
    let rows = analysed(config, &packets);
    assert!(rows.summary.unfollowed_streams > 0);
    assert_eq!(rows.http.len() as u64 + rows.summary.unfollowed_streams, 50);
    assert!(rows.http.iter().all(|row| row.src_ip_low as u32 == u32::from(Ipv4Addr::new(10, 0, 0, 1))));
}
