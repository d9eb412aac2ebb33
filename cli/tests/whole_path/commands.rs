//! The commands of a person who tries it for the first time.

use serde_json::Value;

use crate::weir::Weir;

#[test]
fn a_capture_that_is_uploaded_can_be_asked_for_in_every_way() {
    let Some(weir) = Weir::up_or_skip("lo") else { return };
    let uploaded = upload(&weir);
    assert_eq!((uploaded["state"].as_str(), uploaded["packets"].to_string().trim_matches('"')), (Some("done"), "1"));
    assert_eq!(uploaded["name"], "one datagram.pcap");
    let id = uploaded["capture_id"].as_str().expect("capture_id");
    assert_eq!(upload(&weir)["capture_id"], id, "the same bytes are the same capture");

    let sql = format!("SELECT src_port, dst_port, tx_packets, tx_bytes FROM flows WHERE capture_id = '{id}'");
    assert_eq!(weir.ok(&["query", &sql, "--format", "csv"]).lines().last(), Some("40000,53,1,32"));
    assert!(weir.ok(&["query", &sql]).contains("40000"));
    let flows = weir.json(&["flows", "dst_port = 53 and source = \"pcap\"", "--from", "2020-01-01T00:00:00Z"]);
    assert_eq!(flows["items"].as_array().expect("items").len(), 1, "{flows}");
    let top =
        weir.json(&["top", "dst_port = 53 and source = \"pcap\"", "--by", "dst_ip", "--from", "2020-01-01T00:00:00Z"]);
    assert_eq!(top["items"].as_array().expect("items").len(), 1, "{top}");
    weir.ok(&["flows"]);
    weir.ok(&["top"]);
    weir.ok(&["containers"]);

    let refused = weir.run(&["query", "DROP TABLE flows"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(!refused.stderr.is_empty());
    let bad = weir.run(&["flows", "no_such_column = 1"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&bad.stderr).contains("no_such_column"),
        "{}",
        String::from_utf8_lossy(&bad.stderr)
    );
    let missing = weir.run(&["upload", "/nonexistent.pcap"]);
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn what_was_recorded_is_there_after_kills_and_a_restart() {
    let Some(weir) = Weir::up_or_skip("lo") else { return };
    let id = upload(&weir)["capture_id"].as_str().expect("capture_id").to_owned();
    let count = format!("SELECT count(), sum(tx_packets) FROM flows WHERE capture_id = '{id}'");
    for part in ["nats", "clickhouse", "ingester", "query-api", "pcap-worker"] {
        weir.kill(part);
    }
    assert_eq!(weir.ok(&["query", &count, "--format", "csv"]).lines().last(), Some("1,1"));
    weir.ok(&["down"]);
    assert!(weir.up("lo").status.success());
    assert_eq!(weir.ok(&["query", &count, "--format", "csv"]).lines().last(), Some("1,1"));
    assert_eq!(upload(&weir)["capture_id"], id.as_str(), "the bytes are known");
    assert_eq!(weir.ok(&["query", &count, "--format", "csv"]).lines().last(), Some("1,1"));
}

fn upload(weir: &Weir) -> Value {
    let capture = weir.write("one datagram.pcap", &one_datagram());
    weir.json(&["upload", capture.to_str().expect("utf-8"), "--wait"])
}

/// A capture of one UDP datagram with four bytes, 10.0.0.1:40000 to 10.0.0.2:53 (draft-ietf-opsawg-pcap, RFC 791, RFC 768).
pub(crate) fn one_datagram() -> Vec<u8> {
    let ethernet = [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1][..], &[0x08, 0x00]].concat();
    let ip = [0x45, 0, 0, 32, 0, 1, 0, 0, 64, 17, 0x66, 0xca, 10, 0, 0, 1, 10, 0, 0, 2];
    let udp = [0x9c, 0x40, 0, 53, 0, 12, 0, 0, b'w', b'e', b'i', b'r'];
    let frame = [&ethernet[..], &ip, &udp].concat();
    let length = u32::try_from(frame.len()).expect("small").to_le_bytes();
    let header: [u32; 6] = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65_535, 1];
    // 2026-01-01T00:00:00Z
    let record: [u32; 2] = [1_767_225_600, 0];
    let mut file: Vec<u8> = header.iter().chain(&record).flat_map(|word| word.to_le_bytes()).collect();
    file.extend([length, length].concat());
    file.extend(frame);
    file
}
