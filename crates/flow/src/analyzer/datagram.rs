//! DNS messages and client hellos of a flow become records.

use weir_proto::{Dns, Ip, Tls};

use super::{Analyzer, Place, Record, key};
use crate::dns::{self, Answer, Match, Message};
use crate::key::{Direction, Endpoint, Key};
use crate::packet::{IpPacket, Transport};
use crate::tls::{ClientHello, ja4};

impl Analyzer {
    /// A datagram on a port of DNS.
    pub(super) fn dns_datagram(&mut self, place: Place, ip: &IpPacket<'_>, transport: &Transport<'_>, payload: &[u8]) {
        let (key, direction, _) = key(place, ip, transport);
        let Some(entry) = self.tracker.get_mut(&key) else { return };
        let ordinal = entry.ordinal();
        if payload.len() >= 12 && entry.app.is_empty() {
            entry.app = "dns";
        }
        self.dns_message(place.time, &key, direction, ordinal, payload);
    }

    pub(super) fn dns_message(&mut self, time: u64, key: &Key, direction: Direction, ordinal: u64, payload: &[u8]) {
        let Some(message) = Message::parse(payload) else {
            self.summary.dns.unreadable += 1;
            return;
        };
        self.summary.dns_message(&message);
        let (from, to) = (key.src(direction), key.dst(direction));
        let (client, server) = if message.is_answer { (to, from) } else { (from, to) };
        let by = matching(client, server, ordinal, message.id);
        let (client_ip, server_ip) = (Ip::from(client.ip), Ip::from(server.ip));
        let record = Dns {
            time,
            flow_id: self.flow_id(key, ordinal),
            src_ip_high: client_ip.high,
            src_ip_low: client_ip.low,
            dst_ip_high: server_ip.high,
            dst_ip_low: server_ip.low,
            query_id: u32::from(message.id),
            qname: message.qname,
            qtype: u32::from(message.qtype),
            has_query: !message.is_answer,
            src_port: u32::from(client.port),
            dst_port: u32::from(server.port),
            protocol: u32::from(key.protocol),
            ..Dns::default()
        };
        if message.is_answer {
            let answer = Answer { time, rcode: message.rcode, answers: message.answers };
            self.exchanges.answer(by, record, answer);
        } else {
            self.exchanges.query(by, record);
        }
    }

    pub(super) fn hello(&mut self, time: u64, key: &Key, direction: Direction, ordinal: u64, hello: &ClientHello) {
        let (client, server) = (key.src(direction), key.dst(direction));
        let (client_ip, server_ip) = (Ip::from(client.ip), Ip::from(server.ip));
        let record = Tls {
            time,
            flow_id: self.flow_id(key, ordinal),
            src_ip_high: client_ip.high,
            src_ip_low: client_ip.low,
            dst_ip_high: server_ip.high,
            dst_ip_low: server_ip.low,
            dst_port: u32::from(server.port),
            sni: hello.sni.clone(),
            alpn: hello.alpn.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
            version: u32::from(hello.version),
            ja4: ja4(hello),
            src_port: u32::from(client.port),
            protocol: u32::from(key.protocol),
            ..Tls::default()
        };
        self.summary.hello(&record);
        self.records.push(Record::Tls(record));
    }
}

/// What ties an answer to its query; nothing for multicast DNS, whose answers go to everyone.
fn matching(client: Endpoint, server: Endpoint, ordinal: u64, id: u16) -> Option<Match> {
    match (client.port, server.port) {
        (dns::MULTICAST_PORT, _) | (_, dns::MULTICAST_PORT) => None,
        (_, dns::LLMNR_PORT) => Some(Match::Client(client, id)),
        _ => Some(Match::Flow(ordinal, id)),
    }
}
