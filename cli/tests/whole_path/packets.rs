//! Real packets on a real wire.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    sync::mpsc::channel,
    thread,
};

use nix::sched::{CloneFlags, setns};

use crate::weir::{Weir, eventually, text};

#[test]
fn packets_on_a_wire_become_rows_that_say_exactly_what_was_sent() {
    let Some(wire) = Wire::new_or_skip() else { return };
    let Some(weir) = Weir::up_or_skip(&wire.here) else { return };
    if weir.part("capture")["state"] == "off" {
        eprintln!("skipped: capture is off here: {}", weir.part("capture")["reason"]);
        return;
    }
    let socket = UdpSocket::bind((wire.v4(1).as_str(), 0)).expect("bind");
    let port = socket.local_addr().expect("address").port();
    for datagram in 0..1000_u32 {
        // Nobody listens: the other end answers some with ICMP, which the next send reports.
        let _refused = socket.send_to(&[0; 100], (wire.v4(2).as_str(), 4000 + (datagram % 10) as u16));
    }
    // 100 bytes of payload, 8 of UDP, 20 of IPv4.
    weir.eventually(
        &format!(
            "SELECT sum(tx_packets) AS packets, sum(tx_bytes) AS bytes, sum(rx_packets) AS back, uniqExact(flow_id) AS flows \
             FROM flows WHERE source = 'ebpf' AND protocol = 17 AND src_port = {port}"
        ),
        &serde_json::json!({"packets": 1000, "bytes": 128_000, "back": 0, "flows": 10}),
    );
    let flows = weir.run(&["flows", &format!("src_port = {port} and dst_ip in {}/30", wire.v4(0)), "--json"]);
    assert!(flows.status.success(), "{}", text(&flows.stderr));
    assert!(text(&flows.stdout).contains(&wire.v4(2)), "{}", text(&flows.stdout));
}

/// The interface is captured before it is up, so that its counters and the rows begin at the same packet.
#[test]
fn every_packet_and_byte_that_the_interface_counts_is_in_a_row() {
    const STREAM: usize = 3_000_000;
    let Some(wire) = Wire::down_or_skip() else { return };
    let Some(weir) = Weir::up_or_skip(&wire.here) else { return };
    if weir.part("capture")["state"] == "off" {
        eprintln!("skipped: capture is off here: {}", weir.part("capture")["reason"]);
        return;
    }
    wire.set_up();
    let (port, received) = wire.sink(2);
    let block = vec![7; 60_000];
    for address in [wire.v4(2), wire.v6(2)] {
        let address: IpAddr = address.parse().expect("an address");
        let mut stream = TcpStream::connect((address, port)).expect("connect");
        for _ in 0..STREAM / block.len() {
            stream.write_all(&block).expect("write");
        }
        // Nobody listens there: the answers are ICMP and ICMPv6.
        let local = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(local).expect("bind");
        for size in [1, 100, 1400] {
            // An error is the answer to the datagram before.
            let _answer = socket.send_to(&vec![1; size], (address, 9));
        }
    }
    assert_eq!(received.join().expect("the sink ends"), 2 * STREAM as u64);

    let sql = format!(
        "SELECT sum(tx_packets + rx_packets) AS packets, sum(tx_bytes + rx_bytes) AS bytes, \
         groupUniqArray(protocol) AS protocols FROM flows WHERE interface = '{}'",
        wire.here
    );
    // The kernel goes on to speak IPv6 on its own account, so both are read again until they agree.
    let seen = || {
        let row = weir.rows(&sql).and_then(|rows| rows.first().cloned()).unwrap_or_default();
        (row["packets"].as_u64(), row["bytes"].as_u64())
    };
    eventually(
        || {
            let (packets, bytes) = wire.counted();
            packets > 2 * STREAM as u64 / 1460 && seen() == (Some(packets), Some(bytes))
        },
        || format!("the interface counts {:?}, the rows {:?}", wire.counted(), seen()),
    );
    weir.eventually(
        &format!(
            "SELECT sumIf(packets, outcome = 'seen') = sumIf(packets, outcome IN ('accounted', 'ignored', 'lost')) AS closed, \
             sumIf(bytes, outcome = 'seen') = sumIf(bytes, outcome IN ('accounted', 'ignored', 'lost')) AS closed_in_bytes, \
             sumIf(packets, outcome = 'accounted') = (SELECT sum(tx_packets + rx_packets) FROM flows) AS in_flows, \
             sumIf(bytes, outcome = 'accounted') = (SELECT sum(tx_bytes + rx_bytes) FROM flows) AS in_flows_in_bytes, \
             sumIf(packets, outcome IN ('lost', 'unpublished', 'unseen')) AS lost, count() > 0 AS told \
             FROM capture_ledger WHERE interface = '{}'",
            wire.here
        ),
        &serde_json::json!({"closed": 1, "closed_in_bytes": 1, "in_flows": 1, "in_flows_in_bytes": 1, "lost": 0, "told": 1}),
    );
    let protocols = weir.rows(&sql).expect("rows")[0]["protocols"].to_string();
    for protocol in ["6", "17", "1", "58"] {
        assert!(protocols.trim_matches(['[', ']']).split(',').any(|one| one == protocol), "{protocol} in {protocols}");
    }
}

/// Two ends of a wire: one here, one in a namespace of its own.
pub(crate) struct Wire {
    namespace: String,
    pub(crate) here: String,
    peer: String,
    /// Its own part of the addresses for measurements (RFC 2544), so that wires of several tests stand side by side.
    net: u32,
}

impl Wire {
    /// With both ends up.
    pub(crate) fn new_or_skip() -> Option<Self> {
        let wire = Self::down_or_skip()?;
        wire.set_up();
        Some(wire)
    }

    /// With both ends down, and nothing sent yet. `None` where namespaces cannot be made, and it says so.
    fn down_or_skip() -> Option<Self> {
        let pid = std::process::id();
        let wire = Self {
            namespace: format!("weir-wp-{pid}"),
            here: format!("wwp{pid}"),
            peer: format!("wwq{pid}"),
            net: pid % 512,
        };
        if !ip(&["netns", "add", &wire.namespace]) {
            eprintln!("skipped: cannot make a network namespace: run as root, with iproute2 installed");
            return None;
        }
        assert!(ip(&["link", "add", &wire.here, "type", "veth", "peer", "name", &wire.peer, "netns", &wire.namespace]));
        // An interface counts a super-packet as one: let there be none.
        assert!(ip(&["link", "set", &wire.here, "gso_max_segs", "1"]));
        assert!(ip(&["-n", &wire.namespace, "link", "set", &wire.peer, "gso_max_segs", "1"]));
        Some(wire)
    }

    fn set_up(&self) {
        let (here, peer) = (self.here.as_str(), self.peer.as_str());
        // The other end first: what a veth cannot deliver yet it drops, and its hooks have seen it.
        for arguments in [
            ["addr", "add", &format!("{}/30", self.v4(2)), "dev", peer].as_slice(),
            &["addr", "add", &format!("{}/64", self.v6(2)), "dev", peer, "nodad"],
            &["link", "set", peer, "up"],
            &["link", "set", "lo", "up"],
        ] {
            assert!(ip(&[&["-n", &self.namespace], arguments].concat()), "ip {arguments:?}");
        }
        for arguments in [
            ["addr", "add", &format!("{}/30", self.v4(1)), "dev", here].as_slice(),
            &["addr", "add", &format!("{}/64", self.v6(1)), "dev", here, "nodad"],
            &["link", "set", here, "up"],
        ] {
            assert!(ip(arguments), "ip {arguments:?}");
        }
        // No ARP: it is no packet of any flow.
        let (ours, theirs) = (self.mac(&[], here), self.mac(&["-n", &self.namespace], peer));
        assert!(ip(&["neigh", "replace", &self.v4(2), "lladdr", &theirs, "dev", here, "nud", "permanent"]));
        let ours_v4 = self.v4(1);
        let neighbour = ["neigh", "replace", &ours_v4, "lladdr", &ours, "dev", peer, "nud", "permanent"];
        assert!(ip(&[&["-n", self.namespace.as_str()], neighbour.as_slice()].concat()));
    }

    pub(crate) fn v4(&self, end: u8) -> String {
        Ipv4Addr::new(198, 18 + (self.net >> 8) as u8, (self.net & 255) as u8, end).to_string()
    }

    fn v6(&self, end: u8) -> String {
        format!("fd77:{:x}::{end}", self.net)
    }

    fn mac(&self, prefix: &[&str], device: &str) -> String {
        let arguments = [prefix, &["-brief", "link", "show", "dev", device]].concat();
        let output = Command::new("ip").args(&arguments).output().expect("run ip");
        let mac = text(&output.stdout).split_whitespace().nth(2).map(str::to_owned);
        mac.unwrap_or_else(|| panic!("no address of {device} in {}", self.namespace))
    }

    /// Takes connections at the other end and reads them to their ends: the port, and how many bytes came.
    fn sink(&self, connections: usize) -> (u16, thread::JoinHandle<u64>) {
        let namespace = File::open(format!("/run/netns/{}", self.namespace)).expect("the namespace");
        let (told, port) = channel();
        let reading = thread::spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).expect("enter the namespace");
            let listener = TcpListener::bind("[::]:0").expect("listen");
            told.send(listener.local_addr().expect("address").port()).expect("somebody waits");
            let mut buffer = vec![0; 1 << 16];
            let mut received = 0;
            for _ in 0..connections {
                let (mut stream, _) = listener.accept().expect("accept");
                loop {
                    match stream.read(&mut buffer).expect("read") {
                        0 => break,
                        bytes => received += bytes as u64,
                    }
                }
            }
            received
        });
        (port.recv().expect("it listens"), reading)
    }

    /// Packets and IP bytes that the interface counts, both directions.
    fn counted(&self) -> (u64, u64) {
        let counter = |name: &str| -> u64 {
            let path = format!("/sys/class/net/{}/statistics/{name}", self.here);
            fs::read_to_string(path).expect(name).trim().parse().expect("a number")
        };
        let packets = counter("tx_packets") + counter("rx_packets");
        // It counts the 14 bytes of each Ethernet header, too.
        (packets, counter("tx_bytes") + counter("rx_bytes") - 14 * packets)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The interfaces go with the namespace.
        ip(&["netns", "delete", &self.namespace]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}
