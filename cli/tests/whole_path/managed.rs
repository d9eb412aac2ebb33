//! What a person does with captures after they are uploaded, by command: read, carve, cancel, analyse again, compare, delete.

use std::{fs, path::Path};

use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::{Value, json};

use crate::captures::udp_capture;
use crate::commands::one_datagram;
use crate::weir::{Weir, eventually, text};

#[test]
fn captures_are_carved_cancelled_analysed_again_and_deleted_by_command() {
    let Some(weir) = Weir::up_or_skip("lo") else { return };
    let (many, one) = (weir.write("many.pcap", &udp_capture()), weir.write("one.pcap", &one_datagram()));
    let uploaded = weir.ok(&["upload", "--wait", "--json", path(&many), path(&one)]);
    assert_eq!(uploaded.lines().filter(|line| line.contains("\"done\"")).count(), 2, "{uploaded}");
    assert_eq!(weir.json(&["captures", "list"])["items"].as_array().map(Vec::len), Some(2));
    assert!(weir.ok(&["captures", "show", "many.pcap"]).contains("weir report"));

    let page = weir.write("page.html", b"");
    weir.ok(&["captures", "report", "many.pcap", "--format", "html", "-o", path(&page)]);
    assert!(fs::read_to_string(&page).expect("the page").starts_with("<!DOCTYPE html>"));
    assert!(weir.ok(&["captures", "compare", "one.pcap", "many.pcap"]).contains("many.pcap"));

    carved(&weir, &many);
    cancelled_and_analysed_again(&weir);

    weir.ok(&["captures", "delete", "many.pcap", "one.pcap"]);
    weir.eventually("SELECT count() AS rows FROM flows WHERE source = 'pcap'", &json!({ "rows": 0 }));
    let gone = weir.run(&["captures", "show", "many.pcap"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains("weir captures list"), "{}", text(&gone.stderr));
}

fn carved(weir: &Weir, many: &Path) {
    let part = weir.write("part.pcapng", b"");
    weir.ok(&["captures", "packets", "many.pcap", "--filter", "src_port = 10000", "-o", path(&part)]);
    // Each of the 100 flows has 5 of the 500 packets.
    assert_eq!(packets_in(&fs::read(&part).expect("the part")), 5);
    weir.ok(&["captures", "packets", "many.pcap", "-o", path(&part)]);
    assert_eq!(fs::read(&part).expect("all"), fs::read(many).expect("the upload"));
    let bad = weir.run(&["captures", "packets", "many.pcap", "--filter", "no_such_column = 1", "-o", path(&part)]);
    assert_eq!((bad.status.code(), text(&bad.stderr).contains("no_such_column")), (Some(1), true));
}

/// Enhanced packet blocks of a pcapng file in the byte order of this machine.
fn packets_in(file: &[u8]) -> usize {
    let word = |at: usize| u32::from_ne_bytes(file[at..at + 4].try_into().expect("four bytes"));
    let (mut at, mut packets) = (0, 0);
    while at < file.len() {
        packets += usize::from(word(at) == 6);
        at += word(at + 4) as usize;
    }
    packets
}

fn cancelled_and_analysed_again(weir: &Weir) {
    let pid = i32::try_from(weir.part("pcap-worker")["pid"].as_i64().expect("pid")).expect("pid");
    let signal = |signal| nix::sys::signal::kill(Pid::from_raw(pid), signal).expect("signal");
    signal(Signal::SIGSTOP);
    let queued = weir.json(&["captures", "analyse", "many.pcap", "--threshold", "port_scan_ports=5"]);
    let again = weir.run(&["captures", "analyse", "many.pcap"]);
    let cancelled = weir.run(&["captures", "cancel", "many.pcap"]);
    // Whatever is wrong above, the worker goes on.
    signal(Signal::SIGCONT);
    assert_eq!(queued["state"], "queued");
    assert!(text(&again.stderr).contains("weir captures cancel"), "{}", text(&again.stderr));
    assert!(cancelled.status.success(), "{}", text(&cancelled.stderr));
    let shown = || weir.json(&["captures", "show", "many.pcap"]);
    eventually(|| shown()["state"] == "failed", || format!("not cancelled: {}", shown()));
    let report = weir.run(&["captures", "report", "many.pcap"]);
    assert!(text(&report.stderr).contains("weir captures show"), "{}", text(&report.stderr));

    let refused = weir.run(&["captures", "analyse", "many.pcap", "--threshold", "no_such_threshold=1"]);
    assert!(text(&refused.stderr).contains("no_such_threshold"), "{}", text(&refused.stderr));
    let analysed = weir.json(&["captures", "analyse", "many.pcap", "--threshold", "port_scan_ports=5", "--wait"]);
    assert_eq!(analysed["state"], "done", "{analysed}");
    let report: Value = weir.json(&["captures", "report", "many.pcap"]);
    assert_eq!(report["thresholds"]["port_scan_ports"], 5);
    let id = analysed["capture_id"].as_str().expect("capture_id");
    weir.eventually(
        &format!("SELECT sum(tx_packets + rx_packets) AS packets FROM flows WHERE capture_id = '{id}'"),
        &json!({ "packets": 500 }),
    );
}

fn path(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}
