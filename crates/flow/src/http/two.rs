//! HTTP/2 in the clear (RFC 9113).

use std::collections::{BTreeMap, VecDeque};

use super::head::{PREFACE, without_user};
use super::hpack::{Broken, Decoder, Name};
use super::{Exchange, MAX_FIELD, MAX_PENDING, Pending};
use crate::bytes::{after, u24_at, u32_at, up_to};

/// Largest frame whose payload is read: header blocks and little else.
const MAX_PAYLOAD: usize = 64 << 10;
/// Largest header block.
const MAX_BLOCK: usize = 64 << 10;
const FRAME_HEADER: usize = 9;
/// Streams that a client gave up and that are remembered.
const MAX_ABANDONED: usize = 16;

mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const PUSH_PROMISE: u8 = 5;
    pub(super) const LAST: u8 = 9;
    pub(super) const CONTINUATION: u8 = 9;
}

mod flag {
    pub(super) const END_HEADERS: u8 = 4;
    pub(super) const PADDED: u8 = 8;
    pub(super) const PRIORITY: u8 = 32;
}

/// Both directions of a connection.
#[derive(Debug, Default)]
pub(super) struct Two {
    client: Side,
    server: Side,
    pending: BTreeMap<u32, Pending>,
    /// The last streams whose client did not want to wait any more: their responses may be under way.
    abandoned: VecDeque<u32>,
}

#[derive(Debug, Default)]
struct Side {
    /// A frame that is not yet complete, or the preface.
    buffer: Vec<u8>,
    /// Bytes of a payload that are passed over, and what to do behind them.
    skip: u64,
    skipped: Option<Frame>,
    decoder: Decoder,
    block: Option<Block>,
    prefaced: bool,
    lost: bool,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// A header block that goes on in further frames.
#[derive(Debug)]
struct Block {
    stream: u32,
    promise: bool,
    begun: u64,
    bytes: Vec<u8>,
}

/// What a header block says.
#[derive(Debug, Default)]
struct Fields {
    method: String,
    authority: String,
    path: String,
    user_agent: String,
    credentials: bool,
    status: Option<u16>,
}

impl Two {
    /// A connection that began as HTTP/1.1 with this request.
    pub(super) fn upgraded(request: Option<Pending>) -> Self {
        Self { pending: request.map(|pending| (1, pending)).into_iter().collect(), ..Self::default() }
    }

    pub(super) fn push(&mut self, from_client: bool, time: u64, mut bytes: &[u8], out: &mut Vec<Exchange>) {
        while !bytes.is_empty() {
            let side = self.side(from_client);
            if side.lost {
                return;
            }
            if side.skip > 0 {
                let taken = side.skip.min(bytes.len() as u64);
                side.skip -= taken;
                bytes = after(bytes, taken as usize);
                if side.skip == 0
                    && let Some(frame) = side.skipped.take()
                {
                    self.frame(from_client, time, frame, &[], out);
                }
                continue;
            }
            let needed = side.needed(from_client);
            let taken = up_to(bytes, needed - side.buffer.len());
            side.buffer.extend_from_slice(taken);
            bytes = &bytes[taken.len()..];
            if side.buffer.len() == needed {
                self.complete(from_client, time, out);
            }
        }
    }

    pub(super) fn gap(&mut self, from_client: bool, length: u64) {
        let side = self.side(from_client);
        if side.skip > length {
            side.skip -= length;
        } else {
            side.lose();
        }
    }

    pub(super) fn finish(&mut self, out: &mut Vec<Exchange>) {
        out.extend(std::mem::take(&mut self.pending).into_values().map(|pending| pending.exchange));
        self.client.lose();
        self.server.lose();
    }

    pub(super) const fn is_over(&self) -> bool {
        self.client.lost && self.server.lost
    }

    pub(super) fn held_bytes(&self) -> usize {
        let pending: usize = self.pending.values().map(Pending::held_bytes).sum();
        let abandoned = self.abandoned.capacity() * size_of::<u32>();
        size_of::<Self>() + self.client.held_bytes() + self.server.held_bytes() + pending + abandoned
    }

    const fn side(&mut self, from_client: bool) -> &mut Side {
        if from_client { &mut self.client } else { &mut self.server }
    }

    /// The buffer holds the preface, a frame's header, or a frame that is read whole.
    fn complete(&mut self, from_client: bool, time: u64, out: &mut Vec<Exchange>) {
        let side = self.side(from_client);
        if from_client && !side.prefaced {
            side.prefaced = true;
            if side.buffer == PREFACE {
                side.buffer.clear();
            } else {
                side.lose();
            }
            return;
        }
        let Some((frame, length)) = header(&side.buffer) else { return side.lose() };
        if side.buffer.len() == FRAME_HEADER && length > 0 {
            let is_read =
                matches!(frame.kind, kind::HEADERS | kind::CONTINUATION | kind::PUSH_PROMISE | kind::RST_STREAM);
            if frame.kind > kind::LAST && length > MAX_PAYLOAD {
                // An extension may be anything, but hardly so large: the frames have been lost.
                side.lose();
            } else if !is_read {
                side.buffer.clear();
                (side.skip, side.skipped) = (length as u64, Some(frame));
            } else if length > MAX_PAYLOAD {
                side.lose();
            }
            return;
        }
        let buffer = std::mem::take(&mut side.buffer);
        self.frame(from_client, time, frame, &buffer[FRAME_HEADER..], out);
    }

    fn frame(&mut self, from_client: bool, time: u64, frame: Frame, payload: &[u8], out: &mut Vec<Exchange>) {
        match frame.kind {
            kind::DATA if from_client => {
                if let Some(pending) = self.pending.get_mut(&frame.stream) {
                    pending.ended = time;
                }
            }
            kind::RST_STREAM => {
                let Some(pending) = self.pending.remove(&frame.stream) else { return };
                out.push(pending.exchange);
                if from_client {
                    if self.abandoned.len() == MAX_ABANDONED {
                        self.abandoned.pop_front();
                    }
                    self.abandoned.push_back(frame.stream);
                }
            }
            kind::HEADERS | kind::PUSH_PROMISE | kind::CONTINUATION => {
                let Some(fragment) = fragment(frame, payload) else { return self.side(from_client).lose() };
                let side = self.side(from_client);
                let promise = frame.kind == kind::PUSH_PROMISE;
                let block = match (frame.kind, side.block.take()) {
                    (kind::CONTINUATION, Some(mut block)) if block.stream == frame.stream => {
                        block.bytes.extend_from_slice(fragment);
                        block
                    }
                    (kind::CONTINUATION, _) | (_, Some(_)) => return side.lose(),
                    _ => Block { stream: frame.stream, promise, begun: time, bytes: fragment.to_vec() },
                };
                if block.bytes.len() > MAX_BLOCK {
                    return side.lose();
                }
                if frame.flags & flag::END_HEADERS == 0 {
                    side.block = Some(block);
                    return;
                }
                match fields(&mut side.decoder, &block.bytes) {
                    // What a server promises nobody asked for.
                    Ok(_) if block.promise => {}
                    Ok(fields) => self.headers(from_client, time, &block, fields, out),
                    Err(Broken) => side.lose(),
                }
            }
            _ => {}
        }
    }

    fn headers(&mut self, from_client: bool, time: u64, block: &Block, fields: Fields, out: &mut Vec<Exchange>) {
        let (stream, version) = (block.stream, "2");
        if from_client {
            if let Some(pending) = self.pending.get_mut(&stream) {
                // Fields behind the body.
                pending.ended = time;
                return;
            }
            if fields.method.is_empty() {
                return;
            }
            if self.pending.len() >= MAX_PENDING {
                out.extend(self.pending.pop_first().map(|(_, pending)| pending.exchange));
            }
            let Fields { method, authority, path, user_agent, credentials, .. } = fields;
            let exchange =
                Exchange { time: block.begun, method, authority, path, user_agent, version, ..Exchange::default() };
            self.pending.insert(stream, Pending { exchange, ended: time, credentials });
            return;
        }
        // Fields behind the body have no status; an interim response is none.
        let Some(status) = fields.status.filter(|status| *status >= 200) else { return };
        match self.pending.remove(&stream) {
            Some(pending) => out.push(pending.answered(block.begun, status, false)),
            // Streams with an even number are the server's own.
            None if stream % 2 == 1 && !self.abandoned.contains(&stream) => {
                out.push(Exchange { time: block.begun, status: Some(status), version, ..Exchange::default() });
            }
            None => {}
        }
    }
}

impl Side {
    /// How long the buffer is to be.
    fn needed(&self, from_client: bool) -> usize {
        if from_client && !self.prefaced {
            return PREFACE.len();
        }
        match header(&self.buffer) {
            Some((_, length)) => FRAME_HEADER + length,
            None => FRAME_HEADER,
        }
    }

    fn lose(&mut self) {
        *self = Self { lost: true, ..Self::default() };
    }

    fn held_bytes(&self) -> usize {
        let block = self.block.as_ref().map_or(0, |block| block.bytes.capacity());
        self.buffer.capacity() + block + self.decoder.held_bytes()
    }
}

/// RFC 9113 section 4.1.
fn header(buffer: &[u8]) -> Option<(Frame, usize)> {
    let length = u24_at(buffer, 0)? as usize;
    let stream = u32_at(buffer, 5)? & 0x7fff_ffff;
    Some((Frame { kind: buffer[3], flags: buffer[4], stream }, length))
}

/// The part of a header block in a frame, without padding and priority (RFC 9113 sections 6.2, 6.6, 6.10).
fn fragment(frame: Frame, payload: &[u8]) -> Option<&[u8]> {
    if frame.kind == kind::CONTINUATION {
        return Some(payload);
    }
    let (padding, mut rest) = if frame.flags & flag::PADDED == 0 {
        (0, payload)
    } else {
        let (padding, rest) = payload.split_first()?;
        (usize::from(*padding), rest)
    };
    if frame.kind == kind::PUSH_PROMISE {
        rest = rest.get(4..)?;
    } else if frame.flags & flag::PRIORITY != 0 {
        rest = rest.get(5..)?;
    }
    rest.get(..rest.len().checked_sub(padding)?)
}

fn fields(decoder: &mut Decoder, block: &[u8]) -> Result<Fields, Broken> {
    let mut fields = Fields::default();
    decoder.decode(block, &mut |name, value| {
        let short = &value[..value.floor_char_boundary(MAX_FIELD)];
        match name {
            Name::Method => short.clone_into(&mut fields.method),
            Name::Authority => fields.authority = String::from_utf8_lossy(without_user(short.as_bytes())).into_owned(),
            Name::Host if fields.authority.is_empty() => {
                fields.authority = String::from_utf8_lossy(without_user(short.as_bytes())).into_owned();
            }
            Name::Path => value.clone_into(&mut fields.path),
            Name::UserAgent => short.clone_into(&mut fields.user_agent),
            Name::Status => fields.status = short.parse().ok(),
            Name::Credentials => fields.credentials = true,
            Name::Host | Name::Other => {}
        }
    })?;
    Ok(fields)
}
