//! Records equal counters, exactly.
//!
//! Two independent truths. An interface's own counters, with segmentation offload off: the stack then still hands super-packets of 64 KB to the
//! hook at the sender, and cuts them into real packets just before the interface, which counts those. And, with offload on, where the
//! interface counts super-packets, the sockets' own count of segments (`TCP_INFO`).

use std::net::{IpAddr, Ipv6Addr};

use weir_capture_common::ledger::{Kind, Outcome};
use weir_proto::{EndReason, Flow, ledger_entry};

use crate::support::{
    capturing::{Capturing, Result, Total, dst, src},
    host::{Counters, Host},
    skipped, traffic,
};

const ETHERNET_HEADER: u64 = 14;
/// Of the stream.
const BYTES: usize = 50 << 20;

/// Two hosts on one wire, down.
pub(crate) fn pair() -> (Host, Host) {
    let (a, b) = (Host::new(), Host::new());
    a.wire("a0", &b, "b0");
    for (host, name, number) in [(&a, "a0", 1), (&b, "b0", 2)] {
        host.address(name, &format!("10.77.0.{number}/24"));
        host.address(name, &format!("fd77::{number}/64"));
    }
    (a, b)
}

pub(crate) fn v4(number: u8) -> IpAddr {
    format!("10.77.0.{number}").parse().unwrap()
}

pub(crate) fn v6(number: u8) -> IpAddr {
    format!("fd77::{number}").parse().unwrap()
}

pub(crate) fn up(a: &Host, b: &Host) {
    b.up("b0");
    a.up("a0");
}

pub(crate) fn down(a: &Host, b: &Host) {
    a.down("a0");
    b.down("b0");
}

/// `seen = accounted + ignored + lost`, all that is accounted is in records, and what was seen is what the interface counted.
pub(crate) fn assert_equals_interface(what: &str, result: &Result, (rx, tx): (Counters, Counters)) {
    let ledger = &result.totals.ledger;
    let seen = ledger.entry(Outcome::Seen);
    let sum = |pick: fn(weir_capture_common::ledger::Entry) -> u64| {
        [Kind::Accounted, Kind::Ignored, Kind::Lost].into_iter().map(|kind| pick(ledger.sum(kind))).sum::<u64>()
    };
    assert_eq!(
        (seen.packets, seen.bytes),
        (sum(|entry| entry.packets), sum(|entry| entry.bytes)),
        "{what}: {ledger:?}"
    );
    assert_eq!(rx.dropped, 0, "{what}: the wire dropped packets");
    // What the stack says of itself (ARP, MLD, router solicitations) while the other end goes down passes the hook, and then has no wire: the
    // interface counts it as dropped, without its bytes.
    assert_eq!(seen.packets, rx.packets + tx.packets + tx.dropped, "{what}: {ledger:?}\n{:#?}", result.flows);
    let on_wire = rx.bytes + tx.bytes - ETHERNET_HEADER * (rx.packets + tx.packets);
    let dropped = 28 * tx.dropped..=200 * tx.dropped;
    assert!(dropped.contains(&seen.bytes.wrapping_sub(on_wire)), "{what}: {on_wire} on the wire, {ledger:?}");
    assert_eq!(ledger.entry(Outcome::Duplicate).packets, 0, "{what}: one wire shows each packet once: {ledger:?}");
    let accounted = ledger.entry(Outcome::Accounted);
    assert_eq!((accounted.packets, accounted.bytes), (result.sums().packets, result.sums().bytes), "{what}");
    assert_books(what, result);
}

/// What was told of the one interface is the whole ledger.
fn assert_books(what: &str, result: &Result) {
    let ledger = &result.totals.ledger;
    let interface = result.ledger.first().map(|entry| entry.interface.clone()).unwrap_or_default();
    for (kind, outcome) in [
        (Kind::Seen, ledger_entry::Outcome::Seen),
        (Kind::Accounted, ledger_entry::Outcome::Accounted),
        (Kind::Ignored, ledger_entry::Outcome::Ignored),
        (Kind::Lost, ledger_entry::Outcome::Lost),
    ] {
        let sum = ledger.sum(kind);
        assert_eq!(result.told(&interface, outcome), (sum.packets, sum.bytes), "{what}: {:#?}", result.ledger);
    }
    assert!(result.ledger.iter().all(|entry| entry.interface == interface && entry.packets > 0), "{what}");
}

#[test]
fn records_equal_the_interface_counters_for_every_kind_of_traffic() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    a.segment_before_wire("a0");
    b.segment_before_wire("b0");
    let (at_a, at_b) = (Capturing::on(&a, &["a0"], &[]), Capturing::on(&b, &["b0"], &[]));
    up(&a, &b);

    let mut ports = Vec::new();
    for address in [v4(2), v6(2)] {
        traffic::ping(&a, address, 5, 56);
        traffic::ping(&a, address, 2, 4000);
        ports.push(traffic::udp_echo(&a, &b, address, vec![1, 100, 1400, 5000, 60_000]).1);
        ports.push(traffic::udp_super_packets(&a, &b, address, 1000, 20_500));
        ports.push(traffic::tcp_stream(&a, &b, address, 20 << 20).port);
    }

    down(&a, &b);
    let (counted_a, counted_b) = (a.counters("a0"), b.counters("b0"));
    let (at_a, at_b) = (at_a.stop(), at_b.stop());
    assert_equals_interface("a", &at_a, counted_a);
    assert_equals_interface("b", &at_b, counted_b);
    assert!(counted_a.1.packets > 25_000, "{counted_a:?}");
    // The sender's hook saw what the stack made, the receiver's what the wire carried.
    assert!(at_a.totals.ledger.super_packets > 500, "{:?}", at_a.totals.ledger);
    assert!(at_b.totals.ledger.super_packets < at_a.totals.ledger.super_packets, "{:?}", at_b.totals.ledger);

    for result in [&at_a, &at_b] {
        assert_eq!(result.totals.ledger.fragments_without_ports, 0);
        for (protocol, address) in [(1, v4(2)), (58, v6(2))] {
            let pings = result.total(|flow| flow.protocol == protocol && is_echo(flow) && dst(flow) == address);
            assert_eq!((pings.tx_packets, pings.rx_packets), (5 + 2 * 3, 5 + 2 * 3), "{protocol}: {pings:?}");
        }
        for (port, packets, payload) in [(ports[0], 3 + 4 + 41, 66_501), (ports[3], 3 + 4 + 42, 66_501)] {
            let echo = result.total(|flow| flow.protocol == 17 && flow.dst_port == u32::from(port));
            assert_eq!((echo.tx_packets, echo.rx_packets), (packets, packets), "{echo:?}");
            assert!(echo.tx_bytes > payload && echo.tx_bytes == echo.rx_bytes);
        }
        let burst = result.total(|flow| flow.protocol == 17 && flow.dst_port == u32::from(ports[1]));
        assert_eq!(burst, Total { tx_packets: 21, tx_bytes: 20_500 + 21 * 28, rx_packets: 0, rx_bytes: 0 });
        let burst = result.total(|flow| flow.protocol == 17 && flow.dst_port == u32::from(ports[4]));
        assert_eq!(burst, Total { tx_packets: 21, tx_bytes: 20_500 + 21 * 48, rx_packets: 0, rx_bytes: 0 });
    }
}

/// Type 8 or 128, the request: both directions of a ping are one flow.
fn is_echo(flow: &Flow) -> bool {
    matches!((flow.protocol, flow.src_port), (1, 8) | (58, 128)) && flow.dst_port == 0
}

#[test]
fn a_stream_of_super_packets_equals_what_the_sockets_count() {
    if skipped() {
        return;
    }
    for (big_tcp, address, ip_header) in [(None, v4(2), 20), (None, v6(2), 40), (Some(190_000), v6(2), 40)] {
        let (a, b) = pair();
        if let Some(size) = big_tcp {
            a.big_tcp("a0", size);
            b.big_tcp("b0", size);
        }
        let (at_a, at_b) = (Capturing::on(&a, &["a0"], &[]), Capturing::on(&b, &["b0"], &[]));
        up(&a, &b);
        let sent = traffic::tcp_stream(&a, &b, address, BYTES);
        down(&a, &b);
        let (_, counted) = a.counters("a0");
        for result in [at_a.stop(), at_b.stop()] {
            let of_stream = |flow: &Flow| flow.protocol == 6 && flow.dst_port == u32::from(sent.port);
            let stream = result.total(of_stream);
            let segments = u64::from(sent.client.segs_out);
            assert_eq!(stream.tx_packets, segments, "{address} {big_tcp:?}: {:?}", sent.client);
            // The SYN has 20 bytes of options, all others 12 (timestamps).
            let headers = segments * (ip_header + 32) + 8;
            assert_eq!(stream.tx_bytes, BYTES as u64 + sent.client.bytes_retrans + headers, "{address} {big_tcp:?}");
            // The SYN with ACK was sent before there was a socket that could count it.
            assert_eq!(stream.rx_packets, u64::from(sent.server.segs_out) + 1, "{address}: {:?}", sent.server);
            assert_eq!(result.totals.ledger.sum(Kind::Lost).packets, 0);
            let last = result.flows.iter().rfind(|flow| of_stream(flow)).unwrap();
            assert_eq!(last.end_reason(), EndReason::Fin);
            assert_eq!((src(last), dst(last)), (if address.is_ipv4() { v4(1) } else { v6(1) }, address));
        }
        assert!(
            counted.packets * 10 < u64::from(sent.client.segs_out),
            "the wire carried no super-packets: {counted:?}"
        );
        let mean = counted.bytes / counted.packets;
        eprintln!(
            "{address}: {} segments in {} super-packets, {mean} bytes in the mean",
            sent.client.segs_out, counted.packets
        );
        assert!(big_tcp.is_none() || mean > 65_536, "no BIG TCP: {mean} bytes in the mean");
    }
}

#[test]
fn a_stream_through_a_tunnel_equals_the_counters_of_the_wire_below() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    a.segment_before_wire("a0");
    b.segment_before_wire("b0");
    let (at_a, at_b) = (Capturing::on(&a, &["a0"], &[]), Capturing::on(&b, &["b0"], &[]));
    up(&a, &b);
    a.vxlan("tunnel", "a0", "10.77.0.2");
    b.vxlan("tunnel", "b0", "10.77.0.1");
    for (host, number) in [(&a, 1), (&b, 2)] {
        host.address("tunnel", &format!("10.90.0.{number}/24"));
        host.up("tunnel");
    }
    let sent = traffic::tcp_stream(&a, &b, "10.90.0.2".parse().unwrap(), 10 << 20);
    a.down("tunnel");
    b.down("tunnel");
    down(&a, &b);
    let (counted_a, counted_b) = (a.counters("a0"), b.counters("b0"));
    let (at_a, at_b) = (at_a.stop(), at_b.stop());
    assert_equals_interface("a", &at_a, counted_a);
    assert_equals_interface("b", &at_b, counted_b);
    for (result, interface) in [(&at_a, "a0"), (&at_b, "b0")] {
        let of_stream = |flow: &Flow| flow.tunnel == "vxlan:42" && flow.dst_port == u32::from(sent.port);
        let inner = result.total(of_stream);
        assert_eq!(inner.tx_packets, u64::from(sent.client.segs_out), "{inner:?}");
        // The bytes are those of the wire: outer IP, UDP, VXLAN and Ethernet around each.
        let headers = inner.tx_packets * (20 + 8 + 8 + 14 + 20 + 32) + 8;
        assert_eq!(inner.tx_bytes, (10 << 20) + sent.client.bytes_retrans + headers);
        let flow = result.flows.iter().find(|flow| of_stream(flow)).unwrap();
        assert_eq!((src(flow).to_string(), dst(flow).to_string()), ("10.90.0.1".to_owned(), "10.90.0.2".to_owned()));
        let end = |high, low| Ipv6Addr::from(weir_proto::Ip::new(high, low)).to_canonical();
        assert_eq!(end(flow.tunnel_src_high, flow.tunnel_src_low), v4(1));
        assert_eq!(end(flow.tunnel_dst_high, flow.tunnel_dst_low), v4(2));
        assert_eq!((flow.interface.as_str(), flow.protocol, flow.vlan), (interface, 6, 0));
    }
    assert!(at_a.totals.ledger.super_packets > 100, "{:?}", at_a.totals.ledger);
}
