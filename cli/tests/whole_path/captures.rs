//! Uploaded captures: one of our own, and those that `WEIR_CORPUS` names.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::weir::{Weir, eventually, text};

#[test]
fn a_capture_that_is_uploaded_twice_is_counted_once() {
    let Some(weir) = Weir::up_or_skip("lo") else { return };
    let capture = weir.write("fixture.pcap", &udp_capture());
    for _ in 0..2 {
        let upload = weir.run(&["upload", capture.to_str().expect("path"), "--wait", "--json"]);
        assert!(upload.status.success(), "{}\n{}", text(&upload.stdout), text(&upload.stderr));
        assert!(text(&upload.stdout).contains("\"done\""), "{}", text(&upload.stdout));
    }
    weir.eventually(
        "SELECT count() AS flows, sum(tx_packets + rx_packets) AS packets, sum(tx_bytes + rx_bytes) AS bytes FROM flows WHERE source = 'pcap'",
        &serde_json::json!({"flows": 100, "packets": 500, "bytes": 500 * 60}),
    );
    weir.eventually(
        "SELECT count() AS captures, any(state) AS state, sum(packets) AS packets FROM captures",
        &serde_json::json!({"captures": 1, "state": "done", "packets": 500}),
    );
}

/// 500 UDP packets of 100 flows, 32 bytes of payload each, in the classic format.
pub(crate) fn udp_capture() -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(0xa1b2_c3d4_u32.to_le_bytes());
    file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    file.extend(65_535_u32.to_le_bytes());
    file.extend(101_u32.to_le_bytes()); // LINKTYPE_RAW
    for packet in 0..500_u32 {
        let port = 10_000 + (packet % 100) as u16;
        file.extend((1_700_000_000 + packet / 100).to_le_bytes());
        file.extend((packet * 100).to_le_bytes());
        file.extend(60_u32.to_le_bytes());
        file.extend(60_u32.to_le_bytes());
        file.extend([0x45, 0, 0, 60, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        file.extend(port.to_be_bytes());
        file.extend([0x1f, 0x90, 0, 40, 0, 0]);
        file.extend([0; 32]);
    }
    file
}

/// The tables hold of each capture exactly what the analysis of the file itself counts (which is held against the ground truths where the
/// analysis is tested), and the packets and bytes of the truth.
#[test]
fn the_tables_hold_of_every_capture_what_is_in_it() {
    let Some(corpus) = std::env::var_os("WEIR_CORPUS").map(PathBuf::from) else {
        eprintln!("skipped: WEIR_CORPUS names no corpus of captures");
        return;
    };
    let Some(weir) = Weir::up_or_skip("lo") else { return };
    let truths: Value =
        serde_json::from_slice(&fs::read(corpus.join("truth.json")).expect("truth.json")).expect("JSON");
    let names: Vec<&String> = truths.as_object().expect("an object").keys().collect();
    let ids = upload(&weir, &corpus, &names);

    let mut expected = BTreeMap::new();
    for name in &names {
        // The same bytes under two names are one capture.
        if let Some(counts) = analysed(&corpus.join("files").join(name)) {
            expected.insert(ids[*name].clone(), counts);
        }
    }
    eventually(
        || tables(&weir) == expected,
        || {
            let stored = tables(&weir);
            let differ = names.iter().filter(|name| stored.get(&ids[**name]) != expected.get(&ids[**name]));
            differ
                .map(|name| format!("{name}: {:?}, not {:?}", stored.get(&ids[*name]), expected.get(&ids[*name])))
                .collect::<Vec<_>>()
                .join("\n")
        },
    );
}

/// Uploads all and waits; the id of each by its name.
fn upload(weir: &Weir, corpus: &Path, names: &[&String]) -> BTreeMap<String, String> {
    let files: Vec<String> = names.iter().map(|name| corpus.join("files").join(name).display().to_string()).collect();
    let mut arguments = vec!["upload", "--wait", "--json"];
    arguments.extend(files.iter().map(String::as_str));
    let output = text(&weir.run(&arguments).stdout);
    // A file that is refused has no line.
    let mut uploaded = BTreeMap::new();
    for line in output.lines() {
        let capture: Value = serde_json::from_str(line).expect(line);
        let sha256 = capture["sha256"].as_str().expect(line).to_owned();
        uploaded.insert(sha256, capture["capture_id"].as_str().expect(line).to_owned());
    }
    let id = |file: &String| uploaded.get(&sha256(Path::new(file))).cloned().unwrap_or_default();
    names.iter().zip(&files).map(|(name, file)| ((*name).clone(), id(file))).collect()
}

/// As `sha256sum` prints it.
fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("run sha256sum");
    text(&output.stdout).split(' ').next().expect("a digest").to_owned()
}

/// Packets, bytes, flow records, flows, DNS queries, DNS answers, client hellos.
type Counts = [u64; 7];

/// What the analysis of a file counts; `None` where it finds nothing that a table could hold.
fn analysed(path: &Path) -> Option<Counts> {
    let worker = Path::new(env!("CARGO_BIN_EXE_weir")).with_file_name("weir-pcap-worker");
    let output = Command::new(worker).arg("--read").arg(path).output().expect("run weir-pcap-worker");
    let report: Value = serde_json::from_slice(&output.stdout).ok()?;
    let of_flows = |field: &str| -> u64 {
        let protocols = report["protocols"].as_array().expect("protocols");
        protocols.iter().map(|protocol| protocol[field].as_u64().expect("a number")).sum()
    };
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64).expect(pointer);
    let counts = [
        of_flows("packets"),
        of_flows("bytes"),
        number("/flows/records"),
        number("/flows/flows"),
        number("/dns/queries"),
        number("/dns/answers"),
        number("/tls/client_hellos"),
    ];
    (counts != Counts::default()).then_some(counts)
}

fn tables(weir: &Weir) -> BTreeMap<String, Counts> {
    let sql = "SELECT toString(id) AS id, sum(p) AS packets, sum(b) AS bytes, sum(r) AS records, sum(f) AS flows, sum(q) AS queries, \
               sum(a) AS answers, sum(h) AS hellos FROM (\
               SELECT capture_id AS id, sum(tx_packets + rx_packets) AS p, sum(tx_bytes + rx_bytes) AS b, count() AS r, \
               uniqExact(flow_id) AS f, 0 AS q, 0 AS a, 0 AS h FROM flows WHERE source = 'pcap' GROUP BY id \
               UNION ALL SELECT capture_id, 0, 0, 0, 0, countIf(has_query), countIf(rcode IS NOT NULL), 0 FROM dns WHERE source = 'pcap' GROUP BY capture_id \
               UNION ALL SELECT capture_id, 0, 0, 0, 0, 0, 0, count() FROM tls WHERE source = 'pcap' GROUP BY capture_id) GROUP BY id";
    let rows = weir.rows(sql).unwrap_or_default();
    let columns = ["packets", "bytes", "records", "flows", "queries", "answers", "hellos"];
    rows.iter()
        .map(|row| {
            (row["id"].as_str().expect("id").to_owned(), columns.map(|column| row[column].as_u64().expect(column)))
        })
        .collect()
}
