//! Captures of a real kernel, recorded by `tests/captures/record.py`: what is read from them is what that script sent.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Parser as _;
use weir_flow::Record;
use weir_flow::analyzer::Summary;
use weir_pcap_worker::Config;
use weir_pcap_worker::analysis::{Live, analyse};
use weir_pcap_worker::capture_file::Limits;
use weir_proto::{Dns, Flow, Http, Tls};

const RECORDINGS: [&str; 3] = ["ethernet-ns.pcap", "any-sll.pcap", "any-sll2-snap96.pcap"];

fn captures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures")
}

#[derive(Default)]
struct Records {
    summary: Summary,
    flows: Vec<Flow>,
    dns: Vec<Dns>,
    tls: Vec<Tls>,
    http: Vec<Http>,
}

fn records(name: &str) -> Result<Records> {
    let mut records = Records::default();
    let file = fs::File::open(captures().join(name))?;
    let config = weir_flow::Config::default();
    let analysis = analyse(file, Limits::default(), config, &Live::default(), |record| {
        match record {
            Record::Flow(flow) => records.flows.push(flow.clone()),
            Record::Dns(dns) => records.dns.push(dns.clone()),
            Record::Tls(tls) => records.tls.push(tls.clone()),
            Record::Http(http) => records.http.push(http.clone()),
            Record::Finding(_) => {}
        }
        Ok(())
    })?;
    assert_eq!(analysis.damage, None);
    records.summary = analysis.summary;
    Ok(records)
}

fn flow(records: &Records, wanted: impl Fn(&&Flow) -> bool) -> Result<&Flow> {
    records.flows.iter().find(wanted).context("there is no such flow")
}

#[test]
fn echoes_in_fragments_are_counted_to_the_byte() -> Result<()> {
    for name in RECORDINGS {
        let records = records(name)?;
        let v4 = flow(&records, |flow| flow.protocol == 1)?;
        assert_eq!((v4.src_port, v4.dst_port), (8, 0), "{name}");
        // Three of 56 bytes, and two of 3000 in three fragments each.
        let expected = (9, 3 * (20 + 8 + 56) + 2 * (3 * 20 + 8 + 3000));
        assert_eq!((v4.tx_packets, v4.tx_bytes), expected, "{name}");
        assert_eq!((v4.rx_packets, v4.rx_bytes), expected, "{name}");
        let v6 = flow(&records, |flow| flow.protocol == 58 && flow.src_port == 128)?;
        let expected = (6, 2 * (3 * (40 + 8) + 8 + 3000));
        assert_eq!((v6.tx_packets, v6.tx_bytes), expected, "{name}");
        assert_eq!((v6.rx_packets, v6.rx_bytes), expected, "{name}");
    }
    Ok(())
}

#[test]
fn queries_meet_their_answers_over_udp_and_tcp() -> Result<()> {
    for name in RECORDINGS {
        let mut dns = records(name)?.dns;
        dns.sort_by_key(|row| row.query_id);
        let rows: Vec<_> = dns.iter().map(|row| (row.protocol, row.qname.as_str(), row.qtype, row.rcode)).collect();
        // A snap length of 96 ends within the question of a message over TCP.
        let whole = !name.contains("snap96");
        let type_over_tcp = u32::from(whole);
        let expected = [
            (17, "www.weir.example", 1, Some(0)),
            (17, "www.weir.example", 28, Some(3)),
            (17, "lost.weir.example", 16, None),
            (6, "tcp.weir.example", type_over_tcp, Some(0)),
        ];
        assert_eq!(rows, expected, "{name}");
        let answered: Vec<_> = dns.iter().map(|row| row.latency_us.is_some()).collect();
        assert_eq!(answered, [true, true, false, true], "{name}");
        assert_eq!(dns[0].answers, if whole { vec!["192.0.2.7"] } else { vec![] });
        assert!(dns.iter().all(|row| row.has_query && row.dst_port == 53));
    }
    Ok(())
}

#[test]
fn a_client_hello_names_its_server_unless_the_capture_cut_it() -> Result<()> {
    for name in ["ethernet-ns.pcap", "any-sll.pcap"] {
        let hellos = records(name)?.tls;
        assert_eq!(hellos.len(), 1, "{name}");
        assert_eq!(hellos[0].sni, "weir.example");
        assert_eq!(hellos[0].alpn, ["h2", "http/1.1"]);
        assert_eq!((hellos[0].version, hellos[0].dst_port), (0x0304, 443));
        assert!(hellos[0].ja4.starts_with("t13d"), "{}", hellos[0].ja4);
        assert_eq!((hellos[0].chosen_version, hellos[0].alert), (0x0304, 0), "{name}");
        let name_of_server = flow(&records(name)?, |flow| flow.dst_port == 443)?.dst_name.clone();
        assert_eq!(name_of_server, "weir.example");
    }
    assert_eq!(records("any-sll2-snap96.pcap")?.tls, []);
    Ok(())
}

#[test]
fn a_request_stands_with_its_response() -> Result<()> {
    for name in ["ethernet-ns.pcap", "any-sll.pcap"] {
        let http = records(name)?.http;
        assert_eq!(http.len(), 1, "{name}");
        let row = &http[0];
        assert_eq!((row.method.as_str(), row.path.as_str(), row.version.as_str()), ("GET", "/", "1.1"), "{name}");
        assert_eq!((row.status, row.dst_port), (Some(204), 80), "{name}");
        assert!(row.latency_us.is_some_and(|latency| latency < 1_000_000), "{name}");
    }
    // A snap length of 96 ends behind the method.
    assert_eq!(records("any-sll2-snap96.pcap")?.http, []);
    Ok(())
}

#[test]
fn connections_have_their_protocol_handshake_and_end() -> Result<()> {
    for name in RECORDINGS {
        let records = records(name)?;
        for (port, app) in [(53, "dns"), (80, "http"), (443, "tls")] {
            let flow = flow(&records, |flow| flow.protocol == 6 && flow.dst_port == port)?;
            assert_eq!(flow.app, app, "{name}");
            assert!(flow.handshake_us.is_some_and(|handshake| handshake < 1_000_000), "{name} {app}");
            assert!([3, 4].contains(&flow.end_reason), "{name} {app} {}", flow.end_reason);
        }
    }
    Ok(())
}

#[test]
fn tags_tunnels_and_fragments_of_datagrams_are_told_apart() -> Result<()> {
    let records = records("ethernet-ns.pcap")?;
    let fragments = flow(&records, |flow| flow.dst_port == 9000 && flow.tunnel.is_empty())?;
    assert_eq!((fragments.tx_packets, fragments.tx_bytes), (3, 3 * 20 + 8 + 4000));
    let inner = flow(&records, |flow| flow.tunnel == "vxlan:42")?;
    assert_eq!((inner.dst_port, inner.tx_packets, inner.tx_bytes), (9000, 1, 20 + 8 + 10));
    let tagged = records.flows.iter().filter(|flow| flow.dst_port == 7001);
    let tagged: Vec<_> = tagged.map(|flow| (flow.vlan, flow.tx_packets, flow.tx_bytes)).collect();
    assert_eq!(tagged, [(5, 1, 34), (6 | 7 << 12, 1, 34)]);
    Ok(())
}

/// All that a flow says of its packets, without times, which those of a frame have in common.
fn without_times(records: &Records) -> Vec<String> {
    let flows = records.flows.iter().map(|flow| {
        let ends = (flow.src_ip_high, flow.src_ip_low, flow.src_port, flow.dst_ip_high, flow.dst_ip_low, flow.dst_port);
        let counts = [flow.tx_packets, flow.tx_bytes, flow.rx_packets, flow.rx_bytes];
        let tcp =
            (flow.tcp_flags_tx, flow.tcp_flags_rx, flow.tx_retransmits, flow.rx_out_of_order, flow.tx_lost_segments);
        let names = (&flow.app, &flow.dst_name, &flow.tunnel);
        format!("{} {ends:?} {} {counts:?} {tcp:?} {names:?} {}", flow.protocol, flow.vlan, flow.end_reason)
    });
    let mut flows: Vec<_> = flows.collect();
    flows.sort();
    flows
}

/// `tests/captures/make-wlan.py` put the packets of one into the frames of the other.
#[test]
fn each_of_several_packets_in_one_frame_of_802_11_is_analysed() -> Result<()> {
    let (wired, wireless) = (records("ethernet-ns.pcap")?, records("wlan-aggregated.pcap.gz")?);
    assert_eq!(without_times(&wireless), without_times(&wired));
    let (wired_packets, summary) = (wired.summary.frames.packets, &wireless.summary);
    assert_eq!((summary.frames.packets, summary.further_packets), (53, 33));
    assert_eq!(wired_packets, 53 + 33);
    assert_eq!(summary.protocols, wired.summary.protocols);
    assert_eq!(summary.unanalysed, wired.summary.unanalysed, "only ARP");
    let talk = |records: &Records| {
        let dns: Vec<_> = records.dns.iter().map(|row| (row.query_id, row.qname.clone(), row.rcode)).collect();
        let tls: Vec<_> = records.tls.iter().map(|row| (row.sni.clone(), row.ja4.clone())).collect();
        let http: Vec<_> = records.http.iter().map(|row| (row.path.clone(), row.status)).collect();
        (dns, tls, http)
    };
    assert_eq!(talk(&wireless), talk(&wired));
    Ok(())
}

#[test]
fn the_report_of_a_recording_is_the_one_that_is_kept() -> Result<()> {
    let config = Config::try_parse_from(["weir-pcap-worker"])?;
    for name in RECORDINGS {
        let path = captures().join(name);
        let report = weir_pcap_worker::read(&config, &path)?;
        let report = report.replace(&path.display().to_string(), name) + "\n";
        let kept = path.with_extension("report.json");
        if std::env::var_os("WEIR_REGENERATE").is_some() {
            fs::write(&kept, &report)?;
        }
        let expected = fs::read_to_string(&kept).unwrap_or_default();
        assert_eq!(report, expected, "{name}: run with WEIR_REGENERATE=1 to keep the new one");
    }
    Ok(())
}
