//! Capturing on a host, with the records in a list instead of on the bus.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use clap::Parser as _;
use weir_capture::{
    Config,
    capture::{Capture, Sizing, Totals},
    interfaces::{Interface, Selection, link_of},
    metrics::Sums,
    processes::Processes,
};
use weir_proto::{Batch, Flow, LedgerEntry, ledger_entry::Outcome};
use weir_service::Health;

use super::host::Host;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Capturing {
    capture: Capture,
    records: Receiver<Vec<Flow>>,
    books: Receiver<Batch>,
    pub(crate) health: Health,
    pub(crate) flows: Vec<Flow>,
}

/// What a capture left.
pub(crate) struct Result {
    pub(crate) flows: Vec<Flow>,
    pub(crate) ledger: Vec<LedgerEntry>,
    pub(crate) totals: Totals,
}

pub(crate) fn config(options: &[&str]) -> Config {
    Config::try_parse_from([&["weir-capture"], options].concat()).unwrap()
}

impl Capturing {
    /// Captures on these interfaces of a host; returns when the programs are attached.
    pub(crate) fn on(host: &Host, interfaces: &[&str], options: &[&str]) -> Self {
        let this = Self::idle(host, options);
        let present = interfaces
            .iter()
            .map(|&name| Interface { index: host.index(name), name: name.to_owned(), link: link_of(1) })
            .collect();
        this.select(Selection { present, missing: Vec::new() });
        this.wait_until_attached();
        this
    }

    /// Captures on nothing yet.
    pub(crate) fn idle(host: &Host, options: &[&str]) -> Self {
        let config = config(options);
        let (publish, records) = channel();
        let health = Health::default();
        let capture = host.run(move || Capture::load(&config, &Processes::read()).unwrap());
        capture.start(Box::new(move |flows| publish.send(flows).is_ok()), health.clone(), None).unwrap();
        let (keep, books) = channel();
        capture.keep_books(Box::new(move |batch| keep.send(batch).is_ok())).unwrap();
        Self { capture, records, books, health, flows: Vec::new() }
    }

    pub(crate) fn select(&self, selection: Selection) {
        self.capture.select(selection).unwrap();
    }

    /// Gives the table another size, soon.
    pub(crate) fn resize(&self, max_flows: u32) {
        self.capture.resize(Sizing { max_flows, limit: max_flows }).unwrap();
    }

    pub(crate) fn wait_until_attached(&self) {
        let deadline = Instant::now() + DEADLINE;
        while self.health.conditions().get("interfaces") != Some(&None) {
            assert!(Instant::now() < deadline, "not attached: {:?}", self.health.conditions());
            std::thread::yield_now();
        }
    }

    /// Waits for records until some have come that satisfy.
    pub(crate) fn wait_for(&mut self, what: &str, satisfied: impl Fn(&[Flow]) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !satisfied(&self.flows) {
            let left = deadline.saturating_duration_since(Instant::now());
            let more = self.records.recv_timeout(left);
            let more = more.unwrap_or_else(|_| panic!("no {what} among {:#?}", self.flows));
            self.flows.extend(more);
        }
    }

    /// Detaches and takes the rest.
    pub(crate) fn stop(mut self) -> Result {
        let totals = self.capture.stop().unwrap();
        self.flows.extend(self.records.try_iter().flatten());
        let ledger = self.books.try_iter().flat_map(|batch| batch.capture_ledger).collect();
        Result { flows: self.flows, ledger, totals }
    }
}

impl Result {
    pub(crate) fn sums(&self) -> Sums {
        Sums::of(&self.flows)
    }

    /// Packets and bytes of the ledger's records of an interface with an outcome.
    pub(crate) fn told(&self, interface: &str, outcome: Outcome) -> (u64, u64) {
        let told = self.ledger.iter().filter(|entry| entry.interface == interface && entry.outcome() == outcome);
        told.fold((0, 0), |sum, entry| (sum.0 + entry.packets, sum.1 + entry.bytes))
    }

    /// Sums of the records that satisfy: packets and bytes there and back.
    pub(crate) fn total(&self, satisfied: impl Fn(&Flow) -> bool) -> Total {
        total(self.flows.iter().filter(|flow| satisfied(flow)))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) tx_packets: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
}

pub(crate) fn total<'a>(flows: impl Iterator<Item = &'a Flow>) -> Total {
    flows.fold(Total::default(), |total, flow| Total {
        tx_packets: total.tx_packets + flow.tx_packets,
        tx_bytes: total.tx_bytes + flow.tx_bytes,
        rx_packets: total.rx_packets + flow.rx_packets,
        rx_bytes: total.rx_bytes + flow.rx_bytes,
    })
}

pub(crate) fn src(flow: &Flow) -> IpAddr {
    Ipv6Addr::from(weir_proto::Ip::new(flow.src_ip_high, flow.src_ip_low)).to_canonical()
}

pub(crate) fn dst(flow: &Flow) -> IpAddr {
    Ipv6Addr::from(weir_proto::Ip::new(flow.dst_ip_high, flow.dst_ip_low)).to_canonical()
}
