//! What is followed of the payload of a TCP flow.

use crate::dns::{self, Framer};
use crate::key::Direction;
use crate::packet::Tcp;
use crate::packet::transport::flags;
use crate::stream::Reassembler;
use crate::tls::{self, ClientHello, Scanner};
use crate::tracker::State;

/// Something that was found in a stream.
pub(super) enum Event {
    Hello(Box<ClientHello>),
    Dns(Vec<u8>),
}

/// What a segment brought.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) events: Vec<Event>,
    /// Protocol that was recognised; empty = none.
    pub(super) app: &'static str,
    /// The stream is not followed because all streams together hold too much.
    pub(super) refused: bool,
}

/// Both directions of a stream, until nothing more is to be found in it.
#[derive(Debug, Default)]
pub(super) struct FlowState {
    sides: Option<Box<[Side; 2]>>,
    done: bool,
}

#[derive(Debug, Default)]
struct Side {
    stream: Reassembler,
    content: Content,
}

#[derive(Debug, Default)]
enum Content {
    #[default]
    Unknown,
    Tls(Scanner),
    Dns(Framer),
    Done,
}

impl State for FlowState {
    fn held_bytes(&self) -> usize {
        self.sides.as_ref().map_or(0, |sides| sides.iter().map(Side::held_bytes).sum())
    }
}

impl FlowState {
    /// Takes a segment; `budget` is what all streams together may still hold.
    pub(super) fn segment(&mut self, direction: Direction, tcp: &Tcp<'_>, budget: usize) -> Outcome {
        let mut outcome = Outcome::default();
        let syn = tcp.flags & flags::SYN != 0;
        if self.done {
            return outcome;
        }
        if tcp.payload.len() > budget {
            self.give_up();
            outcome.refused = true;
            return outcome;
        }
        let is_dns = tcp.src_port == dns::PORT || tcp.dst_port == dns::PORT;
        let sides = self.sides.get_or_insert_default();
        let side = &mut sides[direction.index()];
        if syn {
            side.stream = Reassembler::after_syn(tcp.sequence);
        }
        side.push(tcp, syn, is_dns, &mut outcome);
        if sides.iter().all(|side| matches!(side.content, Content::Done)) {
            self.give_up();
        }
        outcome
    }

    fn give_up(&mut self) {
        self.sides = None;
        self.done = true;
    }
}

impl Side {
    fn held_bytes(&self) -> usize {
        let content = match &self.content {
            Content::Tls(scanner) => scanner.held_bytes(),
            Content::Dns(framer) => framer.held_bytes(),
            Content::Unknown | Content::Done => 0,
        };
        self.stream.held_bytes() + content
    }

    fn push(&mut self, tcp: &Tcp<'_>, syn: bool, is_dns: bool, outcome: &mut Outcome) {
        if matches!(self.content, Content::Done) {
            return;
        }
        let Self { stream, content } = self;
        let sequence = tcp.sequence.wrapping_add(u32::from(syn));
        let complete = tcp.payload.len() as u32 >= tcp.payload_length;
        stream.push(sequence, tcp.payload, complete, &mut |bytes| content.feed(bytes, is_dns, outcome));
        if stream.is_lost() {
            if let Content::Dns(framer) = content {
                framer.cut(&mut |message| outcome.events.push(Event::Dns(message.to_vec())));
            }
            *content = Content::Done;
        }
        if matches!(content, Content::Done) {
            *stream = Reassembler::default();
        }
    }
}

impl Content {
    fn feed(&mut self, bytes: &[u8], is_dns: bool, outcome: &mut Outcome) {
        if matches!(self, Self::Unknown) {
            let (content, app) = Self::recognise(bytes, is_dns);
            *self = content;
            outcome.app = app;
        }
        let over = match self {
            Self::Tls(scanner) => {
                scanner.push(bytes, &mut |hello| outcome.events.push(Event::Hello(Box::new(hello))));
                scanner.is_done()
            }
            Self::Dns(framer) => {
                framer.push(bytes, &mut |message| outcome.events.push(Event::Dns(message.to_vec())));
                framer.is_broken()
            }
            Self::Unknown | Self::Done => true,
        };
        if over {
            *self = Self::Done;
        }
    }

    /// What a stream is, by its first bytes.
    fn recognise(start: &[u8], is_dns: bool) -> (Self, &'static str) {
        const METHODS: [&[u8]; 9] =
            [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"CONNECT ", b"HTTP/1."];
        if is_dns {
            (Self::Dns(Framer::default()), "dns")
        } else if tls::looks_like_tls(start) {
            (Self::Tls(Scanner::default()), "tls")
        } else if METHODS.iter().any(|method| start.starts_with(method)) || start.starts_with(b"PRI * HTTP/2") {
            (Self::Done, "http")
        } else if start.starts_with(b"SSH-") {
            (Self::Done, "ssh")
        } else {
            (Self::Done, "")
        }
    }
}
