//! Recordings of `tests/captures/record-findings.py`: what happened in each is found, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;

use anyhow::{Context as _, Result};
use weir_flow::Record;
use weir_flow::findings::Severity;
use weir_pcap_worker::analysis::{Analysis, Live, analyse};
use weir_pcap_worker::capture_file::{CaptureFile, Limits, Progress};
use weir_pcap_worker::report::{About, report};
use weir_proto::Flow;

use Severity::{Critical, Info, Warning};

/// Name of the recording, and what is to be found in it.
const RECORDINGS: [(&str, &[(&str, Severity)]); 53] = [
    ("address-conflict", &[("address_conflict", Critical)]),
    ("address-conflict-ipv6", &[("address_conflict", Critical)]),
    ("amplification", &[("amplification", Critical)]),
    // The port that was asked is closed; each complaint was captured twice.
    ("any-interface", &[("connection_refused", Info)]),
    ("asymmetric-path", &[("asymmetric_path", Info)]),
    ("beacon", &[("beacon", Warning)]),
    ("brute-force-ftp", &[("brute_force", Warning), ("cleartext_credentials", Warning)]),
    ("brute-force-http", &[("brute_force", Warning), ("cleartext_credentials", Warning)]),
    ("brute-force-mail", &[("brute_force", Warning), ("cleartext_credentials", Warning)]),
    ("brute-force-ssh", &[("brute_force", Warning)]),
    ("burst", &[("burst", Info)]),
    ("certificate", &[("certificate_expiring", Warning), ("certificate_self_signed", Info)]),
    ("certificate-expired", &[("certificate_expired", Critical)]),
    ("certificate-expiring", &[("certificate_expiring", Warning)]),
    ("certificate-self-signed", &[("certificate_self_signed", Info)]),
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
    ("http2", &[]),
    ("icmp-flood", &[("icmp_flood", Warning)]),
    ("icmp-tunnel", &[("icmp_tunnel", Warning)]),
    ("lateral-movement", &[("lateral_movement", Warning)]),
    ("one-way-datagrams", &[]),
    ("path-mtu", &[("path_mtu", Info)]),
    ("path-mtu-black-hole", &[("path_mtu_black_hole", Critical)]),
    ("port-scan-horizontal", &[("port_scan_horizontal", Warning)]),
    ("port-scan-vertical", &[("port_scan_vertical", Warning)]),
    ("quic", &[]),
    ("retransmissions", &[("retransmissions", Warning)]),
    ("rhythm", &[]),
    ("rtp", &[]),
    ("silences", &[]),
    ("state-half-closed", &[]),
    ("state-half-open", &[]),
    ("state-idle", &[]),
    ("state-zombie", &[]),
    ("stream-gap", &[("stream_gap", Warning)]),
    ("syn-flood", &[("syn_flood", Critical)]),
    ("time-exceeded", &[("time_exceeded", Warning)]),
    ("transfer-paused", &[("transfer_stalled", Warning)]),
    ("transfer-stalled", &[("transfer_stalled", Warning)]),
    ("udp-flood", &[("udp_flood", Critical)]),
    ("unreachable", &[("unreachable", Warning)]),
    ("zero-window", &[("zero_window", Warning)]),
];

fn recording(name: &str) -> Result<fs::File> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/captures/finding-{name}.pcap.gz"));
    fs::File::open(path).with_context(|| name.to_owned())
}

fn analysed(name: &str) -> Result<(Vec<Flow>, Analysis)> {
    read(recording(name)?, name)
}

fn read(file: impl Read + Send + 'static, name: &str) -> Result<(Vec<Flow>, Analysis)> {
    let mut flows = Vec::new();
    let analysis = analyse(file, Limits::default(), weir_flow::Config::default(), &Live::default(), |record| {
        if let Record::Flow(flow) = record {
            flows.push(flow.clone());
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
            // ARP is of no flow.
            let has_flow = finding.flow_ids.iter().any(|id| ids.contains(id));
            assert!(has_flow || kind == "address_conflict", "{name}: {kind} names no flow");
            assert!(!finding.packets.is_empty(), "{name}: {kind} names no packet");
            assert!(finding.flow_ids.iter().all(|id| ids.contains(id)), "{name}: {kind} names strange flows");
            let in_file = |packet: &u64| (1..=analysis.summary.frames.packets).contains(packet);
            assert!(finding.packets.iter().all(in_file), "{name}: {kind} names strange packets");
            assert!(Some(finding.time) >= first && Some(finding.end_time) <= last, "{name}: {kind}");
            assert!((0.1..=1.0).contains(&finding.confidence), "{name}: {kind}");
        }
    }
    Ok(())
}

/// The display filters of tshark that give the same numbers are in the comments.
#[test]
fn the_packets_of_findings_are_those_that_show_them() -> Result<()> {
    let cases: [(&str, &str, &[u64]); 6] = [
        // dns.time >= 0.5
        ("dns-slow", "dns_slow", &[8, 16, 24, 32]),
        // dns.flags.response == 0 && !dns.response_in, in the second pass
        ("dns-unanswered", "dns_unanswered", &[5, 10, 15, 20, 25]),
        // tls.handshake.certificate
        ("certificate", "certificate_expiring", &[8]),
        ("certificate", "certificate_self_signed", &[8]),
        ("certificate-expired", "certificate_expired", &[8, 22, 36, 50]),
        // ip.fragment.overlap.conflict, which tshark says of the packet that completes the whole
        ("fragments-overlap", "fragments_overlap", &[2]),
    ];
    for (name, kind, packets) in cases {
        let (flows, analysis) = analysed(name)?;
        let finding = analysis.summary.findings.list.iter().find(|finding| finding.kind.name() == kind);
        let finding = finding.with_context(|| format!("{name}: no {kind}"))?;
        assert_eq!(finding.packets, packets, "{name}");
        let mut file = CaptureFile::open(recording(name)?, Limits::default(), &Progress::default())?;
        let mut times = Vec::new();
        while let Ok(Some(packet)) = file.next_packet() {
            if packets.contains(&packet.number) {
                times.push(packet.time_us);
            }
        }
        // A slow answer is from its query on.
        let starts = if kind == "dns_slow" { ..=times[0] - 500_000 } else { ..=times[0] };
        assert!(starts.contains(&finding.time) && Some(&finding.end_time) == times.last(), "{name}: {kind}");
        assert!(flows.iter().any(|flow| finding.flow_ids.contains(&flow.flow_id)), "{name}: {kind}");
    }
    Ok(())
}

#[test]
fn a_burst_names_the_flow_that_made_it() -> Result<()> {
    let (flows, analysis) = analysed("burst")?;
    let transfer = flows.iter().find(|flow| flow.dst_port == 9000).context("no transfer")?;
    assert_eq!(analysis.summary.findings.list[0].flow_ids, [transfer.flow_id]);
    Ok(())
}

#[test]
fn the_packets_of_answers_that_fail_are_those_answers() -> Result<()> {
    /// The last byte of the flags of a DNS message in UDP, IPv4 and Ethernet.
    const RCODE: usize = 14 + 20 + 8 + 3;
    for (name, kind, codes) in [("dns-failures", "dns_failures", [2, 5]), ("dns-nxdomain", "dns_nxdomain", [3, 3])] {
        let (_, analysis) = analysed(name)?;
        let finding = analysis.summary.findings.list.iter().find(|finding| finding.kind.name() == kind);
        let named = &finding.with_context(|| format!("{name}: no {kind}"))?.packets;
        let mut file = CaptureFile::open(recording(name)?, Limits::default(), &Progress::default())?;
        let mut failed = Vec::new();
        while let Ok(Some(packet)) = file.next_packet() {
            let is_answer = packet.data.get(RCODE - 1).is_some_and(|flags| flags & 0x80 != 0);
            if is_answer && codes.contains(&(packet.data[RCODE] & 0x0f)) {
                failed.push(packet.number);
            }
        }
        failed.truncate(named.len());
        assert!(!named.is_empty() && *named == failed, "{name}: {named:?}, {failed:?}");
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

#[test]
fn a_certificate_that_is_over_is_one_finding_however_often_it_is_shown() -> Result<()> {
    let (_, analysis) = analysed("certificate-expired")?;
    let [finding] = &analysis.summary.findings.list[..] else { anyhow::bail!("{:?}", analysis.summary.findings.list) };
    let evidence = |name: &str| finding.evidence.get(name).cloned().unwrap_or_default();
    assert_eq!((evidence("hellos"), evidence("certificates")), (4.into(), 1.into()));
    assert_eq!(evidence("subject"), "CN=old.weir.example");
    assert_eq!((finding.flow_ids.len(), finding.dst_port), (4, Some(443)));
    assert!(finding.summary.contains("expired 10 days before the capture"), "{}", finding.summary);
    let report = reported(analysis);
    assert_eq!(report.tls.certificates.iter().map(|certificate| certificate.expired).collect::<Vec<_>>(), [true]);
    Ok(())
}

/// How often each kind of silence was, by its name.
fn silences(report: &weir_report::Report) -> BTreeMap<&str, u64> {
    let tcp = report.tcp.iter();
    tcp.flat_map(|tcp| &tcp.silences).map(|silence| (silence.waited_for.as_str(), silence.count)).collect()
}

#[test]
fn a_silence_is_told_by_what_was_waited_for() -> Result<()> {
    let of = |name| anyhow::Ok(reported(analysed(name)?.1));
    // 1.7 s and 1.4 s at rest, and an answer that took 2.5 s, less the time to acknowledge the question.
    let rest = of("silences")?;
    assert_eq!(silences(&rest), BTreeMap::from([("answer", 1), ("nothing", 2)]));
    let longest = |report: &weir_report::Report, kind| {
        let silence = report.tcp.iter().flat_map(|tcp| &tcp.silences).find(|silence| silence.waited_for == kind);
        silence.map_or(0, |silence| silence.longest_us / 100_000)
    };
    assert_eq!((longest(&rest, "answer"), longest(&rest, "nothing")), (24, 17));
    let paused = of("transfer-paused")?;
    assert_eq!(silences(&paused), BTreeMap::from([("message", 1)]));
    assert_eq!(longest(&paused, "message"), 40);
    // Linux tries again after 0.2 s, and waits twice as long each time.
    let stalled = of("transfer-stalled")?;
    // At rest before its end, too.
    assert_eq!(silences(&stalled), BTreeMap::from([("acknowledgement", 2), ("nothing", 1)]));
    assert!((30..36).contains(&longest(&stalled, "acknowledgement")));
    Ok(())
}

#[test]
fn the_packet_that_ended_a_stall_is_named() -> Result<()> {
    let report = reported(analysed("transfer-paused")?.1);
    let tcp = report.tcp.as_ref().context("there is no TCP")?;
    assert_eq!(report.findings[0].packets, [tcp.silences[0].packet]);
    // The second half of the answer comes in packets with data.
    assert_eq!(tcp.silences[0].dst, "10.77.0.2:80");
    Ok(())
}

#[test]
fn how_a_connection_stands_at_the_end_is_told_of_each_alone() -> Result<()> {
    let states = |name| anyhow::Ok(reported(analysed(name)?.1).tcp.context("there is no TCP")?.states);
    let none = weir_report::TcpStates::default;
    assert_eq!(states("state-idle")?, weir_report::TcpStates { idle: 1, ..none() });
    assert_eq!(states("state-zombie")?, weir_report::TcpStates { zombie: 1, ..none() });
    assert_eq!(states("state-half-closed")?, weir_report::TcpStates { half_closed: 1, ..none() });
    assert_eq!(states("state-half-open")?, weir_report::TcpStates { half_open: 2, ..none() });
    assert_eq!(states("silences")?, none(), "closed by both");
    Ok(())
}

#[test]
fn a_rhythm_is_listed_whether_it_harms_or_not_and_chance_is_none() -> Result<()> {
    let report = reported(analysed("rhythm")?.1);
    let [rhythm] = &report.rhythms[..] else { anyhow::bail!("{:?}", report.rhythms) };
    assert_eq!((rhythm.dst_port, rhythm.protocol, rhythm.flows), (9000, 6, 14));
    assert!((0.49..0.51).contains(&rhythm.interval_s) && rhythm.jitter_percent < 5.0, "{rhythm:?}");
    Ok(())
}

#[test]
fn flows_with_one_direction_are_listed_with_the_one_that_is_missing() -> Result<()> {
    let requests = reported(analysed("asymmetric-path")?.1);
    assert_eq!((requests.flows.one_way, requests.flows.one_way_udp), (Some(6), Some(0)));
    assert_eq!(requests.one_way_flows.len(), 6);
    for flow in &requests.one_way_flows {
        assert_eq!((flow.seen.as_str(), flow.certain, flow.service.as_str()), ("requests", true, "tcp/9000"));
        assert!(flow.dst == "10.77.0.2:9000" && flow.src.starts_with("10.77.0.1:"), "{flow:?}");
    }
    let answers = reported(analysed("one-way-datagrams")?.1);
    assert_eq!((answers.flows.one_way, answers.flows.one_way_udp), (Some(0), Some(16)));
    for flow in &answers.one_way_flows {
        assert_eq!((flow.seen.as_str(), flow.certain, flow.service.as_str()), ("answers", true, "dns"));
        assert!(flow.src == "10.77.0.2:53" && flow.dst.starts_with("10.77.0.1:"), "{flow:?}");
    }
    assert_eq!(answers.one_way_flows.len(), 16);
    // Both directions of everything.
    assert_eq!(reported(analysed("silences")?.1).one_way_flows, []);
    Ok(())
}

/// A recording of which only so many bytes of each packet are left.
fn cut(name: &str, most: u32) -> Result<Vec<u8>> {
    let mut whole = Vec::new();
    flate2::read::GzDecoder::new(recording(name)?).read_to_end(&mut whole)?;
    let (head, mut rest) = whole.split_at(24);
    let mut cut = head.to_vec();
    while let Some((head, after)) = rest.split_at_checked(16) {
        let kept = u32::from_le_bytes(head[8..12].try_into()?);
        let (data, after) = after.split_at(kept as usize);
        let left = kept.min(most);
        cut.extend_from_slice(&head[..8]);
        cut.extend_from_slice(&left.to_le_bytes());
        cut.extend_from_slice(&head[12..]);
        cut.extend_from_slice(&data[..left as usize]);
        rest = after;
    }
    Ok(cut)
}

#[test]
fn what_nothing_supports_has_no_score_in_any_format() -> Result<()> {
    // One packet, a handshake that is refused, errors of ICMP alone, claims of addresses alone.
    let mut first = Vec::new();
    flate2::read::GzDecoder::new(recording("connection-refused")?).read_to_end(&mut first)?;
    let kept = u32::from_le_bytes(first[32..36].try_into()?) as usize;
    first.truncate(24 + 16 + kept);
    let one = reported(read(Cursor::new(first), "one packet")?.1);
    assert_eq!(one.totals.packets, 1);
    let others =
        ["connection-refused", "time-exceeded", "address-conflict"].map(|name| anyhow::Ok(reported(analysed(name)?.1)));
    for report in [Ok(one.clone())].into_iter().chain(others) {
        let report = report?;
        assert_eq!(report.health, None, "{:?}", report.not_judged);
        assert_eq!(report.not_judged.len(), 6);
        let json = serde_json::to_value(&report)?;
        assert!(json.get("health").is_none() && json["not_judged"][0]["reason"].is_string());
        assert!(weir_report::html(&report).contains("There is no score."));
        assert!(weir_report::markdown(&report).contains("## Health: no score"));
        assert!(weir_report::csv(&report, weir_report::Table::Health).contains("\r\nloss,,,,,"));
    }
    assert_eq!(one.not_judged[0].reason, "TCP packets: 1, and at least 50 are needed");
    // With enough of it there is one, and what it lacks is told.
    let busy = reported(analysed("retransmissions")?.1);
    let parts = busy.health.as_ref().context("no score")?.parts.iter().map(|part| part.name.as_str());
    assert_eq!(parts.collect::<Vec<_>>(), ["loss", "retransmission", "rtt", "anomalies"]);
    assert_eq!(busy.not_judged.iter().map(|part| part.part.as_str()).collect::<Vec<_>>(), ["dns", "jitter"]);
    let comparison = weir_report::Comparison::new(&one, &busy);
    let note = comparison.differences[0].note.clone().context("no note")?;
    assert!(note.starts_with("no score before: loss: TCP packets: 1,"), "{note}");
    assert!(weir_report::comparison_markdown(&comparison).contains(&note));
    Ok(())
}

#[test]
fn of_headers_that_the_capture_cut_nothing_is_said() -> Result<()> {
    // Of each TCP header the ports and half of the sequence number.
    let report = reported(read(Cursor::new(cut("retransmissions", 40)?), "cut")?.1);
    let tcp = report.tcp.as_ref().context("there is no TCP")?;
    assert_eq!((tcp.packets, tcp.cut_packets), (1042, 1042));
    assert_eq!(report.health, None, "nothing was measured");
    assert!(weir_report::markdown(&report).contains("not even the header is whole"));
    let whole = reported(analysed("retransmissions")?.1);
    assert_eq!(whole.tcp.context("there is no TCP")?.cut_packets, 0);
    Ok(())
}

#[test]
fn refused_logins_are_told_by_service_and_so_are_passwords_in_clear() -> Result<()> {
    // Client, port, and the packets that tshark shows with smtp.response.code == 535, imap.response.status == "NO", pop.response.indicator
    // == "-ERR" and http.response.code == 401.
    let seven = |first: u64| (0..7).map(|number| first + 66 * number).collect::<Vec<_>>();
    let twice = |first: u64| (0..7).flat_map(|number| [first + 66 * number, first + 2 + 66 * number]).collect();
    let refused =
        [("smtp", 25, twice(10)), ("smtp", 587, seven(31)), ("imap", 143, seven(46)), ("pop3", 110, seven(61))];
    let (flows, analysis) = analysed("brute-force-mail")?;
    let of = |kind: &str, port: u16| {
        let mut list = analysis.summary.findings.list.iter();
        list.find(|finding| finding.kind.name() == kind && finding.dst_port == Some(port))
    };
    for (service, port, packets) in refused {
        let finding = of("brute_force", port).with_context(|| format!("{port}"))?;
        assert_eq!((&finding.evidence["service"], &finding.packets), (&service.into(), &packets), "{port}");
        assert_eq!(finding.evidence["refused_logins"], packets.len());
        let port_of = |id: &u64| flows.iter().find(|flow| flow.flow_id == *id).map(|flow| flow.dst_port);
        assert!(finding.flow_ids.iter().all(|id| port_of(id) == Some(u32::from(port))));
        let secret = of("cleartext_credentials", port).with_context(|| format!("{port}"))?;
        assert!(secret.summary.contains(service), "{}", secret.summary);
    }
    // In two steps the password goes alone: it is the question that shows it.
    let steps = of("cleartext_credentials", 587).context("no password in steps")?;
    assert_eq!((steps.confidence, &steps.packets), (0.7, &seven(29)));
    let (_, analysis) = analysed("brute-force-http")?;
    let finding = analysis.summary.findings.list.iter().find(|finding| finding.kind.name() == "brute_force");
    assert_eq!(finding.context("no brute force")?.packets, [6, 16, 26, 36, 46, 56, 66]);
    Ok(())
}

#[test]
fn a_host_that_answers_for_the_address_of_another_is_found_in_neighbour_discovery() -> Result<()> {
    let (flows, analysis) = analysed("address-conflict-ipv6")?;
    let [finding] = &analysis.summary.findings.list[..] else { anyhow::bail!("{:?}", analysis.summary.findings.list) };
    let macs = finding.evidence["hardware_addresses"].as_array().context("no addresses")?;
    assert_eq!((macs.len(), finding.summary.starts_with("fd77::2 is claimed by 2")), (2, true));
    assert!(flows.iter().any(|flow| finding.flow_ids.contains(&flow.flow_id) && flow.protocol == 58));
    Ok(())
}

/// The rows of hellos and of requests.
fn talks(name: &str) -> Result<(Vec<weir_proto::Tls>, Vec<weir_proto::Http>)> {
    let (mut tls, mut http) = (Vec::new(), Vec::new());
    analyse(recording(name)?, Limits::default(), weir_flow::Config::default(), &Live::default(), |record| {
        match record {
            Record::Tls(row) => tls.push(row.clone()),
            Record::Http(row) => http.push(row.clone()),
            _ => {}
        }
        Ok(())
    })?;
    Ok((tls, http))
}

#[test]
fn connections_of_quic_have_their_hello_with_and_without_a_retry() -> Result<()> {
    let (tls, _) = talks("quic")?;
    let rows: Vec<_> = tls.iter().map(|row| (row.sni.as_str(), row.dst_port, row.chosen_version, row.cipher)).collect();
    // What the server hello says, tshark shows as tls.handshake.type == 2.
    assert_eq!(rows, [("quic.weir.example", 443, 0x0304, 0x1302), ("quic.weir.example", 8443, 0x0304, 0x1302)]);
    for row in &tls {
        assert!(row.ja4.starts_with("q13d") && row.alpn == ["h3"], "{row:?}");
        assert_eq!(row.not_after, 0, "certificates of QUIC are encrypted");
    }
    let (flows, _) = analysed("quic")?;
    assert!(flows.iter().all(|flow| flow.app == "quic" && flow.dst_name == "quic.weir.example"), "{flows:?}");
    Ok(())
}

#[test]
fn requests_of_one_connection_of_http_2_have_each_their_own_answer() -> Result<()> {
    let (_, http) = talks("http2")?;
    let mut rows: Vec<_> =
        http.iter().map(|row| (row.path.as_str(), row.status, row.latency_us.unwrap_or(0) / 1000)).collect();
    rows.sort_unstable();
    // From packet 4 to 9, 10 to 14 and 12 to 16, by http2.streamid.
    assert_eq!(rows, [("/first", Some(200), 11), ("/late", Some(200), 201), ("/refused", Some(403), 199)]);
    for row in &http {
        let is = (row.method.as_str(), row.authority.as_str(), row.version.as_str(), row.user_agent.as_str());
        assert_eq!(is, ("GET", "two.weir.example:8080", "2", "weir"));
    }
    Ok(())
}
