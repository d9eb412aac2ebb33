//! What an analysis saw in all: the figures of a report.

use std::collections::BTreeMap;

use weir_proto::{Dns, Flow, Http, Tls};

use super::{Frame, Scale};
use crate::dns::Message;
use crate::findings::Findings;
use crate::packet::ip::protocol;
use crate::packet::{IpPacket, LinkType, Unanalysed};
use crate::statistics::{Bursts, Series};
use crate::table::Table;
use crate::tracker::Finished;

mod tcp;

pub use tcp::TcpSummary;

/// What can be counted apart, within a bound; what comes after that many is counted together.
pub trait Countable: std::hash::Hash + Eq + Ord + Clone {
    /// How many are counted apart at most.
    const MAX_DISTINCT: usize;
}

impl Countable for [u8; 16] {
    const MAX_DISTINCT: usize = 200_000;
}

/// Two addresses.
impl Countable for ([u8; 16], [u8; 16]) {
    const MAX_DISTINCT: usize = 100_000;
}

impl Countable for Service {
    const MAX_DISTINCT: usize = 10_000;
}

/// What a flow is used for: the protocol that was seen in it, else the port of the responder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// A protocol that was seen, for example `tls`.
    App(&'static str),
    /// IANA number of the protocol and port; 0 where it has no ports.
    Port(u8, u16),
}

/// A name has up to a kilobyte.
impl Countable for String {
    const MAX_DISTINCT: usize = 20_000;
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Flows; 0 where packets are counted and not flows.
    pub flows: u64,
    /// Frames or packets.
    pub packets: u64,
    /// Bytes on the wire: of frames with their link header, of packets from the IP header on.
    pub bytes: u64,
}

impl Totals {
    fn add(&mut self, bytes: u64) {
        self.packets += 1;
        self.bytes += bytes;
    }

    const fn add_all(&mut self, other: Self) {
        self.flows += other.flows;
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// Counts by name, within bounds.
#[derive(Clone, Debug)]
pub struct Top<K> {
    counts: Table<K, Totals>,
    most: usize,
    /// What came after the table was full.
    pub other: Totals,
}

impl<K: Countable> Default for Top<K> {
    fn default() -> Self {
        Self::new(Scale::default())
    }
}

impl<K: Countable> Top<K> {
    fn new(scale: Scale) -> Self {
        Self { counts: Table::default(), most: scale.of(K::MAX_DISTINCT), other: Totals::default() }
    }

    fn add(&mut self, name: &K, bytes: u64) {
        self.add_all(name, Totals { flows: 0, packets: 1, bytes });
    }

    fn add_all(&mut self, name: &K, totals: Totals) {
        let hash = self.counts.hash(name);
        if let Some(at) = self.counts.find(hash, name) {
            self.counts.value_mut(at).add_all(totals);
        } else if self.counts.len() < self.most {
            self.counts.push(hash, name.clone(), totals);
        } else {
            self.other.add_all(totals);
        }
    }

    /// Names that were counted apart.
    #[must_use]
    pub fn distinct(&self) -> usize {
        self.counts.len()
    }

    /// The first `limit` by bytes, then by packets, then by name.
    #[must_use]
    pub fn first(&self, limit: usize) -> Vec<(K, Totals)> {
        let mut all: Vec<_> = self.counts.rows().iter().cloned().collect();
        all.sort_by(|(a_name, a), (b_name, b)| (b.bytes, b.packets, a_name).cmp(&(a.bytes, a.packets, b_name)));
        all.truncate(limit);
        all
    }
}

/// What was seen of DNS.
#[derive(Clone, Debug, Default)]
pub struct DnsSummary {
    /// Query messages.
    pub queries: u64,
    /// Answer messages.
    pub answers: u64,
    /// Queries without an answer.
    pub unanswered: u64,
    /// Answers without a query.
    pub unasked: u64,
    /// Messages that end too early or contradict themselves.
    pub malformed: u64,
    /// Payloads on a port of DNS that are shorter than a header.
    pub unreadable: u64,
    /// Answers by response code.
    pub rcodes: BTreeMap<u16, u64>,
    /// Messages by the name they are about.
    pub names: Top<String>,
}

/// What was seen of TLS.
#[derive(Clone, Debug, Default)]
pub struct TlsSummary {
    /// Client hellos.
    pub hellos: u64,
    /// By highest version offered, as on the wire.
    pub versions: BTreeMap<u32, u64>,
    /// By name of the server; empty = none.
    pub names: Top<String>,
}

/// What was seen of HTTP in the clear.
#[derive(Clone, Debug, Default)]
pub struct HttpSummary {
    /// Requests.
    pub requests: u64,
    /// Responses.
    pub responses: u64,
    /// Requests without a response.
    pub unanswered: u64,
}

/// What an analysis saw in all.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// All frames.
    pub frames: Totals,
    /// Earliest time of a frame, microseconds.
    pub first_time: Option<u64>,
    /// Latest time of a frame, microseconds.
    pub last_time: Option<u64>,
    /// Times that the clock stepped back from one frame to the next.
    pub clock_steps_back: u64,
    /// The largest of these steps, microseconds.
    pub largest_step_back_us: u64,
    /// IP packets that the capture has more than once, without the first time.
    pub duplicates: u64,
    /// Of these, seen on the other side of a router.
    pub routed_duplicates: u64,
    /// Frames of which the capture kept less than was on the wire.
    pub cut_frames: u64,
    /// Frames by link type.
    pub links: BTreeMap<LinkType, Totals>,
    /// IP packets by upper-layer protocol, those inside tunnels too.
    pub protocols: BTreeMap<u8, Totals>,
    /// IP packets inside other IP packets.
    pub inner: Totals,
    /// IP fragments.
    pub fragments: u64,
    /// Fragments whose first one never came.
    pub orphan_fragments: u64,
    /// Fragmented packets that never became whole.
    pub incomplete_packets: u64,
    /// Fragments that overlap others of their packet with other content.
    pub contradicting_fragments: u64,
    /// Addresses by the bytes that they sent and received, without what is inside tunnels.
    pub talkers: Top<[u8; 16]>,
    /// Pairs of addresses, the initiator first, by their flows that are in no tunnel.
    pub pairs: Top<([u8; 16], [u8; 16])>,
    /// Flows by what they are used for, without those inside tunnels.
    pub services: Top<Service>,
    /// Throughput over time.
    pub series: Series,
    /// The busiest moments.
    pub bursts: Bursts,
    /// What a person should look at.
    pub findings: Findings,
    /// Packets of frames that have several, without the first one of each frame.
    pub further_packets: u64,
    /// Frames, or packets of those that have several, that made no flow, by reason.
    pub unanalysed: BTreeMap<Unanalysed, u64>,
    /// Packets inside tunnels that made no flow of their own, by reason.
    pub unanalysed_inside: BTreeMap<Unanalysed, u64>,
    /// Flows.
    pub flows: u64,
    /// Records of flows.
    pub flow_records: u64,
    /// Flows that ended early because the table was full.
    pub evicted_flows: u64,
    /// DNS queries that stopped waiting for their answer because the table was full.
    pub early_queries: u64,
    /// Fragmented packets that were not put together because there was no room for them.
    pub early_fragments: u64,
    /// Times that a host's name was not kept, or was forgotten while it held, because there were too many.
    pub early_names: u64,
    /// Packets in tunnels beyond those that are told apart.
    pub further_tunnels: u64,
    /// Packets in tunnels between ends beyond those that are kept.
    pub further_tunnel_ends: u64,
    /// Interfaces beyond those that are told apart.
    pub further_interfaces: u64,
    /// TCP streams that were not looked into because all of them together held too much.
    pub unfollowed_streams: u64,
    /// TCP.
    pub tcp: TcpSummary,
    /// DNS.
    pub dns: DnsSummary,
    /// TLS.
    pub tls: TlsSummary,
    /// HTTP.
    pub http: HttpSummary,
    previous_time: u64,
    by_protocol: Vec<Totals>,
}

impl Summary {
    pub(super) fn new(scale: Scale) -> Self {
        Self {
            talkers: Top::new(scale),
            pairs: Top::new(scale),
            services: Top::new(scale),
            dns: DnsSummary { names: Top::new(scale), ..DnsSummary::default() },
            tls: TlsSummary { names: Top::new(scale), ..TlsSummary::default() },
            ..Self::default()
        }
    }

    pub(super) fn frame(&mut self, frame: &Frame<'_>) {
        let (time, bytes) = (frame.time_us, u64::from(frame.original_length));
        self.frames.add(bytes);
        self.links.entry(frame.link_type).or_default().add(bytes);
        // Before the first frame with a time, frames may have none.
        let first = self.first_time.filter(|first| *first > 0);
        self.first_time = Some(first.map_or(time, |first| first.min(time)));
        self.last_time = Some(self.last_time.map_or(time, |last| last.max(time)));
        if time < self.previous_time {
            self.clock_steps_back += 1;
            self.largest_step_back_us = self.largest_step_back_us.max(self.previous_time - time);
        }
        self.previous_time = time;
        self.cut_frames += u64::from((frame.data.len() as u64) < bytes);
        if time > 0 {
            self.series.frame(time, bytes);
            self.bursts.frame(self.frames.packets, time, bytes);
        }
    }

    /// To be called after the last frame.
    pub(super) fn finish(&mut self) {
        self.bursts.finish();
        for (number, totals) in std::mem::take(&mut self.by_protocol).into_iter().enumerate() {
            if totals.packets > 0 {
                self.protocols.insert(number as u8, totals);
            }
        }
    }

    pub(super) fn ip(&mut self, ip: &IpPacket<'_>, depth: usize) {
        let bytes = u64::from(ip.length);
        let number = usize::from(ip.protocol);
        if number >= self.by_protocol.len() {
            self.by_protocol.resize(number + 1, Totals::default());
        }
        self.by_protocol[number].add(bytes);
        self.fragments += u64::from(ip.fragment.is_some());
        if depth > 0 {
            return self.inner.add(bytes);
        }
        let class = match ip.protocol {
            protocol::TCP => 0,
            protocol::UDP => 1,
            protocol::ICMP | protocol::ICMPV6 => 2,
            _ => 3,
        };
        self.series.packet(class, bytes);
    }

    pub(super) fn unanalysed(&mut self, reason: Unanalysed) {
        *self.unanalysed.entry(reason).or_default() += 1;
    }

    pub(super) fn unanalysed_inside(&mut self, reason: Unanalysed) {
        *self.unanalysed_inside.entry(reason).or_default() += 1;
    }

    /// Intervals of flows. Counted here and not per packet, each address is looked up once for many; and counted table by table, the
    /// rows of several flows are fetched at once.
    pub(super) fn flows(&mut self, all: &[(&Flow, &Finished)]) {
        self.flow_records += all.len() as u64;
        for (record, finished) in all {
            self.tcp.add(record, finished);
        }
        let outermost = || all.iter().map(|(_, finished)| *finished).filter(|finished| finished.key.tunnel == 0);
        for finished in outermost() {
            let (src, dst) = finished.ends();
            self.talkers.add_all(&src, totals(finished));
            if src != dst {
                self.talkers.add_all(&dst, totals(finished));
            }
        }
        for finished in outermost() {
            self.pairs.add_all(&finished.ends(), totals(finished));
        }
        for finished in outermost() {
            self.services.add_all(&service(finished), totals(finished));
        }
    }

    pub(super) fn dns_message(&mut self, message: &Message) {
        let dns = &mut self.dns;
        dns.malformed += u64::from(message.malformed);
        if message.is_answer {
            dns.answers += 1;
            *dns.rcodes.entry(message.rcode).or_default() += 1;
        } else {
            dns.queries += 1;
        }
        dns.names.add(&message.qname, 0);
    }

    pub(super) fn exchange(&mut self, record: &Dns) {
        self.dns.unanswered += u64::from(record.rcode.is_none());
        self.dns.unasked += u64::from(!record.has_query);
    }

    pub(super) fn http(&mut self, record: &Http) {
        let http = &mut self.http;
        http.responses += u64::from(record.status.is_some());
        if !record.method.is_empty() {
            http.requests += 1;
            http.unanswered += u64::from(record.status.is_none());
        }
    }

    pub(super) fn hello(&mut self, record: &Tls) {
        self.tls.hellos += 1;
        *self.tls.versions.entry(record.version).or_default() += 1;
        self.tls.names.add(&record.sni, 0);
    }
}

fn totals(finished: &Finished) -> Totals {
    Totals {
        flows: u64::from(!finished.continued),
        packets: finished.interval.packets.iter().sum(),
        bytes: finished.interval.bytes.iter().sum(),
    }
}

fn service(finished: &Finished) -> Service {
    let number = finished.key.protocol;
    match (finished.app, number) {
        ("", protocol::ICMP | protocol::ICMPV6) => Service::Port(number, 0),
        ("", _) => Service::Port(number, finished.ports.1),
        (app, _) => Service::App(app),
    }
}
