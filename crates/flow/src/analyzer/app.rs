//! What is followed of the payload of a flow.

use crate::app::{self, Verdict};
use crate::dns::{self, Framer};
use crate::http::{self, Exchange, Left, Start};
use crate::key::Direction;
use crate::packet::Tcp;
use crate::packet::transport::flags;
use crate::stream::Reassembler;
use crate::tls::{self, Session};
use crate::tracker::State;
use crate::{quic, rtp};

/// Pieces of a direction whose beginning says nothing that are looked at: a capture may begin within a connection.
const MAX_PIECES: u8 = 12;
/// Datagrams of a flow that say nothing before it is given up.
const MAX_DATAGRAMS: u8 = 12;

/// What a packet brought.
#[derive(Default)]
pub(super) struct Found {
    /// DNS messages.
    pub(super) messages: Vec<Vec<u8>>,
    pub(super) sessions: Vec<Session>,
    /// Whether the client's direction is [`Direction::Up`], and the exchange.
    pub(super) exchanges: Vec<(bool, Exchange)>,
    /// Protocol that was recognised; empty = none.
    pub(super) app: &'static str,
    /// The name that a hello gives its server, and whether the hello went [`Direction::Up`].
    pub(super) name: Option<(bool, String)>,
    /// The stream is not followed because all streams together hold too much.
    pub(super) refused: bool,
}

impl Found {
    /// Whether there is nothing to do about it, as with nearly all packets.
    pub(super) const fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.sessions.is_empty()
            && self.exchanges.is_empty()
            && self.app.is_empty()
            && self.name.is_none()
            && !self.refused
    }
}

/// A flow's payload, until nothing more is to be found in it.
#[derive(Debug, Default)]
pub(super) struct FlowState {
    content: Content,
    /// Bytes that it held when they were counted last.
    held_bytes: usize,
}

#[derive(Debug, Default)]
enum Content {
    #[default]
    New,
    /// A connection without a byte so far: the sequence numbers of its SYNs by direction.
    Asked([Option<u32>; 2]),
    Stream(Box<Stream>),
    /// Datagrams that have said nothing so far.
    Quiet(u8),
    Quic(Box<quic::Connection>),
    Dtls(Box<tls::Datagrams>),
    Rtp(Box<[rtp::Stream; 2]>, u8),
    /// HTTP in datagrams.
    Http,
    Done,
}

impl State for FlowState {
    fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn take_stream(&mut self) -> [Option<rtp::Report>; 2] {
        match &mut self.content {
            Content::Rtp(sides, _) => sides.each_mut().map(rtp::Stream::take_report),
            _ => [None; 2],
        }
    }

    fn midway(&self) -> [bool; 2] {
        match &self.content {
            Content::Stream(stream) => stream.midway(),
            _ => [false; 2],
        }
    }

    fn has_more(&self) -> bool {
        matches!(self.content, Content::Stream(_) | Content::Quic(_) | Content::Dtls(_))
    }
}

impl FlowState {
    /// Counts the bytes that it holds; to be called after each change, for this takes longer than to ask what was counted.
    pub(super) fn count_held_bytes(&mut self) -> usize {
        self.held_bytes = match &self.content {
            Content::New | Content::Asked(_) | Content::Quiet(_) | Content::Http | Content::Done => 0,
            Content::Stream(stream) => stream.held_bytes(),
            Content::Quic(connection) => connection.held_bytes(),
            Content::Dtls(datagrams) => datagrams.held_bytes(),
            Content::Rtp(sides, _) => size_of_val(sides.as_ref()),
        };
        self.held_bytes
    }

    /// Takes a segment, with its time and frame; `budget` is what all streams together may still hold.
    pub(super) fn segment(&mut self, direction: Direction, at: (u64, u64), tcp: &Tcp<'_>, budget: usize) -> Found {
        let mut found = Found::default();
        if let Content::New | Content::Asked(_) = self.content {
            let mut asked = if let Content::Asked(asked) = self.content { asked } else { [None; 2] };
            if tcp.payload.is_empty() {
                if tcp.flags & flags::SYN != 0 {
                    asked[direction.index()] = Some(tcp.sequence);
                }
                self.content = Content::Asked(asked);
                return found;
            }
            self.content = Content::Stream(Box::new(Stream::after(asked)));
        }
        let Content::Stream(stream) = &mut self.content else { return found };
        if tcp.payload.len() > budget {
            stream.finish(&mut found);
            self.content = Content::Done;
            found.refused = true;
            return found;
        }
        stream.segment(direction, at, tcp, &mut found);
        if stream.is_over() {
            stream.finish(&mut found);
            self.content = Content::Done;
        }
        found
    }

    /// Takes a datagram that is not of DNS; and the interarrival jitter of its direction where it has one.
    pub(super) fn datagram(&mut self, direction: Direction, at: (u64, u64), payload: &[u8]) -> (Found, Option<u32>) {
        let (time, _) = at;
        let mut found = Found::default();
        let up = direction == Direction::Up;
        if let Content::New | Content::Quiet(_) = self.content {
            self.recognise(payload, &mut found);
        }
        match &mut self.content {
            Content::Quic(connection) => {
                connection.push(up, time, payload, &mut found.sessions);
                found.name = connection.server_name();
                if connection.is_over() {
                    self.content = Content::Done;
                }
            }
            Content::Dtls(datagrams) => {
                datagrams.push(up, at, payload, &mut found.sessions);
                found.name = datagrams.server_name();
                if datagrams.is_over() {
                    datagrams.finish(&mut found.sessions);
                    // What follows may be SRTP.
                    self.content = Content::Quiet(0);
                }
            }
            Content::Http => {
                found
                    .exchanges
                    .extend(http::single(time, payload).map(|exchange| (up != exchange.method.is_empty(), exchange)));
            }
            Content::Rtp(sides, left) => {
                let side = &mut sides[direction.index()];
                side.push(time, payload);
                if side.is_certain() {
                    found.app = "rtp";
                    return (found, side.jitter_us());
                }
                *left = left.saturating_sub(1);
                if *left == 0 && !sides.iter().any(rtp::Stream::is_certain) {
                    self.content = Content::Done;
                }
            }
            Content::New | Content::Asked(_) | Content::Quiet(_) | Content::Stream(_) | Content::Done => {}
        }
        (found, None)
    }

    /// Adds what waits only for the other side.
    pub(super) fn settle(&mut self, found: &mut Found) {
        match &mut self.content {
            Content::Stream(stream) => stream.settle(found),
            Content::Quic(connection) => connection.finish(&mut found.sessions),
            Content::Dtls(datagrams) => datagrams.finish(&mut found.sessions),
            Content::New | Content::Asked(_) | Content::Quiet(_) | Content::Rtp(..) | Content::Http | Content::Done => {
            }
        }
    }

    /// The flow is over.
    pub(super) fn finish(&mut self) -> Found {
        let mut found = Found::default();
        match &mut self.content {
            Content::Stream(stream) => stream.finish(&mut found),
            Content::Quic(connection) => connection.finish(&mut found.sessions),
            Content::Dtls(datagrams) => datagrams.finish(&mut found.sessions),
            Content::New | Content::Asked(_) | Content::Quiet(_) | Content::Rtp(..) | Content::Http | Content::Done => {
            }
        }
        self.content = Content::Done;
        found
    }

    fn recognise(&mut self, payload: &[u8], found: &mut Found) {
        let quiet = if let Content::Quiet(count) = self.content { count } else { 0 };
        self.content = if quic::looks_like_quic(payload) {
            found.app = "quic";
            Content::Quic(Box::default())
        } else if tls::looks_like_dtls(payload) {
            found.app = "dtls";
            Content::Dtls(Box::default())
        } else if let Some(name) = app::of_datagram(payload) {
            found.app = name;
            match name {
                "http" => Content::Http,
                // Media follow on the same ports (RFC 7983).
                "stun" => Content::Quiet(quiet),
                _ => Content::Done,
            }
        } else if tls::looks_like_encrypted_dtls(payload) && quiet < MAX_DATAGRAMS {
            found.app = "dtls";
            // As behind a handshake: media may follow.
            Content::Quiet(quiet + 1)
        } else if rtp::may_be_rtp(payload) {
            Content::Rtp(Box::default(), MAX_DATAGRAMS)
        } else if quiet < MAX_DATAGRAMS {
            Content::Quiet(quiet + 1)
        } else {
            Content::Done
        };
    }
}

/// Both directions of a TCP connection.
#[derive(Debug, Default)]
struct Stream {
    sides: [Side; 2],
    talk: Talk,
    named: bool,
}

#[derive(Debug, Default)]
struct Side {
    stream: Reassembler,
    /// Bytes of a beginning that does not yet say what it is.
    start: Vec<u8>,
    /// Pieces that said nothing.
    unknown: u8,
    began_with_syn: bool,
    /// Sequence number of the SYN.
    asked: Option<u32>,
    /// What the other side said last to have.
    acknowledged: Option<u32>,
}

/// What is talked.
#[derive(Debug, Default)]
enum Talk {
    #[default]
    Unknown,
    Tls(tls::Connection),
    Http {
        connection: http::Connection,
        client_is_first: bool,
    },
    Dns([Framer; 2]),
    /// A protocol that may go on as TLS, and how many pieces of it there were.
    Plain(u8),
    Done,
}

/// Pieces of both directions before which those who want TLS have asked for it.
const MAX_PLAIN: u8 = 32;

impl Stream {
    /// A stream whose sides asked for a connection with these sequence numbers.
    fn after(asked: [Option<u32>; 2]) -> Self {
        let mut stream = Self::default();
        for (side, sequence) in stream.sides.iter_mut().zip(asked) {
            if let Some(sequence) = sequence {
                side.ask(sequence);
            }
        }
        stream
    }

    fn held_bytes(&self) -> usize {
        let talk = match &self.talk {
            Talk::Tls(connection) => connection.held_bytes(),
            Talk::Http { connection, .. } => connection.held_bytes(),
            Talk::Dns(framers) => framers.iter().map(Framer::held_bytes).sum(),
            Talk::Unknown | Talk::Plain(_) | Talk::Done => 0,
        };
        let sides: usize = self.sides.iter().map(|side| side.stream.held_bytes() + side.start.capacity()).sum();
        size_of::<Self>() + sides + talk
    }

    /// By direction.
    fn midway(&self) -> [bool; 2] {
        let Talk::Http { connection, client_is_first } = &self.talk else { return [false; 2] };
        let [client, server] = connection.midway();
        if *client_is_first { [client, server] } else { [server, client] }
    }

    fn is_over(&self) -> bool {
        match &self.talk {
            Talk::Unknown => self.sides.iter().all(Side::is_given_up),
            Talk::Tls(connection) => connection.is_over(),
            Talk::Http { connection, .. } => connection.is_over(),
            Talk::Dns(framers) => framers.iter().all(Framer::is_broken),
            Talk::Plain(pieces) => *pieces > MAX_PLAIN,
            Talk::Done => true,
        }
    }

    fn segment(&mut self, direction: Direction, at: (u64, u64), tcp: &Tcp<'_>, found: &mut Found) {
        let index = direction.index();
        let is_dns = tcp.src_port == dns::PORT || tcp.dst_port == dns::PORT;
        let syn = tcp.flags & flags::SYN != 0;
        if tcp.flags & flags::ACK != 0 {
            self.sides[1 - index].acknowledged = Some(tcp.acknowledgement);
        }
        let side = &mut self.sides[index];
        if side.is_given_up() && matches!(self.talk, Talk::Unknown) {
            return;
        }
        if syn {
            side.ask(tcp.sequence);
        }
        let sequence = tcp.sequence.wrapping_add(u32::from(syn));
        let complete = tcp.payload.len() as u32 >= tcp.payload_length;
        let mut stream = std::mem::take(&mut side.stream);
        let acknowledged = side.acknowledged;
        if let Some(missing) = missing_for_ever(stream.next(), sequence, acknowledged) {
            self.gap(index, at.0, u64::from(missing), found);
            stream = Reassembler::after_syn(sequence.wrapping_sub(1));
        }
        stream.push(sequence, tcp.payload, complete, &mut |bytes| self.bytes(index, at, bytes, is_dns, found));
        if stream.is_lost() {
            let next = stream.next().unwrap_or(sequence);
            let ahead = sequence.wrapping_sub(next).cast_signed() > 0;
            // A segment that was cut is passed over; one that comes after a gap is where it goes on.
            let goes_on = if ahead { sequence } else { sequence.wrapping_add(tcp.payload_length) };
            self.gap(index, at.0, u64::from(goes_on.wrapping_sub(next)), found);
            stream = Reassembler::after_syn(goes_on.wrapping_sub(1));
            if ahead {
                stream.push(sequence, tcp.payload, complete, &mut |bytes| self.bytes(index, at, bytes, is_dns, found));
            }
        }
        self.sides[index].stream = stream;
        if !self.named
            && let Talk::Tls(connection) = &self.talk
        {
            found.name = connection.server_name();
            self.named = found.name.is_some();
        }
    }

    /// Takes the next bytes of a direction.
    fn bytes(&mut self, index: usize, at: (u64, u64), bytes: &[u8], is_dns: bool, found: &mut Found) {
        if let Talk::Unknown = self.talk {
            return self.recognise(index, at, bytes, is_dns, found);
        }
        self.talk(index, at, bytes, found);
    }

    fn talk(&mut self, index: usize, at: (u64, u64), bytes: &[u8], found: &mut Found) {
        match &mut self.talk {
            Talk::Tls(connection) => connection.push(index == 0, at, bytes, &mut found.sessions),
            Talk::Dns(framers) => {
                framers[index].push(bytes, &mut |message| found.messages.push(message.to_vec()));
            }
            Talk::Http { connection, client_is_first } => {
                let up = *client_is_first;
                let mut out = Vec::new();
                let left = connection.push((index == 0) == up, at.0, bytes, &mut out);
                found.exchanges.extend(out.into_iter().map(|exchange| (up, exchange)));
                if let Left::Tunnel(rest) = left {
                    // What is inside may be TLS.
                    self.talk = Talk::Unknown;
                    for side in &mut self.sides {
                        (side.unknown, side.began_with_syn) = (0, false);
                    }
                    if !rest.is_empty() {
                        self.recognise(index, at, rest, false, found);
                    }
                }
            }
            Talk::Plain(_) if tls::is_hello_of_client(bytes) => {
                self.talk = Talk::Tls(tls::Connection::new());
                self.talk(index, at, bytes, found);
            }
            Talk::Plain(pieces) => *pieces = pieces.saturating_add(1),
            Talk::Unknown | Talk::Done => {}
        }
    }

    /// Says that bytes of a direction are missing.
    fn gap(&mut self, index: usize, time: u64, length: u64, found: &mut Found) {
        match &mut self.talk {
            Talk::Tls(connection) => connection.close(index == 0, &mut found.sessions),
            Talk::Dns(framers) => framers[index].cut(&mut |message| found.messages.push(message.to_vec())),
            Talk::Http { connection, client_is_first } => {
                let up = *client_is_first;
                let mut out = Vec::new();
                connection.gap((index == 0) == up, time, length, &mut out);
                found.exchanges.extend(out.into_iter().map(|exchange| (up, exchange)));
            }
            Talk::Unknown => {
                let side = &mut self.sides[index];
                let start = std::mem::take(&mut side.start);
                side.began_with_syn = false;
                // A method, and no more was captured.
                if start.ends_with(b" ") && http::start(&[&start[..], b"/"].concat()) == Start::Request {
                    found.app = "http";
                }
            }
            Talk::Plain(_) | Talk::Done => {}
        }
    }

    fn settle(&mut self, found: &mut Found) {
        match &mut self.talk {
            // A hello may be followed by another one.
            Talk::Tls(connection) => connection.finish(&mut found.sessions),
            // Several requests are under way, and each finds its response.
            Talk::Http { connection, .. } if connection.is_two() => {}
            Talk::Http { .. } => self.finish(found),
            Talk::Unknown | Talk::Dns(_) | Talk::Plain(_) | Talk::Done => {}
        }
    }

    fn finish(&mut self, found: &mut Found) {
        match std::mem::take(&mut self.talk) {
            Talk::Tls(mut connection) => connection.finish(&mut found.sessions),
            Talk::Http { mut connection, client_is_first } => {
                let mut out = Vec::new();
                connection.finish(&mut out);
                found.exchanges.extend(out.into_iter().map(|exchange| (client_is_first, exchange)));
            }
            Talk::Unknown | Talk::Dns(_) | Talk::Plain(_) | Talk::Done => {}
        }
        self.talk = Talk::Done;
    }

    /// Says what a connection is by the first bytes of a direction.
    fn recognise(&mut self, index: usize, at: (u64, u64), bytes: &[u8], is_dns: bool, found: &mut Found) {
        let side = &mut self.sides[index];
        if side.is_given_up() {
            return;
        }
        let held = std::mem::take(&mut side.start);
        let joined;
        let start = if held.is_empty() {
            bytes
        } else {
            joined = [&held, bytes].concat();
            &joined
        };
        // Who a balancer speaks for stands before all that is said; nothing more may be there yet.
        let start = match app::behind_proxy_header(start) {
            Some([]) => return,
            Some(rest) => rest,
            None => start,
        };
        let http = http::start(start);
        let verdict = if app::may_be_proxy_header(start) {
            Verdict::Undecided
        } else if is_dns {
            self.talk = Talk::Dns(Default::default());
            Verdict::Known("dns")
        } else if tls::looks_like_tls(start) {
            self.talk = Talk::Tls(tls::Connection::new());
            Verdict::Known("tls")
        } else if tls::is_encrypted(start) {
            self.talk = Talk::Done;
            Verdict::Known("tls")
        } else if let Start::Request | Start::Response | Start::Two | Start::TwoServer = http {
            let from_client = matches!(http, Start::Request | Start::Two);
            let client_is_first = from_client == (index == 0);
            self.talk = Talk::Http { connection: http::Connection::new(&http), client_is_first };
            Verdict::Known("http")
        } else if http == Start::Undecided {
            Verdict::Undecided
        } else {
            app::of_stream(start)
        };
        match verdict {
            Verdict::Known(name) => {
                found.app = name;
                if name == "socks" {
                    // What is asked for follows, and may be TLS.
                    for side in &mut self.sides {
                        (side.unknown, side.began_with_syn) = (0, false);
                    }
                    return;
                }
                if let Talk::Unknown = self.talk {
                    self.talk = if app::may_go_on_as_tls(name) { Talk::Plain(0) } else { Talk::Done };
                    return;
                }
                let other = std::mem::take(&mut self.sides[1 - index].start);
                self.talk(1 - index, at, &other, found);
                self.talk(index, at, start, found);
            }
            Verdict::Undecided if start.len() < app::MOST => self.sides[index].start = start.to_vec(),
            Verdict::Undecided | Verdict::Unknown => self.sides[index].unknown += 1,
        }
    }
}

/// Bytes before a segment that the capture has not and the other side has: they will not come any more.
fn missing_for_ever(next: Option<u32>, sequence: u32, acknowledged: Option<u32>) -> Option<u32> {
    let missing = sequence.wrapping_sub(next?);
    (missing.cast_signed() > 0 && acknowledged?.wrapping_sub(sequence).cast_signed() >= 0).then_some(missing)
}

impl Side {
    /// A SYN with this sequence number. Sent again it begins nothing anew, though data came with the first one (RFC 7413).
    fn ask(&mut self, sequence: u32) {
        if self.asked != Some(sequence) {
            self.stream = Reassembler::after_syn(sequence);
            (self.began_with_syn, self.asked) = (true, Some(sequence));
        }
    }

    /// A beginning that was seen is looked at once; where it was not, any piece may be the beginning of a message.
    const fn is_given_up(&self) -> bool {
        self.unknown >= if self.began_with_syn { 1 } else { MAX_PIECES }
    }
}

#[cfg(test)]
mod tests;
