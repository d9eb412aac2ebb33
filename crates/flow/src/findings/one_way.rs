//! Flows of which only one direction is in the capture, though the other one is spoken of, or would be there if all went well.

use super::bounded::Bounded;
use super::ended::{Attempt, Ended, is_group};
use crate::analyzer::Scale;

/// Flows that are followed.
const MAX_FLOWS: usize = 4096;
/// Packets from which on a flow is not the first to be forgotten.
const MANY: u64 = 4;

/// Protocols over UDP of which each question has an answer.
const ASKED: [&str; 6] = ["dns", "ntp", "snmp", "stun", "radius", "memcached"];
/// Protocols over UDP in which both sides speak all the time, and packets after which the other one should have.
const TALKED: ([&str; 6], u64) = (["quic", "dtls", "wireguard", "openvpn", "ike", "sip"], 5);
/// Ports above 1023 on which servers of these listen.
const SERVERS: [u16; 9] = [1194, 1645, 1646, 1812, 1813, 3478, 5060, 11211, 51820];
/// Multicast DNS and LLMNR ask and answer groups.
const GROUPS: [u16; 2] = [5353, 5355];

/// Which direction is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// What the initiator sent.
    #[default]
    Requests,
    /// What the responder sent.
    Answers,
}

/// A flow with one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OneWay {
    /// Its name.
    pub flow_id: u64,
    /// Who sent what is there, network order, IPv4 mapped.
    pub src: [u8; 16],
    /// To whom.
    pub dst: [u8; 16],
    /// Port of the sender.
    pub src_port: u16,
    /// Port of the receiver.
    pub dst_port: u16,
    /// IANA number.
    pub protocol: u8,
    /// Protocol that was recognised; empty = none.
    pub app: String,
    /// Which direction it is.
    pub seen: Seen,
    /// The other direction was there, and not captured: it is acknowledged or answered. Otherwise nobody may have answered.
    pub certain: bool,
    /// Packets of it.
    pub packets: u64,
    /// IP bytes of it.
    pub bytes: u64,
    /// Number of its first frame in the capture.
    pub frame: u64,
}

/// Those of a capture.
#[derive(Debug)]
pub(super) struct OneWays {
    all: Bounded<u64, OneWay>,
    udp: u64,
}

impl OneWays {
    pub(super) fn new(scale: Scale) -> Self {
        Self { all: Bounded::new(scale.of(MAX_FLOWS)), udp: 0 }
    }

    pub(super) const fn lost(&self) -> u64 {
        self.all.lost
    }

    /// Flows of UDP among them.
    pub(super) const fn udp(&self) -> u64 {
        self.udp
    }

    pub(super) fn flow(&mut self, ended: &Ended<'_>) {
        let record = ended.record;
        if !ended.first {
            return self.go_on(ended);
        }
        let Some((seen, certain)) = one_direction(ended) else { return };
        self.udp += u64::from(ended.is_udp());
        let Some(flow) = self.all.entry(record.flow_id, |flow| flow.packets > MANY) else { return };
        let initiator_sent = record.tx_packets > 0;
        let (mut from, mut to) = ((ended.src, ended.src_port), (ended.dst, ended.dst_port));
        if !initiator_sent {
            std::mem::swap(&mut from, &mut to);
        }
        *flow = OneWay {
            flow_id: record.flow_id,
            src: from.0,
            dst: to.0,
            src_port: from.1,
            dst_port: to.1,
            protocol: ended.protocol,
            app: record.app.clone(),
            seen,
            certain,
            packets: ended.packets(),
            bytes: record.tx_bytes + record.rx_bytes,
            frame: ended.frame,
        };
    }

    /// A later interval of a flow.
    fn go_on(&mut self, ended: &Ended<'_>) {
        if let Some(flow) = self.all.get_mut(&ended.record.flow_id) {
            flow.packets += ended.packets();
            flow.bytes += ended.record.tx_bytes + ended.record.rx_bytes;
        }
    }

    /// Those with the most bytes; what is certain comes first.
    pub(super) fn first(&self, most: usize) -> Vec<OneWay> {
        let mut all: Vec<&OneWay> = self.all.iter().map(|(_, flow)| flow).collect();
        all.sort_by_key(|flow| (!flow.certain, std::cmp::Reverse(flow.bytes), flow.frame, flow.flow_id));
        all.into_iter().take(most).cloned().collect()
    }
}

/// Which direction a flow has where it has one only and its protocol has two, and whether the other one is certain.
fn one_direction(ended: &Ended<'_>) -> Option<(Seen, bool)> {
    let record = ended.record;
    if let Some(attempt) = ended.attempt {
        let seen = if record.rx_packets == 0 { Seen::Requests } else { Seen::Answers };
        return (attempt == Attempt::OneSided).then_some((seen, true));
    }
    let ports = [ended.src_port, ended.dst_port];
    if !ended.is_udp() || record.rx_packets > 0 || is_group(ended.dst) || ports.iter().any(|port| GROUPS.contains(port))
    {
        return None;
    }
    let app = record.app.as_str();
    let enough = ASKED.contains(&app) || (TALKED.0.contains(&app) && record.tx_packets >= TALKED.1);
    if !enough {
        return None;
    }
    let [from_server, to_server] = ports.map(|port| port < 1024 || SERVERS.contains(&port));
    let answers = from_server && !to_server;
    Some((if answers { Seen::Answers } else { Seen::Requests }, answers))
}
