//! Conversations that may do harm: guesses, data that leaves, hosts that are entered one after the other.

use hashbrown::HashMap;

use super::{Conversation, Ends, is_outward};
use crate::findings::distinct::Distinct;
use crate::findings::ended::is_internal;
use crate::findings::evidence::Evidence;
use crate::findings::finding::{Finding, display, tenths};
use crate::findings::kind::{Kind, Severity};
use crate::findings::thresholds::Thresholds;
use crate::packet::ip::protocol;

/// Services whose connections begin with a login, and end where it is refused.
const LOGINS: [(u16, &str); 7] =
    [(21, "ftp"), (22, "ssh"), (23, "telnet"), (2222, "ssh"), (3389, "rdp"), (5900, "vnc"), (5985, "winrm")];

/// Services through which hosts are administered.
const ADMINISTRATION: [u16; 9] = [22, 23, 135, 139, 445, 3389, 5900, 5985, 5986];

impl Conversation {
    pub(super) fn brute_force(&self, ends: &Ends, thresholds: &Thresholds) -> Option<Finding> {
        let (_, service) = LOGINS.iter().find(|(port, _)| *port == ends.port && ends.protocol == protocol::TCP)?;
        let minutes = (self.evidence.seconds() / 60.0).max(1.0);
        let rate = self.short as f64 / minutes;
        // Whoever works there has connections that last.
        let guesses = self.short * 10 >= self.established * 9;
        if self.short < thresholds.brute_force_connections || rate < thresholds.brute_force_per_minute || !guesses {
            return None;
        }
        let summary = format!(
            "{} made {} short connections to {service} on {} within {minutes:.0} min",
            display(ends.src),
            self.short,
            display(ends.dst),
        );
        let confidence = 0.5 + 0.1 * (self.short as f64 / thresholds.brute_force_connections as f64).log2();
        Some(
            Finding::new(Kind::BruteForce, Severity::Warning, confidence.min(0.8), &self.evidence)
                .from(ends.src)
                .to(ends.dst)
                .port(ends.port)
                .with("service", *service)
                .with("short_connections", self.short)
                .with("connections", self.flows)
                .with("per_minute", tenths(rate))
                .saying(summary),
        )
    }

    pub(super) fn exfiltration(&self, ends: &Ends, thresholds: &Thresholds) -> Option<Finding> {
        let ratio = self.tx_bytes as f64 / self.rx_bytes.max(1) as f64;
        let much = self.tx_bytes >= thresholds.exfiltration_bytes && ratio >= thresholds.exfiltration_ratio;
        if !much || !is_outward(ends) {
            return None;
        }
        let summary = format!(
            "{} sent {} bytes to {} port {} and got {}",
            display(ends.src),
            self.tx_bytes,
            display(ends.dst),
            ends.port,
            self.rx_bytes,
        );
        let confidence = 0.3 + 0.1 * (self.tx_bytes as f64 / thresholds.exfiltration_bytes as f64).log2().max(0.0);
        Some(
            Finding::new(Kind::Exfiltration, Severity::Warning, confidence.min(0.7), &self.evidence)
                .from(ends.src)
                .to(ends.dst)
                .port(ends.port)
                .with("sent_bytes", self.tx_bytes)
                .with("received_bytes", self.rx_bytes)
                .with("flows", self.flows)
                .saying(summary),
        )
    }

    /// Echo packets that are larger than those of ping (84 bytes; 60 on Windows), and not all of one size.
    pub(super) fn icmp_tunnel(&self, ends: &Ends, thresholds: &Thresholds) -> Option<Finding> {
        let echo = matches!((ends.protocol, ends.port), (protocol::ICMP | protocol::ICMPV6, _));
        let bytes = self.tx_bytes + self.rx_bytes;
        let mean = bytes as f64 / self.packets.max(1) as f64;
        // Ping's replies are as large as its requests, whatever size was asked for and however many of them are lost.
        let size = |bytes: u64, packets: u64| bytes as f64 / packets.max(1) as f64;
        let (request, reply) =
            (size(self.tx_bytes, self.packets - self.rx_packets), size(self.rx_bytes, self.rx_packets));
        let uneven = (request - reply).abs() > 0.1 * request.max(reply);
        let both = self.rx_bytes > 0 && self.packets > 20;
        if !echo || !uneven || !both || mean < 120.0 || bytes < thresholds.icmp_tunnel_bytes {
            return None;
        }
        let summary = format!(
            "{} and {} exchanged {bytes} bytes in {} ICMP echo packets, {mean:.0} bytes each on average, replies unlike requests",
            display(ends.src),
            display(ends.dst),
            self.packets,
        );
        Some(
            Finding::new(Kind::IcmpTunnel, Severity::Warning, 0.7, &self.evidence)
                .from(ends.src)
                .to(ends.dst)
                .with("sent_bytes", self.tx_bytes)
                .with("received_bytes", self.rx_bytes)
                .with("packets", self.packets)
                .saying(summary),
        )
    }
}

/// The internal hosts that one internal host administered.
#[derive(Debug, Default)]
pub(super) struct Entered {
    hosts: Distinct,
    ports: Vec<u16>,
    connections: u64,
    evidence: Evidence,
}

pub(super) fn enter(entered: &mut HashMap<[u8; 16], Entered>, ends: &Ends, conversation: &Conversation) {
    let internal = is_internal(ends.src) && is_internal(ends.dst) && ends.src != ends.dst;
    let administered = ends.protocol == protocol::TCP && ADMINISTRATION.contains(&ends.port);
    if !internal || !administered || conversation.established == 0 {
        return;
    }
    let source = entered.entry(ends.src).or_default();
    source.hosts.add(&ends.dst);
    source.connections += conversation.established;
    if !source.ports.contains(&ends.port) {
        source.ports.push(ends.port);
    }
    source.evidence.merge(&conversation.evidence);
}

pub(super) fn lateral_movement(entered: HashMap<[u8; 16], Entered>, thresholds: &Thresholds, found: &mut Vec<Finding>) {
    for (src, mut source) in entered {
        let hosts = source.hosts.count();
        if hosts < thresholds.lateral_movement_hosts {
            continue;
        }
        source.ports.sort_unstable();
        // The table has no order of its own.
        source.evidence.flows.sort();
        source.evidence.frames.sort();
        let ports = source.ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let summary = format!("{} entered {hosts} internal hosts on port {ports}", display(src));
        let confidence = 0.4 + 0.05 * (hosts - thresholds.lateral_movement_hosts) as f64;
        found.push(
            Finding::new(Kind::LateralMovement, Severity::Warning, confidence.min(0.7), &source.evidence)
                .from(src)
                .with("hosts", hosts)
                .with("ports", source.ports)
                .with("connections", source.connections)
                .saying(summary),
        );
    }
}
