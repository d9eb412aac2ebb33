use proptest::prelude::*;

use super::packet::Version;
use super::*;
use crate::tls::{test_asks_again, test_hello};

/// What [`Keys`] opens, closed: tests alone do this.
fn protect(version: Version, id: &[u8], side: Side, number: u8, frames: &[u8]) -> Vec<u8> {
    let keys = Keys::new(version, id, side).unwrap();
    let (kind, version) = match version {
        Version::One => (0xc0, 1u32),
        Version::Two => (0xd0, 0x6b33_43cf),
        Version::Draft29 => (0xc0, 0xff00_001d),
        // Of Meta.
        Version::Draft23 => (0xc0, 0xface_b002),
    };
    let mut frames = frames.to_vec();
    frames.resize(frames.len().max(20), 0);
    let length = 0x4000 | (1 + frames.len() + 16) as u16;
    let destination = if matches!(side, Side::Client) { id } else { &[7, 7, 7] };
    let mut packet = [
        &[kind][..],
        &version.to_be_bytes(),
        &[destination.len() as u8],
        destination,
        &[0, 0],
        &length.to_be_bytes(),
        &[number],
    ]
    .concat();
    keys.seal(&mut packet, number, &frames);
    packet
}

impl Keys {
    fn seal(&self, packet: &mut Vec<u8>, number: u8, frames: &[u8]) {
        let at = packet.len() - 1;
        let mut nonce = self.nonce();
        nonce[11] ^= number;
        let mut body = frames.to_vec();
        self.seal_in_place(nonce, packet, &mut body);
        packet.extend(body);
        let mask = self.mask(&packet[at + 4..at + 20]);
        packet[0] ^= mask[0] & 0x0f;
        packet[at] ^= mask[1];
    }
}

fn crypto(offset: u16, bytes: &[u8]) -> Vec<u8> {
    [&[6][..], &(0x4000 | offset).to_be_bytes(), &(0x4000 | bytes.len() as u16).to_be_bytes(), bytes].concat()
}

fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32).to_be_bytes()[1..], body].concat()
}

fn client() -> Vec<u8> {
    handshake(1, &test_hello("weir.example"))
}

/// TLS 1.3 with 0x1301.
fn server() -> Vec<u8> {
    handshake(2, &[&[3, 3][..], &[9; 32], &[0, 0x13, 1, 0, 0, 6, 0, 43, 0, 2, 3, 4]].concat())
}

#[test]
fn the_keys_are_those_of_the_rfcs() {
    // RFC 9001 appendix A.1 and RFC 9369 appendix A.1 have this id; the samples and masks are those of the client's packets in A.2.
    let id = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
    let keys = Keys::new(Version::One, &id, Side::Client).unwrap();
    assert_eq!(keys.nonce(), [0xfa, 0x04, 0x4b, 0x2f, 0x42, 0xa3, 0xfd, 0x3b, 0x46, 0xfb, 0x25, 0x5c]);
    let sample = [0xd1, 0xb1, 0xc9, 0x8d, 0xd7, 0x68, 0x9f, 0xb8, 0xec, 0x11, 0xd2, 0x42, 0xb1, 0x23, 0xdc, 0x9b];
    assert_eq!(keys.mask(&sample), [0x43, 0x7b, 0x9a, 0xec, 0x36]);
    let keys = Keys::new(Version::One, &id, Side::Server).unwrap();
    assert_eq!(keys.nonce(), [0x0a, 0xc1, 0x49, 0x3c, 0xa1, 0x90, 0x58, 0x53, 0xb0, 0xbb, 0xa0, 0x3e]);
    let keys = Keys::new(Version::Two, &id, Side::Client).unwrap();
    assert_eq!(keys.nonce(), [0x91, 0xf7, 0x3e, 0x23, 0x51, 0xd8, 0xfa, 0x91, 0x66, 0x0e, 0x90, 0x9f]);
    // The drafts 23 to 28 of what became RFC 9001, with the same id.
    let keys = Keys::new(Version::Draft23, &id, Side::Client).unwrap();
    assert_eq!(keys.nonce(), [0x86, 0x81, 0x35, 0x94, 0x10, 0xa7, 0x0b, 0xb9, 0xc9, 0x2f, 0x04, 0x20]);
}

#[test]
fn a_hello_in_pieces_out_of_order_over_two_datagrams_meets_its_answer() {
    for version in [Version::One, Version::Two, Version::Draft29, Version::Draft23] {
        let hello = client();
        let id = [1, 2, 3, 4, 5, 6, 7, 8];
        let first = [crypto(60, &hello[60..]), vec![1, 0, 0, 2, 5, 0, 0, 0], crypto(0, &hello[..20])].concat();
        let first = protect(version, &id, Side::Client, 0, &first);
        let second = protect(version, &id, Side::Client, 1, &crypto(15, &hello[15..65]));
        let answer = protect(version, &id, Side::Server, 0, &crypto(0, &server()));
        let mut connection = Connection::default();
        let mut out = Vec::new();
        connection.push(false, 1, &first, &mut out);
        connection.push(false, 1, &first, &mut out);
        assert!(looks_like_quic(&first) && out.is_empty());
        connection.push(false, 2, &[second, vec![0x40, 1, 2]].concat(), &mut out);
        connection.push(true, 3, &answer, &mut out);
        assert!(connection.is_over());
        assert_eq!((out.len(), out[0].time, out[0].from_first), (1, 2, false));
        assert_eq!((out[0].hello.sni.as_str(), out[0].answer.version), ("weir.example", 0x0304));
        assert_eq!(&crate::tls::ja4(&out[0].hello, out[0].carrier)[..10], "q13d0204h2");
    }
}

#[test]
fn a_retry_begins_with_new_keys_and_a_hello_without_an_answer_is_a_session() {
    let mut connection = Connection::default();
    let mut out = Vec::new();
    for id in [[1; 8], [2; 8]] {
        connection.push(true, 1, &protect(Version::One, &id, Side::Client, 0, &crypto(0, &client())), &mut out);
    }
    connection.finish(&mut out);
    assert_eq!(out.len(), 2);
}

#[test]
fn another_hello_that_a_server_asks_for_is_another_session() {
    let said = |side, number, offset: usize, bytes: &[u8]| {
        protect(Version::One, &[1; 8], side, number, &crypto(offset as u16, bytes))
    };
    let (mut connection, mut out) = (Connection::default(), Vec::new());
    let again = handshake(2, &test_asks_again());
    connection.push(true, 1, &said(Side::Client, 0, 0, &client()), &mut out);
    connection.push(false, 2, &said(Side::Server, 0, 0, &again), &mut out);
    connection.push(true, 3, &said(Side::Client, 1, client().len(), &client()), &mut out);
    connection.push(false, 4, &said(Side::Server, 1, again.len(), &server()), &mut out);
    assert_eq!(
        out.iter().map(|session| (session.time, session.answer.version)).collect::<Vec<_>>(),
        [(1, 0x0304), (3, 0x0304)]
    );
    assert!(connection.is_over());
}

#[test]
fn a_hello_that_a_retry_asks_for_again_is_the_same_session() {
    let retry = [&[0xf0, 0, 0, 0, 1, 0, 8][..], &[2; 8], &[7; 30]].concat();
    let said = |id: u8, hello: &[u8]| protect(Version::One, &[id; 8], Side::Client, 0, &crypto(0, hello));
    for (from_first, expected) in [(false, 1), (true, 2)] {
        let mut connection = Connection::default();
        let mut out = Vec::new();
        connection.push(true, 1, &said(1, &client()), &mut out);
        connection.push(from_first, 2, &retry, &mut out);
        connection.push(true, 3, &said(2, &client()), &mut out);
        connection.push(false, 4, &protect(Version::One, &[2; 8], Side::Server, 0, &crypto(0, &server())), &mut out);
        assert_eq!(out.len(), expected, "only a server asks again");
        let last = &out[expected - 1];
        assert_eq!((out[0].time, last.answer.version), (1, 0x0304));
        assert!(connection.is_over());
    }
}

#[test]
fn a_datagram_cut_or_changed_anywhere_gives_nothing() {
    let whole = protect(Version::One, &[3; 8], Side::Client, 0, &crypto(0, &client()));
    assert_eq!(single(&whole).unwrap().sni, "weir.example");
    for at in 0..whole.len() {
        assert_eq!(single(&whole[..at]), None);
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        assert_eq!(single(&changed), None, "{at}");
    }
}

proptest! {
    #[test]
    fn any_frames_are_read_within_the_bounds(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..40)) {
        let mut connection = Connection::default();
        let mut out = Vec::new();
        for frames in frames {
            let offset = u16::from_be_bytes([frames.first().copied().unwrap_or(0) & 0x3f, frames.len() as u8]);
            let frames = [crypto(offset, &frames), frames].concat();
            connection.push(true, 1, &protect(Version::One, &[3; 8], Side::Client, 0, &frames), &mut out);
            connection.push(true, 1, &frames, &mut out);
            let _ = looks_like_quic(&frames);
            prop_assert!(connection.held_bytes() < 64 << 10);
        }
    }
}
