//! A capture that wants all memory gets what it may have, and its report says what that cost.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Bytes that the tables may hold, and bytes that the kernel gives to the process for everything.
const TABLES: usize = 16 << 20;
const PROCESS: usize = 40 << 20;

/// Writes raw IPv4 packets, a microsecond apart.
struct Hostile {
    file: Vec<u8>,
    packets: u32,
}

impl Hostile {
    fn new() -> Self {
        let header = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 101];
        Self { file: header.iter().flat_map(|word| word.to_le_bytes()).collect(), packets: 0 }
    }

    fn packet(&mut self, id: u32, fragment: u16, protocol: u8, src: u32, payload: &[u8]) {
        let length = 20 + payload.len() as u32;
        let time = [1_700_000_000 + self.packets / 1_000_000, self.packets % 1_000_000];
        self.packets += 1;
        for word in [time[0], time[1], length, length] {
            self.file.extend(word.to_le_bytes());
        }
        self.file.extend([0x45, 0]);
        self.file.extend((length as u16).to_be_bytes());
        self.file.extend((id as u16).to_be_bytes());
        self.file.extend(fragment.to_be_bytes());
        self.file.extend([64, protocol, 0, 0]);
        self.file.extend((0x0a00_0000 | src & 0x00ff_ffff).to_be_bytes());
        self.file.extend([192, 0, 2, 1]);
        self.file.extend(payload);
    }
}

fn udp(src_port: u16, dst_port: u16, data: &[u8]) -> Vec<u8> {
    let fields = [src_port, dst_port, 8 + data.len() as u16, 0];
    [fields.iter().flat_map(|field| field.to_be_bytes()).collect(), data.to_vec()].concat()
}

fn tcp(sequence: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut segment = vec![0x40, 0, 0, 80];
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(data);
    segment
}

/// A client hello with this name (RFC 8446, section 4.1.2).
fn hello(name: &str) -> Vec<u8> {
    let sized = |bytes: Vec<u8>| [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
    let names = sized([vec![0], sized(name.into())].concat());
    let extensions = sized([vec![0, 0], sized(names)].concat());
    let body = [&[3, 3][..], &[0; 32], &[0, 0, 2, 0x13, 1, 1, 0], &extensions].concat();
    let handshake = [vec![1, 0], sized(body)].concat();
    [vec![0x16, 3, 1], sized(handshake)].concat()
}

/// A query's answer: `name` has an address.
fn answer(id: u16, name: &str, address: u32) -> Vec<u8> {
    let mut message = [&id.to_be_bytes()[..], &[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]].concat();
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0x0e, 0x10, 0, 4]);
    message.extend(address.to_be_bytes());
    message
}

/// Fills the tables of findings, names and top talkers: addresses, pairs, names that are asked for and told, servers' names, hosts of
/// requests, tunnels.
fn crowd(capture: &mut Hostile) {
    let long = "x".repeat(60);
    for number in 0..120_000 {
        capture.packet(number, 0, 17, 0x40_0000 + number, &udp(4000, 9, &[1]));
    }
    for number in 0..70_000u32 {
        let name = format!("{long}.{long}.{long}.{number}.example");
        capture.packet(number, 0, 17, 8, &udp(53, 6000, &answer(number as u16, &name, 0x0b00_0000 + number)));
    }
    for number in 0..12_000 {
        let name = format!("{long}.{long}.{long}.{number}.example");
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n");
        for (first, payload) in [(0x50_0000, hello(&name)), (0x60_0000, request.into_bytes())] {
            capture.packet(1, 0, 6, first + number, &tcp(0, 2, &[]));
            capture.packet(2, 0, 6, first + number, &tcp(1, 0x18, &payload));
        }
    }
    for number in 0..40_000u32 {
        let ethernet = [&[2; 12][..], &[8, 0]].concat();
        let ip = [0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let vxlan = [&[8, 0, 0, 0][..], &(number << 8).to_be_bytes(), &ethernet, &ip, &udp(1, 2, &[])].concat();
        capture.packet(number, 0, 17, 9, &udp(4000, 4789, &vxlan));
    }
}

/// More flows than there is room for, holes that are never filled, queries that nobody answers, fragments without an end, and a crowd.
fn hostile() -> Hostile {
    let mut capture = Hostile::new();
    for number in 0..40_000 {
        capture.packet(number, 0, 17, number, &udp(4000, 9, &[1]));
    }
    for number in 0..400 {
        capture.packet(1, 0, 6, number, &tcp(0, 2, &[]));
        for hole in 0..16 {
            capture.packet(2 + hole, 0, 6, number, &tcp(2 + hole * 1001, 0x18, &[b'x'; 1000]));
        }
    }
    for number in 0..10_000u32 {
        let label = format!("{number:060}");
        let mut query =
            [&number.to_be_bytes()[2..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 60][..], label.as_bytes()].concat();
        query.extend([0, 0, 1, 0, 1]);
        capture.packet(number, 0, 17, 7, &udp(5000 + (number % 100) as u16, 53, &query));
    }
    for number in 0..12_000 {
        capture.packet(number, 0x2000, 17, number, &udp(4000, 9, &[3; 1000]));
        capture.packet(number, 0x2000 | 512, 17, number + 20_000, &[4; 64]);
    }
    crowd(&mut capture);
    capture
}

#[test]
fn what_a_hostile_capture_costs_is_bounded_and_said() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("hostile.pcap");
    let capture = hostile();
    fs::File::create(&path)?.write_all(&capture.file)?;
    let output = Command::new(env!("CARGO_BIN_EXE_weir-pcap-worker"))
        .arg("--read")
        .arg(Path::new(&path))
        .args(["--max-memory", &TABLES.to_string(), "--memory-limit-bytes", &PROCESS.to_string()])
        .output()?;
    // The kernel is the judge: a process that wants more than its limit ends.
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).context("a report")?;
    assert_eq!(report["totals"]["packets"], capture.packets, "each packet is counted");
    let given_up: Vec<_> = report["given_up"].as_array().context("a list")?.iter().map(|one| &one["what"]).collect();
    for what in [
        "flows that ended early",
        "streams that were not looked into",
        "DNS queries that did not wait for their answer",
        "fragmented packets that were not put together",
        "subjects of findings",
        "packets of further talkers",
        "packets of further pairs",
        "packets in further tunnels",
        "names of hosts",
        "messages of further DNS names",
        "client hellos of further names",
        "requests to further hosts",
    ] {
        assert!(given_up.contains(&&Value::from(what)), "{what} is not among {given_up:?}");
    }
    Ok(())
}
