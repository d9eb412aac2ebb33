//! What is found in the payload of a flow becomes records.

use weir_proto::{Dns, Http, Ip, Tls};

use super::app::Found;
use super::{Analyzer, Place, Record};
use crate::dns::{self, Answer, Match, Message};
use crate::findings::At;
use crate::findings::signs::Sign;
use crate::fragments::{Datagram, Start};
use crate::http::Exchange;
use crate::key::{Belonging, Direction, Endpoint, Key};
use crate::packet::ip::protocol;
use crate::packet::{self, Transport};
use crate::tls::{Session, ja4};
use crate::tracker::State as _;

impl Analyzer {
    /// A datagram on a port of DNS.
    pub(super) fn dns_datagram(&mut self, time: u64, payload: &[u8], (key, direction, _): &Belonging) {
        let Some(entry) = self.tracker.get_mut(key) else { return };
        let (ordinal, id) = (entry.ordinal(), entry.id);
        if payload.len() >= 12 && entry.app.is_empty() {
            entry.app = "dns";
        }
        self.dns_message(time, key, *direction, (ordinal, id), payload);
    }

    /// The first fragment of a packet: where it is of DNS, its question and its code stand at the front.
    pub(super) fn beginning(
        &mut self,
        now: u64,
        datagram: Datagram,
        transport: &Transport<'_>,
        flow: &Belonging,
        cut: bool,
    ) {
        let Transport::Udp { src_port, dst_port, payload } = transport else { return };
        if !dns::is_dns(*src_port, *dst_port, payload) {
            return;
        }
        if cut {
            // It will never be whole.
            self.dns_datagram(now, payload, flow);
        } else {
            self.fragments.read_start(now, datagram);
        }
    }

    /// A message of DNS of which the first fragments are there and no more.
    pub(super) fn read_start(&mut self, start: &Start) {
        let length = start.bytes.len() as u32;
        if let Transport::Udp { payload, .. } = packet::transport::parse(protocol::UDP, &start.bytes, length) {
            self.dns_datagram(start.time, payload, &start.belonging);
            self.settle_exchanges(start.frame);
        }
    }

    fn dns_message(&mut self, time: u64, key: &Key, direction: Direction, (ordinal, id): (u64, u64), payload: &[u8]) {
        let Some(message) = Message::parse(payload) else {
            self.summary.dns.unreadable += 1;
            return;
        };
        self.summary.dns_message(&message);
        let (from, to) = (key.src(direction), key.dst(direction));
        let (client, server) = if message.is_answer { (to, from) } else { (from, to) };
        let by = matching(client, server, ordinal, message.id);
        if message.is_answer && !message.addresses.is_empty() && !message.qname.is_empty() {
            let name = self.hosts.number_of(&message.qname);
            for (address, ttl) in &message.addresses {
                self.resolved.learn(time, client.ip, *address, *ttl, name);
            }
        }
        let (client_ip, server_ip) = (Ip::from(client.ip), Ip::from(server.ip));
        let record = Dns {
            time,
            flow_id: self.kept_id(id, key, ordinal),
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
            self.watch.query(self.summary.frames.packets, &record);
            self.exchanges.query(by, self.summary.frames.packets, record);
        }
    }

    /// A datagram that is not of DNS.
    pub(super) fn datagram(&mut self, place: Place, payload: &[u8], (key, direction, _): &Belonging) {
        let Some(entry) = self.tracker.get_mut(key) else { return };
        let before = entry.state.held_bytes();
        let (mut found, jitter_us) =
            entry.state.datagram(*direction, (place.time, self.summary.frames.packets), payload);
        if self.config.one_sided {
            entry.state.settle(&mut found);
        }
        self.held_bytes = self.held_bytes + entry.state.count_held_bytes() - before;
        if jitter_us.is_some() {
            let side = usize::from(*direction != entry.initiator());
            entry.facts.jitter_us[side] = jitter_us;
        }
        if !found.is_empty() {
            self.found(place.time, key, *direction, found);
        }
    }

    /// Gives a new flow its name, and its ends the names that DNS gave them to each other.
    pub(super) fn name_flow(&mut self, time: u64, key: &Key) {
        let id = self.flow_id(key, self.tracker.flows());
        let Some(entry) = self.tracker.get_mut(key) else { return };
        entry.id = id;
        if self.resolved.is_empty() {
            return;
        }
        let (src, dst) = (key.src(entry.initiator()).ip, key.dst(entry.initiator()).ip);
        entry.facts.names = [self.resolved.name(time, dst, src), self.resolved.name(time, src, dst)];
    }

    /// Takes what a packet of a flow brought.
    pub(super) fn found(&mut self, time: u64, key: &Key, direction: Direction, mut found: Found) {
        let name = found.name.take().or_else(|| {
            let session = found.sessions.first().filter(|session| !session.hello.sni.is_empty())?;
            Some((session.from_first, session.hello.sni.clone()))
        });
        let Some(entry) = self.tracker.get_mut(key) else { return };
        if !found.app.is_empty() {
            entry.app = found.app;
        }
        if let Some((from_first, name)) = name {
            let server = usize::from(from_first == (entry.initiator() == Direction::Up));
            entry.facts.names[server] = self.hosts.number_of(&name.to_ascii_lowercase());
        }
        let (ordinal, id) = (entry.ordinal(), entry.id);
        self.summary.unfollowed_streams += u64::from(found.refused);
        for message in std::mem::take(&mut found.messages) {
            self.dns_message(time, key, direction, (ordinal, id), &message);
        }
        self.rows(key, self.kept_id(id, key, ordinal), found);
    }

    /// Makes the rows of sessions and exchanges.
    pub(super) fn rows(&mut self, key: &Key, flow_id: u64, found: Found) {
        for session in found.sessions {
            self.session(key, flow_id, session);
        }
        for (client_is_up, exchange) in found.exchanges {
            self.exchange(key, flow_id, client_is_up, exchange);
        }
    }

    fn session(&mut self, key: &Key, flow_id: u64, session: Session) {
        let Session { time, carrier, from_first, hello, answer } = session;
        let [client, server] = ends(key, from_first);
        let (certificate, shown_at) = answer.certificate.unwrap_or_default();
        let record = Tls {
            time,
            flow_id,
            src_ip_high: client.0.high,
            src_ip_low: client.0.low,
            dst_ip_high: server.0.high,
            dst_ip_low: server.0.low,
            dst_port: server.1,
            ja4: ja4(&hello, carrier),
            sni: hello.sni,
            alpn: hello.alpn.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
            version: u32::from(hello.version),
            src_port: client.1,
            protocol: u32::from(key.protocol),
            chosen_version: u32::from(answer.version),
            cipher: u32::from(answer.cipher),
            chosen_alpn: answer.alpn,
            subject: certificate.subject,
            issuer: certificate.issuer,
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            alert: u32::from(answer.alert),
            ..Tls::default()
        };
        self.summary.hello(&record);
        self.watch.hello(shown_at, &record);
        self.records.push(Record::Tls(record));
    }

    fn exchange(&mut self, key: &Key, flow_id: u64, client_is_up: bool, exchange: Exchange) {
        let [client, server] = ends(key, client_is_up);
        let Exchange { time, method, authority, path, user_agent, version, status, latency_us, refused } = exchange;
        if refused {
            let time = time + u64::from(latency_us.unwrap_or(0));
            let at = At { flow_id, frame: self.summary.frames.packets, time };
            self.watch.sign(at, Sign::Refused("http"), client.0.octets(), server.0.octets(), server.1 as u16);
        }
        let record = Http {
            time,
            flow_id,
            src_ip_high: client.0.high,
            src_ip_low: client.0.low,
            dst_ip_high: server.0.high,
            dst_ip_low: server.0.low,
            method,
            authority,
            path,
            status: status.map(u32::from),
            latency_us,
            user_agent,
            src_port: client.1,
            dst_port: server.1,
            version: version.to_owned(),
            ..Http::default()
        };
        self.summary.http(&record);
        self.records.push(Record::Http(record));
    }
}

/// Addresses and ports of client and server.
fn ends(key: &Key, client_is_up: bool) -> [(Ip, u32); 2] {
    let direction = if client_is_up { Direction::Up } else { Direction::Down };
    [key.src(direction), key.dst(direction)].map(|end| (Ip::from(end.ip), u32::from(end.port)))
}

/// What ties an answer to its query; nothing for multicast DNS, whose answers go to everyone.
fn matching(client: Endpoint, server: Endpoint, ordinal: u64, id: u16) -> Option<Match> {
    match (client.port, server.port) {
        (dns::MULTICAST_PORT, _) | (_, dns::MULTICAST_PORT) => None,
        (_, dns::LLMNR_PORT) => Some(Match::Client(client, id)),
        _ => Some(Match::Flow(ordinal, id)),
    }
}
