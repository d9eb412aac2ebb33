//! One flow in the table.

use weir_proto::EndReason;

use super::{Finished, Limits, Observation, Reply, Retired, Segment, State};
use crate::key::{Direction, Key};
use crate::packet::ip::protocol;
use crate::packet::transport::flags;
use crate::tcp::{Connection, Marks, Stand};

/// What was counted of a flow over an interval; the first element of a pair is from the initiator, the second from the responder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    /// Earliest packet, microseconds.
    pub start: u64,
    /// Latest packet, microseconds.
    pub end: u64,
    /// IP bytes on the wire.
    pub bytes: [u64; 2],
    /// Packets on the wire.
    pub packets: [u64; 2],
    /// Union of TCP flags.
    pub flags: [u8; 2],
    /// Number of its first frame in the capture, from 1 on.
    pub first_frame: u64,
    /// Longest silence before one of its packets, microseconds.
    pub longest_gap_us: u64,
    /// Number of the frame that ended this silence; 0 = none.
    pub gap_frame: u64,
}

impl Interval {
    /// Whether a side sent so much until `last`, and so quickly, that a silence of this length is none of its own.
    fn is_transfer(&self, side: usize, last: u64, silent_us: u64) -> bool {
        const BYTES: u64 = 100_000;
        const TIMES: u64 = 20;
        let mean = last.saturating_sub(self.start) / self.packets[side].max(1);
        self.bytes[side] >= BYTES && silent_us >= mean.saturating_mul(TIMES)
    }
}

/// What the payload of a flow told about it, kept from one interval to the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Numbers of the names of initiator and responder in the caller's table; 0 = none.
    pub names: [u32; 2],
    /// Number of the ends of the tunnel in the caller's table; 0 = none.
    pub tunnel_ends: u32,
    /// Interarrival jitter of what initiator and responder send.
    pub jitter_us: [Option<u32>; 2],
}

/// A flow in the table.
#[derive(Debug)]
pub struct Entry<S> {
    pub(super) key: Key,
    pub(super) ordinal: u64,
    pub(super) initiator: Direction,
    pub(super) ports: (u16, u16),
    pub(super) interface: u32,
    pub(super) last_seen: u64,
    /// Of the deadline that holds for it.
    pub(super) token: u32,
    pub(super) tcp: TcpState,
    connection: Option<Box<Connection>>,
    interval: Interval,
    pub(super) continued: bool,
    /// What the caller calls it, for as long as the flow is remembered; 0 = nothing yet.
    pub id: u64,
    /// Protocol recognised in the payload; empty = none.
    pub app: &'static str,
    /// What else its payload told.
    pub facts: Facts,
    /// What the caller keeps.
    pub state: S,
}

/// What decides where a TCP flow begins and ends; arrays by [`Direction`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TcpState {
    pub(super) base_sequence: [Option<u32>; 2],
    fin: [bool; 2],
    reset: bool,
}

impl<S: State> Entry<S> {
    pub(super) fn new(packet: &Observation, ordinal: u64) -> Self {
        // An answer that is seen first still tells who asked.
        let answers = packet.tcp.is_some_and(|segment| segment.is_syn_ack());
        let (initiator, ports) = if answers {
            (packet.direction.reversed(), (packet.ports.1, packet.ports.0))
        } else {
            (packet.direction, packet.ports)
        };
        Self {
            key: packet.key,
            ordinal,
            initiator,
            ports,
            interface: packet.interface,
            last_seen: packet.time,
            token: 0,
            tcp: TcpState::default(),
            connection: packet.tcp.is_some().then(Box::default),
            interval: Interval { start: packet.time, end: packet.time, ..Interval::default() },
            continued: false,
            id: 0,
            app: "",
            facts: Facts { tunnel_ends: packet.tunnel_ends, ..Facts::default() },
            state: S::default(),
        }
    }

    /// Counts a packet. The interval before it is finished where the packet does not fit in any more.
    pub(super) fn count(&mut self, packet: &Observation, limits: &Limits, finished: &mut Vec<Finished>) -> Marks {
        let (start, end) = (self.interval.start.min(packet.time), self.interval.end.max(packet.time));
        let full = end - start >= limits.active_us && self.interval.packets != [0, 0];
        let gap = packet.time.saturating_sub(self.last_seen);
        let stand = if gap < limits.silence_us || packet.is_copy { None } else { self.stand(gap) };
        if full {
            finished.push(self.finish(EndReason::Active));
            self.interval = Interval { start: packet.time, end: packet.time, ..Interval::default() };
        } else {
            (self.interval.start, self.interval.end) = (start, end);
        }
        if gap > self.interval.longest_gap_us {
            (self.interval.longest_gap_us, self.interval.gap_frame) = (gap, packet.frame);
        }
        if self.interval.packets == [0, 0] {
            self.interval.first_frame = packet.frame;
        }
        let side = self.side(packet.direction);
        self.interval.bytes[side] += u64::from(packet.length);
        self.interval.packets[side] += 1;
        self.last_seen = packet.time;
        let mut marks = Marks::default();
        if let Some(segment) = &packet.tcp {
            self.interval.flags[side] |= segment.flags;
            self.tcp.follow(packet.direction, segment);
            if !packet.is_fragment {
                marks = if packet.is_copy {
                    self.connection.get_or_insert_default().doubled(side)
                } else {
                    self.segment(packet.time, packet.direction, segment)
                };
                if let (Some(stand), Some(connection)) = (stand, &mut self.connection) {
                    connection.silence(&stand, (gap, packet.frame), side, segment, marks);
                }
            }
        }
        marks
    }

    pub(super) fn segment(&mut self, time: u64, direction: Direction, segment: &Segment) -> Marks {
        let side = self.side(direction);
        self.connection.get_or_insert_default().segment(time, side, segment)
    }

    /// How an open connection stands, silent for so long.
    fn stand(&self, silent_us: u64) -> Option<Stand> {
        let mut stand = self.connection.as_ref().filter(|_| !self.tcp.is_closed())?.stand();
        let midway = self.state.midway();
        for direction in [Direction::Up, Direction::Down] {
            let (side, index) = (self.side(direction), direction.index());
            stand.done[side] = self.tcp.fin[index];
            stand.midway[side] = midway[index];
            stand.streams[side] = self.interval.is_transfer(side, self.last_seen, silent_us);
        }
        Some(stand)
    }

    fn side(&self, direction: Direction) -> usize {
        usize::from(direction != self.initiator)
    }

    /// Whether a packet is of the direction that nothing came of so far: a segment that acknowledges about what was sent, and beside TCP
    /// what comes soon.
    pub(super) fn awaits(&self, reply: Reply) -> bool {
        const WITHIN_US: u64 = 5_000_000;
        let side = self.side(reply.direction);
        if self.interval.packets[side] > 0 || self.continued {
            return false;
        }
        match (&self.connection, reply.acknowledgement) {
            (Some(connection), Some(acknowledged)) => connection.is_acknowledged_by(1 - side, acknowledged),
            (Some(_), None) => false,
            (None, _) => reply.time.abs_diff(self.last_seen) <= WITHIN_US,
        }
    }

    pub(super) fn finish(&mut self, reason: EndReason) -> Finished {
        let end = self.interval.end;
        let [up, down] = self.state.take_stream();
        Finished {
            stream: if self.initiator == Direction::Up { [up, down] } else { [down, up] },
            continued: std::mem::replace(&mut self.continued, true),
            key: self.key,
            ordinal: self.ordinal,
            id: self.id,
            initiator: self.initiator,
            ports: self.ports,
            interface: self.interface,
            interval: self.interval,
            reason,
            tcp: self.connection.as_mut().map(|connection| Box::new(connection.take_report(end))),
            app: self.app,
            facts: self.facts,
        }
    }

    /// What is remembered of it.
    pub(super) const fn retired(&self) -> Retired {
        Retired {
            key: self.key,
            ordinal: self.ordinal,
            id: self.id,
            initiator: self.initiator,
            ports: self.ports,
            interface: self.interface,
            base_sequence: self.tcp.base_sequence,
            app: self.app,
            tunnel_ends: self.facts.tunnel_ends,
        }
    }
}

impl<S> Entry<S> {
    /// How many flows were made up to this one: its name within the analysis.
    #[must_use]
    pub const fn ordinal(&self) -> u64 {
        self.ordinal
    }

    /// The direction of packets from the initiator.
    #[must_use]
    pub const fn initiator(&self) -> Direction {
        self.initiator
    }

    /// The sequence number of the SYN in this direction, or one less than that of the first segment seen.
    #[must_use]
    pub const fn base_sequence(&self, direction: Direction) -> Option<u32> {
        self.tcp.base_sequence[direction.index()]
    }

    /// Whether large segments in this direction were acknowledged: much was, and most of what it sends is large.
    #[must_use]
    pub fn has_passed_large(&self, direction: Direction) -> bool {
        const BYTES: u32 = 20_000;
        const LARGE: u64 = 1000;
        let side = usize::from(direction != self.initiator);
        let (Some(connection), Some(base)) = (&self.connection, self.base_sequence(direction)) else { return false };
        let passed = connection.acknowledged(side).map_or(0, |ack| ack.wrapping_sub(base));
        (BYTES..1 << 31).contains(&passed) && self.interval.bytes[side] >= LARGE * self.interval.packets[side]
    }

    pub(super) const fn is_tcp(&self) -> bool {
        self.key.protocol == protocol::TCP
    }
}

impl TcpState {
    pub(super) const fn is_closed(&self) -> bool {
        self.reset || (self.fin[0] && self.fin[1])
    }

    pub(super) const fn end_reason(&self) -> Option<EndReason> {
        match (self.reset, self.is_closed()) {
            (true, _) => Some(EndReason::Rst),
            (false, true) => Some(EndReason::Fin),
            (false, false) => None,
        }
    }

    fn follow(&mut self, direction: Direction, segment: &Segment) {
        let syn = segment.flags & flags::SYN != 0;
        let first = if syn { segment.sequence } else { segment.sequence.wrapping_sub(1) };
        self.base_sequence[direction.index()].get_or_insert(first);
        self.fin[direction.index()] |= segment.flags & flags::FIN != 0;
        self.reset |= segment.flags & flags::RST != 0;
    }
}
