//! An interval of a flow that ended, as the detectors look at it.

use weir_proto::Flow;

use super::evidence::Evidence;
use crate::packet::ip::protocol;
use crate::packet::transport::flags;
use crate::tcp::Silences;
use crate::tracker::Finished;

/// How far a TCP connection came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    /// SYNs and nothing back.
    Unanswered,
    /// A reset in place of a connection.
    Refused,
    /// SYN and SYN+ACK, and nothing more but a reset.
    HalfOpen,
    /// A handshake, and an end without a byte of payload.
    Empty,
    /// A lone segment that begins nothing, as FIN, NULL, Xmas and ACK scans send them.
    Odd,
    /// One direction is not in the capture, though it was answered.
    OneSided,
    /// A handshake and payload.
    Established,
    /// It began before the capture or before this interval.
    Joined,
}

/// A record with what the flow table knows beyond it.
#[derive(Clone, Copy)]
pub(super) struct Ended<'a> {
    pub(super) record: &'a Flow,
    pub(super) src: [u8; 16],
    pub(super) dst: [u8; 16],
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    pub(super) protocol: u8,
    pub(super) frame: u64,
    pub(super) first: bool,
    pub(super) gap_us: u64,
    pub(super) gap_frame: u64,
    /// Long silences that ended in it.
    pub(super) silences: Option<&'a Silences>,
    /// Data of the largest segment of each side that was sent once and acknowledged.
    pub(super) largest_passed: [u16; 2],
    /// Nothing for what is not TCP.
    pub(super) attempt: Option<Attempt>,
}

impl<'a> Ended<'a> {
    pub(super) fn new(record: &'a Flow, finished: &'a Finished) -> Self {
        Self {
            record,
            src: finished.key.src(finished.initiator).ip,
            dst: finished.key.dst(finished.initiator).ip,
            src_port: finished.ports.0,
            dst_port: finished.ports.1,
            protocol: finished.key.protocol,
            frame: finished.interval.first_frame,
            first: !finished.continued,
            gap_us: finished.interval.longest_gap_us,
            gap_frame: finished.interval.gap_frame,
            silences: finished.tcp.as_ref().and_then(|report| report.silences.as_deref()),
            largest_passed: finished.tcp.as_ref().map_or([0; 2], |report| report.largest_passed),
            attempt: (finished.key.protocol == protocol::TCP).then(|| attempt(record, finished.continued)),
        }
    }

    pub(super) fn add_to(&self, evidence: &mut Evidence) {
        evidence.flow(self.record.flow_id, self.frame, self.record.start_time, self.record.end_time);
    }

    pub(super) const fn packets(&self) -> u64 {
        self.record.tx_packets + self.record.rx_packets
    }

    pub(super) const fn is_udp(&self) -> bool {
        self.protocol == protocol::UDP
    }

    /// An echo request that started this flow.
    pub(super) const fn is_echo(&self) -> bool {
        (self.protocol == protocol::ICMP && self.src_port == 8)
            || (self.protocol == protocol::ICMPV6 && self.src_port == 128)
    }

    /// A datagram to one host that brought nothing back, and that is not itself an answer.
    pub(super) const fn is_unanswered_datagram(&self) -> bool {
        self.is_udp()
            && self.first
            && self.record.rx_packets == 0
            && self.record.tx_packets <= 4
            && !(self.src_port < 1024 && self.dst_port >= 1024)
            && !is_group(self.dst)
    }

    /// Whether it looks like one step of a scan: it touched a port and brought nothing.
    pub(super) fn is_probe(&self) -> bool {
        match self.attempt {
            Some(Attempt::Unanswered | Attempt::Refused | Attempt::HalfOpen | Attempt::Empty | Attempt::Odd) => {
                self.first
            }
            Some(_) => false,
            None => self.is_unanswered_datagram() || (self.is_echo() && self.first && self.record.rx_packets == 0),
        }
    }
}

fn attempt(record: &Flow, continued: bool) -> Attempt {
    const SYN_ACK: u8 = flags::SYN | flags::ACK;
    let (tx, rx) = (record.tcp_flags_tx as u8, record.tcp_flags_rx as u8);
    let (tx_packets, rx_packets) = (record.tx_packets, record.rx_packets);
    let answered = rx & SYN_ACK == SYN_ACK;
    if continued {
        return Attempt::Joined;
    }
    if tx & flags::SYN == 0 && !answered {
        let few = tx_packets <= 2 && rx_packets <= 2;
        let begins_nothing = tx & flags::ACK == 0 && tx & flags::RST == 0;
        let reset = tx == flags::ACK && rx & flags::RST != 0 && rx & flags::ACK == 0;
        return match rx_packets {
            _ if few && (begins_nothing || reset) => Attempt::Odd,
            0 if tx & flags::ACK != 0 && tx & flags::RST == 0 && tx_packets >= 5 => Attempt::OneSided,
            _ => Attempt::Joined,
        };
    }
    if !answered {
        return match rx_packets {
            0 if tx & flags::ACK != 0 && tx_packets >= 3 => Attempt::OneSided,
            0 => Attempt::Unanswered,
            _ if rx & flags::RST != 0 && rx_packets <= tx_packets => Attempt::Refused,
            _ => Attempt::Joined,
        };
    }
    // The answers alone: what they acknowledge was sent, and is not here.
    if tx_packets == 0 {
        return if rx_packets >= 3 { Attempt::OneSided } else { Attempt::Joined };
    }
    if tx & flags::ACK == 0 || (tx & flags::RST != 0 && tx_packets <= 2) {
        return Attempt::HalfOpen;
    }
    let over = (tx | rx) & (flags::RST | flags::FIN) != 0;
    if over && is_bare(record.tx_bytes, tx_packets) && is_bare(record.rx_bytes, rx_packets) {
        return Attempt::Empty;
    }
    Attempt::Established
}

/// Whether packets can hold no payload: the headers of IPv6 and of TCP with the options of a SYN are larger.
const fn is_bare(bytes: u64, packets: u64) -> bool {
    packets <= 6 && bytes <= packets * 66
}

/// Multicast or broadcast.
pub(super) const fn is_group(ip: [u8; 16]) -> bool {
    match v4(ip) {
        // The broadcast address of a network is known only by its netmask; that of a /24 is by far the most frequent.
        Some([first, .., last]) => first >= 224 || last == 255,
        None => ip[0] == 0xff,
    }
}

/// Whether an address belongs to a private network (RFC 1918, RFC 6598, RFC 4193, link-local, loopback).
pub(super) const fn is_internal(ip: [u8; 16]) -> bool {
    match v4(ip) {
        Some([10 | 127, ..] | [192, 168, ..] | [169, 254, ..]) => true,
        Some([172, second, ..]) => second & 0xf0 == 16,
        Some([100, second, ..]) => second & 0xc0 == 64,
        Some(_) => false,
        None => ip[0] & 0xfe == 0xfc || (ip[0] == 0xfe && ip[1] & 0xc0 == 0x80) || u128::from_be_bytes(ip) <= 1,
    }
}

const fn v4(ip: [u8; 16]) -> Option<[u8; 4]> {
    match ip {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => Some([a, b, c, d]),
        _ => None,
    }
}
