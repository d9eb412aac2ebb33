//! Recordings of `tests/captures/record-findings.py`: what happened in each is found, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use weir_flow::Record;
use weir_flow::findings::Severity;
use weir_pcap_worker::analysis::{Analysis, Live, analyse};
use weir_pcap_worker::capture_file::Limits;
use weir_pcap_worker::report::{About, report};
use weir_proto::Flow;

use Severity::{Critical, Info, Warning};

/// Name of the recording, and what is to be found in it.
const RECORDINGS: [(&str, &[(&str, Severity)]); 36] = [
    ("address-conflict", &[("address_conflict", Critical)]),
    ("amplification", &[("amplification", Critical)]),
    // The port that was asked is closed; each complaint was captured twice.
    ("any-interface", &[("connection_refused", Info)]),
    ("asymmetric-path", &[("asymmetric_path", Info)]),
    ("beacon", &[("beacon", Warning)]),
    ("brute-force-ftp", &[("brute_force", Warning), ("cleartext_credentials", Warning)]),
    ("brute-force-ssh", &[("brute_force", Warning)]),
    ("burst", &[("burst", Info)]),
    ("certificate", &[("certificate_expiring", Warning), ("certificate_self_signed", Info)]),
    ("cleartext-credentials", &[("cleartext_credentials", Warning)]),
    ("connection-refused", &[("connection_refused", Warning)]),
    ("connection-reset", &[("connection_reset", Info)]),
    ("connection-unanswered", &[("connection_unanswered", Warning)]),
    ("dns-failures", &[("dns_failures", Warning)]),
    ("dns-nxdomain", &[("dns_nxdomain", Info)]),
    ("dns-slow", &[("dns_slow", Warning)]),
    ("dns-tunnel", &[("dns_tunnel", Critical)]),
    ("dns-unanswered", &[("dns_unanswered", Warning)]),
    ("exfiltration", &[("exfiltration", Warning)]),
    ("fragments-incomplete", &[("fragments_incomplete", Warning)]),
    ("fragments-overlap", &[("fragments_overlap", Critical)]),
    ("icmp-flood", &[("icmp_flood", Warning)]),
    ("icmp-tunnel", &[("icmp_tunnel", Warning)]),
    ("lateral-movement", &[("lateral_movement", Warning)]),
    ("path-mtu", &[("path_mtu", Info)]),
    ("path-mtu-black-hole", &[("path_mtu_black_hole", Critical)]),
    ("port-scan-horizontal", &[("port_scan_horizontal", Warning)]),
    ("port-scan-vertical", &[("port_scan_vertical", Warning)]),
    ("retransmissions", &[("retransmissions", Warning)]),
    ("rtp", &[]),
    ("stream-gap", &[("stream_gap", Warning)]),
    ("syn-flood", &[("syn_flood", Critical)]),
    ("time-exceeded", &[("time_exceeded", Warning)]),
    ("udp-flood", &[("udp_flood", Critical)]),
    ("unreachable", &[("unreachable", Warning)]),
    ("zero-window", &[("zero_window", Warning)]),
];

fn analysed(name: &str) -> Result<(Vec<Flow>, Analysis)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/captures/finding-{name}.pcap.gz"));
    let file = fs::File::open(path).with_context(|| name.to_owned())?;
    let mut flows = Vec::new();
    let analysis = analyse(file, Limits::default(), weir_flow::Config::default(), &Live::default(), |record| {
        if let Record::Flow(flow) = record {
            flows.push(flow);
        }
        Ok(())
    })?;
    assert_eq!(analysis.damage, None, "{name}");
    Ok((flows, analysis))
}

fn reported(analysis: Analysis) -> weir_report::Report {
    report(About { capture_id: None, name: String::new(), size_bytes: 0, thresholds: String::new() }, analysis)
}

#[test]
fn what_happened_is_found_and_nothing_else() -> Result<()> {
    let mut wrong = Vec::new();
    for (name, expected) in RECORDINGS {
        let (_, analysis) = analysed(name)?;
        let found = analysis.summary.findings.list.iter().map(|finding| (finding.kind.name(), finding.severity));
        let found: BTreeSet<_> = found.collect();
        if found != expected.iter().copied().collect() {
            wrong.push(format!("{name}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    Ok(())
}

#[test]
fn each_finding_names_flows_and_packets_of_its_capture() -> Result<()> {
    for (name, _) in RECORDINGS {
        let (flows, analysis) = analysed(name)?;
        let ids: BTreeSet<u64> = flows.iter().map(|flow| flow.flow_id).collect();
        let (first, last) = (analysis.summary.first_time, analysis.summary.last_time);
        for finding in &analysis.summary.findings.list {
            let kind = finding.kind.name();
            // Overlapping and lost fragments, claims of addresses, bursts and certificates are of no one flow.
            let has_flow = finding.flow_ids.iter().any(|id| ids.contains(id));
            let of_packets = ["fragments_incomplete", "fragments_overlap", "address_conflict", "burst"].contains(&kind);
            assert!(has_flow || of_packets, "{name}: {kind} names no flow");
            assert!(finding.flow_ids.iter().all(|id| ids.contains(id)), "{name}: {kind} names strange flows");
            let in_file = |packet: &u64| (1..=analysis.summary.frames.packets).contains(packet);
            assert!(finding.packets.iter().all(in_file), "{name}: {kind} names strange packets");
            assert!(Some(finding.time) >= first && Some(finding.end_time) <= last, "{name}: {kind}");
            assert!((0.1..=1.0).contains(&finding.confidence), "{name}: {kind}");
        }
    }
    Ok(())
}

#[test]
fn a_router_that_is_captured_on_all_interfaces_retransmits_nothing() -> Result<()> {
    let (flows, analysis) = analysed("any-interface")?;
    let (copies, routed) = (analysis.summary.duplicates, analysis.summary.routed_duplicates);
    assert_eq!((copies, routed), (60, 60), "each of 60 packets comes in and goes out");
    let tcp = flows.iter().filter(|flow| flow.protocol == 6);
    for flow in tcp {
        let sums = (flow.tx_retransmits, flow.rx_retransmits, flow.tx_duplicate_acks, flow.rx_duplicate_acks);
        assert_eq!(sums, (Some(0), Some(0), Some(0), Some(0)), "{flow:?}");
        assert_eq!((flow.tx_packets % 2, flow.rx_packets % 2), (0, 0), "packets stay as captured");
    }
    let report = reported(analysis);
    assert_eq!((report.totals.duplicate_packets, report.totals.routed_duplicates), (60, 60));
    assert_eq!(report.icmp_errors.iter().map(|error| error.count).sum::<u64>(), 5, "a complaint counts once");
    Ok(())
}

#[test]
fn a_stream_of_speech_has_its_jitter_its_variation_and_its_losses() -> Result<()> {
    let (flows, analysis) = analysed("rtp")?;
    let flow = flows.iter().find(|flow| flow.app == "rtp").context("there is no stream")?;
    // Every tenth packet was 6 ms late: two differences in ten are 6 ms, the others next to none.
    let [median, p95] = [flow.tx_delay_variation_us, flow.tx_delay_variation_p95_us].map(Option::unwrap_or_default);
    assert!(median < 2000 && (5000..20_000).contains(&p95), "{median} {p95}");
    assert_eq!((flow.tx_rtp_lost, flow.tx_rtp_reordered), (Some(2), Some(0)));
    let report = reported(analysis);
    let stream = &report.streams[0];
    assert_eq!((stream.packets, stream.lost), (298, 2));
    assert_eq!(stream.delay_variation_us.map(|[median, ..]| median), Some(u64::from(median)));
    Ok(())
}

#[test]
fn connections_are_told_apart_by_how_they_end() -> Result<()> {
    let tcp = |name| reported(analysed(name)?.1).tcp.context("there is no TCP");
    let reset = tcp("connection-reset")?;
    assert_eq!((reset.states.reset_after_data, reset.states.reset_by_initiator), (14, 0));
    let refused = tcp("connection-refused")?;
    assert_eq!((refused.states.reset_before_data, refused.states.reset_by_initiator), (5, 0));
    // Linux waits 1 s, then twice as long each time.
    let unanswered = tcp("connection-unanswered")?;
    let waits: Vec<_> = unanswered.syn_backoff.iter().map(|wait| (wait.count, wait.median_us / 500_000)).collect();
    assert!(waits.len() >= 2 && waits[0] == (2, 2), "{waits:?}");
    let flood = tcp("syn-flood")?;
    assert!(flood.states.half_open > 100, "{:?}", flood.states);
    Ok(())
}
