//! Which packets belong to the wanted flows: also those inside tunnels, and fragments without ports.

use std::collections::{HashMap, VecDeque};

use weir_flow::packet::ip::{self, IpPacket};
use weir_flow::packet::{self, Network, Transport, Unanalysed, link, transport, tunnel};
use weir_flow::{Endpoint, Key};
use weir_proto::{CarvePackets, CarvedFlow, Ip};

use super::writer::Found;
use crate::capture_file::Packet;

/// IP packets inside each other that are followed, as the analysis does.
const MAX_DEPTH: usize = 8;
/// Datagrams whose flow is remembered for their further fragments.
const MAX_DATAGRAMS: usize = 8192;
/// Fragments that came before the first of their datagram and are kept for it.
const MAX_WAITING: usize = 1024;
/// A tunnel that no wanted flow is in.
const OTHER_TUNNEL: u32 = u32::MAX;

/// Holds packets against the wanted flows.
pub(super) struct Matcher {
    all: bool,
    from: u64,
    until: u64,
    tunnels: Vec<String>,
    flows: HashMap<Key, Vec<Interval>>,
    fragments: Fragments,
}

/// A part of a flow's life; the same key may come again as another flow.
struct Interval {
    start: u64,
    end: u64,
    /// The latest end of this one and those before it.
    latest: u64,
    comment: String,
}

/// What makes fragments belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Datagram {
    src: [u8; 16],
    dst: [u8; 16],
    id: u32,
    vlan: u32,
    tunnel: u32,
}

/// Where a network-layer packet was found.
#[derive(Clone, Copy)]
struct Place {
    time: u64,
    vlan: u32,
    tunnel: u32,
    depth: usize,
}

/// What is known of a frame.
enum Verdict {
    Wanted(String),
    Unwanted,
    /// A fragment whose first one has not come yet.
    Waits(Datagram),
}

impl Matcher {
    pub(super) fn new(wanted: &CarvePackets) -> Self {
        let mut tunnels = vec![String::new()];
        let mut flows = HashMap::<Key, Vec<Interval>>::new();
        for flow in &wanted.flows {
            let tunnel = tunnels.iter().position(|name| *name == flow.tunnel).unwrap_or_else(|| {
                tunnels.push(flow.tunnel.clone());
                tunnels.len() - 1
            });
            let CarvedFlow { start_time: start, end_time: end, .. } = *flow;
            let interval = Interval { start, end, latest: end, comment: flow.comment.clone() };
            flows.entry(key_of(flow, tunnel as u32)).or_default().push(interval);
        }
        for intervals in flows.values_mut() {
            intervals.sort_by_key(|interval| interval.start);
            let mut latest = 0;
            for interval in intervals {
                latest = interval.end.max(latest);
                interval.latest = latest;
            }
        }
        let until = if wanted.until == 0 { u64::MAX } else { wanted.until };
        Self { all: wanted.all, from: wanted.from, until, tunnels, flows, fragments: Fragments::default() }
    }

    /// The wanted packets that are known with this one: it, or none, or with it fragments that waited for it.
    pub(super) fn packet(&mut self, packet: &Packet<'_>) -> Vec<Found> {
        if packet.time_us < self.from || packet.time_us >= self.until {
            return Vec::new();
        }
        if self.all {
            // In the order of the file: a fragment does not wait for the first one of its datagram, and has no comment without it.
            let verdict = if self.flows.is_empty() { Verdict::Unwanted } else { self.frame(packet) };
            let comment = if let Verdict::Wanted(comment) = verdict { comment } else { String::new() };
            return vec![found(packet, comment)];
        }
        match self.frame(packet) {
            Verdict::Unwanted => Vec::new(),
            Verdict::Waits(datagram) => {
                self.fragments.wait(datagram, found(packet, String::new()));
                Vec::new()
            }
            Verdict::Wanted(comment) => {
                let mut all: Vec<_> = self.fragments.take_ready();
                all.push(found(packet, comment));
                all
            }
        }
    }

    fn frame(&mut self, packet: &Packet<'_>) -> Verdict {
        match link::network(packet.link_type, packet.data) {
            Ok(network) => self.outermost(packet.time_us, &network, packet.original_length),
            Err(Unanalysed::Aggregate) => self.aggregate(packet),
            Err(_) => Verdict::Unwanted,
        }
    }

    fn outermost(&mut self, time: u64, network: &Network<'_>, original_length: u32) -> Verdict {
        let length = original_length.saturating_sub(network.offset as u32);
        self.network(Place { time, vlan: network.vlan, tunnel: 0, depth: 0 }, network, length)
    }

    /// A frame with several packets is wanted for each of them, and has the comments of all.
    fn aggregate(&mut self, packet: &Packet<'_>) -> Verdict {
        let mut comments: Vec<String> = Vec::new();
        let mut waits = None;
        let parts = link::subframes(packet.link_type, packet.data, packet.original_length);
        for part in parts.map_while(Result::ok) {
            let Ok(network) = link::network(link::Subframe::LINK_TYPE, part.data) else { continue };
            match self.outermost(packet.time_us, &network, part.length) {
                Verdict::Wanted(comment) if !comments.contains(&comment) => comments.push(comment),
                Verdict::Waits(datagram) => waits = waits.or(Some(datagram)),
                Verdict::Wanted(_) | Verdict::Unwanted => {}
            }
        }
        match (comments.is_empty(), waits) {
            (false, _) => Verdict::Wanted(comments.join("\n")),
            (true, Some(datagram)) => Verdict::Waits(datagram),
            (true, None) => Verdict::Unwanted,
        }
    }

    fn network(&mut self, place: Place, network: &Network<'_>, length: u32) -> Verdict {
        match ip::parse(network.packet, length.max(network.packet.len() as u32)) {
            Ok(ip) => self.ip(place, &ip),
            Err(_) => Verdict::Unwanted,
        }
    }

    fn ip(&mut self, place: Place, ip: &IpPacket<'_>) -> Verdict {
        if let Some(fragment) = ip.fragment {
            let Place { vlan, tunnel, .. } = place;
            let datagram = Datagram { src: ip.src, dst: ip.dst, id: fragment.id, vlan, tunnel };
            if fragment.offset > 0 {
                return self.later_fragment(place, ip, datagram);
            }
            let transport = transport::parse(ip.protocol, ip.payload, ip.payload_length);
            let comment = self.comment(place, ip, &transport);
            self.fragments.first(datagram, comment.clone());
            return comment.map_or(Verdict::Unwanted, Verdict::Wanted);
        }
        let transport = transport::parse(ip.protocol, ip.payload, ip.payload_length);
        // A tunnel's packet has the comments of all flows that it is of, the outermost first.
        match (self.comment(place, ip, &transport), self.inside(place, ip, &transport)) {
            (Some(outer), Verdict::Wanted(inner)) => Verdict::Wanted(format!("{outer}\n{inner}")),
            (Some(outer), Verdict::Unwanted | Verdict::Waits(_)) => Verdict::Wanted(outer),
            (None, inside) => inside,
        }
    }

    fn later_fragment(&mut self, place: Place, ip: &IpPacket<'_>, datagram: Datagram) -> Verdict {
        match self.fragments.flow_of(&datagram) {
            Some(Some(comment)) => Verdict::Wanted(comment.clone()),
            Some(None) => Verdict::Unwanted,
            // The first may never come: then it belongs to the flow of its addresses, without ports.
            None => match self
                .find(place, Key::new(end(ip.src, 0), end(ip.dst, 0), ip.protocol, place.vlan, place.tunnel).0)
            {
                Some(comment) => Verdict::Wanted(comment),
                None => Verdict::Waits(datagram),
            },
        }
    }

    /// The packet inside of a tunnel.
    fn inside(&mut self, place: Place, ip: &IpPacket<'_>, transport: &Transport<'_>) -> Verdict {
        let inner = match *transport {
            Transport::Udp { src_port, dst_port, payload, .. } => tunnel::in_udp(src_port, dst_port, payload),
            Transport::Other => tunnel::in_ip(ip.protocol, ip.payload),
            _ => None,
        };
        let Some((tunnel, Ok(network))) = inner else { return Verdict::Unwanted };
        if place.depth + 1 >= MAX_DEPTH {
            return Verdict::Unwanted;
        }
        let name = match self.tunnels.get(place.tunnel as usize).map_or("", String::as_str) {
            "" if place.tunnel == 0 => tunnel.to_string(),
            outer => format!("{outer}/{tunnel}"),
        };
        // What is inside of an unknown tunnel may still be inside of a known one: `a/b` is wanted where `a` is not.
        let number = self.tunnels.iter().position(|known| *known == name).map_or_else(
            || {
                let leads_on = self.tunnels.iter().any(|known| known.starts_with(&format!("{name}/")));
                if leads_on { self.name(name.clone()) } else { OTHER_TUNNEL }
            },
            |number| number as u32,
        );
        if number == OTHER_TUNNEL {
            return Verdict::Unwanted;
        }
        let not_captured = ip.payload_length.saturating_sub(ip.payload.len() as u32);
        let length = (network.packet.len() as u32).saturating_add(not_captured);
        let place = Place { vlan: network.vlan, tunnel: number, depth: place.depth + 1, ..place };
        self.network(place, &network, length)
    }

    fn name(&mut self, tunnel: String) -> u32 {
        self.tunnels.push(tunnel);
        (self.tunnels.len() - 1) as u32
    }

    /// The comment of the wanted flow of a packet.
    fn comment(&self, place: Place, ip: &IpPacket<'_>, transport: &Transport<'_>) -> Option<String> {
        self.find(place, key(place, ip, transport))
    }

    fn find(&self, place: Place, key: Key) -> Option<String> {
        let intervals = self.flows.get(&key)?;
        let begun = &intervals[..intervals.partition_point(|interval| interval.start <= place.time)];
        let mut latest_first = begun.iter().rev().take_while(|interval| interval.latest >= place.time);
        latest_first.find(|interval| interval.end >= place.time).map(|interval| interval.comment.clone())
    }
}

fn found(packet: &Packet<'_>, comment: String) -> Found {
    Found {
        time_us: packet.time_us,
        nanoseconds: packet.nanoseconds,
        remark: String::from_utf8_lossy(packet.comment).into_owned(),
        link_type: packet.link_type,
        interface: packet.interface,
        interface_name: packet.interface_name.to_owned(),
        data: packet.data.to_vec(),
        original_length: packet.original_length,
        comment,
    }
}

const fn end(ip: [u8; 16], port: u16) -> Endpoint {
    Endpoint { ip, port }
}

/// The key that the packets of a flow have.
fn key_of(flow: &CarvedFlow, tunnel: u32) -> Key {
    let src = Ip::new(flow.src_ip_high, flow.src_ip_low).octets();
    let dst = Ip::new(flow.dst_ip_high, flow.dst_ip_low).octets();
    let (src_port, dst_port, protocol) = (flow.src_port as u16, flow.dst_port as u16, flow.protocol as u8);
    if is_icmp(protocol) && (src_port, dst_port) != (0, 0) || protocol == 1 {
        return Key::icmp(src, dst, src_port as u8, dst_port as u8, protocol, flow.vlan, tunnel).0;
    }
    Key::new(end(src, src_port), end(dst, dst_port), protocol, flow.vlan, tunnel).0
}

const fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, 1 | 58)
}

/// The key of a packet, as the analysis makes it.
fn key(place: Place, ip: &IpPacket<'_>, transport: &Transport<'_>) -> Key {
    let (src_port, dst_port) = match *transport {
        Transport::Tcp(packet::Tcp { src_port, dst_port, .. })
        | Transport::Udp { src_port, dst_port, .. }
        | Transport::Ports { src_port, dst_port, .. } => (src_port, dst_port),
        Transport::Icmp { kind, code, .. } => {
            return Key::icmp(ip.src, ip.dst, kind, code, ip.protocol, place.vlan, place.tunnel).0;
        }
        Transport::Other => (0, 0),
    };
    Key::new(end(ip.src, src_port), end(ip.dst, dst_port), ip.protocol, place.vlan, place.tunnel).0
}

/// Datagrams in pieces, within bounds.
#[derive(Default)]
struct Fragments {
    /// Whether the flow of a datagram is wanted, by its first fragment.
    known: HashMap<Datagram, Option<String>>,
    order: VecDeque<Datagram>,
    waiting: VecDeque<(Datagram, Found)>,
    ready: Vec<Found>,
}

impl Fragments {
    /// The first fragment of a datagram: what waited for it is ready, or not wanted.
    fn first(&mut self, datagram: Datagram, comment: Option<String>) {
        let (mine, others) = std::mem::take(&mut self.waiting).into_iter().partition(|(of, _)| *of == datagram);
        self.waiting = others;
        let mine: VecDeque<(Datagram, Found)> = mine;
        if let Some(comment) = &comment {
            self.ready.extend(mine.into_iter().map(|(_, found)| Found { comment: comment.clone(), ..found }));
        }
        if self.known.insert(datagram, comment).is_none() {
            self.order.push_back(datagram);
        }
        if self.order.len() > MAX_DATAGRAMS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    fn flow_of(&self, datagram: &Datagram) -> Option<&Option<String>> {
        self.known.get(datagram)
    }

    fn wait(&mut self, datagram: Datagram, found: Found) {
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back((datagram, found));
    }

    fn take_ready(&mut self) -> Vec<Found> {
        std::mem::take(&mut self.ready)
    }
}
