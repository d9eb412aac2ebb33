//! Beside the programs of others, and nothing left behind.

use std::process::Command;

use aya::programs::{SchedClassifier, TcAttachType};

use crate::{
    exact::{assert_equals_interface, down, pair, up, v4},
    support::{
        capturing::Capturing,
        host::Host,
        service::{Service, wait_for_metric},
        skipped, traffic,
    },
};

/// Ids of the programs on what comes in, in their order.
fn chain(host: &Host) -> Vec<u32> {
    host.run(|| {
        let (_, programs) = SchedClassifier::query_tcx("a0", TcAttachType::Ingress).unwrap();
        programs.iter().map(aya::programs::ProgramInfo::id).collect()
    })
}

#[test]
fn a_chain_has_its_order_every_program_sees_all_and_detaching_takes_only_its_own() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let middle = Capturing::on(&a, &["a0"], &[]);
    let before = chain(&a);
    let first = Capturing::on(&a, &["a0"], &["--tcx-order", "first"]);
    let last = Capturing::on(&a, &["a0"], &["--tcx-order", "last"]);
    let all = chain(&a);
    assert_eq!((all.len(), all[1]), (3, before[0]), "{all:?}");
    up(&a, &b);
    traffic::ping(&a, v4(2), 20, 56);
    down(&a, &b);
    let counters = a.counters("a0");
    for (what, capturing) in [("first", first), ("last", last)] {
        assert_equals_interface(what, &capturing.stop(), counters);
    }
    assert_eq!(chain(&a), before);
    assert_equals_interface("middle", &middle.stop(), counters);
    assert!(chain(&a).is_empty());
}

#[test]
fn without_tcx_filters_of_clsact_count_the_same() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    a.segment_before_wire("a0");
    b.segment_before_wire("b0");
    let capturing = Capturing::on(&a, &["a0"], &["--hook", "clsact"]);
    assert!(chain(&a).is_empty());
    up(&a, &b);
    traffic::ping(&a, v4(2), 20, 56);
    traffic::tcp_stream(&a, &b, v4(2), 1 << 20);
    down(&a, &b);
    let counters = a.counters("a0");
    let result = capturing.stop();
    assert_equals_interface("clsact", &result, counters);
    assert_eq!(filters(&a).unwrap_or_default(), "");
}

/// What `tc` lists; `None` = there is no tc.
fn filters(host: &Host) -> Option<String> {
    host.run(|| {
        let output = Command::new("tc").args(["filter", "show", "dev", "a0", "ingress"]).output().ok()?;
        Some(String::from_utf8(output.stdout).unwrap())
    })
}

#[test]
fn filters_that_a_killed_life_left_are_removed_by_the_next_one_and_those_of_others_stay() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    up(&a, &b);
    if filters(&a).is_none() {
        eprintln!("skipped: there is no tc");
        return;
    }
    let tc = |arguments: &'static str| {
        a.run(move || Command::new("tc").args(arguments.split(' ')).status().unwrap().success())
    };
    let other = "filter add dev a0 ingress prio 77 protocol ip u32 match u32 0 0 classid 1:1";
    if !tc("qdisc add dev a0 clsact") || !tc(other) {
        eprintln!("skipped: this kernel has no other filter");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let count = || filters(&a).unwrap().matches("ethernet_ingress").count();
    let (first, _address) = Service::start_with(&a, directory.path(), &["--hook", "clsact"]);
    assert_eq!(count(), 1);
    first.kill();
    assert_eq!(count(), 1, "filters outlive their process");
    let (second, address) = Service::start_with(&a, directory.path(), &["--hook", "clsact"]);
    assert_eq!(count(), 1);
    traffic::ping(&a, v4(2), 5, 56);
    wait_for_metric(&a, &address, "weir_capture_packets_accounted_total ", |packets| packets >= 10);
    assert!(filters(&a).unwrap().contains("pref 77"), "{:?}", filters(&a));
    second.kill();
}
