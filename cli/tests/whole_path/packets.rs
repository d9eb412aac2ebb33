//! Real packets on a real wire.

use std::{
    net::{Ipv4Addr, UdpSocket},
    process::{Command, Stdio},
};

use crate::weir::{Weir, text};

#[test]
fn packets_on_a_wire_become_rows_that_say_exactly_what_was_sent() {
    let Some(wire) = Wire::new_or_skip() else { return };
    let Some(weir) = Weir::up_or_skip(&wire.here) else { return };
    if weir.part("capture")["state"] == "off" {
        eprintln!("skipped: capture is off here: {}", weir.part("capture")["reason"]);
        return;
    }
    let socket = UdpSocket::bind("198.18.77.1:0").expect("bind");
    let port = socket.local_addr().expect("address").port();
    for datagram in 0..1000_u32 {
        // Nobody listens: the other end answers some with ICMP, which the next send reports.
        let _refused = socket.send_to(&[0; 100], (Ipv4Addr::new(198, 18, 77, 2), 4000 + (datagram % 10) as u16));
    }
    // 100 bytes of payload, 8 of UDP, 20 of IPv4.
    weir.eventually(
        &format!(
            "SELECT sum(tx_packets) AS packets, sum(tx_bytes) AS bytes, sum(rx_packets) AS back, uniqExact(flow_id) AS flows \
             FROM flows WHERE source = 'ebpf' AND protocol = 17 AND src_port = {port}"
        ),
        &serde_json::json!({"packets": 1000, "bytes": 128_000, "back": 0, "flows": 10}),
    );
    let flows = weir.run(&["flows", &format!("src_port = {port} and dst_ip in 198.18.77.0/30"), "--json"]);
    assert!(flows.status.success(), "{}", text(&flows.stderr));
    assert!(text(&flows.stdout).contains("198.18.77.2"), "{}", text(&flows.stdout));
}

/// Two ends of a wire: one here, one in a namespace of its own.
struct Wire {
    namespace: String,
    here: String,
    peer: String,
}

impl Wire {
    /// `None` where namespaces cannot be made, and it says so.
    fn new_or_skip() -> Option<Self> {
        let pid = std::process::id();
        let wire = Self { namespace: format!("weir-wp-{pid}"), here: format!("wwp{pid}"), peer: format!("wwq{pid}") };
        if !ip(&["netns", "add", &wire.namespace]) {
            eprintln!("skipped: cannot make a network namespace: run as root, with iproute2 installed");
            return None;
        }
        assert!(ip(&["link", "add", &wire.here, "type", "veth", "peer", "name", &wire.peer, "netns", &wire.namespace]));
        // Nothing but the test's own traffic: no neighbour discovery of IPv6 on its own account.
        assert!(ip(&["addr", "add", "198.18.77.1/30", "dev", &wire.here]));
        assert!(ip(&["link", "set", &wire.here, "up"]));
        assert!(ip(&["-n", &wire.namespace, "addr", "add", "198.18.77.2/30", "dev", &wire.peer]));
        assert!(ip(&["-n", &wire.namespace, "link", "set", &wire.peer, "up"]));
        assert!(ip(&["-n", &wire.namespace, "link", "set", "lo", "up"]));
        Some(wire)
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
