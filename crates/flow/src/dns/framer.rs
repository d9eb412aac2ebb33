//! DNS over TCP: messages with a length of two bytes before each (RFC 1035 section 4.2.2).

use crate::bytes::u16_at;

/// Cuts a stream into messages.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: Vec<u8>,
    broken: bool,
}

impl Framer {
    /// Takes the next bytes of the stream and hands on each message that is complete.
    pub fn push(&mut self, bytes: &[u8], sink: &mut impl FnMut(&[u8])) {
        /// A header alone.
        const SHORTEST: usize = 12;
        if self.broken {
            return;
        }
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

    /// Hands on what there is of the last message of a stream that the capture cut.
    pub fn cut(&mut self, sink: &mut impl FnMut(&[u8])) {
        if let Some(begun) = self.buffer.get(2..).filter(|_| !self.broken) {
            sink(begun);
        }
        (self.buffer, self.broken) = (Vec::new(), true);
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
    fn a_length_below_a_header_is_not_dns() {
        let mut framer = Framer::default();
        framer.push(&[0, 3, 1, 2, 3], &mut |_: &[u8]| panic!("not a message"));
        assert!(framer.is_broken());
    }
}
