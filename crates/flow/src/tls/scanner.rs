//! Finds handshake messages and alerts in the records of one direction of a stream (RFC 8446 section 5.1).

use super::ClientHello;
use super::handshake::{Message, read_messages};
use crate::bytes::{u8_at, u16_at};

/// 2^14 of plaintext and what RFC 5246 adds for ciphertext.
pub(super) const MAX_RECORD: usize = (16 << 10) + 2048;

/// Follows the records of one direction until they are encrypted.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Bytes of a record that is not yet complete.
    record: Vec<u8>,
    /// Bytes of a handshake message that is not yet complete.
    message: Vec<u8>,
    begun: bool,
    encrypted: bool,
    done: bool,
}

impl Scanner {
    /// Takes the next bytes of the stream and hands on each message.
    pub(crate) fn push(&mut self, bytes: &[u8], sink: &mut impl FnMut(Message)) {
        if self.done {
            return;
        }
        // Nearly always a segment has whole records: they are read where they are.
        let mut held = std::mem::take(&mut self.record);
        let rest = if held.is_empty() {
            &bytes[self.read(bytes, sink)..]
        } else {
            held.extend_from_slice(bytes);
            let read = self.read(&held, sink);
            held.drain(..read);
            &[]
        };
        if self.done {
            return self.close();
        }
        held.extend_from_slice(rest);
        self.record = held;
    }

    /// Reads the whole records at the front; how many bytes they have.
    fn read(&mut self, data: &[u8], sink: &mut impl FnMut(Message)) -> usize {
        let mut start = 0;
        if !self.begun && is_version_2_hello(data) {
            let length = usize::from(u16_at(data, 0).unwrap_or(0) & 0x7fff);
            let Some(body) = data.get(2..2 + length) else { return 0 };
            if let Some(hello) = ClientHello::parse_version_2(body) {
                sink(Message::ClientHello(Box::new(hello)));
            }
            start = 2 + length;
        }
        self.begun |= data.len() >= 4;
        while !self.done
            && let Some((kind, length)) = header(&data[start..])
        {
            if length > MAX_RECORD {
                self.done = true;
                break;
            }
            let Some(body) = data.get(start + 5..start + 5 + length) else { break };
            start += 5 + length;
            self.done = !read_record(kind, body, &mut self.message, &mut self.encrypted, sink);
        }
        start
    }

    /// Ends the reading.
    pub fn close(&mut self) {
        (self.record, self.message, self.done) = (Vec::new(), Vec::new(), true);
    }

    /// Whether nothing more can follow.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.done
    }

    /// Bytes that wait for the rest of their record or message.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.record.capacity() + self.message.capacity()
    }
}

/// A client hello in the form of SSL 2 that offers a version of 3.x (RFC 5246 appendix E.2).
pub(super) fn is_version_2_hello(start: &[u8]) -> bool {
    matches!(start, [0x80..=0xff, _, 1, 3, ..])
}

/// Type and length of the record at the start.
fn header(data: &[u8]) -> Option<(u8, usize)> {
    Some((u8_at(data, 0)?, usize::from(u16_at(data, 3)?)))
}

/// Reads a record; false where nothing more is to be expected of this direction.
fn read_record(
    kind: u8,
    body: &[u8],
    message: &mut Vec<u8>,
    encrypted: &mut bool,
    sink: &mut impl FnMut(Message),
) -> bool {
    const CLIENT_HELLO: u8 = 1;
    match kind {
        // change_cipher_spec: in TLS 1.2 what follows is encrypted, in 1.3 a second hello may follow.
        20 => *encrypted = true,
        // An encrypted alert is longer.
        21 => match body {
            [level @ (1 | 2), description] => sink(Message::Alert(u16::from_be_bytes([*level, *description]))),
            _ => return false,
        },
        22 => {
            // Random bytes where a message should begin would wait for a length that never comes.
            if *encrypted && message.is_empty() && body.first() != Some(&CLIENT_HELLO) && body.first() != Some(&2) {
                return false;
            }
            if message.is_empty() {
                let Some(read) = read_messages(body, sink) else { return false };
                message.extend_from_slice(&body[read..]);
            } else {
                message.extend_from_slice(body);
                let Some(read) = read_messages(message, sink) else { return false };
                message.drain(..read);
            }
        }
        // application_data, and whatever is not TLS
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::handshake::MAX_MESSAGE;
    use super::super::hello::tests::hello;
    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind, 3, 1][..], &(body.len() as u16).to_be_bytes(), body].concat()
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &(body.len() as u32).to_be_bytes()[1..], body].concat()
    }

    fn scan(stream: &[u8], cut: usize) -> (Vec<ClientHello>, Scanner) {
        let mut scanner = Scanner::default();
        let mut hellos = Vec::new();
        for bytes in stream.chunks(cut) {
            scanner.push(bytes, &mut |message| {
                if let Message::ClientHello(hello) = message {
                    hellos.push(*hello);
                }
            });
        }
        (hellos, scanner)
    }

    #[test]
    fn a_hello_is_found_however_records_and_segments_cut_it() {
        let whole = message(1, &hello("weir.example"));
        for per_record in [1, 7, 50, whole.len()] {
            let stream: Vec<u8> = whole.chunks(per_record).flat_map(|body| record(22, body)).collect();
            for cut in [1, 3, 100, stream.len()] {
                let (hellos, _) = scan(&stream, cut);
                assert_eq!(hellos.len(), 1);
                assert_eq!(hellos[0].sni, "weir.example");
            }
        }
    }

    #[test]
    fn a_second_hello_after_a_retry_request_is_found() {
        let one = record(22, &message(1, &hello("weir.example")));
        let stream = [one.clone(), record(20, &[1]), one, record(23, &[0; 40])].concat();
        let (hellos, scanner) = scan(&stream, stream.len());
        assert_eq!(hellos.len(), 2);
        assert!(scanner.is_done());
    }

    proptest! {
        #[test]
        fn any_bytes_are_scanned_within_the_bounds(bytes in proptest::collection::vec(any::<u8>(), 0..2000), cut in 1usize..500) {
            let mut scanner = Scanner::default();
            for chunk in [&[0x16, 0x03, 0x01][..], &bytes].concat().chunks(cut) {
                scanner.push(chunk, &mut |_| {});
                prop_assert!(scanner.held_bytes() <= 2 * (MAX_RECORD + MAX_MESSAGE + 4 + MAX_RECORD));
            }
        }
    }
}
