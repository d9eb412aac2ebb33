//! Who tries ports and hosts without success.

use super::bounded::Bounded;
use super::distinct::Distinct;
use super::ended::{Attempt, Ended};
use super::evidence::Evidence;
use super::finding::{Finding, display, percent};
use super::kind::{Kind, Severity};
use super::thresholds::Thresholds;
use crate::analyzer::Scale;

/// Sources that are followed.
const MAX_SOURCES: usize = 8192;

#[derive(Debug, Default)]
struct Source {
    probes: u64,
    others: u64,
    /// Of the probes: the port is open.
    open: u64,
    refused: u64,
    hosts: Distinct,
    ports: Distinct,
    pairs: Distinct,
    last: ([u8; 16], u16),
    echo: bool,
    evidence: Evidence,
}

/// The sources of connections that led to nothing.
#[derive(Debug)]
pub(super) struct Scans {
    sources: Bounded<[u8; 16], Source>,
}

impl Scans {
    pub(super) fn new(scale: Scale) -> Self {
        Self { sources: Bounded::new(scale.of(MAX_SOURCES)) }
    }

    pub(super) const fn lost(&self) -> u64 {
        self.sources.lost
    }

    pub(super) fn flow(&mut self, ended: &Ended<'_>) {
        if !ended.is_probe() {
            if let Some(source) = self.sources.get_mut(&ended.src) {
                source.others += 1;
            }
            return;
        }
        let Some(source) = self.sources.entry(ended.src, |source| source.probes > 2) else { return };
        let port = if ended.is_echo() { 0 } else { ended.dst_port };
        source.probes += 1;
        source.open += u64::from(matches!(ended.attempt, Some(Attempt::HalfOpen | Attempt::Empty)));
        source.refused += u64::from(ended.attempt == Some(Attempt::Refused));
        source.hosts.add(&ended.dst);
        source.ports.add(&port);
        source.pairs.add(&(ended.dst, port));
        source.last = (ended.dst, port);
        source.echo |= ended.is_echo();
        ended.add_to(&mut source.evidence);
    }

    /// Whether a source is a scanner.
    pub(super) fn is_scanner(&self, source: &[u8; 16], thresholds: &Thresholds) -> bool {
        self.sources.get(source).is_some_and(|source| {
            let (vertical, horizontal) = source.scans(thresholds);
            vertical || horizontal
        })
    }

    pub(super) fn findings(&self, thresholds: &Thresholds, found: &mut Vec<Finding>) {
        for (ip, source) in self.sources.iter() {
            let (vertical, horizontal) = source.scans(thresholds);
            if vertical {
                found.push(source.finding(*ip, Kind::VerticalScan));
            }
            if horizontal {
                found.push(source.finding(*ip, Kind::HorizontalScan));
            }
        }
    }
}

impl Source {
    /// Vertical: many ports of each host; horizontal: the same ports of many hosts. Whoever talks to many peers on a port of their own
    /// each, as file sharing does, does neither.
    fn scans(&self, thresholds: &Thresholds) -> (bool, bool) {
        let (hosts, ports, pairs) = (self.hosts.count().max(1), self.ports.count().max(1), self.pairs.count());
        let failed = percent(self.probes, self.probes + self.others) >= thresholds.port_scan_failed_percent;
        let vertical = ports >= thresholds.port_scan_ports && pairs / hosts >= thresholds.port_scan_ports / 2;
        let horizontal = hosts >= thresholds.port_scan_hosts && pairs / ports >= thresholds.port_scan_hosts / 2;
        (failed && vertical, failed && horizontal)
    }

    fn finding(&self, ip: [u8; 16], kind: Kind) -> Finding {
        let (hosts, ports) = (self.hosts.count().min(self.probes), self.ports.count().min(self.probes));
        let (what, count) = if kind == Kind::VerticalScan { ("ports", ports) } else { ("hosts", hosts) };
        let where_ = match kind {
            _ if hosts == 1 => format!("of {}", display(self.last.0)),
            Kind::VerticalScan => format!("on each of {hosts} hosts"),
            _ if ports == 1 && self.echo => "with ping".to_owned(),
            _ if ports == 1 => format!("on port {}", self.last.1),
            _ => format!("on {ports} ports"),
        };
        let seconds = self.evidence.seconds();
        let duration = if seconds < 0.5 { "within a second".to_owned() } else { format!("in {seconds:.0} s") };
        let summary = format!(
            "{} tried about {count} {what} {where_} {}; {} of {} attempts found something open",
            display(ip),
            duration,
            self.open,
            self.probes,
        );
        // A scan of a few dozen may be a client with a list of servers that are down; one of hundreds is not.
        let confidence = 0.6 + 0.4 * (count as f64 / 200.0).min(1.0);
        let found = Finding::new(kind, Severity::Warning, confidence, &self.evidence)
            .from(ip)
            .with("attempts", self.probes)
            .with("hosts", hosts)
            .with("ports", ports)
            .with("open", self.open)
            .with("refused", self.refused)
            .with("other_flows", self.others)
            .with("failed_percent", percent(self.probes, self.probes + self.others))
            .saying(summary);
        if hosts == 1 { found.to(self.last.0) } else { found }
    }
}
