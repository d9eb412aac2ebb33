//! Who gets more than it asked for: floods and amplification.

use super::bounded::Bounded;
use super::distinct::Distinct;
use super::ended::{Attempt, Ended, is_group};
use super::evidence::Evidence;
use super::finding::{Finding, display, tenths};
use super::kind::{Kind, Severity};
use super::thresholds::Thresholds;
use crate::analyzer::Scale;

/// Targets that are followed.
const MAX_TARGETS: usize = 8192;

/// UDP services that answer with more than they are asked: qotd, chargen, DNS, TFTP, portmap, NTP, `NetBIOS`, SNMP, CLDAP, MS-SQL, SSDP,
/// WS-Discovery, ARD, CoAP, mDNS, memcached.
const AMPLIFIERS: [u16; 16] = [17, 19, 53, 69, 111, 123, 137, 161, 389, 1434, 1900, 3702, 3283, 5683, 5353, 11211];

/// What a target is flooded with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Flood {
    Syn,
    Udp,
    Icmp,
}

#[derive(Debug, Default)]
struct Target {
    packets: u64,
    bytes: u64,
    sources: Distinct,
    ports: Distinct,
    /// Start of the current second, packets in it, and the most of all seconds.
    second: (u64, u64, u64),
    evidence: Evidence,
}

#[derive(Debug, Default)]
struct Reflection {
    asked: u64,
    answered: u64,
    packets: u64,
    servers: Distinct,
    evidence: Evidence,
}

/// The targets of what may be floods.
#[derive(Debug)]
pub(super) struct Floods {
    targets: Bounded<([u8; 16], u16, Flood), Target>,
    reflections: Bounded<([u8; 16], u16), Reflection>,
}

impl Floods {
    pub(super) fn new(scale: Scale) -> Self {
        Self { targets: Bounded::new(scale.of(MAX_TARGETS)), reflections: Bounded::new(scale.of(MAX_TARGETS)) }
    }

    pub(super) const fn lost(&self) -> u64 {
        self.targets.lost + self.reflections.lost
    }

    pub(super) fn flow(&mut self, ended: &Ended<'_>) {
        self.reflection(ended);
        let record = ended.record;
        let (port, flood, packets) = match ended.attempt {
            // Only SYNs count, each that was sent again too.
            Some(Attempt::Unanswered | Attempt::HalfOpen) => (ended.dst_port, Flood::Syn, record.tx_packets),
            None if ended.is_echo() => (0, Flood::Icmp, record.tx_packets),
            None if ended.is_udp() && record.rx_packets * 20 < record.tx_packets && !is_group(ended.dst) => {
                (0, Flood::Udp, record.tx_packets)
            }
            _ => return,
        };
        let Some(target) = self.targets.entry((ended.dst, port, flood), |target| target.packets > 10) else { return };
        target.packets += packets;
        target.bytes += record.tx_bytes;
        target.sources.add(&ended.src);
        target.ports.add(&ended.dst_port);
        target.count_second(record.start_time, packets);
        ended.add_to(&mut target.evidence);
    }

    /// Requests and answers of a service that may amplify; of answers alone the service is the one that sends.
    fn reflection(&mut self, ended: &Ended<'_>) {
        if !ended.is_udp() {
            return;
        }
        let record = ended.record;
        let (victim, server, port, asked, answered, packets) = if AMPLIFIERS.contains(&ended.dst_port) {
            (ended.src, ended.dst, ended.dst_port, record.tx_bytes, record.rx_bytes, record.rx_packets)
        } else if AMPLIFIERS.contains(&ended.src_port) && !is_group(ended.dst) {
            (ended.dst, ended.src, ended.src_port, record.rx_bytes, record.tx_bytes, record.tx_packets)
        } else {
            return;
        };
        let Some(reflection) = self.reflections.entry((victim, port), |reflection| reflection.answered > 2000) else {
            return;
        };
        reflection.asked += asked;
        reflection.answered += answered;
        reflection.packets += packets;
        reflection.servers.add(&server);
        ended.add_to(&mut reflection.evidence);
    }

    pub(super) fn findings(&self, thresholds: &Thresholds, found: &mut Vec<Finding>) {
        for (&(ip, port, flood), target) in self.targets.iter() {
            found.extend(target.finding(ip, port, flood, thresholds));
        }
        for (&(ip, port), reflection) in self.reflections.iter() {
            found.extend(reflection.finding(ip, port, thresholds));
        }
    }
}

impl Target {
    fn count_second(&mut self, time: u64, packets: u64) {
        const SECOND: u64 = 1_000_000;
        let (start, count, most) = &mut self.second;
        if time >= *start + SECOND {
            (*start, *count) = (time, 0);
        }
        // A flow that began earlier ends later: it counts into the second at hand.
        *count += packets;
        *most = (*most).max(*count);
    }

    fn finding(&self, ip: [u8; 16], port: u16, flood: Flood, thresholds: &Thresholds) -> Option<Finding> {
        let mean = self.packets as f64 / self.evidence.seconds().max(1.0);
        let (kind, name, rate, bound) = match flood {
            Flood::Syn => (Kind::SynFlood, "SYNs", self.second.2 as f64, thresholds.syn_flood_per_second),
            Flood::Udp => (Kind::UdpFlood, "UDP packets", mean, thresholds.udp_flood_per_second),
            Flood::Icmp => (Kind::IcmpFlood, "ICMP echo requests", mean, thresholds.icmp_flood_per_second),
        };
        let sources = self.sources.count().max(1);
        let size = self.bytes / self.packets.max(1);
        // One sender of large datagrams on one port is a transfer or a measurement.
        let transfer = flood == Flood::Udp && sources <= 3 && self.ports.count() <= 3 && size > 300;
        if rate < bound as f64 || self.packets < thresholds.flood_packets || transfer {
            return None;
        }
        let summary = format!(
            "{} got {} {name} from about {sources} source{}, {rate:.0} in a second, and nothing came of them",
            if port == 0 { display(ip) } else { format!("{} port {port}", display(ip)) },
            self.packets,
            if sources == 1 { "" } else { "s" },
        );
        let confidence = (0.5 + 0.1 * (rate / bound as f64).log2() + if sources > 20 { 0.2 } else { 0.0 }).min(0.95);
        let severity = if flood == Flood::Icmp { Severity::Warning } else { Severity::Critical };
        let found = Finding::new(kind, severity, confidence, &self.evidence)
            .to(ip)
            .with("packets", self.packets)
            .with("bytes", self.bytes)
            .with("per_second", tenths(rate))
            .with("sources", sources)
            .with("ports", self.ports.count())
            .saying(summary);
        Some(if port == 0 { found } else { found.port(port) })
    }
}

impl Reflection {
    fn finding(&self, victim: [u8; 16], port: u16, thresholds: &Thresholds) -> Option<Finding> {
        let ratio = self.answered as f64 / self.asked.max(1) as f64;
        // Answers to nobody's question are many large ones from several servers, or else one side is just not in the capture.
        let unasked = self.asked == 0 && (self.answered / self.packets.max(1) < 400 || self.servers.count() < 3);
        if self.answered < thresholds.amplification_bytes || ratio < thresholds.amplification_ratio || unasked {
            return None;
        }
        let servers = self.servers.count().max(1);
        let asked =
            if self.asked == 0 { "without a request".to_owned() } else { format!("{ratio:.0} times the requests") };
        let summary = format!(
            "{} got {} bytes from port {port} of about {servers} server{}, {asked}",
            display(victim),
            self.answered,
            if servers == 1 { "" } else { "s" },
        );
        let confidence = 0.5 + 0.2 * (ratio / thresholds.amplification_ratio).log10().clamp(0.0, 2.0);
        Some(
            Finding::new(Kind::Amplification, Severity::Critical, confidence.min(0.95), &self.evidence)
                .to(victim)
                .with("service_port", port)
                .with("request_bytes", self.asked)
                .with("answer_bytes", self.answered)
                .with("ratio", if self.asked == 0 { serde_json::Value::Null } else { tenths(ratio).into() })
                .with("servers", servers)
                .saying(summary),
        )
    }
}
