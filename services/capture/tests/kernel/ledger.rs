//! Nothing is lost silently: a full table, forwarded packets, flows that come and go while the table is drained.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::mpsc::channel,
};

use weir_capture_common::ledger::{Kind, Outcome};
use weir_proto::{EndReason, ledger_entry::Outcome as Told};

use crate::{
    exact::{assert_equals_interface, down, pair, up, v4, v6},
    support::{
        capturing::{Capturing, dst, src},
        host::Host,
        skipped, traffic,
    },
};

/// Clients at one time, and how often each connects.
const THREADS: u16 = 4;
const CONNECTIONS: usize = 500;

#[test]
fn packets_that_find_no_room_count_by_protocol_and_port_and_what_is_lost_is_counted() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let capturing = Capturing::on(
        &a,
        &["a0"],
        &["--overflow-buffer", "0", "--max-flows", "20", "--drain-ended", "30s", "--drain-active", "30s"],
    );
    up(&a, &b);
    // The wire works, and the neighbour is known.
    traffic::ping(&a, v4(2), 1, 56);
    traffic::udp_to_nowhere(&a, SocketAddr::new(v4(2), 9), 100);
    // More ports than there is room for sums.
    for port in 100..120 {
        traffic::udp_to_nowhere(&a, SocketAddr::new(v4(2), port), 1);
    }
    down(&a, &b);
    let counted = a.counters("a0");
    let result = capturing.stop();
    assert_equals_interface("full", &result, counted);
    let ledger = &result.totals.ledger;
    let sums: Vec<_> = result.flows.iter().filter(|flow| dst(flow).is_unspecified()).collect();
    let overflow: u64 = sums.iter().map(|flow| flow.tx_packets).sum();
    assert_eq!(overflow, ledger.overflow, "{ledger:?}");
    let port = sums
        .iter()
        .find(|flow| (flow.protocol, flow.dst_port) == (17, 9))
        .unwrap_or_else(|| panic!("{ledger:?} {sums:#?}"));
    assert!(port.tx_packets >= 80 && src(port).is_unspecified() && port.interface == "a0", "{port:#?}");
    let lost = ledger.entry(Outcome::TableFull);
    assert!(lost.packets >= 10, "{ledger:?}");
    assert_eq!(ledger.sum(Kind::Lost), lost);
    assert_eq!(result.flows.len(), 20 + 8);
}

#[test]
fn flows_that_find_no_room_are_exact_as_long_as_the_buffer_has_room() {
    const FLOWS: u16 = 3000;
    if skipped() {
        return;
    }
    let (a, b) = pair();
    a.segment_before_wire("a0");
    b.segment_before_wire("b0");
    let options = ["--max-flows", "20", "--drain-ended", "200ms", "--drain-active", "400ms"];
    let mut capturing = Capturing::on(&a, &["a0"], &options);
    up(&a, &b);
    traffic::ping(&a, v4(2), 1, 56);
    // As many packets of each port as its last digits say, in rounds: every flow goes on while others come.
    a.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for round in 0..5 {
            for port in (1000..1000 + FLOWS).filter(|port| port % 5 >= round) {
                // Err = the other end has said that nobody listens.
                while socket.send_to(&[3; 50], SocketAddr::new(v4(2), port)).is_err() {}
            }
        }
    });
    // The table recovers: what is quiet makes room, and a flow is one with all that its slot tells.
    capturing
        .wait_for("flows without room", |flows| flows.iter().any(|flow| flow.dst_port == 1000 + u32::from(FLOWS) - 1));
    let sent = traffic::tcp_stream(&a, &b, v4(2), 100_000);
    down(&a, &b);
    let counted = a.counters("a0");
    let result = capturing.stop();
    assert_equals_interface("spilled", &result, counted);
    let ledger = &result.totals.ledger;
    assert!(ledger.spilled > u64::from(FLOWS) * 2, "{ledger:?}");
    assert_eq!((ledger.overflow, ledger.sum(Kind::Lost).packets), (0, 0), "{ledger:?}");
    for port in 1000..1000 + FLOWS {
        let flow = result.total(|flow| (flow.protocol, flow.dst_port) == (17, u32::from(port)) && dst(flow) == v4(2));
        let packets = u64::from(port % 5) + 1;
        assert_eq!((flow.tx_packets, flow.tx_bytes), (packets, packets * 78), "port {port}");
    }
    let stream = result.total(|flow| flow.protocol == 6 && flow.dst_port == u32::from(sent.port));
    assert_eq!(stream.tx_packets, u64::from(sent.client.segs_out));
}

#[test]
fn a_forwarded_packet_counts_once() {
    if skipped() {
        return;
    }
    let (a, router, b) = (Host::new(), Host::new(), Host::new());
    a.wire("a0", &router, "left");
    router.wire("right", &b, "b0");
    router.sysctl("ipv4/ip_forward", "1");
    for (host, name, address, gateway) in [
        (&a, "a0", "10.78.1.1/24", Some("10.78.1.254")),
        (&router, "left", "10.78.1.254/24", None),
        (&router, "right", "10.78.2.254/24", None),
        (&b, "b0", "10.78.2.1/24", Some("10.78.2.254")),
    ] {
        host.address(name, address);
        host.up(name);
        if let Some(gateway) = gateway {
            host.default_route(gateway);
        }
    }
    let server: IpAddr = "10.78.2.1".parse().unwrap();
    let capturing = Capturing::on(&router, &["left", "right"], &[]);
    traffic::ping(&a, server, 10, 100);
    let sent = traffic::tcp_stream(&a, &b, server, 5 << 20);
    let result = capturing.stop();

    let pings = result.total(|flow| flow.protocol == 1 && flow.src_port == 8);
    assert_eq!((pings.tx_packets, pings.rx_packets), (10, 10));
    assert_eq!((pings.tx_bytes, pings.rx_bytes), (10 * 128, 10 * 128));
    let stream = result.total(|flow| flow.dst_port == u32::from(sent.port));
    assert_eq!(stream.tx_packets, u64::from(sent.client.segs_out));
    assert_eq!(stream.rx_packets, u64::from(sent.server.segs_out) + 1);
    let flow = result.flows.iter().find(|flow| flow.dst_port == u32::from(sent.port)).unwrap();
    assert_eq!(flow.interface, "left", "the interface is the one that the initiator's packets come in at");
    // The other interface is named beside it.
    assert_eq!(flow.interfaces, ["right"]);
    // By interface: both saw them, and one of them accounts for each.
    for interface in ["left", "right"] {
        let [seen, accounted, ignored] =
            [Told::Seen, Told::Accounted, Told::Ignored].map(|outcome| result.told(interface, outcome).0);
        assert_eq!(seen, accounted + ignored, "{interface}: {:#?}", result.ledger);
        assert!(accounted >= 10 + stream.tx_packets.min(stream.rx_packets), "{interface}: {:#?}", result.ledger);
    }
    let all: u64 = ["left", "right"].map(|interface| result.told(interface, Told::Seen).0).iter().sum();
    assert_eq!(all, result.totals.ledger.entry(Outcome::Seen).packets);
    // Each of these packets was seen twice.
    let duplicates = result.totals.ledger.entry(Outcome::Duplicate).packets;
    assert!(duplicates >= 20 + stream.tx_packets + stream.rx_packets, "{:?}", result.totals.ledger);
}

#[test]
fn the_loopback_counts_each_packet_once() {
    if skipped() {
        return;
    }
    let host = Host::new();
    let capturing = Capturing::on(&host, &["lo"], &[]);
    let sent = traffic::tcp_stream(&host, &host, "127.0.0.1".parse().unwrap(), 3 << 20);
    let result = capturing.stop();
    let stream = result.total(|flow| flow.dst_port == u32::from(sent.port));
    assert_eq!(stream.tx_packets, u64::from(sent.client.segs_out));
    assert_eq!(stream.rx_packets, u64::from(sent.server.segs_out) + 1);
}

#[test]
fn no_packet_is_lost_while_flows_end_and_slots_are_used_again() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    a.segment_before_wire("a0");
    b.segment_before_wire("b0");
    // Idle flows end while their packets still come, and slots go round as fast as they can.
    let options = ["--max-flows", "3000", "--drain-ended", "50ms", "--drain-active", "50ms", "--idle-udp", "1ms"];
    let at_a = Capturing::on(&a, &["a0"], &options);
    let at_b = Capturing::on(&b, &["b0"], &options);
    up(&a, &b);
    let (ready, address) = channel();
    let serving = b.spawn(move || {
        let listener = TcpListener::bind((v6(2), 0)).unwrap();
        ready.send(listener.local_addr().unwrap()).unwrap();
        for _ in 0..usize::from(THREADS) * CONNECTIONS {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 100];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&[1; 3000]).unwrap();
            // The client closes first and waits out its port: no two connections have the same ports.
            assert_eq!(stream.read(&mut request).unwrap(), 0);
        }
    });
    let address = address.recv().unwrap();
    let clients: Vec<_> = (0..THREADS)
        .map(|_| {
            a.spawn(move || {
                let datagrams = UdpSocket::bind("0.0.0.0:0").unwrap();
                for _ in 0..CONNECTIONS {
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.write_all(&[2; 100]).unwrap();
                    stream.read_exact(&mut [0; 3000]).unwrap();
                    drop(stream);
                    datagrams.send_to(&[3; 50], SocketAddr::new(v4(2), 9)).unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    serving.join().unwrap();
    down(&a, &b);
    let (counted_a, counted_b) = (a.counters("a0"), b.counters("b0"));
    for (what, result, counted) in [("a", at_a.stop(), counted_a), ("b", at_b.stop(), counted_b)] {
        assert_equals_interface(what, &result, counted);
        assert_eq!(result.totals.ledger.sum(Kind::Lost).packets, 0, "{what}: {:?}", result.totals.ledger);
        assert!(result.totals.ledger.flows_opened > 2000, "{what}: {:?}", result.totals.ledger);
        // A connection is one flow: it began at the client, and ended with a FIN.
        let of_clients = |flow: &&weir_proto::Flow| flow.protocol == 6 && flow.dst_port == u32::from(address.port());
        assert!(result.flows.iter().filter(of_clients).all(|flow| (src(flow), dst(flow)) == (v6(1), v6(2))));
        let finished = result.flows.iter().filter(of_clients).filter(|flow| flow.end_reason() == EndReason::Fin);
        assert_eq!(finished.count(), usize::from(THREADS) * CONNECTIONS, "{what}");
    }
}

#[test]
fn a_long_flow_is_several_records_with_one_id() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let mut capturing = Capturing::on(&a, &["a0"], &["--drain-ended", "50ms", "--drain-active", "100ms"]);
    up(&a, &b);
    let of_pings = |flow: &weir_proto::Flow| flow.protocol == 1 && flow.src_port == 8;
    for round in 1..=3 {
        traffic::ping(&a, v4(2), 1, 56);
        capturing.wait_for("ping", |flows| flows.iter().filter(|flow| of_pings(flow)).count() == round);
    }
    let result = capturing.stop();
    let mut records: Vec<_> = result.flows.iter().filter(|flow| of_pings(flow)).collect();
    assert_eq!(records.pop().unwrap().end_reason(), EndReason::Eof);
    assert_eq!(records.len(), 3);
    for pair in records.windows(2) {
        assert_eq!(pair[0].flow_id, pair[1].flow_id);
        assert!(pair[0].end_time < pair[1].start_time);
    }
    assert!(records.iter().all(|record| (record.tx_packets, record.rx_packets) == (1, 1)));
}
