//! DTLS 1.0 and 1.2 (RFC 4347, RFC 6347): hellos and certificates in the clear, put together from their fragments. So are those of the
//! draft that OpenSSL 0.9.8 had, with the version 1.0 on the wire: `AnyConnect` and its like still offer it.

use super::handshake::{Handshake, Message, Session, read_message};
use super::{Carrier, ClientHello};
use crate::bytes::{after, array_at, u8_at, u16_at, u24_at};

/// Longest message that is put together.
const MAX_MESSAGE: usize = 16 << 10;
/// Datagrams of one flow that are looked into.
const MAX_DATAGRAMS: u16 = 64;
const RECORD_HEADER: usize = 13;
const MESSAGE_HEADER: usize = 12;

/// Whether a datagram is a record of DTLS: a handshake message of epoch 0 with the length that the datagram has.
#[must_use]
pub fn looks_like_dtls(payload: &[u8]) -> bool {
    let is_handshake = match payload {
        [22, 0xfe, 0xff | 0xfd, 0, 0, ..] => true,
        // Of this version hellos, and the request to verify one, tell more than a number that is so small.
        [22, 1, 0, 0, 0, ..] => matches!(u8_at(payload, RECORD_HEADER), Some(1..=3)),
        _ => false,
    };
    is_handshake && has_whole_record(payload)
}

/// Whether a datagram is a record of DTLS that is encrypted: its handshake was before.
#[must_use]
pub fn looks_like_encrypted_dtls(payload: &[u8]) -> bool {
    matches!(payload, [21 | 23, 0xfe, 0xff | 0xfd, 0, 1..=3, ..] | [23, 1, 0, 0, 1, ..]) && has_whole_record(payload)
}

fn has_whole_record(payload: &[u8]) -> bool {
    u16_at(payload, 11).is_some_and(|length| RECORD_HEADER + usize::from(length) <= payload.len())
}

/// Both directions of a flow.
#[derive(Debug)]
pub struct Datagrams {
    sides: [Side; 2],
    handshake: Handshake,
    left: u16,
}

#[derive(Debug, Default)]
struct Side {
    /// Number of the message that is put together, its type, its bytes, and how many of them are there.
    next: u16,
    kind: u8,
    bytes: Vec<u8>,
    have: usize,
    encrypted: bool,
}

impl Default for Datagrams {
    fn default() -> Self {
        let handshake = Handshake::new(Carrier::Datagrams);
        Self { sides: Default::default(), handshake, left: MAX_DATAGRAMS }
    }
}

impl Datagrams {
    /// Takes a datagram, which came at this time (microseconds) and in this frame, and adds the sessions that it completes.
    pub fn push(&mut self, from_first: bool, at: (u64, u64), datagram: &[u8], out: &mut Vec<Session>) {
        if self.is_over() {
            return;
        }
        self.left -= 1;
        let Self { sides, handshake, .. } = self;
        let side = &mut sides[usize::from(!from_first)];
        side.datagram(datagram, &mut |message| handshake.message(from_first, at, message, out));
        if self.is_over() {
            self.handshake.finish(out);
        }
    }

    /// Adds a hello whose answer did not come: the flow is over.
    pub fn finish(&mut self, out: &mut Vec<Session>) {
        self.handshake.finish(out);
    }

    /// The name that a hello gives its server while it waits for its answer, and whether the hello went in the first direction.
    #[must_use]
    pub fn server_name(&self) -> Option<(bool, String)> {
        self.handshake.server_name()
    }

    /// Whether nothing more is to be learned.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.left == 0 || self.sides.iter().all(|side| side.encrypted)
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let bytes: usize = self.sides.iter().map(|side| side.bytes.capacity()).sum();
        size_of::<Self>() + bytes + self.handshake.held_bytes()
    }
}

impl Side {
    fn datagram(&mut self, mut datagram: &[u8], sink: &mut impl FnMut(Message)) {
        while !self.encrypted
            && let Some([kind, 0xfe, _, epoch_high, epoch_low] | [kind, 1, 0, epoch_high, epoch_low]) =
                array_at(datagram, 0)
            && let Some(length) = u16_at(datagram, 11)
        {
            let Some(body) = datagram.get(RECORD_HEADER..RECORD_HEADER + usize::from(length)) else { return };
            datagram = after(datagram, RECORD_HEADER + usize::from(length));
            match (kind, [epoch_high, epoch_low], body) {
                (22, [0, 0], _) => self.fragments(body, sink),
                (21, [0, 0], [level @ (1 | 2), description]) => {
                    sink(Message::Alert(u16::from_be_bytes([*level, *description])));
                }
                (21, [0, 0], _) => {}
                // change_cipher_spec, or an epoch that is encrypted.
                _ => (self.encrypted, self.bytes) = (true, Vec::new()),
            }
        }
    }

    /// Takes the fragments of a record (RFC 6347 section 4.2.2); those that come out of order are sent again in order.
    fn fragments(&mut self, mut record: &[u8], sink: &mut impl FnMut(Message)) {
        while let (Some(kind), Some(length), Some(number), Some(offset), Some(here)) = (
            u8_at(record, 0),
            u24_at(record, 1).map(|length| length as usize),
            u16_at(record, 4),
            u24_at(record, 6).map(|offset| offset as usize),
            u24_at(record, 9).map(|here| here as usize),
        ) {
            let Some(part) = record.get(MESSAGE_HEADER..MESSAGE_HEADER + here) else { return };
            record = after(record, MESSAGE_HEADER + here);
            if length > MAX_MESSAGE || offset + here > length {
                return;
            }
            if number == self.next && (offset == 0 || self.have > 0 || length == 0) {
                if self.bytes.len() != length || self.kind != kind {
                    (self.kind, self.bytes, self.have) = (kind, vec![0; length], 0);
                }
                if offset <= self.have {
                    self.bytes[offset..offset + here].copy_from_slice(part);
                    self.have = self.have.max(offset + here);
                }
            } else if number > self.next && offset == 0 && matches!(kind, 1 | 2 | 11) {
                // What was before is lost, or was not captured.
                (self.next, self.kind, self.bytes, self.have) = (number, kind, vec![0; length], here);
                self.bytes[..here].copy_from_slice(part);
            } else {
                continue;
            }
            if self.have == self.bytes.len() {
                let bytes = std::mem::take(&mut self.bytes);
                let _ = read_message(kind, &bytes, sink);
                (self.next, self.have) = (self.next.wrapping_add(1), 0);
            }
        }
    }
}

/// The client hello in one datagram alone, if it is all there.
#[must_use]
pub fn single(datagram: &[u8]) -> Option<ClientHello> {
    let mut found = None;
    Side::default().datagram(datagram, &mut |message| {
        if let Message::ClientHello(hello) = message {
            found.get_or_insert(hello);
        }
    });
    found.map(|hello| *hello)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hello::tests::hello;
    use super::super::server::tests::server_hello;
    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0][..], &(body.len() as u16).to_be_bytes(), body].concat()
    }

    fn fragment(kind: u8, number: u16, body: &[u8], offset: usize, length: usize) -> Vec<u8> {
        let three = |value: usize| (value as u32).to_be_bytes()[1..].to_vec();
        let part = body[offset..offset + length].to_vec();
        [vec![kind], three(body.len()), number.to_be_bytes().to_vec(), three(offset), three(length), part].concat()
    }

    /// A hello of DTLS 1.2: with a cookie, and with the versions of TLS left away.
    fn dtls_hello() -> Vec<u8> {
        let tls = hello("weir.example");
        let versions = tls.windows(4).position(|window| window == [0, 43, 0, 7]).unwrap();
        let mut body = [&[0xfe, 0xfd][..], &tls[2..35], &[4, 1, 2, 3, 4], &tls[35..]].concat();
        // An extension that nobody knows instead.
        body[versions + 5] = 0xfe;
        body
    }

    #[test]
    fn a_hello_in_fragments_over_two_datagrams_is_put_together() {
        let body = dtls_hello();
        let mut flow = Datagrams::default();
        let mut out = Vec::new();
        let two = [record(22, &fragment(1, 0, &body, 0, 20)), record(22, &fragment(1, 0, &body, 20, 30))].concat();
        assert!(looks_like_dtls(&two));
        flow.push(true, (1, 1), &two, &mut out);
        flow.push(true, (2, 2), &record(22, &fragment(1, 0, &body, 50, body.len() - 50)), &mut out);
        let server = server_hello(&[]);
        flow.push(false, (3, 3), &record(22, &fragment(2, 0, &server, 0, server.len())), &mut out);
        // Sent again.
        flow.push(true, (4, 4), &record(22, &fragment(1, 0, &body, 0, body.len())), &mut out);
        flow.finish(&mut out);
        assert_eq!(out.len(), 1);
        assert_eq!((out[0].time, out[0].hello.sni.as_str(), out[0].answer.cipher), (2, "weir.example", 0xc02f));
        assert_eq!(&super::super::ja4(&out[0].hello, out[0].carrier)[..10], "dd2d0204h2");
    }

    #[test]
    fn a_hello_with_a_cookie_is_a_second_session() {
        let body = dtls_hello();
        let mut flow = Datagrams::default();
        let mut out = Vec::new();
        for number in 0..2 {
            flow.push(true, (1, 1), &record(22, &fragment(1, number, &body, 0, body.len())), &mut out);
            flow.push(false, (2, 2), &record(22, &fragment(3, number, &[1; 10], 0, 10)), &mut out);
        }
        flow.finish(&mut out);
        assert_eq!(out.len(), 2);
        assert_eq!(single(&record(22, &fragment(1, 7, &body, 0, body.len()))).unwrap().sni, "weir.example");
    }

    #[test]
    fn a_hello_of_the_draft_that_vpn_clients_speak_is_read() {
        let old = |kind: u8, body: &[u8]| [&[kind, 1, 0][..], &record(kind, body)[3..]].concat();
        let hello = [&[1, 0][..], &[9; 32], &[0, 0, 0, 2, 0, 0x2f, 1, 0]].concat();
        let server = [&[1, 0][..], &[9; 32], &[0, 0, 0x2f, 0]].concat();
        let (mut flow, mut out) = (Datagrams::default(), Vec::new());
        let first = old(22, &fragment(1, 0, &hello, 0, hello.len()));
        assert!(looks_like_dtls(&first) && !looks_like_dtls(&old(22, &[7; 40])));
        flow.push(true, (1, 1), &first, &mut out);
        flow.push(false, (2, 2), &old(22, &fragment(2, 0, &server, 0, server.len())), &mut out);
        flow.finish(&mut out);
        assert_eq!((out.len(), out[0].hello.version, out[0].hello.ciphers.as_slice()), (1, 0x0100, &[0x2f][..]));
        assert_eq!((out[0].answer.version, out[0].answer.cipher), (0x0100, 0x2f));
    }

    proptest! {
        #[test]
        fn any_datagrams_are_read_within_the_bounds(
            parts in proptest::collection::vec((any::<bool>(), 0u8..15, 0u16..3, proptest::collection::vec(any::<u8>(), 1..200), 0usize..200), 0..80),
        ) {
            let mut flow = Datagrams::default();
            let mut out = Vec::new();
            for (from_first, kind, number, bytes, offset) in parts {
                let offset = offset.min(bytes.len());
                flow.push(from_first, (1, 1), &record(22, &fragment(kind, number, &bytes, offset, bytes.len() - offset)), &mut out);
                flow.push(from_first, (1, 1), &record(22, &bytes), &mut out);
                flow.push(from_first, (1, 1), &bytes, &mut out);
                prop_assert!(flow.held_bytes() < 64 << 10);
            }
        }
    }
}
