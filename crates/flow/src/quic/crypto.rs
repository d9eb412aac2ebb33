//! CRYPTO frames (RFC 9000 section 19.6) in their order.

use super::Message;
use super::packet::integer;
use crate::tls::read_messages;

/// Bytes of a stream that are put together: a hello is hardly longer than four kilobytes.
const MAX_STREAM: usize = 16 << 10;
/// Pieces that may be apart from each other.
const MAX_PIECES: usize = 64;

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Stream {
    bytes: Vec<u8>,
    /// Where the pieces begin and end that are there, in order, none touching the next.
    pieces: Vec<(usize, usize)>,
    /// Up to where messages were taken.
    read: usize,
}

impl Stream {
    /// Reads the frames of a packet.
    pub(super) fn frames(&mut self, payload: &[u8], sink: &mut impl FnMut(Message)) {
        self.read_frames(payload);
        self.take_messages(sink);
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.pieces.capacity() * size_of::<(usize, usize)>()
    }

    /// Ends at the first frame that an Initial packet may not have (RFC 9000 section 17.2.2).
    fn read_frames(&mut self, payload: &[u8]) -> Option<()> {
        const PADDING: u64 = 0;
        const PING: u64 = 1;
        const ACK: u64 = 2;
        const ACK_WITH_ECN: u64 = 3;
        const CRYPTO: u64 = 6;
        let mut at = 0;
        while at < payload.len() {
            let (kind, next) = integer(payload, at)?;
            at = next;
            match kind {
                PADDING | PING => {}
                ACK | ACK_WITH_ECN => {
                    let (_largest, next) = integer(payload, at)?;
                    let (_delay, next) = integer(payload, next)?;
                    let (ranges, next) = integer(payload, next)?;
                    at = integer(payload, next)?.1;
                    let counts = if kind == ACK_WITH_ECN { 3 } else { 0 };
                    for _ in 0..ranges.checked_mul(2)?.checked_add(counts)? {
                        at = integer(payload, at)?.1;
                    }
                }
                CRYPTO => {
                    let (offset, next) = integer(payload, at)?;
                    let (length, next) = integer(payload, next)?;
                    at = next.checked_add(usize::try_from(length).ok()?)?;
                    self.insert(usize::try_from(offset).ok()?, payload.get(next..at)?);
                }
                _ => return None,
            }
        }
        Some(())
    }

    fn insert(&mut self, start: usize, bytes: &[u8]) {
        let Some(end) = start.checked_add(bytes.len()).filter(|end| *end <= MAX_STREAM) else { return };
        if bytes.is_empty() || self.pieces.len() >= MAX_PIECES {
            return;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
        let (mut start, mut end) = (start, end);
        self.pieces.retain(|piece| {
            let apart = piece.1 < start || piece.0 > end;
            if !apart {
                (start, end) = (start.min(piece.0), end.max(piece.1));
            }
            apart
        });
        let at = self.pieces.partition_point(|piece| piece.0 < start);
        self.pieces.insert(at, (start, end));
    }

    fn take_messages(&mut self, sink: &mut impl FnMut(Message)) {
        let Some(&(0, end)) = self.pieces.first() else { return };
        if end <= self.read {
            return;
        }
        self.read = match read_messages(&self.bytes[self.read..end], sink) {
            Some(read) => self.read + read,
            // Not a handshake: nothing more is read.
            None => MAX_STREAM,
        };
    }
}
