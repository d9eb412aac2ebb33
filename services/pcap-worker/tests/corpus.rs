//! The captures of others: what is read from them equals what tshark counts in them, and the hostile ones do no harm.
//!
//! `WEIR_CORPUS` names a directory with `files/`, `truth.json`, `bench/` and `hostile/`; without it these tests are skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::Value;
use weir_flow::{Config, Record};
use weir_pcap_worker::analysis::{Analysis, Failure, Live, analyse};
use weir_pcap_worker::capture_file::Limits;

/// Captures in which what is counted here is not what tshark counts: the field that differs, and why.
const EXPLAINED: [(&str, &str, &str); 14] = [
    ("bsd-tcpdump_brcm-tag.pcap", "packets", TSHARK_CANNOT_READ),
    ("bsd-tcpdump_brcm-tag.pcap", "bytes", TSHARK_CANNOT_READ),
    ("bsd-tcpdump_brcm-tag.pcap", "udp_streams", TSHARK_CANNOT_READ),
    ("bsd-tcpdump_geneve.pcap", "tcp_streams", NETWORK_IDS_DIFFER),
    ("bsd-tcpdump_icmp-cksum-oobr-1.pcap", "udp_streams", QUOTED_BY_ICMP),
    ("gpl-wireshark_dns-ooo.pcap", "dns_answers", PUT_IN_ORDER),
    ("gpl-wireshark_http-ooo2.pcap", "http_requests", PUT_IN_ORDER),
    ("gpl-wireshark_tcp-badsegments.pcap", "http_requests", PUT_IN_ORDER),
    ("gpl-wireshark_tls12-dsb.pcapng", "http_requests", SECRETS_IN_FILE),
    ("gpl-wireshark_tls12-dsb.pcapng", "http_responses", SECRETS_IN_FILE),
    ("lgpl-ndpi_KakaoTalk_chat.pcap", "dns_answers", QUOTED_BY_ICMP),
    ("own-first3000-ns.pcap", "http_responses", BODY_NOT_COMPLETE),
    ("own-icmp-frag.pcap", "tcp_streams", QUOTED_BY_ICMP),
    ("own-icmp-frag.pcap", "udp_streams", QUOTED_BY_ICMP),
];
const TSHARK_CANNOT_READ: &str = "tshark 4.0 refuses the link type; its frames are counted here";
const NETWORK_IDS_DIFFER: &str = "each direction has its own network identifier, which is part of the flow's key";
const QUOTED_BY_ICMP: &str = "tshark counts the packet that an ICMP error quotes; it was sent earlier, or elsewhere";
const PUT_IN_ORDER: &str =
    "the segments are out of order: tshark reads no message from them unless told to put them in order";
const SECRETS_IN_FILE: &str = "the file has the secrets of its TLS connections, with which tshark decrypts them";
const HEAD_NOT_COMPLETE: &str =
    "the capture lacks segments of heads: tshark counts a request when it has its head, Weir with its first line";
const NUMBERED_OTHERWISE: &str = "tshark gives no stream to one connection in Geneve and to packets of which only fragments came, and begins another \
     one at three segments with a broken header";
const CRYPTO_OUT_OF_ORDER: &str =
    "tshark 4.0 reads no hello from CRYPTO frames that are out of order, as some browsers send them on purpose";
const BODY_NOT_COMPLETE: &str =
    "the capture ends within the bodies: tshark counts a response when it has its body, Weir with its head";

fn corpus() -> Option<PathBuf> {
    let path = std::env::var_os("WEIR_CORPUS").map(PathBuf::from);
    if path.is_none() {
        eprintln!("skipped: WEIR_CORPUS names no corpus of captures");
    }
    path
}

/// What is compared, by name; the names of servers are joined to one text.
type Counts = BTreeMap<&'static str, String>;

fn analysed(path: &Path) -> Result<(Vec<Record>, Result<Analysis, Failure>)> {
    let mut records = Vec::new();
    let file = fs::File::open(path)?;
    let analysis = analyse(file, Limits::default(), Config::default(), &Live::default(), |record| {
        records.push(record.clone());
        Ok(())
    });
    Ok((records, analysis))
}

fn seen(path: &Path) -> Result<Counts> {
    let (records, analysis) = analysed(path)?;
    let summary = analysis?.summary;
    let mut streams: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    let mut names: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut queries, mut answers, mut requests, mut responses) = (0, 0, 0, 0);
    for record in &records {
        match record {
            Record::Flow(flow) => drop(streams.entry(flow.protocol).or_default().insert(flow.flow_id)),
            Record::Tls(tls) if !tls.sni.is_empty() => *names.entry(&tls.sni).or_default() += 1,
            // tshark has other names for multicast DNS and LLMNR.
            Record::Dns(dns) if ![5353, 5355].contains(&dns.dst_port) && dns.src_port != 5353 => {
                queries += u64::from(dns.has_query);
                answers += u64::from(dns.rcode.is_some());
            }
            Record::Http(http) => {
                requests += u64::from(!http.method.is_empty());
                responses += u64::from(http.status.is_some());
            }
            _ => {}
        }
    }
    let flows = records.iter().filter_map(|record| match record {
        Record::Flow(flow) if flow.tunnel.is_empty() => Some(flow.tx_packets + flow.rx_packets),
        _ => None,
    });
    let without_flow: u64 = summary.unanalysed.values().sum();
    let packets = summary.frames.packets + summary.further_packets;
    assert_eq!(flows.sum::<u64>() + without_flow, packets, "each packet is in a flow or has a reason");
    let count = |protocol| streams.get(&protocol).map_or(0, BTreeSet::len);
    Ok(BTreeMap::from([
        ("packets", summary.frames.packets.to_string()),
        ("bytes", summary.frames.bytes.to_string()),
        ("tcp_streams", count(6).to_string()),
        ("udp_streams", count(17).to_string()),
        ("dns_queries", queries.to_string()),
        ("dns_answers", answers.to_string()),
        ("http_requests", requests.to_string()),
        ("http_responses", responses.to_string()),
        ("client_hellos", summary.tls.hellos.to_string()),
        ("sni", joined(names.iter().map(|(name, count)| (*name, *count)))),
    ]))
}

fn expected(truth: &Value) -> Counts {
    let number = |value: &Value| value.as_u64().unwrap_or(0).to_string();
    let count = |name: &str| number(&truth["counts"][name]);
    let names = truth["sni"].as_object().into_iter().flatten();
    BTreeMap::from([
        ("packets", count("packets")),
        ("bytes", count("bytes")),
        ("tcp_streams", number(&truth["tcp_streams"])),
        ("udp_streams", number(&truth["udp_streams"])),
        ("dns_queries", count("dns_queries")),
        ("dns_answers", count("dns_responses")),
        ("http_requests", count("http_requests")),
        ("http_responses", count("http_responses")),
        ("client_hellos", count("tls_hs_1")),
        ("sni", joined(names.map(|(name, count)| (name.as_str(), count.as_u64().unwrap_or(0))))),
    ])
}

fn joined<'a>(names: impl Iterator<Item = (&'a str, u64)>) -> String {
    names.map(|(name, count)| format!("{name}={count}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_counts_of_every_capture_are_those_of_its_truth() -> Result<()> {
    let Some(corpus) = corpus() else { return Ok(()) };
    let truths: BTreeMap<String, Value> = serde_json::from_str(&fs::read_to_string(corpus.join("truth.json"))?)?;
    let mut unexplained = Vec::new();
    let mut explained = BTreeSet::new();
    for (name, truth) in &truths {
        let expected = expected(truth);
        let seen = seen(&corpus.join("files").join(name)).with_context(|| name.clone())?;
        for (field, value) in seen.into_iter().filter(|(field, value)| expected[field] != *value) {
            match EXPLAINED.iter().find(|entry| (entry.0, entry.1) == (name, field)) {
                Some(entry) => drop(explained.insert(entry)),
                None => unexplained.push(format!("{name}: {field} is {value}, not {}", expected[field])),
            }
        }
    }
    assert!(unexplained.is_empty(), "of {} captures:\n{}", truths.len(), unexplained.join("\n"));
    let stale: Vec<_> =
        EXPLAINED.iter().filter(|entry| truths.contains_key(entry.0) && !explained.contains(entry)).collect();
    assert!(stale.is_empty(), "explained, and yet equal: {stale:?}");
    Ok(())
}

#[test]
fn the_counts_of_a_large_capture_are_those_of_its_truth() -> Result<()> {
    let Some(corpus) = corpus() else { return Ok(()) };
    let truth = fs::read_to_string(corpus.join("bench/big-1-100k.tshark.json"))?;
    let expected = expected(&serde_json::from_str(&truth)?);
    let seen = seen(&corpus.join("bench/big-1-100k.pcap.zst"))?;
    let explained = BTreeMap::from([
        ("tcp_streams", NUMBERED_OTHERWISE),
        ("udp_streams", QUOTED_BY_ICMP),
        ("dns_answers", QUOTED_BY_ICMP),
        ("client_hellos", CRYPTO_OUT_OF_ORDER),
        ("sni", CRYPTO_OUT_OF_ORDER),
        ("http_requests", HEAD_NOT_COMPLETE),
        ("http_responses", BODY_NOT_COMPLETE),
    ]);
    let mut wrong = Vec::new();
    for (field, value) in seen {
        if (value != expected[field]) != explained.contains_key(field) {
            wrong.push(format!("{field} is {value}, truth {}", expected[field]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn hostile_captures_do_no_harm() -> Result<()> {
    let Some(corpus) = corpus() else { return Ok(()) };
    for entry in fs::read_dir(corpus.join("hostile"))? {
        let path = entry?.path();
        let start = Instant::now();
        let (first, analysis) = analysed(&path)?;
        let took = start.elapsed();
        assert!(took < Duration::from_secs(20), "{} took {took:?}", path.display());
        let (second, _) = analysed(&path)?;
        assert_eq!(first, second, "{}", path.display());
        if let Err(failure) = analysis {
            assert!(!failure.is_transient(), "{}: {failure}", path.display());
        }
    }
    Ok(())
}
