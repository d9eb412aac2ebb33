//! Picked packets into rows.

use std::{sync::Arc, time::Duration};

use weir_capture_common::{
    flow::{Address, Side},
    picks::{Head, Kind},
};
use weir_flow::{Analyzer, Config, Frame, Record, dns, packet::LinkType, tracker};
use weir_proto::{Batch, Dns, Http, Source, Tls};

use super::{
    exchanges::{self, Exchanges},
    generations::Generations,
    known::{self, Known},
};
use crate::{clock::Clock, record};

/// Flows that are dissected at one time.
const MAX_FLOWS: usize = 32_768;
/// A beginning that has not gone on for so long does not.
const IDLE: Duration = Duration::from_mins(1);
/// Packets after which the analyzer starts anew: it sums up a capture, and this one has no end.
const PACKETS: u64 = 10_000_000;

/// Both ends with the ports, and the protocol: what rows tell of their flow.
pub(super) type Tuple = ((u64, u64, u16), (u64, u64, u16), u8);

pub(super) struct Dissector {
    analyzer: Analyzer,
    packets: u64,
    seed: u64,
    /// What keeps its flows apart in their keys; 0 = nothing: they are the host's.
    mask: u64,
    known: Arc<Known>,
    flow_ids: Generations<Tuple, u64>,
    exchanges: Exchanges,
    dns: Vec<Dns>,
    tls: Vec<Tls>,
    http: Vec<Http>,
}

impl Dissector {
    pub(super) fn new(seed: u64, mask: u64, known: Arc<Known>) -> Self {
        let flow_ids = Generations::new(MAX_FLOWS, Duration::from_mins(5));
        let (dns, tls, http) = (Vec::new(), Vec::new(), Vec::new());
        let exchanges = Exchanges::default();
        Self { analyzer: analyzer(), packets: 0, seed, mask, known, flow_ids, exchanges, dns, tls, http }
    }

    /// Takes a packet.
    pub(super) fn packet(&mut self, head: &Head, frame: &[u8], clock: Clock) {
        let now = clock.to_utc_us(head.now);
        let flow_id = record::flow_id(&head.key, head.first_seen, self.seed);
        self.flow_ids.insert(tuple(head, self.mask), flow_id, now);
        let app = match Kind::from_number(head.kind) {
            Some(Kind::Http) => "http",
            Some(Kind::Ssh) => "ssh",
            // The dissectors are stricter.
            _ => "",
        };
        if !app.is_empty() {
            self.known.app(flow_id, app, now);
        }
        let link_type = if head.link as u8 == 0 { LinkType::ETHERNET } else { LinkType::RAW };
        let original_length = head.original.max(head.captured);
        if head.kind == Kind::Http as u32
            && let Some(segment) = exchanges::segment(link_type, frame, original_length, head.link >> 8 != 0)
        {
            self.exchanges.message(tuple(head, self.mask), flow_id, now, &segment);
        }
        self.analyzer.packet(&Frame { time_us: now, link_type, data: frame, original_length, interface: 0 });
        self.packets += 1;
        self.settle(now);
    }

    /// Gives up what waited too long.
    pub(super) fn advance(&mut self, now: u64) {
        // A frame without bytes is none; it only tells the time.
        self.analyzer.packet(&Frame {
            time_us: now,
            link_type: LinkType::RAW,
            data: &[],
            original_length: 0,
            interface: 0,
        });
        self.exchanges.advance(now);
        self.settle(now);
        if self.packets > PACKETS {
            self.finish_at(now);
        }
    }

    /// Ends everything.
    pub(super) fn finish(&mut self) {
        self.exchanges.finish();
        self.finish_at(0);
    }

    /// The rows that are finished.
    pub(super) fn take(&mut self) -> Batch {
        self.http.append(&mut self.exchanges.take());
        Batch {
            source: Source::Ebpf.into(),
            dns: std::mem::take(&mut self.dns),
            tls: std::mem::take(&mut self.tls),
            http: std::mem::take(&mut self.http),
            ..Batch::default()
        }
    }

    fn finish_at(&mut self, now: u64) {
        while self.analyzer.finish_some() {
            self.settle(now);
        }
        self.settle(now);
        (self.analyzer, self.packets) = (analyzer(), 0);
    }

    fn settle(&mut self, now: u64) {
        let records: Vec<Record> = self.analyzer.take_records().collect();
        for record in records {
            match record {
                // The kernel has counted all of a flow's packets, not only those that were picked; and those alone are no ground for
                // suspicion. Of HTTP/1 the analyzer would have to see the whole stream to tell more than one request of it.
                Record::Flow(_) | Record::Finding(_) => {}
                Record::Http(row) if row.version != "2" => {}
                Record::Dns(row) => self.dns_row(row, now),
                Record::Tls(row) => self.tls_row(row, now),
                Record::Http(row) => self.http_row(row, now),
            }
        }
    }

    fn dns_row(&mut self, mut row: Dns, now: u64) {
        row.flow_id = self.flow_id(
            [row.src_ip_high, row.src_ip_low, row.dst_ip_high, row.dst_ip_low],
            [row.src_port, row.dst_port],
            row.protocol,
            now,
        );
        self.known.app(row.flow_id, "dns", now);
        let client = weir_proto::Ip::new(row.src_ip_high, row.src_ip_low).into();
        // Of addresses that are apart nobody else should learn a name.
        for address in row.answers.iter().filter(|_| self.mask == 0).filter_map(|answer| known::address(answer)) {
            self.known.address(client, address, &row.qname, now);
        }
        self.dns.push(row);
    }

    fn http_row(&mut self, mut row: Http, now: u64) {
        row.flow_id = self.flow_id(
            [row.src_ip_high, row.src_ip_low, row.dst_ip_high, row.dst_ip_low],
            [row.src_port, row.dst_port],
            TCP,
            now,
        );
        self.known.app(row.flow_id, "http", now);
        self.http.push(row);
    }

    fn tls_row(&mut self, mut row: Tls, now: u64) {
        row.flow_id = self.flow_id(
            [row.src_ip_high, row.src_ip_low, row.dst_ip_high, row.dst_ip_low],
            [row.src_port, row.dst_port],
            row.protocol,
            now,
        );
        self.known.app(row.flow_id, if row.protocol == UDP { "quic" } else { "tls" }, now);
        self.known.server(row.flow_id, &row.sni, now);
        self.tls.push(row);
    }

    /// The kernel's id of the flow that a row names; 0 = it is not known any more.
    fn flow_id(
        &mut self,
        [src_high, src_low, dst_high, dst_low]: [u64; 4],
        ports: [u32; 2],
        protocol: u32,
        now: u64,
    ) -> u64 {
        let (src, dst) = ((src_high, src_low, ports[0] as u16), (dst_high, dst_low, ports[1] as u16));
        self.flow_ids.get(&(src.min(dst), src.max(dst), protocol as u8), now).copied().unwrap_or(0)
    }
}

const TCP: u32 = 6;
const UDP: u32 = 17;

fn tuple(head: &Head, mask: u64) -> Tuple {
    let mut key = head.key;
    key.apart(mask);
    let key = key.inside((head.link >> 8) as u32);
    let end = |side| {
        let (Address { high, low }, port) = key.end(side);
        (high, low, port)
    };
    let (a, b) = (end(Side::A), end(Side::B));
    (a.min(b), a.max(b), key.protocol())
}

fn analyzer() -> Analyzer {
    let idle = u64::try_from(IDLE.as_micros()).unwrap_or(u64::MAX);
    let tracker = tracker::Limits {
        flows: MAX_FLOWS,
        retired: 0,
        idle_tcp_us: idle,
        idle_us: idle,
        ..tracker::Limits::default()
    };
    let dns = dns::Limits { pending: 8192, timeout_us: 10_000_000 };
    let streams = weir_flow::analyzer::StreamLimits { bytes: 16 << 20 };
    Analyzer::new(Config { tracker, dns, streams, one_sided: true, ..Config::default() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use weir_capture_common::{dissect::Headers, flow::FlowKey};

    use super::*;

    const CLIENT: [u8; 4] = [10, 0, 0, 1];
    const SERVER: [u8; 4] = [10, 0, 0, 53];

    /// A datagram in an IPv4 packet, without a link-layer header.
    fn datagram(from: ([u8; 4], u16), to: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
        let length = (20 + 8 + payload.len()) as u16;
        let udp = (8 + payload.len()) as u16;
        let mut packet = vec![0x45, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        packet.extend(from.0);
        packet.extend(to.0);
        for word in [from.1, to.1, udp, 0] {
            packet.extend(word.to_be_bytes());
        }
        packet.extend(payload);
        packet
    }

    fn head(from: ([u8; 4], u16), to: ([u8; 4], u16), kind: Kind) -> Head {
        let address = |octets| Address::from_v4(u32::from_be_bytes(octets));
        let headers = Headers {
            src: address(from.0),
            dst: address(to.0),
            src_port: from.1,
            dst_port: to.1,
            protocol: 17,
            ..Headers::default()
        };
        let key = FlowKey::new(&headers).0;
        Head { key, first_seen: 77, now: 5_000_000_000, kind: kind as u32, link: 1, ..Head::default() }
    }

    /// A question for the address of `a.example`, and the answer 192.0.2.9.
    fn messages() -> [Vec<u8>; 2] {
        let question = b"\x01a\x07example\x00\x00\x01\x00\x01";
        let query = [&b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00"[..], question].concat();
        let answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x09";
        let response = [&b"\x12\x34\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"[..], question, answer].concat();
        [query, response]
    }

    #[test]
    fn an_exchange_is_a_row_of_the_kernels_flow_and_names_the_address() {
        let known = Arc::new(Known::default());
        let mut dissector = Dissector::new(3, 0, Arc::clone(&known));
        let clock = Clock::sample().unwrap();
        let (client, server) = ((CLIENT, 40_000), (SERVER, 53));
        let [query, response] = messages();
        let there = head(client, server, Kind::Dns);
        dissector.packet(&there, &datagram(client, server, &query), clock);
        dissector.packet(&head(server, client, Kind::Dns), &datagram(server, client, &response), clock);
        let rows = dissector.take();
        let row = &rows.dns[0];
        assert_eq!(
            (row.qname.as_str(), row.answers.as_slice(), row.rcode),
            ("a.example", &["192.0.2.9".to_owned()][..], Some(0))
        );
        assert_eq!(row.flow_id, record::flow_id(&there.key, 77, 3));
        let mut flow = weir_proto::Flow {
            src_ip_low: 0xffff_0a00_0001,
            dst_ip_low: 0xffff_c000_0209,
            end_time: clock.to_utc_us(there.now),
            ..weir_proto::Flow::default()
        };
        known.name(&mut flow);
        assert_eq!(flow.dst_name, "a.example");
    }

    proptest! {
        #[test]
        fn no_packet_is_too_strange(
            packets in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 0..80), 0..9u32, 0..3u64, 0..5u64, any::<u32>(), any::<bool>()), 0..30),
        ) {
            let mut dissector = Dissector::new(3, 0, Arc::default());
            let clock = Clock::sample().unwrap();
            let (client, server) = ((CLIENT, 40_000), (SERVER, 53));
            for (noise, kind, link, tunnel, original, back) in packets {
                let (from, to) = if back { (server, client) } else { (client, server) };
                let head = Head { kind, link: link | tunnel << 8, original, ..head(from, to, Kind::Dns) };
                let frame = if noise.len() % 2 == 0 { datagram(from, to, &noise) } else { noise };
                dissector.packet(&head, &frame, clock);
            }
            dissector.finish();
            let rows = dissector.take();
            prop_assert!(rows.dns.len() + rows.tls.len() + rows.http.len() <= 30);
        }
    }

    #[test]
    fn a_question_that_nobody_answers_is_a_row_in_the_end() {
        let mut dissector = Dissector::new(3, 0, Arc::default());
        let clock = Clock::sample().unwrap();
        let (client, server) = ((CLIENT, 40_000), (SERVER, 53));
        let question = head(client, server, Kind::Dns);
        dissector.packet(&question, &datagram(client, server, &messages()[0]), clock);
        assert!(dissector.take().dns.is_empty());
        dissector.advance(clock.to_utc_us(question.now) + 11_000_000);
        assert_eq!(dissector.take().dns[0].rcode, None);
    }
}
