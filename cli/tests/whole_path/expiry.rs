//! A capture whose time is over: its file, its rows and its report are gone, and whoever asks for it is told so.

use std::fs;

use serde_json::{Value, json};

use crate::captures::udp_capture;
use crate::weir::{Weir, eventually, text};

/// Seconds that a capture is kept here. Where the machine is so busy that its rows are not there in time, another one has to show them.
const LIFE: &str = "20";
const TRIES: u32 = 6;

#[test]
fn a_capture_that_expires_takes_its_file_its_rows_and_its_report_with_it() {
    let Some(weir) = Weir::up_with_or_skip("lo", &[], &[("WEIR_REPORT_TTL", LIFE)]) else { return };
    let id = (0..TRIES).find_map(|number| seen_with_its_rows(&weir, number)).expect("one of the captures in time");
    eventually(|| state(&weir, &id) == "expired", || format!("not expired: {}", shown(&weir, &id)));
    // Of the others, too, which have no more time.
    weir.eventually("SELECT count() AS rows FROM flows WHERE source = 'pcap'", &json!({ "rows": 0 }));
    weir.eventually("SELECT count() AS rows FROM findings", &json!({ "rows": 0 }));
    weir.eventually(
        &format!("SELECT state, packets FROM captures FINAL WHERE capture_id = '{id}'"),
        &json!({ "state": "expired", "packets": 500 }),
    );
    let listed = weir.json(&["captures", "list"]);
    let listed = listed["items"].as_array().and_then(|items| items.iter().find(|item| item["capture_id"] == *id));
    assert_eq!(listed.map(|capture| &capture["state"]), Some(&json!("expired")));
    let page = weir.write("none", b"");
    for command in
        [&["captures", "report", &id][..], &["captures", "packets", &id, "-o", page.to_str().expect("utf-8")]]
    {
        eventually(|| !weir.run(command).status.success(), || format!("there still is what {command:?} asks for"));
        let refused = weir.run(command);
        assert!(text(&refused.stderr).contains("expired"), "{command:?}: {}", text(&refused.stderr));
    }
    for command in ["analyse", "cancel"] {
        let refused = weir.run(&["captures", command, &id]);
        assert_eq!(refused.status.code(), Some(1), "{command}: {}", text(&refused.stdout));
        assert!(text(&refused.stderr).contains("expired"), "{command}: {}", text(&refused.stderr));
    }
}

/// Uploads a capture; its id, unless it expired before its rows could be asked for.
fn seen_with_its_rows(weir: &Weir, number: u32) -> Option<String> {
    let mut bytes = udp_capture();
    // The time of the first packet: other bytes, another capture.
    bytes[24..28].copy_from_slice(&(1_600_000_000 + number).to_le_bytes());
    let path = weir.write(&format!("short-lived-{number}.pcap"), &bytes);
    let uploaded: Value =
        serde_json::from_str(weir.ok(&["upload", "--json", path.to_str().expect("utf-8")]).trim()).expect("JSON");
    fs::remove_file(&path).expect("remove");
    let id = uploaded["capture_id"].as_str().expect("capture_id").to_owned();
    let rows = format!("SELECT sum(tx_packets + rx_packets) AS packets FROM flows WHERE capture_id = '{id}'");
    let mut complete = false;
    eventually(
        || {
            complete = weir.rows(&rows).is_some_and(|rows| rows == [json!({ "packets": 500 })])
                && weir.run(&["captures", "report", &id, "--json"]).status.success();
            complete || state(weir, &id) == "expired"
        },
        || format!("neither analysed nor expired: {}", shown(weir, &id)),
    );
    complete.then_some(id)
}

fn shown(weir: &Weir, id: &str) -> Value {
    weir.json(&["captures", "show", id])
}

fn state(weir: &Weir, id: &str) -> Value {
    shown(weir, id)["state"].clone()
}
