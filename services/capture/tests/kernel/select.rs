//! Filters and samples: what is left out is counted, and a flow is in or out as a whole.

use std::{collections::BTreeMap, net::SocketAddr};

use weir_capture_common::ledger::{Kind, Outcome};
use weir_proto::Flow;

use crate::{
    exact::{assert_equals_interface, down, pair, up, v4, v6},
    support::{
        capturing::{Capturing, dst},
        skipped, traffic,
    },
};

#[test]
fn a_filter_keeps_what_it_accepts_and_the_rest_is_ignored_and_counted() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let options =
        ["--include", "port in (4000, 4001) or ip in fd77::/64 and protocol = udp", "--exclude", "port = 4001"];
    let capturing = Capturing::on(&a, &["a0"], &options);
    up(&a, &b);
    for (address, port) in [(v4(2), 4000), (v4(2), 4001), (v4(2), 4002), (v6(2), 4003)] {
        traffic::udp_to_nowhere(&a, SocketAddr::new(address, port), 10);
    }
    traffic::ping(&a, v4(2), 5, 56);
    down(&a, &b);
    let counters = a.counters("a0");
    let result = capturing.stop();
    assert_equals_interface("a", &result, counters);
    let to = |port: u32| result.total(|flow| flow.dst_port == port && flow.protocol == 17).tx_packets;
    assert_eq!((to(4000), to(4001), to(4002), to(4003)), (10, 0, 0, 10));
    assert!(result.flows.iter().all(|flow| flow.protocol == 17), "{:#?}", result.flows);
    let filtered = result.totals.ledger.entry(Outcome::Filtered);
    assert!(filtered.packets >= 30, "{filtered:?}");
    assert_eq!(result.totals.ledger.sum(Kind::Lost).packets, 0);
}

#[test]
fn an_allowed_prefix_and_an_interface_choose() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let allowed = Capturing::on(&a, &["a0"], &["--allow", "10.77.0.2/32"]);
    let elsewhere = Capturing::on(&b, &["b0"], &["--include", "interface = a0"]);
    up(&a, &b);
    // The neighbours are known.
    traffic::ping(&a, v4(2), 1, 56);
    traffic::ping(&a, v6(2), 1, 56);
    traffic::udp_to_nowhere(&a, SocketAddr::new(v4(2), 4000), 3);
    traffic::udp_to_nowhere(&a, SocketAddr::new(v6(2), 4000), 3);
    down(&a, &b);
    let (allowed, elsewhere) = (allowed.stop(), elsewhere.stop());
    assert_eq!(allowed.total(|flow| flow.protocol == 17 && dst(flow) == v4(2)).tx_packets, 3);
    assert_eq!(allowed.total(|flow| dst(flow) == v6(2)).tx_packets, 0);
    assert!(elsewhere.flows.is_empty(), "{:#?}", elsewhere.flows);
    assert!(elsewhere.totals.ledger.entry(Outcome::Filtered).packets >= 6);
}

/// Of the sample test, each with four packets each way: one, and three fragments.
const FLOWS: usize = 90;

#[test]
fn a_sample_has_whole_flows_in_both_directions_and_with_their_fragments() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let capturing = Capturing::on(&a, &["a0"], &["--sample", "3"]);
    up(&a, &b);
    for _ in 0..FLOWS {
        traffic::udp_echo(&a, &b, v4(2), vec![100, 4000]);
    }
    down(&a, &b);
    let counters = a.counters("a0");
    let result = capturing.stop();
    assert_equals_interface("a", &result, counters);
    let mut packets: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    let echoes = |flow: &&Flow| flow.protocol == 17 && flow.dst_port > 1024 && dst(flow) == v4(2);
    for flow in result.flows.iter().filter(echoes) {
        let sums = packets.entry(flow.flow_id).or_default();
        *sums = (sums.0 + flow.tx_packets, sums.1 + flow.rx_packets);
    }
    assert!(packets.values().all(|sums| *sums == (4, 4)), "{packets:?}");
    assert!((10..=55).contains(&packets.len()), "{} of {FLOWS}", packets.len());
    assert!(result.totals.ledger.entry(Outcome::NotSampled).packets >= 8 * (FLOWS - packets.len()) as u64);
    assert_eq!(result.totals.ledger.fragments_without_ports, 0);
}
