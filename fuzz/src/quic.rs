//! QUIC: datagrams as they come, and frames that a stranger closed with the keys that everybody can compute.

use ring::aead::quic::{AES_128, HeaderProtectionKey};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use weir_flow::quic::{self, Connection};
use weir_flow::tls::Session;

use crate::script::{Step, steps};
use crate::tls::{check, check_all};

const MOST_HELD: usize = 1 << 20;

/// Steps of a flow of datagrams.
pub(crate) fn datagrams(data: &[u8]) {
    let all: Vec<Step<'_>> = steps(data).collect();
    let sessions = sessions(all.iter().map(|step| (step.choice & 1 == 0, step.bytes.to_vec())));
    check_all(&sessions);
    if let Some(hello) = quic::single(data) {
        assert!(quic::looks_like_quic(data));
        check(&hello);
    }
}

/// Steps of frames, each closed into an Initial packet of its side.
pub(crate) fn frames(data: &[u8]) {
    let mut number = 0;
    let packets: Vec<_> = steps(data)
        .map(|step| {
            number += 1;
            let from_client = step.choice & 1 == 0;
            (from_client, closed(from_client, number, step.bytes))
        })
        .collect();
    let found = sessions(packets.iter().cloned());
    assert_eq!(sessions(packets.into_iter()), found);
    check_all(&found);
}

fn sessions(datagrams: impl Iterator<Item = (bool, Vec<u8>)>) -> Vec<Session> {
    let mut connection = Connection::default();
    let mut out = Vec::new();
    for ((from_first, datagram), time) in datagrams.zip(1..) {
        connection.push(from_first, time, &datagram, &mut out);
        assert!(connection.held_bytes() <= MOST_HELD);
    }
    connection.finish(&mut out);
    out
}

const ID: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
/// Of version 1 (RFC 9001 section 5.2).
const SALT: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f,
    0x0a,
];

/// An Initial packet with these frames (RFC 9001 sections 5.3 and 5.4).
pub(crate) fn closed(from_client: bool, number: u8, frames: &[u8]) -> Vec<u8> {
    let label = if from_client { "client in" } else { "server in" };
    let initial = Salt::new(HKDF_SHA256, &SALT).extract(&ID);
    let secret = Prk::new_less_safe(HKDF_SHA256, &expand::<32>(&initial, label));
    let key = UnboundKey::new(&AES_128_GCM, &expand::<16>(&secret, "quic key")).expect("a key of 16 bytes");
    let header = HeaderProtectionKey::new(&AES_128, &expand::<16>(&secret, "quic hp")).expect("a key of 16 bytes");
    let mut nonce: [u8; 12] = expand(&secret, "quic iv");
    nonce[11] ^= number;
    let mut body = frames[..frames.len().min(4000)].to_vec();
    body.resize(body.len().max(20), 0);
    let destination: &[u8] = if from_client { &ID } else { &[7, 7, 7] };
    let length = 0x4000 | (1 + body.len() + 16) as u16;
    let mut packet =
        [&[0xc0, 0, 0, 0, 1, destination.len() as u8][..], destination, &[0, 0], &length.to_be_bytes(), &[number]]
            .concat();
    let at = packet.len() - 1;
    let nonce = Nonce::assume_unique_for_key(nonce);
    LessSafeKey::new(key).seal_in_place_append_tag(nonce, Aad::from(&packet), &mut body).expect("it can be closed");
    packet.extend(body);
    let mask = header.new_mask(&packet[at + 4..at + 20]).expect("a sample of 16 bytes");
    packet[0] ^= mask[0] & 0x0f;
    packet[at] ^= mask[1];
    packet
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label of RFC 8446 section 7.1 with an empty context.
fn expand<const N: usize>(secret: &Prk, label: &str) -> [u8; N] {
    let info = [&(N as u16).to_be_bytes()[..], &[6 + label.len() as u8], b"tls13 ", label.as_bytes(), &[0]];
    let mut out = [0; N];
    secret.expand(&info, Length(N)).and_then(|made| made.fill(&mut out)).expect("a length that can be made");
    out
}
