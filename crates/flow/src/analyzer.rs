//! From frames to records: the stages of this crate in their order.

use hashbrown::HashMap;

use crate::dns::{self, Exchanges, Resolved};
use crate::findings::{Thresholds, Watch};
use crate::fragments::{self, Datagram, Fragments, Waiting};
use crate::key::{Belonging, Direction, Endpoint, Key};
use crate::packet::transport::flags;
use crate::packet::{self, IpPacket, LinkType, Network, Tcp, Transport, Unanalysed, tunnel};
use crate::tcp::{Marks, Options, Segment};
use crate::tracker::{self, Finished, Observation, Reply, Tracker};

mod aggregate;
mod app;
mod datagram;
mod duplicates;
mod memory;
mod names;
mod notices;
mod records;
mod scale;
mod settle;
mod summary;
mod vlans;

use app::FlowState;
use duplicates::{Candidate, Copy, Recent};
use names::{Names, TunnelEnds};
pub use scale::Scale;
pub use summary::{Countable, DnsSummary, HttpSummary, Service, Summary, TcpSummary, TlsSummary, Top, Totals};
use vlans::Vlans;

/// What an analysis is told.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Makes flow ids of different captures differ.
    pub producer: [u8; 16],
    /// Bounds of the flow table.
    pub tracker: tracker::Limits,
    /// Bounds of reassembly of fragments.
    pub fragments: fragments::Limits,
    /// Bounds of DNS matching.
    pub dns: dns::Limits,
    /// Bounds of reassembly of streams.
    pub streams: StreamLimits,
    /// Bounds of the other tables.
    pub scale: Scale,
    /// Only the side that begins is seen, as where the kernel picks packets: hellos and requests do not wait for their answers.
    pub one_sided: bool,
    /// From where on something is a finding.
    pub thresholds: Box<Thresholds>,
}

/// Bounds of reassembly of TCP streams.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// Bytes held for all streams together.
    pub bytes: usize,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self { bytes: 64 << 20 }
    }
}

/// One captured frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Microseconds since the epoch.
    pub time_us: u64,
    /// Of the interface.
    pub link_type: LinkType,
    /// What was captured.
    pub data: &'a [u8],
    /// Bytes on the wire.
    pub original_length: u32,
    /// From [`Analyzer::interface`]; 0 = not known.
    pub interface: u32,
}

/// One finished statement.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all records are flows, the largest variant")]
pub enum Record {
    /// An interval of a flow.
    Flow(weir_proto::Flow),
    /// A DNS exchange.
    Dns(weir_proto::Dns),
    /// A client hello.
    Tls(weir_proto::Tls),
    /// A request with its response.
    Http(weir_proto::Http),
    /// Something that a person should look at; all of them come last.
    Finding(weir_proto::Finding),
}

/// IP packets inside each other that are followed.
const MAX_DEPTH: usize = 8;

/// Flows that end at one time and are gone over table by table: few enough for their records, of a kilobyte each, to stay in the first cache
/// meanwhile.
const TOGETHER: usize = 16;

/// Where a network-layer packet was found.
#[derive(Clone, Copy, Debug)]
struct Place {
    time: u64,
    interface: u32,
    vlan: u32,
    /// Number of the tunnel's name.
    tunnel: u32,
    /// Number of the ends of the outermost tunnel; 0 = none.
    ends: u32,
    depth: usize,
}

/// Makes records of frames. All bounds are in [`Config`]; what they cost is counted in [`Summary`].
pub struct Analyzer {
    config: Config,
    tracker: Tracker<FlowState>,
    fragments: Fragments,
    exchanges: Exchanges,
    interfaces: Names,
    tunnels: Names,
    /// Names of hosts.
    hosts: Names,
    resolved: Resolved,
    held_bytes: usize,
    /// Of the current frame.
    marks: Marks,
    recent: Recent,
    /// The capture has the current frame's packet already.
    is_copy: bool,
    /// Names of addresses that the capture itself tells.
    told: HashMap<[u8; 16], u32>,
    tunnel_ends: TunnelEnds,
    vlans: Vlans,
    summary: Summary,
    watch: Watch,
    records: Vec<Record>,
    /// Empty; keeps its room from packet to packet.
    finished: Vec<Finished>,
}

impl Analyzer {
    /// An analysis that has seen nothing.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            tracker: Tracker::new(tracker::Limits {
                silence_us: config.thresholds.silence_ms * 1000,
                ..config.tracker
            }),
            fragments: Fragments::new(config.fragments),
            exchanges: Exchanges::new(config.dns),
            interfaces: Names::new(config.scale),
            tunnels: Names::new(config.scale),
            hosts: Names::new(config.scale),
            resolved: Resolved::new(config.scale),
            held_bytes: 0,
            marks: Marks::default(),
            recent: Recent::default(),
            is_copy: false,
            told: HashMap::new(),
            tunnel_ends: TunnelEnds::new(config.scale),
            vlans: Vlans::default(),
            summary: Summary::new(config.scale),
            watch: Watch::new(config.thresholds.clone(), config.scale),
            records: Vec::new(),
            finished: Vec::new(),
            config,
        }
    }

    /// The number of an interface with this name, for [`Frame::interface`].
    pub fn interface(&mut self, name: &str) -> u32 {
        self.interfaces.number(name)
    }

    /// Takes a name that the capture itself gives to an address (network order, IPv4 mapped). It stands where the traffic tells no better
    /// one; of names beyond a bound none is kept.
    pub fn name(&mut self, address: [u8; 16], name: &str) {
        const MOST: usize = 65_536;
        if self.told.len() < self.config.scale.of(MOST) || self.told.contains_key(&address) {
            let number = self.hosts.number_of(name);
            self.told.insert(address, number);
        }
    }

    /// Takes the next frame.
    pub fn packet(&mut self, frame: &Frame<'_>) {
        self.summary.frame(frame);
        self.marks = Marks::default();
        let now = frame.time_us;
        if self.fragments.expire(now) {
            // Before the queries that they answer have waited too long.
            self.settle_fragments();
        }
        self.tracker.advance(now);
        self.exchanges.expire(now);
        match packet::link::network(frame.link_type, frame.data) {
            Ok(network) => self.outermost(frame, &network, frame.data.get(..network.offset).unwrap_or_default()),
            Err(Unanalysed::Aggregate) => self.aggregate(frame),
            Err(reason) => self.without_network(frame, reason),
        }
        self.settle();
    }

    /// A network layer that is in no other; `link` is what came before it.
    fn outermost(&mut self, frame: &Frame<'_>, network: &Network<'_>, link: &[u8]) {
        let Frame { time_us: time, interface, .. } = *frame;
        let place = Place { time, interface, vlan: network.vlan, tunnel: 0, ends: 0, depth: 0 };
        let length = frame.original_length.saturating_sub(network.offset as u32);
        self.note_copy(place, link, network, length);
        self.network(place, network, length);
    }

    fn without_network(&mut self, frame: &Frame<'_>, reason: Unanalysed) {
        self.notice_arp(frame, reason);
        self.summary.unanalysed(reason);
    }

    /// Whether the capture has the packet already.
    fn note_copy(&mut self, place: Place, link: &[u8], network: &Network<'_>, wire_length: u32) {
        let candidate = Candidate { frame: self.summary.frames.packets, link, packet: network.packet, wire_length };
        let copy = self.recent.judge(place, &candidate);
        self.is_copy = copy != Copy::First;
        self.summary.duplicates += u64::from(self.is_copy);
        self.summary.routed_duplicates += u64::from(copy == Copy::Routed);
    }

    /// What the last frame is of a TCP connection; of all of them where one is in another.
    #[must_use]
    pub const fn marks(&self) -> Marks {
        self.marks
    }

    /// Whether a record is finished that was not taken.
    #[must_use]
    pub const fn has_records(&self) -> bool {
        !self.records.is_empty()
    }

    /// The records that are finished, in an order that follows from the frames alone, until [`Analyzer::take_records`].
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Takes the records that are finished; to drop what this gives is enough.
    pub fn take_records(&mut self) -> std::vec::Drain<'_, Record> {
        self.records.drain(..)
    }

    /// Ends some of what is under way; whether there is more. To be called after the last frame until there is not, and the records be
    /// taken in between, so that the end of a capture takes no more memory than its middle.
    pub fn finish_some(&mut self) -> bool {
        // Each stage may have something for the next one.
        let mut more = self.fragments.finish_some();
        self.settle();
        if !more {
            more = self.exchanges.finish_some();
            self.settle();
        }
        if !more {
            more = self.tracker.finish_some();
            self.settle();
        }
        if !more {
            self.finish_findings();
        }
        self.summary.flows = self.tracker.flows();
        self.summary.evicted_flows = self.tracker.evicted();
        self.summary.early_queries = self.exchanges.given_up_early();
        self.summary.early_fragments = self.fragments.given_up_early();
        self.summary.early_names = self.hosts.lost() + self.resolved.lost();
        self.summary.further_tunnels = self.tunnels.lost();
        self.summary.further_tunnel_ends = self.tunnel_ends.lost();
        self.summary.further_interfaces = self.interfaces.lost();
        more
    }

    /// What has been seen.
    #[must_use]
    pub fn into_summary(self) -> Summary {
        self.summary
    }

    fn network(&mut self, place: Place, network: &Network<'_>, wire_length: u32) {
        // A file may claim an original length below what it holds.
        let wire_length = wire_length.max(network.packet.len() as u32);
        match packet::ip::parse(network.packet, wire_length) {
            Ok(ip) => self.ip(place, &ip),
            Err(reason) if place.depth > 0 => self.summary.unanalysed_inside(reason),
            Err(reason) => self.summary.unanalysed(reason),
        }
    }

    fn ip(&mut self, place: Place, ip: &IpPacket<'_>) {
        self.summary.ip(ip, place.depth);
        if ip.fragment.is_some() {
            return self.fragment(place, ip);
        }
        let transport = packet::transport::parse(ip.protocol, ip.payload, ip.payload_length);
        // As `flow`, in place: nearly every packet comes by here.
        let mut flow = key(place, ip, &transport);
        self.cross(place, &transport, &mut flow);
        self.count(place, ip, &transport, &flow);
        // What happened once is noticed once.
        if !self.is_copy {
            self.notice(place, ip, &transport, &flow);
        }
        self.payload(place, ip, &transport, &flow);
    }

    /// The flow of a packet.
    fn flow(&mut self, place: Place, ip: &IpPacket<'_>, transport: &Transport<'_>) -> Belonging {
        let mut flow = key(place, ip, transport);
        self.cross(place, transport, &mut flow);
        flow
    }

    /// Puts a packet whose direction has a tag of its own into the flow of the other direction. Most captures have one tag, or none.
    #[inline]
    fn cross(&mut self, place: Place, transport: &Transport<'_>, flow: &mut Belonging) {
        if self.vlans.see(place.vlan) {
            let acknowledgement = match transport {
                Transport::Tcp(tcp) if tcp.flags & flags::ACK != 0 => Some(tcp.acknowledgement),
                _ => None,
            };
            let reply = Reply { time: place.time, direction: flow.1, acknowledgement };
            flow.0 = self.vlans.key(flow, reply, &self.tracker);
        }
    }

    /// Counts a packet into its flow.
    fn count(
        &mut self,
        place: Place,
        ip: &IpPacket<'_>,
        transport: &Transport<'_>,
        &(key, direction, ports): &Belonging,
    ) {
        let tcp = segment(ip, transport);
        let (length, is_fragment) = (ip.length, ip.fragment.is_some());
        let Place { time, interface, .. } = place;
        let frame = self.summary.frames.packets;
        let (is_copy, tunnel_ends) = (self.is_copy, place.ends);
        let packet = Observation {
            time,
            frame,
            key,
            direction,
            length,
            interface,
            tcp,
            is_fragment,
            is_copy,
            ports,
            tunnel_ends,
        };
        let flows = self.tracker.flows();
        self.marks.insert(self.tracker.observe(&packet));
        if self.tracker.flows() != flows {
            self.name_flow(time, &key);
        }
    }

    /// Counts a fragment, and looks into the payload when it is whole.
    fn fragment(&mut self, place: Place, ip: &IpPacket<'_>) {
        let Some(fragment) = ip.fragment else { return };
        self.fragments.begin(self.summary.frames.packets);
        let now = place.time;
        let datagram = Datagram {
            src: ip.src,
            dst: ip.dst,
            protocol: if ip.version == 4 { ip.protocol } else { 0 },
            id: fragment.id,
            vlan: place.vlan,
            tunnel: place.tunnel,
        };
        let waiting = Waiting {
            time: now,
            length: ip.length,
            protocol: ip.protocol,
            interface: place.interface,
            tunnel_ends: place.ends,
        };
        let cut = (ip.payload.len() as u32) < ip.payload_length;
        if fragment.offset == 0 {
            let transport = packet::transport::parse(ip.protocol, ip.payload, ip.payload_length);
            let flow = self.flow(place, ip, &transport);
            self.count(place, ip, &transport, &flow);
            for waited in self.fragments.name(now, datagram, flow) {
                self.count_waiting(&waited, flow);
            }
            self.beginning(now, datagram, &transport, &flow, cut);
        } else if let Some(flow) = self.fragments.find(now, datagram, waiting) {
            self.count_waiting(&waiting, flow);
        }
        let whole = self.fragments.push(now, datagram, fragment, ip.payload, cut, ip.protocol);
        self.notice_contradiction(place, &datagram);
        let Some(whole) = whole else { return };
        let length = whole.bytes.len() as u32;
        let ip =
            IpPacket { protocol: whole.protocol, payload: &whole.bytes, payload_length: length, fragment: None, ..*ip };
        let transport = packet::transport::parse(ip.protocol, ip.payload, length);
        let flow = self.flow(place, &ip, &transport);
        if let Some(segment) = segment(&ip, &transport) {
            self.marks.insert(self.tracker.segment(&flow.0, now, flow.1, &segment));
        }
        self.payload(place, &ip, &transport, &flow);
    }

    fn count_waiting(&mut self, waiting: &Waiting, (key, direction, ports): Belonging) {
        let Waiting { time, length, interface, tunnel_ends, .. } = *waiting;
        let frame = self.summary.frames.packets;
        let packet = Observation {
            time,
            frame,
            key,
            direction,
            length,
            interface,
            tcp: None,
            is_fragment: true,
            is_copy: false,
            ports,
            tunnel_ends,
        };
        self.tracker.observe(&packet);
    }

    /// Looks into the payload of a packet that was counted.
    fn payload(&mut self, place: Place, ip: &IpPacket<'_>, transport: &Transport<'_>, flow: &Belonging) {
        match transport {
            Transport::Tcp(tcp) => self.stream(place, tcp, flow),
            Transport::Udp { src_port, dst_port, payload } => {
                if let Some((tunnel, inner)) = tunnel::in_udp(*src_port, *dst_port, payload) {
                    self.tunnel(place, ip, tunnel, inner);
                } else if dns::is_dns(*src_port, *dst_port, payload) {
                    self.dns_datagram(place.time, payload, flow);
                } else if !payload.is_empty() {
                    self.datagram(place, payload, flow);
                }
            }
            Transport::Other => {
                if let Some((tunnel, inner)) = tunnel::in_ip(ip.protocol, ip.payload) {
                    self.tunnel(place, ip, tunnel, inner);
                }
            }
            Transport::Ports { .. } | Transport::Icmp { .. } => {}
        }
    }

    fn tunnel(
        &mut self,
        place: Place,
        outer: &IpPacket<'_>,
        tunnel: tunnel::Tunnel,
        inner: Result<Network<'_>, Unanalysed>,
    ) {
        let network = match inner {
            Ok(_) if place.depth + 1 >= MAX_DEPTH => return self.summary.unanalysed_inside(Unanalysed::TooDeep),
            Ok(network) => network,
            Err(reason) => return self.summary.unanalysed_inside(reason),
        };
        let name = match self.tunnels.name(place.tunnel) {
            "" => tunnel.to_string(),
            outer => format!("{outer}/{tunnel}"),
        };
        let tunnel = self.tunnels.number(&name);
        let not_captured = outer.payload_length.saturating_sub(outer.payload.len() as u32);
        let length = (network.packet.len() as u32).saturating_add(not_captured);
        let ends = if place.ends == 0 { self.tunnel_ends.number(outer.src, outer.dst) } else { place.ends };
        self.network(Place { vlan: network.vlan, tunnel, ends, depth: place.depth + 1, ..place }, &network, length);
    }

    /// Follows a TCP stream as far as the protocols that are read in it need.
    fn stream(&mut self, place: Place, tcp: &Tcp<'_>, (key, direction, _): &Belonging) {
        if tcp.payload.is_empty() && tcp.flags & flags::SYN == 0 {
            return;
        }
        let Some(entry) = self.tracker.get_mut(key) else { return };
        let budget = self.config.streams.bytes.saturating_sub(self.held_bytes);
        let before = tracker::State::held_bytes(&entry.state);
        let mut found = entry.state.segment(*direction, (place.time, self.summary.frames.packets), tcp, budget);
        if self.config.one_sided {
            entry.state.settle(&mut found);
        }
        self.held_bytes = self.held_bytes + entry.state.count_held_bytes() - before;
        if !found.is_empty() {
            self.found(place.time, key, *direction, found);
        }
    }
}

/// The flow of a packet as it says itself.
fn key(place: Place, ip: &IpPacket<'_>, transport: &Transport<'_>) -> Belonging {
    let (vlan, tunnel) = (place.vlan, place.tunnel);
    let (src_port, dst_port) = match *transport {
        Transport::Tcp(Tcp { src_port, dst_port, .. })
        | Transport::Udp { src_port, dst_port, .. }
        | Transport::Ports { src_port, dst_port } => (src_port, dst_port),
        Transport::Icmp { kind, code } => {
            let (key, direction) = Key::icmp(ip.src, ip.dst, kind, code, ip.protocol, vlan, tunnel);
            return (key, direction, (u16::from(kind), u16::from(code)));
        }
        Transport::Other => (0, 0),
    };
    let (src, dst) = (Endpoint { ip: ip.src, port: src_port }, Endpoint { ip: ip.dst, port: dst_port });
    let (key, direction) = Key::new(src, dst, ip.protocol, vlan, tunnel);
    (key, direction, (src_port, dst_port))
}

/// The flow of fragments whose first one never came.
fn without_ports(datagram: &Datagram, protocol: u8) -> (Key, Direction) {
    let Datagram { src, dst, vlan, tunnel, .. } = *datagram;
    let end = |ip| Endpoint { ip, port: 0 };
    Key::new(end(src), end(dst), protocol, vlan, tunnel)
}

fn segment(ip: &IpPacket<'_>, transport: &Transport<'_>) -> Option<Segment> {
    let Transport::Tcp(tcp) = transport else { return None };
    Some(Segment {
        sequence: tcp.sequence,
        acknowledgement: tcp.acknowledgement,
        length: tcp.payload_length,
        window: tcp.window,
        id: ip.id,
        flags: tcp.flags,
        options: Options::parse(tcp.options),
    })
}

#[cfg(test)]
mod tests;
