//! Packets on demand: asked for with `weir capture`, recorded from a real wire, analysed, and downloaded.

use std::{fs, net::UdpSocket, path::Path, process::Command, thread};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    packets::Wire,
    weir::{Weir, eventually, text},
};

const DATAGRAMS: usize = 300;

#[test]
fn packets_are_recorded_on_demand_and_become_a_capture() {
    let Some(wire) = Wire::new_or_skip() else { return };
    let Some(weir) = Weir::up_with_or_skip(&wire.here, &["--live-captures"], &[]) else { return };
    if let Some(reason) = cannot_capture() {
        eprintln!("skipped: {reason}");
        return;
    }
    eventually(|| weir.part("capture")["state"] == "ready", || format!("{}", weir.part("capture")));
    for (arguments, reason) in [
        (&["--host", "nowhere"][..], "no capture of a host \"nowhere\""),
        (&["--filter", "dst_port = 1"], "depends on who began the flow"),
        (&["--filter", "port ="], "the filter cannot be read"),
        (&["--for", "1h"], "WEIR_LIVE_CAPTURE_SECONDS"),
        (&["--max-bytes", "500GB"], "WEIR_LIVE_CAPTURE_BYTES"),
    ] {
        let refused = weir.run(&[&["capture"], arguments].concat());
        assert!(!refused.status.success() && text(&refused.stderr).contains(reason), "{}", text(&refused.stderr));
    }

    let socket = UdpSocket::bind((wire.v4(1).as_str(), 0)).expect("bind");
    let port = socket.local_addr().expect("address").port();
    let file = weir.write("recorded.pcapng", b"");
    let filter = format!("port = {port} and ip = {}", wire.v4(2));
    let arguments = ["capture", "--filter", &filter, "--for", "60s", "--max-bytes", "1MB", "--json", "--output"];
    let child = weir.start(&[&arguments[..], &[file.to_str().expect("path")]].concat());
    let pid = Pid::from_raw(child.id() as i32);
    running(&weir);
    let busy = weir.run(&["capture", "--for", "1s"]);
    assert!(text(&busy.stderr).contains("records already"), "{}", text(&busy.stderr));

    let other = UdpSocket::bind((wire.v4(1).as_str(), 0)).expect("bind");
    for datagram in 0..DATAGRAMS {
        // An error is the answer to the datagram before: nobody listens.
        let _answer = socket.send_to(content(datagram).as_bytes(), (wire.v4(2).as_str(), 9));
        let _answer = other.send_to(b"not wanted", (wire.v4(2).as_str(), 9));
    }
    let waiting = thread::spawn(move || child.wait_with_output().expect("weir capture"));
    // As Ctrl-C: what was recorded so far is kept.
    kill(pid, Signal::SIGINT).expect("kill");
    let output = waiting.join().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let capture: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let id = capture["capture_id"].as_str().expect("an id").to_owned();
    assert_eq!((&capture["state"], &capture["recording"]["ended"]), (&json!("done"), &json!("stopped")), "{capture}");
    assert_eq!(capture["recording"]["lost_packets"], 0);

    holds_exactly_what_was_sent(&fs::read(&file).expect("the file"), &wire.here);
    let of_capture = format!("capture_id = '{id}'");
    weir.eventually(
        &format!("SELECT sum(tx_packets) AS packets, groupUniqArray(interface) AS interfaces FROM flows WHERE {of_capture} AND src_port = {port}"),
        &json!({"packets": DATAGRAMS, "interfaces": [wire.here.clone()]}),
    );
    weir.eventually(&format!("SELECT state FROM captures WHERE {of_capture}"), &json!({"state": "done"}));
    let report = weir.json(&["report", &id]);
    assert_eq!(report["totals"]["packets"], capture["packets"], "{report}");
    weir.eventually(
        &format!(
            "SELECT groupArray(outcome) AS outcomes, any(client) AS client, any(filter) AS filter, max(packets) AS packets FROM \
             (SELECT * FROM audit WHERE {of_capture} ORDER BY time)"
        ),
        &json!({"outcomes": ["requested", "recorded"], "client": "127.0.0.1", "filter": filter, "packets": capture["packets"]}),
    );
    silence_is_recorded_too(&weir);
    a_killed_capture_leaves_one_that_failed(&weir);
}

/// Longer than an upload may be silent.
fn silence_is_recorded_too(weir: &Weir) {
    let capture = weir.json(&["capture", "--filter", "port = 1 and protocol = sctp", "--for", "22s", "--wait"]);
    let told = (&capture["state"], &capture["recording"]["ended"], &capture["packets"]);
    assert_eq!(told, (&json!("done"), &json!("time"), &json!(0)), "{capture}");
}

/// Why this machine cannot, in the words of the program.
fn cannot_capture() -> Option<String> {
    let program = Path::new(env!("CARGO_BIN_EXE_weir")).with_file_name("weir-capture");
    let output = Command::new(program).args(["--check", "--on-demand", "--nats-url", "nats://127.0.0.1:1"]).output();
    let output = output.expect("run weir-capture");
    (!output.status.success()).then(|| text(&output.stderr))
}

fn a_killed_capture_leaves_one_that_failed(weir: &Weir) {
    let capture = weir.json(&["capture", "--for", "60s"]);
    let id = capture["capture_id"].as_str().expect("an id");
    weir.kill("capture");
    weir.eventually(
        &format!("SELECT state, position(error, 'went away') > 0 AS told FROM captures WHERE capture_id = '{id}'"),
        &json!({"state": "failed", "told": 1}),
    );
    weir.eventually(
        &format!("SELECT count() AS failed FROM audit WHERE capture_id = '{id}' AND outcome = 'failed'"),
        &json!({"failed": 1}),
    );
    // The next life records again, as soon as it is known.
    eventually(|| weir.run(&["capture", "--for", "1s"]).status.success(), || "it does not record again".to_owned());
}

/// Waits until a capture is recorded.
fn running(weir: &Weir) {
    weir.eventually("SELECT count() AS recording FROM captures WHERE state = 'running'", &json!({"recording": 1}));
}

fn content(datagram: usize) -> String {
    format!("datagram {datagram} on demand")
}

/// Each datagram once and in its order, no other, all on this interface, with the process that sent it.
fn holds_exactly_what_was_sent(mut file: &[u8], interface: &str) {
    const INTERFACE: u32 = 1;
    const PACKET: u32 = 6;
    const HEADERS: usize = 14 + 20 + 8;
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().expect("a number"));
    let (mut sent, mut told) = (Vec::new(), 0);
    let pid = format!("pid={}", std::process::id());
    while !file.is_empty() {
        let (block, rest) = file.split_at(number(&file[4..]) as usize);
        file = rest;
        let body = &block[8..block.len() - 4];
        match number(block) {
            INTERFACE => assert!(text(body).contains(interface), "{}", text(body)),
            PACKET => {
                let captured = number(&body[12..]) as usize;
                let packet = &body[20..20 + captured];
                // The other end answers some with ICMP, which names the port too and has none.
                if packet[23] == 17 {
                    sent.push(text(&packet[HEADERS..]));
                    told += usize::from(text(&body[20 + captured..]).contains(&pid));
                }
            }
            _ => {}
        }
    }
    let expected: Vec<_> = (0..DATAGRAMS).map(content).collect();
    assert_eq!(sent, expected);
    assert_eq!(told, DATAGRAMS, "each tells who sent it");
}
