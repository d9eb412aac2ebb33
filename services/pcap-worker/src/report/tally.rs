//! What the records of an analysis say together: the sections of a report that are about flows and exchanges. All tables are bounded;
//! what comes after they are full is counted in [`Tally::given_up`].

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hash::Hash;

use hashbrown::HashMap;
use weir_flow::Record;
use weir_flow::analyzer::Scale;
use weir_flow::findings::split_name;
use weir_flow::statistics::Histogram;
use weir_proto::{Dns, EndReason, Flow, Http, Ip, Tls};
use weir_report::health::{Cases, Measured};
use weir_report::{Certificate, CodeCount, DnsServer, Domain, GivenUp, NameCount, Report, Stream, Tcp, WorstFlow};

use super::{TOP, rfc3339, spread};

const TCP: u32 = 6;
const UDP: u32 = 17;
/// Rows of a table of things that strangers name.
const MAX_NAMES: usize = 5_000;
const SYN: u32 = 2;

/// Counts records.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    tcp: TcpTally,
    streams: Counted<u64, Stream>,
    jitter: Histogram,
    latency: Histogram,
    repeats: u64,
    queries: u64,
    failed_queries: u64,
    domains: Counted<String, Asked>,
    servers: Counted<(u64, u64), Asked>,
    tls: TlsTally,
    http: HttpTally,
}

#[derive(Debug, Default)]
struct TcpTally {
    sums: Tcp,
    handshake: Histogram,
    syn_ack: Histogram,
    handshake_ack: Histogram,
    rtt: Histogram,
    rtt_to_dst: Histogram,
    rtt_to_src: Histogram,
    first_byte: Histogram,
    response: Histogram,
    worst: Counted<u64, WorstFlow>,
}

/// What was asked of a server or about a domain.
#[derive(Debug, Default)]
struct Asked {
    queries: u64,
    failed: u64,
    unanswered: u64,
    latency: Histogram,
}

#[derive(Debug, Default)]
struct TlsTally {
    chosen: Counted<String, u64>,
    ciphers: Counted<String, u64>,
    alerts: Counted<String, u64>,
    ja4: Counted<String, u64>,
    certificates: Counted<(u64, String), Certificate>,
}

#[derive(Debug, Default)]
struct HttpTally {
    requests: u64,
    unanswered: u64,
    methods: Counted<String, u64>,
    hosts: Counted<String, u64>,
    statuses: BTreeMap<u16, u64>,
    latency: Histogram,
}

impl Tally {
    /// Has counted nothing.
    pub(crate) fn new(scale: Scale) -> Self {
        Self {
            tcp: TcpTally { worst: Counted::new(scale), ..TcpTally::default() },
            streams: Counted::new(scale),
            domains: Counted::new(scale),
            servers: Counted::new(scale),
            tls: TlsTally {
                chosen: Counted::new(scale),
                ciphers: Counted::new(scale),
                alerts: Counted::new(scale),
                ja4: Counted::new(scale),
                certificates: Counted::new(scale),
            },
            http: HttpTally { methods: Counted::new(scale), hosts: Counted::new(scale), ..HttpTally::default() },
            ..Self::default()
        }
    }

    /// Counts a record.
    pub(crate) fn record(&mut self, record: &Record) {
        if let Record::Flow(flow) = record {
            self.flow(flow);
        } else if let Record::Dns(dns) = record {
            self.dns(dns);
        } else if let Record::Tls(tls) = record {
            self.tls.add(tls);
        } else if let Record::Http(http) = record {
            self.http.add(http);
        }
    }

    fn flow(&mut self, flow: &Flow) {
        let (packets, bytes) = (flow.tx_packets + flow.rx_packets, flow.tx_bytes + flow.rx_bytes);
        if flow.protocol == TCP {
            self.tcp.add(flow);
        } else if flow.protocol == UDP
            && let Some(jitter) = flow.tx_jitter_us.max(flow.rx_jitter_us)
        {
            self.jitter.add(jitter);
            self.streams.with(flow.flow_id, |stream: &mut Stream| {
                (stream.src, stream.dst) = ends(flow);
                stream.flow_id = flow.flow_id.to_string();
                stream.packets += packets;
                stream.bytes += bytes;
                stream.jitter_us = stream.jitter_us.max(u64::from(jitter));
                stream.delay_variation_us = stream.delay_variation_us.max(delay_variation(flow));
                stream.lost += flow.tx_rtp_lost.unwrap_or(0) + flow.rx_rtp_lost.unwrap_or(0);
                stream.reordered += flow.tx_rtp_reordered.unwrap_or(0) + flow.rx_rtp_reordered.unwrap_or(0);
            });
        }
    }

    fn dns(&mut self, dns: &Dns) {
        if !dns.has_query {
            return;
        }
        // The row of the first query has the answer.
        if dns.repeats > 0 {
            self.repeats += 1;
            return;
        }
        // SERVFAIL, NOTIMP, REFUSED: the server did not do its work. NXDOMAIN is an answer.
        let failed = u64::from(matches!(dns.rcode, Some(2 | 4 | 5)));
        let unanswered = u64::from(dns.rcode.is_none());
        self.queries += 1;
        self.failed_queries += failed + unanswered;
        if let Some(latency) = dns.latency_us {
            self.latency.add(latency);
        }
        let count = |asked: &mut Asked| {
            asked.queries += 1;
            asked.failed += failed;
            asked.unanswered += unanswered;
            if let Some(latency) = dns.latency_us {
                asked.latency.add(latency);
            }
        };
        self.domains.with_ref(domain(&dns.qname), count);
        self.servers.with((dns.dst_ip_high, dns.dst_ip_low), count);
    }

    /// What the score is made of.
    fn measured(&self) -> Measured {
        let tcp = &self.tcp.sums;
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let measured = tcp.packets - tcp.cut_packets;
        Measured {
            // What was sent again needlessly had not been lost.
            loss: share(tcp.retransmits.saturating_sub(tcp.spurious_retransmits), measured),
            retransmission: share(tcp.retransmits, measured),
            rtt_us: self.tcp.rtt.percentile(50),
            dns_failed: share(self.failed_queries, self.queries),
            jitter_us: self.jitter.percentile(95),
            cases: Cases {
                tcp_packets: measured,
                cut_tcp_packets: tcp.cut_packets,
                round_trips: self.tcp.rtt.count(),
                queries: self.queries,
                streams: self.jitter.count(),
            },
        }
    }

    /// Fills in the sections of a report that are made of records, and the score; findings are to be in it already.
    pub(crate) fn fill(self, report: &mut Report) {
        let findings = report.findings.iter().map(|finding| (finding.severity, finding.confidence));
        let (health, not_judged) = weir_report::health::health(&self.measured(), findings);
        (report.health, report.not_judged) = (health, not_judged);
        report.given_up.extend(self.given_up());
        let Self { tcp, streams, latency, repeats, domains, servers, tls, http, .. } = self;
        if tcp.sums.flows > 0 {
            report.tcp = Some(tcp.finish());
        }
        report.streams = streams.first(|stream| stream.jitter_us, |_, stream| stream);
        report.dns.latency = spread(&latency);
        report.dns.repeats = Some(repeats);
        report.dns.domains = domains.first(
            |asked| asked.queries,
            |domain, asked| {
                let (median_us, p95_us) = (asked.latency.percentile(50), asked.latency.percentile(95));
                let Asked { queries, failed, unanswered, .. } = asked;
                Domain { domain, queries, failed, unanswered, median_us, p95_us }
            },
        );
        report.dns.servers = servers.keyed(|(high, low)| address(high, low)).first(
            |asked| asked.queries,
            |ip, asked| {
                let (median_us, p95_us) = (asked.latency.percentile(50), asked.latency.percentile(95));
                let Asked { queries, failed, unanswered, .. } = asked;
                DnsServer { ip, queries, failed, unanswered, median_us, p95_us }
            },
        );
        report.tls.chosen_versions = names(tls.chosen);
        report.tls.ciphers = names(tls.ciphers);
        report.tls.alerts = names(tls.alerts);
        report.tls.ja4 = names(tls.ja4);
        // All weigh the same, so that those that expire first come first.
        report.tls.certificates = tls.certificates.first(|_| 1, |_, certificate| certificate);
        report.http = http.finish();
    }

    fn given_up(&self) -> Vec<GivenUp> {
        let tables = [
            ("records of further TCP flows with trouble", self.tcp.worst.other),
            ("records of further streams of UDP", self.streams.other),
            ("queries about further domains", self.domains.other),
            ("queries to further servers", self.servers.other),
            ("client hellos of further clients", self.tls.ja4.other),
            ("further certificates", self.tls.certificates.other),
            ("requests to further hosts", self.http.hosts.other),
        ];
        let meaning =
            "a table of the report was full; what came late may be missing among the top ones, the sums are whole";
        tables
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| GivenUp { what: what.to_owned(), count, meaning: meaning.to_owned() })
            .collect()
    }
}

impl TcpTally {
    fn add(&mut self, flow: &Flow) {
        let last = flow.end_reason() != EndReason::Active;
        let both = |tx: Option<u64>, rx: Option<u64>| tx.unwrap_or(0) + rx.unwrap_or(0);
        let packets = flow.tx_packets + flow.rx_packets;
        let retransmits = both(flow.tx_retransmits, flow.rx_retransmits);
        let out_of_order = both(flow.tx_out_of_order, flow.rx_out_of_order);
        let zero_windows = both(flow.tx_zero_windows, flow.rx_zero_windows);
        let lost_segments = both(flow.tx_lost_segments, flow.rx_lost_segments);
        let sums = &mut self.sums;
        sums.packets += packets;
        // Without a whole header nothing is known but its ports.
        sums.cut_packets += if flow.tx_retransmits.is_none() { packets } else { 0 };
        sums.retransmits += retransmits;
        sums.out_of_order += out_of_order;
        sums.zero_windows += zero_windows;
        sums.lost_segments += lost_segments;
        sums.fast_retransmits += both(flow.tx_fast_retransmits, flow.rx_fast_retransmits);
        sums.spurious_retransmits += both(flow.tx_spurious_retransmits, flow.rx_spurious_retransmits);
        sums.duplicate_acks += both(flow.tx_duplicate_acks, flow.rx_duplicate_acks);
        sums.syn_retransmits += flow.syn_retransmits.unwrap_or(0);
        sums.zero_window_us += both(flow.tx_zero_window_us, flow.rx_zero_window_us);
        sums.window_full += both(flow.tx_window_full, flow.rx_window_full);
        sums.keep_alives += both(flow.tx_keep_alives, flow.rx_keep_alives);
        sums.handshakes += u64::from(flow.handshake_us.is_some());
        if last {
            let silent = flow.rx_packets == 0;
            sums.flows += 1;
            sums.resets += u64::from(flow.end_reason() == EndReason::Rst);
            sums.unanswered += u64::from(silent && flow.tcp_flags_tx & SYN != 0);
        }
        let times = [
            (&mut self.handshake, flow.handshake_us),
            (&mut self.syn_ack, flow.syn_ack_us),
            (
                &mut self.handshake_ack,
                flow.handshake_us.zip(flow.syn_ack_us).map(|(all, part)| all.saturating_sub(part)),
            ),
            (&mut self.rtt, flow.rtt_us),
            (&mut self.rtt_to_dst, flow.tx_rtt_us),
            (&mut self.rtt_to_src, flow.rx_rtt_us),
            (&mut self.first_byte, flow.first_byte_us),
            (&mut self.response, flow.response_us),
        ];
        for (histogram, value) in times {
            if let Some(value) = value {
                histogram.add(value);
            }
        }
        if retransmits + out_of_order + zero_windows + lost_segments == 0 {
            return;
        }
        self.worst.with(flow.flow_id, |worst| {
            (worst.src, worst.dst) = ends(flow);
            worst.flow_id = flow.flow_id.to_string();
            worst.name.clone_from(&flow.dst_name);
            worst.packets += packets;
            worst.bytes += flow.tx_bytes + flow.rx_bytes;
            worst.retransmits += retransmits;
            worst.out_of_order += out_of_order;
            worst.zero_windows += zero_windows;
            worst.lost_segments += lost_segments;
            worst.rtt_us = flow.rtt_us.map(u64::from).or(worst.rtt_us);
        });
    }

    fn finish(self) -> Tcp {
        let trouble = |flow: &WorstFlow| flow.retransmits + flow.out_of_order + flow.zero_windows + flow.lost_segments;
        Tcp {
            handshake: spread(&self.handshake),
            syn_ack: spread(&self.syn_ack),
            handshake_ack: spread(&self.handshake_ack),
            rtt: spread(&self.rtt),
            rtt_to_dst: spread(&self.rtt_to_dst),
            rtt_to_src: spread(&self.rtt_to_src),
            first_byte: spread(&self.first_byte),
            response: spread(&self.response),
            worst: self.worst.first(trouble, |_, worst| worst),
            ..self.sums
        }
    }
}

impl TlsTally {
    fn add(&mut self, tls: &Tls) {
        let one = |count: &mut u64| *count += 1;
        if !tls.ja4.is_empty() {
            self.ja4.with(tls.ja4.clone(), one);
        }
        if tls.chosen_version != 0 {
            self.chosen.with(format!("0x{:04x}", tls.chosen_version), one);
        }
        if tls.cipher != 0 {
            self.ciphers.with(format!("0x{:04x}", tls.cipher), one);
        }
        if tls.alert != 0 {
            self.alerts.with(format!("{} (level {})", tls.alert % 256, tls.alert / 256), one);
        }
        if !tls.subject.is_empty() || tls.not_after != 0 {
            self.certificates.with((tls.not_after, tls.subject.clone()), |certificate| {
                *certificate = Certificate {
                    subject: tls.subject.clone(),
                    issuer: tls.issuer.clone(),
                    not_after: (tls.not_after != 0).then(|| rfc3339(tls.not_after)),
                    server: address(tls.dst_ip_high, tls.dst_ip_low),
                    expired: tls.not_after != 0 && tls.not_after < tls.time,
                };
            });
        }
    }
}

impl HttpTally {
    fn add(&mut self, http: &Http) {
        let one = |count: &mut u64| *count += 1;
        self.requests += 1;
        self.methods.with(http.method.clone(), one);
        self.hosts.with(http.authority.clone(), one);
        match http.status {
            Some(status) => *self.statuses.entry(status as u16).or_default() += 1,
            None => self.unanswered += 1,
        }
        if let Some(latency) = http.latency_us {
            self.latency.add(latency);
        }
    }

    fn finish(self) -> Option<weir_report::Http> {
        (self.requests > 0).then(|| weir_report::Http {
            requests: self.requests,
            unanswered: self.unanswered,
            methods: names(self.methods),
            statuses: self.statuses.into_iter().map(|(value, count)| CodeCount { value, count }).collect(),
            hosts: names(self.hosts),
            latency: spread(&self.latency),
        })
    }
}

/// A table with a bound.
#[derive(Debug)]
struct Counted<K, V> {
    rows: HashMap<K, V>,
    most: usize,
    /// What came for a row after the table was full.
    other: u64,
}

impl<K, V> Default for Counted<K, V> {
    fn default() -> Self {
        Self::new(Scale::default())
    }
}

impl<K, V> Counted<K, V> {
    fn new(scale: Scale) -> Self {
        Self { rows: HashMap::new(), most: scale.of(MAX_NAMES), other: 0 }
    }
}

impl<K: Hash + Ord + Clone, V: Default> Counted<K, V> {
    fn with(&mut self, key: K, count: impl FnOnce(&mut V)) {
        if self.rows.len() >= self.most && !self.rows.contains_key(&key) {
            self.other += 1;
        } else {
            count(self.rows.entry(key).or_default());
        }
    }

    /// As [`Counted::with`], for a key that is made only where it is new.
    fn with_ref<'q, Q>(&mut self, key: &'q Q, count: impl FnOnce(&mut V))
    where
        K: Borrow<Q> + From<&'q Q>,
        Q: Hash + Eq + ?Sized,
    {
        if let Some(row) = self.rows.get_mut(key) {
            count(row);
        } else {
            self.with(key.into(), count);
        }
    }

    /// The same rows by what stands for their keys in a report.
    fn keyed<T: Hash + Eq>(self, name: impl Fn(K) -> T) -> Counted<T, V> {
        Counted {
            rows: self.rows.into_iter().map(|(key, row)| (name(key), row)).collect(),
            most: self.most,
            other: self.other,
        }
    }

    /// The rows with the largest weight, then by key, so that a report follows from the capture alone.
    fn first<T>(self, weight: impl Fn(&V) -> u64, row: impl Fn(K, V) -> T) -> Vec<T> {
        let mut rows: Vec<_> = self.rows.into_iter().collect();
        rows.sort_by(|(a_key, a), (b_key, b)| (weight(b), a_key).cmp(&(weight(a), b_key)));
        rows.truncate(TOP);
        rows.into_iter().map(|(key, value)| row(key, value)).collect()
    }
}

/// Percentiles of the worse direction of a stream.
fn delay_variation(flow: &Flow) -> Option<[u64; 3]> {
    let of = |parts: [Option<u32>; 3]| match parts {
        [Some(median), Some(p95), Some(p99)] => Some([median, p95, p99].map(u64::from)),
        _ => None,
    };
    let tx = [flow.tx_delay_variation_us, flow.tx_delay_variation_p95_us, flow.tx_delay_variation_p99_us];
    let rx = [flow.rx_delay_variation_us, flow.rx_delay_variation_p95_us, flow.rx_delay_variation_p99_us];
    of(tx).max(of(rx))
}

fn names(table: Counted<String, u64>) -> Vec<NameCount> {
    table.first(|count| *count, |value, count| NameCount { value, count })
}

fn address(high: u64, low: u64) -> String {
    Ip::new(high, low).canonical().to_string()
}

pub(super) fn ends(flow: &Flow) -> (String, String) {
    let end = |ip: Ip, port: u32| std::net::SocketAddr::new(ip.canonical(), port as u16).to_string();
    let src = end(Ip::new(flow.src_ip_high, flow.src_ip_low), flow.src_port);
    (src, end(Ip::new(flow.dst_ip_high, flow.dst_ip_low), flow.dst_port))
}

/// What a name is registered below, as far as its form tells.
fn domain(name: &str) -> &str {
    split_name(name).map_or(name, |(_, domain)| domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_is_what_a_name_is_registered_below() {
        for (name, expected) in [
            ("www.example.org", "example.org"),
            ("a.b.example.co.uk", "example.co.uk"),
            ("localhost", "localhost"),
            (".", "."),
            ("1.0.0.127.in-addr.arpa", "in-addr.arpa"),
        ] {
            assert_eq!(domain(name), expected, "{name}");
        }
    }

    #[test]
    fn a_full_table_counts_what_it_does_not_keep() {
        let mut table = Counted { most: 2, ..Counted::default() };
        for key in [1, 2, 3, 1, 3] {
            table.with(key, |count| *count += 1);
        }
        assert_eq!(table.other, 2);
        assert_eq!(table.first(|count| *count, |key, count| (key, count)), [(1, 2), (2, 1)]);
    }
}
