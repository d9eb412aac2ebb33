//! The report of an analysis: what a person or a program wants to know of a capture without asking for rows.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use uuid::Uuid;
use weir_flow::analyzer::{DnsSummary, Summary, TlsSummary, Top, Totals};
use weir_flow::packet::Unanalysed;
use weir_report::{
    Capture, CodeCount, Damage, Dns, FlowCounts, GivenUp, NameCount, NotAnalysed, OfProtocol, OnLink, Report, Talker,
    Tls, VERSION,
};

use crate::analysis::Analysis;

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
}

/// The report of an analysis that came to its end.
#[must_use]
pub fn report(about: About, analysis: &Analysis) -> Report {
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
        },
        totals: totals(summary),
        health: None,
        findings: Vec::new(),
        findings_left_out: 0,
        timeline: None,
        links: summary
            .links
            .iter()
            .map(|(link, &Totals { packets, bytes })| OnLink { link_type: link.0, packets, bytes })
            .collect(),
        protocols: summary
            .protocols
            .iter()
            .map(|(&protocol, &Totals { packets, bytes })| OfProtocol { protocol, packets, bytes })
            .collect(),
        services: Vec::new(),
        flows: FlowCounts {
            flows: summary.flows,
            records: summary.flow_records,
            evicted: summary.evicted_flows,
            packets_in_tunnels: summary.inner.packets,
            one_way: None,
        },
        talkers: talkers(&summary.talkers),
        conversations: Vec::new(),
        tcp: None,
        dns: dns(&summary.dns),
        tls: tls(&summary.tls, summary.unfollowed_streams),
        http: None,
        streams: Vec::new(),
        damage: analysis.damage.as_ref().map(|damage| Damage {
            packets: damage.packets,
            offset: damage.offset,
            reason: damage.reason.clone(),
        }),
        not_analysed: not_analysed(summary),
        given_up: given_up(summary),
        thresholds: serde_json::Map::new(),
    }
}

/// As it is stored and shown.
pub fn to_json(report: &Report) -> serde_json::Result<String> {
    serde_json::to_string_pretty(report)
}

fn totals(summary: &Summary) -> weir_report::Totals {
    let (first, last) = (summary.first_time, summary.last_time);
    weir_report::Totals {
        packets: summary.frames.packets,
        bytes: summary.frames.bytes,
        first_packet: first.map(rfc3339),
        last_packet: last.map(rfc3339),
        duration_us: last.unwrap_or(0) - first.unwrap_or(0),
        cut_packets: summary.cut_frames,
        clock_steps_back: summary.clock_steps_back,
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
    let talker = |(ip, Totals { packets, bytes })| Talker { ip: address(ip), packets, bytes };
    talkers.first(TOP).into_iter().map(talker).collect()
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
            "packets of further talkers",
            summary.talkers.other.packets,
            "more addresses than are counted apart; an address that came late may be missing among the top ones",
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
