//! The report of an analysis: what a person or a program wants to know of a capture without asking for rows.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};

use uuid::Uuid;
use weir_flow::analyzer::{DnsSummary, Service, Summary, TcpSummary, TlsSummary, Top, Totals};
use weir_flow::findings::{self, Finding, Findings, Severity};
use weir_flow::packet::Unanalysed;
use weir_flow::statistics::{Histogram, Series};
use weir_flow::tcp::Wait;
use weir_proto::Flow;
use weir_report::{
    Capture, CodeCount, Conversation, Damage, Dns, FlowCounts, GivenUp, NameCount, NotAnalysed, OfProtocol, OfService,
    OnLink, OneWayFlow, Report, Rhythm, Silence, Spread, Talker, TcpStates, Timeline, Tls, VERSION,
};

use crate::analysis::Analysis;
use crate::capture_file::{self, Notes};

mod tally;

pub(crate) use tally::Tally;

/// Interfaces that are listed.
const MAX_INTERFACES: usize = 1000;
/// Names in a list of the most frequent ones.
const TOP: usize = 20;

/// What is known of a file before it is read.
#[derive(Clone, Debug)]
pub struct About {
    /// None for a file that was not uploaded.
    pub capture_id: Option<Uuid>,
    /// As uploaded.
    pub name: String,
    /// Of the file.
    pub size_bytes: u64,
    /// Thresholds that differ from the defaults, as JSON; empty = none.
    pub thresholds: String,
}

/// The report of an analysis that came to its end.
#[must_use]
pub fn report(about: About, analysis: Analysis) -> Report {
    let mut report = frame(about, &analysis);
    analysis.tally.fill(&mut report);
    if let Some(tcp) = &mut report.tcp {
        connections(tcp, &analysis.summary.tcp);
    }
    report
}

/// What the flow table knows of connections beyond their rows.
fn connections(tcp: &mut weir_report::Tcp, seen: &TcpSummary) {
    tcp.duplicate_segments = seen.duplicates;
    tcp.syn_backoff = seen.syn_waits.iter().filter_map(spread).collect();
    tcp.silences =
        seen.silences.iter().map(|(&wait, (silence, record))| self::silence(wait, silence, record)).collect();
    tcp.states = TcpStates {
        reset_before_data: seen.resets_before_data,
        reset_after_data: seen.resets_after_data,
        reset_by_initiator: seen.resets_by_initiator,
        half_open: seen.half_open,
        half_closed: seen.half_closed,
        idle: seen.idle,
        zombie: seen.zombies,
    };
}

fn silence(wait: Wait, silence: &weir_flow::tcp::Silence, longest: &Flow) -> Silence {
    let (src, dst) = tally::ends(longest);
    Silence {
        waited_for: wait.name().to_owned(),
        count: silence.count,
        total_us: silence.total_us,
        longest_us: silence.longest_us,
        packet: silence.frame,
        flow_id: longest.flow_id.to_string(),
        src,
        dst,
    }
}

/// None where there is no value.
fn spread(histogram: &Histogram) -> Option<Spread> {
    Some(Spread {
        count: histogram.count(),
        median_us: histogram.percentile(50)?,
        p95_us: histogram.percentile(95)?,
        p99_us: histogram.percentile(99)?,
        max_us: histogram.most(),
    })
}

/// All but what is made of records.
fn frame(about: About, analysis: &Analysis) -> Report {
    let summary = &analysis.summary;
    Report {
        version: VERSION,
        capture: Capture {
            capture_id: about.capture_id,
            name: about.name,
            size_bytes: about.size_bytes,
            format: analysis.format.name().to_owned(),
            compression: analysis.compression.to_owned(),
            interfaces: analysis.interfaces.iter().take(MAX_INTERFACES).cloned().collect(),
            application: analysis.notes.application.clone(),
            os: analysis.notes.os.clone(),
            dropped_packets: dropped(&analysis.notes),
            decryption_secrets: analysis.notes.secrets,
            address_names: analysis.notes.names,
            comments: analysis.notes.comments.iter().map(comment).collect(),
            comment_count: analysis.notes.comment_count,
        },
        totals: totals(summary, &analysis.notes),
        health: None,
        not_judged: Vec::new(),
        findings: findings(&summary.findings),
        findings_left_out: summary.findings.left_out.values().sum(),
        timeline: timeline(&summary.series),
        links: summary
            .links
            .iter()
            .map(|(link, &Totals { packets, bytes, .. })| OnLink { link_type: link.0, packets, bytes })
            .collect(),
        protocols: summary
            .protocols
            .iter()
            .map(|(&protocol, &Totals { packets, bytes, .. })| OfProtocol { protocol, packets, bytes })
            .collect(),
        services: services(&summary.services),
        flows: FlowCounts {
            flows: summary.flows,
            records: summary.flow_records,
            evicted: summary.evicted_flows,
            packets_in_tunnels: summary.inner.packets,
            one_way: Some(summary.findings.one_way_flows),
            one_way_udp: Some(summary.findings.one_way_udp_flows),
        },
        talkers: talkers(&summary.talkers),
        conversations: conversations(&summary.pairs),
        one_way_flows: summary.findings.one_way.iter().take(TOP).map(one_way).collect(),
        tcp: None,
        dns: dns(&summary.dns),
        tls: tls(&summary.tls, summary.unfollowed_streams),
        http: None,
        streams: Vec::new(),
        icmp_errors: icmp_errors(&summary.findings),
        rhythms: summary.findings.rhythms.iter().take(TOP).map(rhythm).collect(),
        damage: analysis.damage.as_ref().map(|damage| Damage {
            packets: damage.packets,
            offset: damage.offset,
            reason: damage.reason.clone(),
        }),
        not_analysed: not_analysed(summary),
        given_up: given_up(summary),
        // They were read before the analysis began; what is no object has no thresholds.
        thresholds: serde_json::from_str(&about.thresholds).unwrap_or_default(),
    }
}

/// As it is stored and shown.
pub fn to_json(report: &Report) -> serde_json::Result<String> {
    serde_json::to_string_pretty(report)
}

/// Absent where the file does not say.
fn dropped(notes: &Notes) -> Option<u64> {
    notes.dropped.values().copied().reduce(u64::saturating_add)
}

fn comment(comment: &capture_file::Comment) -> weir_report::Comment {
    weir_report::Comment { packet: comment.packet, text: comment.text.clone() }
}

fn totals(summary: &Summary, notes: &Notes) -> weir_report::Totals {
    let (first, last) = (summary.first_time, summary.last_time);
    weir_report::Totals {
        packets: summary.frames.packets,
        bytes: summary.frames.bytes,
        first_packet: first.map(rfc3339),
        last_packet: last.map(rfc3339),
        duration_us: last.unwrap_or(0) - first.unwrap_or(0),
        cut_packets: summary.cut_frames,
        clock_steps_back: summary.clock_steps_back,
        largest_step_back_us: summary.largest_step_back_us,
        untimed_packets: notes.untimed,
        duplicate_packets: summary.duplicates,
        routed_duplicates: summary.routed_duplicates,
        aggregated_packets: summary.further_packets,
        fragments: summary.fragments,
    }
}

/// RFC 3339; a time that no calendar has is given in microseconds.
fn rfc3339(time_us: u64) -> String {
    i64::try_from(time_us)
        .ok()
        .and_then(|time| jiff::Timestamp::from_microsecond(time).ok())
        .map_or_else(|| time_us.to_string(), |time| time.to_string())
}

fn address(ip: [u8; 16]) -> String {
    Ipv6Addr::from(ip).to_canonical().to_string()
}

fn talkers(talkers: &Top<[u8; 16]>) -> Vec<Talker> {
    let talker = |(ip, Totals { packets, bytes, .. })| Talker { ip: address(ip), packets, bytes };
    talkers.first(TOP).into_iter().map(talker).collect()
}

fn conversations(pairs: &Top<([u8; 16], [u8; 16])>) -> Vec<Conversation> {
    let conversation = |((src, dst), Totals { flows, packets, bytes })| Conversation {
        src_ip: address(src),
        dst_ip: address(dst),
        flows,
        packets,
        bytes,
    };
    pairs.first(TOP).into_iter().map(conversation).collect()
}

fn services(services: &Top<Service>) -> Vec<OfService> {
    let service = |(service, Totals { flows, packets, bytes })| OfService {
        service: service_name(service),
        flows,
        packets,
        bytes,
    };
    services.first(TOP).into_iter().map(service).collect()
}

fn service_name(service: Service) -> String {
    match service {
        Service::App(name) => name.to_owned(),
        Service::Port(6, port) => format!("tcp/{port}"),
        Service::Port(17, port) => format!("udp/{port}"),
        Service::Port(1, _) => "icmp".to_owned(),
        Service::Port(58, _) => "icmpv6".to_owned(),
        Service::Port(number, _) => format!("ip/{number}"),
    }
}

fn one_way(flow: &findings::OneWay) -> OneWayFlow {
    let seen_answers = flow.seen == findings::Seen::Answers;
    let end = |ip, port| SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port).to_string();
    let port = if seen_answers { flow.src_port } else { flow.dst_port };
    OneWayFlow {
        flow_id: flow.flow_id.to_string(),
        src: end(flow.src, flow.src_port),
        dst: end(flow.dst, flow.dst_port),
        service: if flow.app.is_empty() { service_name(Service::Port(flow.protocol, port)) } else { flow.app.clone() },
        seen: if seen_answers { "answers" } else { "requests" }.to_owned(),
        certain: flow.certain,
        packets: flow.packets,
        bytes: flow.bytes,
    }
}

/// Absent where there is no packet.
fn timeline(series: &Series) -> Option<Timeline> {
    let buckets = series.buckets();
    (!buckets.is_empty()).then(|| Timeline {
        start: rfc3339(series.start()),
        step_us: series.width(),
        packets: buckets.iter().map(|bucket| bucket.packets).collect(),
        bytes: buckets.iter().map(|bucket| bucket.bytes).collect(),
        retransmits: Some(buckets.iter().map(|bucket| bucket.retransmissions).collect()),
    })
}

/// The most harmful first, then the surest, then in the order of time.
fn findings(findings: &Findings) -> Vec<weir_report::Finding> {
    let mut list: Vec<&Finding> = findings.list.iter().collect();
    list.sort_by(|a, b| (b.severity, b.confidence).partial_cmp(&(a.severity, a.confidence)).unwrap_or(Ordering::Equal));
    list.into_iter().map(finding).collect()
}

fn finding(finding: &Finding) -> weir_report::Finding {
    weir_report::Finding {
        kind: finding.kind.name().to_owned(),
        severity: match finding.severity {
            Severity::Info => weir_report::Severity::Info,
            Severity::Warning => weir_report::Severity::Warning,
            Severity::Critical => weir_report::Severity::Critical,
        },
        confidence: finding.confidence,
        time: Some(rfc3339(finding.time)),
        end_time: Some(rfc3339(finding.end_time)),
        summary: finding.summary.clone(),
        next: finding.kind.next().to_owned(),
        flow_ids: finding.flow_ids.iter().map(ToString::to_string).collect(),
        packets: finding.packets.clone(),
        src_ip: finding.src_ip.map(address),
        dst_ip: finding.dst_ip.map(address),
        dst_port: finding.dst_port,
        evidence: finding.evidence.clone(),
    }
}

/// The most frequent first.
fn icmp_errors(findings: &Findings) -> Vec<NameCount> {
    let errors = findings.icmp_errors.iter().map(|(&value, &count)| NameCount { value: value.to_owned(), count });
    let mut errors: Vec<_> = errors.collect();
    errors.sort_by_key(|error| std::cmp::Reverse(error.count));
    errors
}

fn rhythm(rhythm: &findings::Rhythm) -> Rhythm {
    let &findings::Rhythm { src, dst, dst_port, protocol, flows, interval_s, jitter_percent } = rhythm;
    Rhythm { src_ip: address(src), dst_ip: address(dst), dst_port, protocol, flows, interval_s, jitter_percent }
}

fn dns(dns: &DnsSummary) -> Dns {
    Dns {
        queries: dns.queries,
        answers: dns.answers,
        unanswered: dns.unanswered,
        unasked: dns.unasked,
        malformed: dns.malformed,
        unreadable: dns.unreadable,
        rcodes: dns.rcodes.iter().map(|(&value, &count)| CodeCount { value, count }).collect(),
        distinct_names: dns.names.distinct(),
        names: names(&dns.names),
        ..Dns::default()
    }
}

fn tls(tls: &TlsSummary, unfollowed_streams: u64) -> Tls {
    Tls {
        client_hellos: tls.hellos,
        versions: tls
            .versions
            .iter()
            .map(|(version, &count)| NameCount { value: format!("0x{version:04x}"), count })
            .collect(),
        distinct_names: tls.names.distinct(),
        names: names(&tls.names),
        unfollowed_streams,
        ..Tls::default()
    }
}

fn names(names: &Top<String>) -> Vec<NameCount> {
    names.first(TOP).into_iter().map(|(value, totals)| NameCount { value, count: totals.packets }).collect()
}

fn not_analysed(summary: &Summary) -> Vec<NotAnalysed> {
    let reasons = |within: &str, counts: &BTreeMap<Unanalysed, u64>| {
        counts
            .iter()
            .map(|(reason, &packets)| NotAnalysed { reason: reason.to_string(), within: within.to_owned(), packets })
            .collect::<Vec<_>>()
    };
    let mut all = reasons("frame", &summary.unanalysed);
    all.extend(reasons("tunnel", &summary.unanalysed_inside));
    if summary.orphan_fragments > 0 {
        let reason = "the first fragment is missing".to_owned();
        all.push(NotAnalysed { reason, within: "fragment".to_owned(), packets: summary.orphan_fragments });
    }
    all
}

/// What was given up because a table was full.
fn given_up(summary: &Summary) -> Vec<GivenUp> {
    let given_up = [
        (
            "flows that ended early",
            summary.evicted_flows,
            "the flow table was full; such a flow may be counted as several, its packets and bytes are exact",
        ),
        (
            "streams that were not looked into",
            summary.unfollowed_streams,
            "names, requests and answers in them are not in the report",
        ),
        (
            "DNS queries that did not wait for their answer",
            summary.early_queries,
            "too many waited at one time; such a query and its answer are rows of their own",
        ),
        (
            "fragmented packets that were not put together",
            summary.early_fragments,
            "too much waited at one time; counted in their flows, what is in them is not in the report",
        ),
        (
            "subjects of findings",
            summary.findings.forgotten,
            "tables of the detectors were full; what was seen once was forgotten first, and findings about it may be missing",
        ),
        (
            "fragments without their first one, or too many at a time",
            summary.orphan_fragments,
            "counted in the flow of their addresses, without ports; what is in them is not in the report",
        ),
        (
            "packets of further pairs",
            summary.pairs.other.packets,
            "more pairs of addresses than are counted apart; one that came late may be missing among the top ones",
        ),
        (
            "packets of further services",
            summary.services.other.packets,
            "more services than are counted apart; one that came late may be missing among the top ones",
        ),
        (
            "packets of further talkers",
            summary.talkers.other.packets,
            "more addresses than are counted apart; an address that came late may be missing among the top ones",
        ),
        (
            "packets in further tunnels",
            summary.further_tunnels,
            "more tunnels than are told apart; the tunnel of their flows is `other`, and flows of the same addresses and ports are one",
        ),
        (
            "packets between further ends of tunnels",
            summary.further_tunnel_ends,
            "more ends of tunnels than are kept; the flows inside do not say between whom their tunnel is",
        ),
        (
            "further interfaces",
            summary.further_interfaces,
            "more than are told apart; the interface of their flows is `other`",
        ),
        (
            "names of hosts",
            summary.early_names,
            "more names than are kept at one time; flows with such hosts may have no name",
        ),
        (
            "messages of further DNS names",
            summary.dns.names.other.packets,
            "more names than are counted apart; a name that came late may be missing among the top ones",
        ),
        (
            "client hellos of further names",
            summary.tls.names.other.packets,
            "more names than are counted apart; a name that came late may be missing among the top ones",
        ),
    ];
    given_up
        .into_iter()
        .filter(|(_, count, _)| *count > 0)
        .map(|(what, count, meaning)| GivenUp { what: what.to_owned(), count, meaning: meaning.to_owned() })
        .collect()
}
