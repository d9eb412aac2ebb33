//! HTTP/1.x (RFC 9112).

use std::collections::VecDeque;

use super::head::{self, Body, Start};
use super::{Exchange, MAX_PENDING, Pending, Request, Response};
use crate::bytes::after;

/// Longest head that is read; of a longer one, the part up to here.
const MAX_HEAD: usize = 32 << 10;
/// Longest line before a chunk: its length and its extensions.
const MAX_CHUNK_LINE: usize = 1024;

/// Both directions of a connection.
#[derive(Debug, Default)]
pub(super) struct One {
    client: Side,
    server: Side,
    pending: VecDeque<Pending>,
    /// Responses may be missing: a request that comes while others wait shows that theirs are.
    response_missed: bool,
    /// More requests came at once than are kept, so that no response can be told to be of a certain one.
    unpaired: bool,
}

/// What is left to be read by others.
pub(super) enum Left<'a> {
    Nothing,
    Tunnel(&'a [u8]),
    /// HTTP/2 from here on; the request that asked for it is answered on its stream 1.
    Two(Option<Pending>, &'a [u8]),
}

#[derive(Debug, Default)]
struct Side {
    reading: Reading,
    /// A head or a chunk's line that is not yet complete.
    buffer: Vec<u8>,
    /// Time of the first byte of the buffer.
    begun: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reading {
    #[default]
    Head,
    /// So many bytes of a body.
    Body(u64),
    /// The line before a chunk.
    ChunkLine,
    /// So many bytes of a chunk with its line end.
    Chunk(u64),
    /// Fields behind the last chunk.
    Trailer,
    /// A body that ends with the connection.
    UntilClose,
    /// Until a segment begins like a message.
    Lost,
    /// Something else.
    Over,
}

/// A complete step of reading one side.
enum Step<'a> {
    /// A head, or what there is of one, that began at this time.
    Head(u64, std::borrow::Cow<'a, [u8]>, bool),
    /// The message ends here.
    End,
}

impl One {
    pub(super) fn push<'a>(
        &mut self,
        from_client: bool,
        time: u64,
        mut bytes: &'a [u8],
        out: &mut Vec<Exchange>,
    ) -> Left<'a> {
        while !bytes.is_empty() {
            let side = if from_client { &mut self.client } else { &mut self.server };
            let body = from_client && side.reading != Reading::Head;
            let (step, rest) = side.advance(time, bytes, from_client);
            bytes = rest;
            if body && let Some(last) = self.pending.back_mut() {
                last.ended = time;
            }
            match step {
                Some(Step::Head(begun, head, whole)) => {
                    let reading = if from_client {
                        self.request(begun, time, &head, whole, out)
                    } else {
                        match self.response(begun, &head, whole, rest, out) {
                            Next::Read(reading) => reading,
                            Next::Tunnel => {
                                (self.client.reading, self.server.reading) = (Reading::Over, Reading::Over);
                                return Left::Tunnel(rest);
                            }
                            Next::Two => return Left::Two(self.pending.pop_front(), rest),
                        }
                    };
                    self.side(from_client).reading = reading;
                }
                Some(Step::End) => self.side(from_client).reading = Reading::Head,
                None => {}
            }
        }
        Left::Nothing
    }

    pub(super) fn gap(&mut self, from_client: bool, time: u64, length: u64, out: &mut Vec<Exchange>) {
        let side = self.side(from_client);
        let begun = side.begun;
        let cut = if side.reading == Reading::Head { std::mem::take(&mut side.buffer) } else { Vec::new() };
        side.gap(length);
        let lost = side.reading == Reading::Lost;
        if !cut.is_empty() {
            // What of a cut head is known says enough.
            if from_client {
                self.request(begun, time, &cut, false, out);
            } else {
                let _ = self.response(begun, &cut, false, &[], out);
            }
        } else if lost && !from_client {
            // Nobody waits for an answer and asks on, or hardly anybody: what comes answers the last request.
            let earlier = self.pending.len().saturating_sub(1);
            out.extend(self.pending.drain(..earlier).map(|pending| pending.exchange));
            self.response_missed = earlier == 0;
        }
    }

    pub(super) fn finish(&mut self, out: &mut Vec<Exchange>) {
        for (from_client, begun) in [(true, self.client.begun), (false, self.server.begun)] {
            let side = self.side(from_client);
            if side.reading == Reading::Head && !side.buffer.is_empty() {
                self.gap(from_client, begun, u64::MAX, out);
            }
        }
        out.extend(self.pending.drain(..).map(|pending| pending.exchange));
        (self.client, self.server) = (Side::over(), Side::over());
    }

    pub(super) fn is_over(&self) -> bool {
        self.client.reading == Reading::Over && self.server.reading == Reading::Over
    }

    pub(super) const fn midway(&self) -> [bool; 2] {
        [self.client.is_midway(), self.server.is_midway()]
    }

    pub(super) fn held_bytes(&self) -> usize {
        let pending: usize = self.pending.iter().map(Pending::held_bytes).sum();
        size_of::<Self>() + self.client.buffer.capacity() + self.server.buffer.capacity() + pending
    }

    const fn side(&mut self, from_client: bool) -> &mut Side {
        if from_client { &mut self.client } else { &mut self.server }
    }

    /// Takes a request's head; what to read next.
    fn request(&mut self, begun: u64, time: u64, head: &[u8], whole: bool, out: &mut Vec<Exchange>) -> Reading {
        let Some(request) = Request::parse(head) else { return Reading::Lost };
        let body = request.body;
        if self.response_missed {
            // As in a gap of responses that shows after the next request.
            out.extend(self.pending.drain(..).map(|pending| pending.exchange));
            self.response_missed = false;
        }
        if self.pending.len() >= MAX_PENDING {
            self.unpaired = true;
            out.extend(self.pending.drain(..).map(|pending| pending.exchange));
        }
        let credentials = request.credentials;
        let exchange = request.into_exchange(begun);
        if self.unpaired {
            out.push(exchange);
        } else {
            self.pending.push_back(Pending { exchange, ended: time, credentials });
        }
        reading(body, whole)
    }

    /// Takes a response's head and says what comes next; `rest` follows it.
    fn response(&mut self, begun: u64, head: &[u8], whole: bool, rest: &[u8], out: &mut Vec<Exchange>) -> Next {
        let Some(response) = Response::parse(head) else { return Next::Read(Reading::Lost) };
        let (status, body, two) = (response.status, response.body, response.upgrades_to_two);
        if (100..200).contains(&status) && status != 101 {
            return Next::Read(if whole { Reading::Head } else { Reading::Lost });
        }
        if status == 101 && two && whole {
            return Next::Two;
        }
        self.response_missed = false;
        let (has_body, connect) = if let Some(pending) = self.pending.pop_front() {
            let is = |method| pending.exchange.method == method;
            let (has_body, connect) = (!is("HEAD"), is("CONNECT") && (200..300).contains(&status));
            out.push(pending.answered(begun, status, response.goes_on));
            (has_body, connect)
        } else {
            out.push(response.into_exchange(begun));
            // The length may be that of an answer to HEAD: another answer at once shows it.
            (!rest.starts_with(b"HTTP/1."), false)
        };
        if status == 101 || connect {
            return Next::Tunnel;
        }
        Next::Read(reading(if has_body { body } else { Body::None }, whole))
    }
}

enum Next {
    Read(Reading),
    Tunnel,
    Two,
}

const fn reading(body: Body, whole: bool) -> Reading {
    match body {
        _ if !whole => Reading::Lost,
        Body::None | Body::Length(0) => Reading::Head,
        Body::Length(length) => Reading::Body(length),
        Body::Chunked => Reading::ChunkLine,
        Body::UntilClose => Reading::UntilClose,
    }
}

impl Side {
    const fn over() -> Self {
        Self { reading: Reading::Over, buffer: Vec::new(), begun: 0 }
    }

    const fn is_midway(&self) -> bool {
        // Two bytes of a chunk are its line end.
        matches!(self.reading, Reading::Body(1..) | Reading::Chunk(3..))
    }

    /// Reads from the front of `bytes`; what was completed, and what is left.
    fn advance<'a>(&mut self, time: u64, bytes: &'a [u8], from_client: bool) -> (Option<Step<'a>>, &'a [u8]) {
        match self.reading {
            Reading::Head => self.head(time, bytes, from_client),
            Reading::Body(length) | Reading::Chunk(length) => {
                let rest = after(bytes, usize::try_from(length).unwrap_or(usize::MAX));
                let left = length.saturating_sub(bytes.len() as u64);
                let chunk = matches!(self.reading, Reading::Chunk(_));
                match (chunk, left) {
                    (false, 0) => return (Some(Step::End), rest),
                    (true, 0) => self.reading = Reading::ChunkLine,
                    (false, _) => self.reading = Reading::Body(left),
                    (true, _) => self.reading = Reading::Chunk(left),
                }
                (None, rest)
            }
            Reading::ChunkLine => (None, self.chunk_line(bytes)),
            Reading::Trailer => self.trailer(bytes),
            Reading::Lost if plausible(bytes, from_client) => {
                self.reading = Reading::Head;
                (None, bytes)
            }
            Reading::Lost | Reading::UntilClose | Reading::Over => (None, &[]),
        }
    }

    fn head<'a>(&mut self, time: u64, bytes: &'a [u8], from_client: bool) -> (Option<Step<'a>>, &'a [u8]) {
        if self.buffer.is_empty() {
            // RFC 9112 section 2.2: empty lines before a message.
            let first = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
            let bytes = &bytes[first..];
            if bytes.is_empty() {
                return (None, bytes);
            }
            if !plausible(bytes, from_client) {
                self.reading = Reading::Lost;
                return (None, &[]);
            }
            self.begun = time;
            if let Some(end) = head::end(bytes, 0).filter(|end| *end <= MAX_HEAD) {
                return (Some(Step::Head(time, bytes[..end].into(), true)), &bytes[end..]);
            }
        }
        let seen = self.buffer.len();
        let room = MAX_HEAD - seen;
        self.buffer.extend_from_slice(&bytes[..bytes.len().min(room)]);
        // The empty line may have begun in what was there.
        let end = head::end(&self.buffer, seen.saturating_sub(3));
        if end.is_none() && self.buffer.len() < MAX_HEAD {
            return (None, &[]);
        }
        let mut head = std::mem::take(&mut self.buffer);
        head.truncate(end.unwrap_or(MAX_HEAD));
        let rest = after(bytes, head.len() - seen);
        (Some(Step::Head(self.begun, head.into(), end.is_some())), rest)
    }

    /// RFC 9112 section 7.1.
    fn chunk_line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some((line, rest)) = self.line(bytes) else { return &[] };
        let digits = line.split(|byte| matches!(byte, b';' | b' ' | b'\t')).next().unwrap_or_default();
        let length = std::str::from_utf8(digits).ok().and_then(|digits| u64::from_str_radix(digits, 16).ok());
        self.reading = match length {
            Some(0) => Reading::Trailer,
            Some(length) => Reading::Chunk(length.saturating_add(2)),
            None => Reading::Lost,
        };
        rest
    }

    fn trailer<'a>(&mut self, bytes: &'a [u8]) -> (Option<Step<'a>>, &'a [u8]) {
        let Some((line, rest)) = self.line(bytes) else { return (None, &[]) };
        (line.is_empty().then_some(Step::End), rest)
    }

    /// The line at the front without its end, and what follows; none where it is not complete, or too long.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> Option<(Vec<u8>, &'a [u8])> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        if self.buffer.len() + part.len() > MAX_CHUNK_LINE {
            (self.reading, self.buffer) = (Reading::Lost, Vec::new());
            return None;
        }
        self.buffer.extend_from_slice(part);
        let rest = &bytes[end? + 1..];
        let mut line = std::mem::take(&mut self.buffer);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some((line, rest))
    }

    fn gap(&mut self, length: u64) {
        self.buffer = Vec::new();
        self.reading = match self.reading {
            Reading::Body(left) if left == length => Reading::Head,
            Reading::Chunk(left) if left == length => Reading::ChunkLine,
            Reading::Body(left) if left > length => Reading::Body(left - length),
            Reading::Chunk(left) if left > length => Reading::Chunk(left - length),
            kept @ (Reading::UntilClose | Reading::Over) => kept,
            _ => Reading::Lost,
        };
    }
}

/// Whether a message of this side may begin so.
fn plausible(bytes: &[u8], from_client: bool) -> bool {
    match head::start(bytes) {
        Start::Request => from_client,
        Start::Response => !from_client,
        Start::Undecided => true,
        Start::Two | Start::TwoServer | Start::Other => false,
    }
}
