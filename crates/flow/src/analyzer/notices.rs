//! The rare packets that say something by themselves: claims of addresses, ICMP errors, secrets in clear, refused logins.

use weir_proto::Finding;

use super::{Analyzer, Frame, Place, Record, without_ports};
use crate::findings::{self, At, signs};
use crate::fragments::{Datagram, Incomplete};
use crate::key::{Belonging, Direction, Key};
use crate::packet::ip::protocol;
use crate::packet::{self, IpPacket, Tcp, Transport, Unanalysed};
use crate::tcp::Marks;

impl Analyzer {
    /// A frame without a network layer: ARP says who claims an address.
    pub(super) fn notice_arp(&mut self, frame: &Frame<'_>, reason: Unanalysed) {
        const ARP: u16 = 0x0806;
        if reason != Unanalysed::EtherType(ARP) {
            return;
        }
        let claim = packet::link::not_ip(frame.link_type, frame.data).and_then(findings::arp);
        if let Some(claim) = claim {
            let at = At { flow_id: 0, frame: self.summary.frames.packets, time: frame.time_us };
            self.watch.claim(at, claim);
        }
    }

    /// Looks at a packet that was counted.
    pub(super) fn notice(
        &mut self,
        place: Place,
        ip: &IpPacket<'_>,
        transport: &Transport<'_>,
        &(key, direction, _): &Belonging,
    ) {
        match transport {
            Transport::Icmp { .. } => self.notice_icmp(place, ip, &key),
            Transport::Tcp(tcp) => {
                if self.marks.contains(Marks::RETRANSMISSION) {
                    self.notice_retransmission(place, ip, tcp, &key, direction);
                }
                if let Some(sign) = signs::in_tcp(tcp.src_port, tcp.dst_port, tcp.payload) {
                    self.notice_sign(place, ip, &key, sign, (tcp.src_port, tcp.dst_port));
                }
            }
            Transport::Udp { src_port, dst_port, payload } => {
                if let Some(sign) = signs::in_udp(*dst_port, payload) {
                    self.notice_sign(place, ip, &key, sign, (*src_port, *dst_port));
                }
            }
            Transport::Ports { .. } | Transport::Other => {}
        }
    }

    /// The marks are those of the whole frame: a tunnel that is itself TCP does not occur.
    fn notice_retransmission(
        &mut self,
        place: Place,
        ip: &IpPacket<'_>,
        tcp: &Tcp<'_>,
        key: &Key,
        direction: Direction,
    ) {
        self.summary.series.retransmission();
        let timed_out = !self.marks.contains(Marks::FAST) && !self.marks.contains(Marks::SPURIOUS);
        if timed_out && tcp.payload_length > 0 {
            // What is lost on a path that took large segments before is no matter of size.
            if self.tracker.get_mut(key).is_some_and(|entry| entry.has_passed_large(direction)) {
                return;
            }
            let at = self.at(place, key);
            self.watch.timed_out(at, ip.src, ip.dst, tcp.sequence, tcp.payload_length);
        }
    }

    /// Fragments that overlap with other content.
    pub(super) fn notice_contradiction(&mut self, place: Place, datagram: &Datagram) {
        if self.fragments.take_contradiction(datagram) {
            let key = self.fragments.flow_of(datagram);
            let flow_id = key.map_or(0, |key| self.flow_id_of(&key));
            let at = At { flow_id, frame: self.summary.frames.packets, time: place.time };
            self.summary.contradicting_fragments += 1;
            self.watch.overlap(at, datagram.src, datagram.dst);
        }
    }

    /// Fragmented packets whose time is out.
    pub(super) fn notice_incomplete(&mut self) {
        for Incomplete { time, frame, datagram, key, protocol } in self.fragments.take_incomplete() {
            let key = key.unwrap_or_else(|| without_ports(&datagram, protocol).0);
            let at = At { flow_id: self.flow_id_of(&key), frame, time };
            self.summary.incomplete_packets += 1;
            self.watch.incomplete(at, datagram.src, datagram.dst);
        }
    }

    fn notice_sign(
        &mut self,
        place: Place,
        ip: &IpPacket<'_>,
        key: &Key,
        sign: signs::Sign,
        (src_port, dst_port): (u16, u16),
    ) {
        let at = self.at(place, key);
        if sign.is_of_client() {
            self.watch.sign(at, sign, ip.src, ip.dst, dst_port);
        } else {
            self.watch.sign(at, sign, ip.dst, ip.src, src_port);
        }
    }

    fn notice_icmp(&mut self, place: Place, ip: &IpPacket<'_>, icmp_key: &Key) {
        if ip.protocol == protocol::ICMPV6
            && let Some(claim) = findings::neighbour_discovery(ip.src, ip.payload)
        {
            let at = self.at(place, icmp_key);
            return self.watch.claim(at, claim);
        }
        let version = if ip.protocol == protocol::ICMPV6 { 6 } else { 4 };
        let Some(error) = findings::icmp_error(version, ip.payload) else { return };
        // The error quotes what the capture may have seen go the other way.
        let Ok(quoted) = packet::ip::parse(error.quoted, u32::MAX) else { return };
        let transport = packet::transport::parse(quoted.protocol, quoted.payload, quoted.payload_length);
        let (key, ..) = self.flow(place, &quoted, &transport);
        let quoted_flow = if self.tracker.contains(&key) { key } else { *icmp_key };
        let at = self.at(place, &quoted_flow);
        self.watch.error(at, error.complaint, ip.src, quoted.src, quoted.dst);
    }

    /// The packet at hand, and the flow with this key.
    fn at(&mut self, place: Place, key: &Key) -> At {
        At { flow_id: self.flow_id_of(key), frame: self.summary.frames.packets, time: place.time }
    }

    /// The flow with this key; 0 = none.
    fn flow_id_of(&mut self, key: &Key) -> u64 {
        let ordinal = self.tracker.get_mut(key).map(|entry| entry.ordinal());
        ordinal.map_or(0, |ordinal| self.flow_id(key, ordinal))
    }

    /// Makes findings of what was seen, once.
    pub(super) fn finish_findings(&mut self) {
        self.summary.finish();
        self.summary.findings = self.watch.finish(&self.summary.bursts);
        let found: Vec<Finding> = self.summary.findings.list.iter().map(findings::Finding::record).collect();
        self.records.extend(found.into_iter().map(Record::Finding));
    }
}
