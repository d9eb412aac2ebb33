//! Names of real flows: what two hosts say to each other is picked in the kernel and read here.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        mpsc::{Receiver, channel},
    },
    time::Instant,
};

use weir_capture::{
    capture::Capture,
    interfaces::{Interface, Selection, link_of},
    picks::{Known, Picks},
    processes::Processes,
};
use weir_proto::{Batch, Flow};
use weir_service::Health;

use crate::{
    exact::{pair, up, v4, v6},
    support::{
        capturing::{DEADLINE, config},
        host::Host,
        skipped,
    },
};

/// A capture with all that the service makes of what it picks.
pub(crate) struct Reading {
    capture: Capture,
    picks: Picks,
    flows: Receiver<Vec<Flow>>,
    rows: Receiver<Batch>,
}

impl Reading {
    pub(crate) fn on(host: &Host, interface: &str) -> Self {
        Self::on_with(host, interface, &[])
    }

    pub(crate) fn on_with(host: &Host, interface: &str, options: &[&str]) -> Self {
        let config = config(&[&["--drain-ended", "100ms"], options].concat());
        let mut capture = host.run(move || Capture::load(&config, &Processes::read()).unwrap());
        let (publish, rows) = channel();
        let known = Arc::new(Known::default());
        let rows_of = Box::new(move |batch| publish.send(batch).is_ok());
        let buffer = capture.take_picks().expect("names are on");
        let picks =
            Picks::start(buffer, capture.seed(), capture.nat(), capture.known_inside(), Arc::clone(&known), rows_of)
                .unwrap();
        let (publish, flows) = channel();
        let names = picks.catch_up();
        let health = Health::default();
        let sink = move |mut flows: Vec<Flow>| {
            names.wait();
            for flow in &mut flows {
                known.name(flow);
            }
            publish.send(flows).is_ok()
        };
        capture.start(Box::new(sink), health.clone(), None).unwrap();
        let interface = Interface { index: host.index(interface), name: interface.to_owned(), link: link_of(1) };
        capture.select(Selection { present: vec![interface], missing: Vec::new() }).unwrap();
        let deadline = Instant::now() + DEADLINE;
        while health.conditions().get("interfaces") != Some(&None) {
            assert!(Instant::now() < deadline, "{:?}", health.conditions());
            std::thread::yield_now();
        }
        Self { capture, picks, flows, rows }
    }

    pub(crate) fn stop(self) -> (Vec<Flow>, Batch) {
        self.capture.stop().unwrap();
        self.picks.stop();
        let mut all = Batch::default();
        for batch in self.rows.try_iter() {
            all.dns.extend(batch.dns);
            all.tls.extend(batch.tls);
            all.http.extend(batch.http);
        }
        (self.flows.try_iter().flatten().collect(), all)
    }
}

/// An answer with the address 192.0.2.9 to whatever one question.
fn answer(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2..4].copy_from_slice(&[0x81, 0x80]);
    answer[6..8].copy_from_slice(&[0, 1]);
    answer.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x09");
    answer
}

fn query(name: &str) -> Vec<u8> {
    let mut query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.extend(b"\x00\x00\x01\x00\x01");
    query
}

pub(crate) fn ask_udp(client: &Host, server: &Host, address: IpAddr, name: &'static str) {
    let (ready, go) = channel();
    let serving = server.spawn(move || {
        let socket = UdpSocket::bind((address, 53)).unwrap();
        ready.send(()).unwrap();
        let mut buffer = [0; 512];
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        socket.send_to(&answer(&buffer[..length]), from).unwrap();
    });
    go.recv().unwrap();
    client.run(move || {
        let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
        let socket = UdpSocket::bind(any).unwrap();
        socket.send_to(&query(name), (address, 53)).unwrap();
        assert!(socket.recv(&mut [0; 512]).unwrap() > 12);
    });
    serving.join().unwrap();
}

/// Sends each of these in a segment of its own, and ends when the server has read all and answered.
pub(crate) fn say(
    client: &Host,
    server: &Host,
    address: IpAddr,
    port: u16,
    segments: Vec<Vec<u8>>,
    reply: Vec<u8>,
) -> u16 {
    let total: usize = segments.iter().map(Vec::len).sum();
    let (ready, go) = channel();
    let (read, next) = channel();
    let serving = server.spawn(move || {
        let listener = TcpListener::bind((address, port)).unwrap();
        ready.send(listener.local_addr().unwrap().port()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let (mut received, mut buffer) = (0, vec![0; 1 << 16]);
        while received < total {
            received += stream.read(&mut buffer).unwrap();
            read.send(received).unwrap();
        }
        stream.write_all(&reply).unwrap();
    });
    let port = go.recv().unwrap();
    client.run(move || {
        let mut stream = TcpStream::connect((address, port)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut sent = 0;
        for segment in segments {
            stream.write_all(&segment).unwrap();
            sent += segment.len();
            // The next one only when this one has arrived: two segments, not one.
            while next.recv().unwrap() < sent {}
        }
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    });
    serving.join().unwrap();
    port
}

/// A client hello in one record; `padding` bytes make it as large as one with a post-quantum key share.
pub(crate) fn hello(server_name: &str, padding: usize) -> Vec<u8> {
    let prefixed = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
    let name = [&[0][..], &prefixed(server_name.as_bytes())].concat();
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &prefixed(body)].concat();
    let extensions =
        [extension(0, &prefixed(&name)), extension(43, &[2, 3, 4]), extension(21, &vec![0; padding])].concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &[0, 2, 0x13, 0x01], &[1, 0], &prefixed(&extensions)].concat();
    let message = [&[1][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat();
    [&[0x16, 3, 1][..], &prefixed(&message)].concat()
}

/// The first two datagrams of a QUIC client, whose hello is too large for one; returns the server's port.
fn greet_quic(client: &Host, server: &Host) -> u16 {
    /// By another implementation, with the server name `quic.example`; each of the two has 1200 bytes.
    const DATAGRAMS: &[u8] = include_bytes!("testdata/quic-hello.bin");
    let server = server.run(|| UdpSocket::bind((v4(2), 0)).unwrap());
    let port = server.local_addr().unwrap().port();
    client.run(move || {
        let socket = UdpSocket::bind((v4(1), 0)).unwrap();
        for datagram in DATAGRAMS.chunks(1200) {
            socket.send_to(datagram, (v4(2), port)).unwrap();
            assert_eq!(server.recv(&mut [0; 2000]).unwrap(), 1200);
        }
    });
    port
}

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn http2_frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_be_bytes()[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

#[test]
fn the_first_requests_of_an_http2_connection_are_rows_with_their_responses() {
    /// `SETTINGS` and `HEADERS`, and in those that they end the headers and the stream.
    const SETTINGS: u8 = 4;
    const HEADERS: u8 = 1;
    const WHOLE: u8 = 5;
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let reading = Reading::on(&b, "b0");
    up(&a, &b);
    let settings = || http2_frame(SETTINGS, 0, 0, &[]);
    // Entries of HPACK's static table (RFC 7541 appendix A): GET, http, and names of literals: path, authority.
    let request = |stream: u8, path: &str| {
        let block = [&[0x82, 0x86, 0x04, path.len() as u8][..], path.as_bytes(), b"\x01\x0ah2.example"].concat();
        http2_frame(HEADERS, WHOLE, stream, &block)
    };
    // 200 and 404.
    let responses =
        [settings(), http2_frame(HEADERS, WHOLE, 1, &[0x88]), http2_frame(HEADERS, WHOLE, 3, &[0x8d])].concat();
    // As many clients do, the preface alone, and a request when there is one.
    let preface = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings()].concat();
    let port = say(&a, &b, v4(2), 0, vec![preface, request(1, "/one"), request(3, "/two")], responses);
    let (flows, rows) = reading.stop();
    let told: Vec<_> = (rows.http.iter())
        .map(|row| {
            (row.method.as_str(), row.authority.as_str(), row.path.as_str(), row.status, row.latency_us.is_some())
        })
        .collect();
    let expected = [("GET", "h2.example", "/one", Some(200), true), ("GET", "h2.example", "/two", Some(404), true)];
    assert_eq!(told, expected);
    let flow = flows.iter().rfind(|flow| flow.dst_port == u32::from(port)).unwrap();
    assert!(flow.app == "http" && rows.http.iter().all(|row| row.flow_id == flow.flow_id), "{flow:#?}");
}

#[test]
fn exchanges_and_hellos_are_rows_with_the_ids_of_their_flows() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let reading = Reading::on(&a, "a0");
    up(&a, &b);
    ask_udp(&a, &b, v4(2), "four.example");
    ask_udp(&a, &b, v6(2), "six.example");
    let framed = |message: Vec<u8>| [&(message.len() as u16).to_be_bytes()[..], &message].concat();
    say(&a, &b, v4(2), 53, vec![framed(query("tcp.example"))], framed(answer(&query("tcp.example"))));
    let small = say(&a, &b, v4(2), 0, vec![hello("small.example", 10)], b"\x15\x03\x03\x00\x02\x02\x28".to_vec());
    // Out at once as one super-packet, and in pieces.
    let large = say(&a, &b, v6(2), 0, vec![hello("large.example", 2500)], vec![]);
    let whole = hello("split.example", 3000);
    let pieces = whole.chunks(700).map(<[u8]>::to_vec).collect();
    let split = say(&a, &b, v4(2), 0, pieces, vec![]);
    // The header of the record alone, and less than that at the end.
    let whole = hello("header.example", 300);
    let header = say(&a, &b, v4(2), 0, vec![whole[..5].to_vec(), whole[5..].to_vec()], vec![]);
    let whole = hello("tail.example", 300);
    let (most, rest) = whole.split_at(whole.len() - 3);
    let tail = say(&a, &b, v4(2), 0, vec![most.to_vec(), rest.to_vec()], vec![]);
    let quic = greet_quic(&a, &b);
    let http = say(
        &a,
        &b,
        v4(2),
        0,
        vec![b"GET /x HTTP/1.1\r\nHost: h.example\r\n\r\n".to_vec()],
        b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
    );
    let ssh = say(&a, &b, v4(2), 0, vec![b"SSH-2.0-test\r\n".to_vec()], b"SSH-2.0-test\r\n".to_vec());
    let other = say(&a, &b, v4(2), 0, vec![b"hello, who are you?".to_vec()], vec![]);

    let (flows, rows) = reading.stop();
    let named: Vec<_> =
        rows.dns.iter().map(|row| (row.qname.as_str(), row.answers.len(), row.latency_us.is_some())).collect();
    assert_eq!(named, [("four.example", 1, true), ("six.example", 1, true), ("tcp.example", 1, true)]);
    let named: Vec<_> = rows.tls.iter().map(|row| (row.sni.as_str(), row.dst_port)).collect();
    assert_eq!(
        named,
        [
            ("small.example", small.into()),
            ("large.example", large.into()),
            ("split.example", split.into()),
            ("header.example", header.into()),
            ("tail.example", tail.into()),
            ("quic.example", quic.into()),
        ]
    );
    // The last record: one before the hello was there has no name.
    let of = |id: u64| flows.iter().rfind(|flow| flow.flow_id == id).unwrap_or_else(|| panic!("no flow {id}"));
    for row in &rows.tls {
        let flow = of(row.flow_id);
        let app = if row.protocol == 17 { "quic" } else { "tls" };
        assert_eq!((flow.app.as_str(), &flow.dst_name, flow.src_port), (app, &row.sni, row.src_port));
    }
    for row in &rows.dns {
        let flow = of(row.flow_id);
        assert_eq!((flow.app.as_str(), flow.dst_port, flow.src_port), ("dns", 53, row.src_port));
    }
    let requests: Vec<_> = (rows.http.iter())
        .map(|row| {
            (row.method.as_str(), row.authority.as_str(), row.path.as_str(), row.status, row.latency_us.is_some())
        })
        .collect();
    assert_eq!(requests, [("GET", "h.example", "/x", Some(204), true)]);
    assert_eq!(of(rows.http[0].flow_id).dst_port, u32::from(http));
    let app = |port: u16| flows.iter().rfind(|flow| flow.dst_port == u32::from(port)).map(|flow| flow.app.as_str());
    assert_eq!((app(http), app(ssh), app(other)), (Some("http"), Some("ssh"), Some("")));
}
