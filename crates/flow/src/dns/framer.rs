//! DNS over TCP: messages with a length of two bytes before each (RFC 1035 section 4.2.2).

use crate::bytes::u16_at;

/// Cuts a stream into messages.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    broken: bool,
    /// Bytes are missing: it goes on where a segment is one message.
    lost: bool,
}

impl Framer {
    /// Takes the next bytes of the stream and hands on each message that is complete.
    pub fn push(&mut self, bytes: &[u8], sink: &mut impl FnMut(&[u8])) {
        /// A header alone.
        const SHORTEST: usize = 12;
        if self.broken || (self.lost && u16_at(bytes, 0).map(usize::from) != bytes.len().checked_sub(2)) {
            return;
        }
        self.lost = false;
        self.buffer.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(length) = u16_at(&self.buffer, start).map(usize::from) {
            if length < SHORTEST {
                self.broken = true;
                self.buffer = Vec::new();
                return;
            }
            let Some(message) = self.buffer.get(start + 2..start + 2 + length) else { break };
            sink(message);
            start += 2 + length;
        }
        self.buffer.drain(..start);
    }

    /// Hands on what there is of the message after which bytes are missing.
    pub fn cut(&mut self, sink: &mut impl FnMut(&[u8])) {
        if let Some(begun) = self.buffer.get(2..).filter(|_| !self.broken) {
            sink(begun);
        }
        (self.buffer, self.lost) = (Vec::new(), true);
    }

    /// Whether this is not DNS after all.
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Bytes of the message that is not yet complete.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_the_stream_is_cut() {
        let stream: Vec<u8> = [&[0, 12][..], &[1; 12], &[0, 13], &[2; 13]].concat();
        for cut in 1..stream.len() {
            let mut framer = Framer::default();
            let mut messages = Vec::new();
            for bytes in stream.chunks(cut) {
                framer.push(bytes, &mut |message: &[u8]| messages.push(message.to_vec()));
            }
            assert_eq!(messages, [vec![1; 12], vec![2; 13]], "{cut}");
            assert_eq!(framer.held_bytes(), 0);
        }
    }

    #[test]
    fn behind_a_gap_it_goes_on_where_a_segment_is_one_message() {
        let (mut framer, mut messages) = (Framer::default(), Vec::new());
        let mut sink = |message: &[u8]| messages.push(message.to_vec());
        framer.push(&[0, 20, 1, 1], &mut sink);
        framer.cut(&mut sink);
        // The end of the one that was cut, which looks like a length.
        framer.push(&[0, 12, 9, 9, 9], &mut sink);
        let whole = [&[0, 12][..], &[2; 12]].concat();
        framer.push(&whole, &mut sink);
        framer.push(&whole[..7], &mut sink);
        framer.push(&whole[7..], &mut sink);
        assert_eq!(messages, [vec![1; 2], vec![2; 12], vec![2; 12]]);
    }

    #[test]
    fn a_length_below_a_header_is_not_dns() {
        let mut framer = Framer::default();
        framer.push(&[0, 3, 1, 2, 3], &mut |_: &[u8]| panic!("not a message"));
        assert!(framer.is_broken());
    }
}
