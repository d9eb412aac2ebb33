//! Interfaces come and go.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use weir_capture::interfaces::{self, Network};
use weir_proto::Flow;
use weir_service::Shutdown;

use crate::support::{
    capturing::{Capturing, Total, dst, total},
    host::Host,
    skipped, traffic,
};

/// Follows a host's interfaces as the service does, and hands what it selects to the capture.
struct Following {
    shutdown: Shutdown,
    done: Arc<AtomicBool>,
    thread: JoinHandle<Capturing>,
}

impl Following {
    fn start(host: &Host, patterns: &[&str], capturing: Capturing) -> Self {
        let patterns: Vec<_> = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let (shutdown, done) = (Shutdown::new(), Arc::new(AtomicBool::new(false)));
        let (stop, ended) = (shutdown.clone(), Arc::clone(&done));
        let thread = host.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (sender, mut changes) = tokio::sync::watch::channel(Network::default());
                let watching = tokio::spawn(interfaces::watch(sender, stop));
                while changes.changed().await.is_ok() {
                    capturing.select(interfaces::select(&patterns, &changes.borrow_and_update()));
                }
                watching.await.unwrap().unwrap();
            });
            ended.store(true, Ordering::Release);
            capturing
        });
        Self { shutdown, done, thread }
    }

    fn stop(self) -> Capturing {
        self.shutdown.cancel();
        let capturing = self.thread.join().unwrap();
        assert!(self.done.load(Ordering::Acquire));
        capturing
    }
}

/// Waits until the readiness condition says this.
fn wait_for_condition(health: &weir_service::Health, satisfied: impl Fn(Option<&str>) -> bool) {
    let deadline = std::time::Instant::now() + crate::support::capturing::DEADLINE;
    loop {
        let conditions = health.conditions();
        if conditions.get("interfaces").is_some_and(|reason| satisfied(reason.as_deref())) {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{conditions:?}");
        std::thread::yield_now();
    }
}

fn pings(flows: &[Flow], interface: &str) -> Total {
    total(flows.iter().filter(|flow| flow.protocol == 1 && flow.src_port == 8 && flow.interface == interface))
}

fn wire(a: &Host, b: &Host) {
    a.wire("a0", b, "b0");
    a.address("a0", "10.80.0.1/24");
    b.address("b0", "10.80.0.2/24");
}

fn up(a: &Host, b: &Host) {
    b.up("b0");
    a.up("a0");
}

#[test]
fn a_name_is_waited_for_and_found_again_under_another_index() {
    if skipped() {
        return;
    }
    let (a, b) = (Host::new(), Host::new());
    let capturing = Capturing::idle(&a, &["--drain-ended", "50ms", "--drain-active", "50ms"]);
    let health = capturing.health.clone();
    let following = Following::start(&a, &["a0"], capturing);
    wait_for_condition(&health, |reason| reason == Some("waiting for a0"));

    wire(&a, &b);
    wait_for_condition(&health, |reason| reason.is_none());
    let first = a.index("a0");
    up(&a, &b);
    traffic::ping(&a, "10.80.0.2".parse().unwrap(), 3, 56);
    a.delete("a0");
    wait_for_condition(&health, |reason| reason == Some("waiting for a0"));

    wire(&a, &b);
    wait_for_condition(&health, |reason| reason.is_none());
    assert_ne!(a.index("a0"), first);
    up(&a, &b);
    traffic::ping(&a, "10.80.0.2".parse().unwrap(), 4, 56);

    let result = following.stop().stop();
    let total = pings(&result.flows, "a0");
    assert_eq!((total.tx_packets, total.rx_packets), (7, 7), "{:#?}", result.flows);
}

#[test]
fn without_names_the_default_route_is_followed() {
    if skipped() {
        return;
    }
    let (a, b) = (Host::new(), Host::new());
    wire(&a, &b);
    up(&a, &b);
    let capturing = Capturing::idle(&a, &[]);
    let health = capturing.health.clone();
    let following = Following::start(&a, &[], capturing);
    wait_for_condition(&health, |reason| reason == Some("waiting for a default route"));
    a.default_route("10.80.0.2");
    wait_for_condition(&health, |reason| reason.is_none());
    traffic::ping(&a, "10.80.0.2".parse().unwrap(), 2, 56);
    let result = following.stop().stop();
    assert_eq!(pings(&result.flows, "a0").tx_packets, 2);
}

#[test]
fn containers_with_a_device_of_their_own_are_seen_on_the_one_below() {
    if skipped() {
        return;
    }
    let (a, b, containers) = (Host::new(), Host::new(), [Host::new(), Host::new()]);
    wire(&a, &b);
    up(&a, &b);
    for (number, container) in containers.iter().enumerate() {
        let name = format!("m{number}");
        a.macvlan(&name, "a0", container);
        container.address(&name, &format!("10.80.0.{}/24", 10 + number));
        container.up(&name);
    }
    let capturing = Capturing::on(&a, &["a0"], &[]);
    // To the wire, and to each other, which does not leave the host.
    traffic::ping(&containers[0], "10.80.0.2".parse().unwrap(), 3, 56);
    traffic::ping(&containers[0], "10.80.0.11".parse().unwrap(), 4, 56);
    let result = capturing.stop();
    for (to, count) in [("10.80.0.2", 3), ("10.80.0.11", 4)] {
        let to: std::net::IpAddr = to.parse().unwrap();
        let of_pings = |flow: &Flow| (flow.protocol, flow.src_port) == (1, 8) && dst(flow) == to;
        let total = result.total(of_pings);
        assert_eq!((total.tx_packets, total.rx_packets), (count, count), "{to}: {:#?}", result.flows);
    }
}
