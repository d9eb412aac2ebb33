//! The report of an analysis: what a person or a program wants to know of a capture without asking for rows.

use std::net::Ipv6Addr;

use serde::Serialize;
use uuid::Uuid;
use weir_flow::analyzer::{DnsSummary, Summary, TlsSummary, Top, Totals};
use weir_flow::packet::Unanalysed;

use crate::analysis::Analysis;

/// Version of this form; grows when a field changes its meaning.
const VERSION: u32 = 1;
/// Interfaces that are listed.
const MAX_INTERFACES: usize = 1000;
/// Names in a list of the most frequent ones.
const TOP: usize = 20;

/// The report, as JSON.
#[derive(Debug, Serialize)]
pub struct Report {
    version: u32,
    capture: Capture,
    totals: TotalsOf,
    links: Vec<OnLink>,
    protocols: Vec<OfProtocol>,
    flows: FlowCounts,
    talkers: Vec<Talker>,
    dns: Dns,
    tls: Tls,
    damage: Option<Damage>,
    not_analysed: Vec<NotAnalysed>,
}

/// What the report says of the file itself.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Capture {
    /// Absent for a file that was not uploaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture_id: Option<Uuid>,
    /// As uploaded.
    pub name: String,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// `pcap` or `pcapng`; filled in by the analysis.
    pub format: String,
    /// `gzip`, `zstd`, or empty; filled in by the analysis.
    pub compression: String,
    /// Names of its interfaces; filled in by the analysis.
    pub interfaces: Vec<String>,
}

#[derive(Debug, Serialize)]
struct TotalsOf {
    packets: u64,
    bytes: u64,
    first_packet: Option<String>,
    last_packet: Option<String>,
    duration_us: u64,
    /// Packets of which the capture kept less than was on the wire.
    cut_packets: u64,
    clock_steps_back: u64,
    fragments: u64,
}

#[derive(Debug, Serialize)]
struct OnLink {
    link_type: u16,
    packets: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct OfProtocol {
    protocol: u8,
    packets: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct FlowCounts {
    flows: u64,
    records: u64,
    evicted: u64,
    packets_in_tunnels: u64,
}

#[derive(Debug, Serialize)]
struct Talker {
    ip: String,
    packets: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Dns {
    queries: u64,
    answers: u64,
    unanswered: u64,
    unasked: u64,
    malformed: u64,
    unreadable: u64,
    rcodes: Vec<Count<u16>>,
    distinct_names: usize,
    names: Vec<Count<String>>,
}

#[derive(Debug, Serialize)]
struct Tls {
    client_hellos: u64,
    versions: Vec<Count<String>>,
    distinct_names: usize,
    names: Vec<Count<String>>,
    unfollowed_streams: u64,
}

#[derive(Debug, Serialize)]
struct Count<T> {
    value: T,
    count: u64,
}

#[derive(Debug, Serialize)]
struct Damage {
    packets: u64,
    offset: u64,
    reason: String,
}

#[derive(Debug, Serialize)]
struct NotAnalysed {
    reason: String,
    /// `frame`: the whole frame made no flow; `tunnel`: what is inside made none, its carrier did; `fragment`: counted without ports.
    within: &'static str,
    packets: u64,
}

impl Report {
    /// The report of an analysis that came to its end.
    #[must_use]
    pub fn new(mut capture: Capture, analysis: &Analysis) -> Self {
        analysis.format.name().clone_into(&mut capture.format);
        analysis.compression.clone_into(&mut capture.compression);
        capture.interfaces = analysis.interfaces.iter().take(MAX_INTERFACES).cloned().collect();
        let summary = &analysis.summary;
        Self {
            version: VERSION,
            capture,
            totals: totals(summary),
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
            flows: FlowCounts {
                flows: summary.flows,
                records: summary.flow_records,
                evicted: summary.evicted_flows,
                packets_in_tunnels: summary.inner.packets,
            },
            talkers: talkers(&summary.talkers),
            dns: dns(&summary.dns),
            tls: tls(&summary.tls, summary.unfollowed_streams),
            damage: analysis.damage.as_ref().map(|damage| Damage {
                packets: damage.packets,
                offset: damage.offset,
                reason: damage.reason.clone(),
            }),
            not_analysed: not_analysed(summary),
        }
    }

    /// As it is stored and shown.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

fn totals(summary: &Summary) -> TotalsOf {
    let (first, last) = (summary.first_time, summary.last_time);
    TotalsOf {
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

fn talkers(talkers: &Top<[u8; 16]>) -> Vec<Talker> {
    let talker =
        |(ip, Totals { packets, bytes })| Talker { ip: Ipv6Addr::from(ip).to_canonical().to_string(), packets, bytes };
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
        rcodes: dns.rcodes.iter().map(|(&value, &count)| Count { value, count }).collect(),
        distinct_names: dns.names.distinct(),
        names: names(&dns.names),
    }
}

fn tls(tls: &TlsSummary, unfollowed_streams: u64) -> Tls {
    Tls {
        client_hellos: tls.hellos,
        versions: tls
            .versions
            .iter()
            .map(|(version, &count)| Count { value: format!("0x{version:04x}"), count })
            .collect(),
        distinct_names: tls.names.distinct(),
        names: names(&tls.names),
        unfollowed_streams,
    }
}

fn names(names: &Top<String>) -> Vec<Count<String>> {
    names.first(TOP).into_iter().map(|(value, totals)| Count { value, count: totals.packets }).collect()
}

fn not_analysed(summary: &Summary) -> Vec<NotAnalysed> {
    let reasons = |within, counts: &std::collections::BTreeMap<Unanalysed, u64>| {
        counts
            .iter()
            .map(|(reason, &packets)| NotAnalysed { reason: reason.to_string(), within, packets })
            .collect::<Vec<_>>()
    };
    let mut all = reasons("frame", &summary.unanalysed);
    all.extend(reasons("tunnel", &summary.unanalysed_inside));
    if summary.orphan_fragments > 0 {
        let reason = "the first fragment is missing".to_owned();
        all.push(NotAnalysed { reason, within: "fragment", packets: summary.orphan_fragments });
    }
    all
}
