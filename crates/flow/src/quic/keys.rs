//! The keys of Initial packets (RFC 9001 section 5.2, RFC 9369 section 3.3) and what they protect (sections 5.3 and 5.4).

use ring::aead::quic::{self, HeaderProtectionKey};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

use super::packet::{Initial, Version};

const SALT_DRAFT_23: [u8; 20] = [
    0xc3, 0xee, 0xf7, 0x12, 0xc7, 0x2e, 0xbb, 0x5a, 0x11, 0xa7, 0xd2, 0x43, 0x2b, 0xb4, 0x63, 0x65, 0xbe, 0xf9, 0xf5,
    0x02,
];
const SALT_DRAFT_29: [u8; 20] = [
    0xaf, 0xbf, 0xec, 0x28, 0x99, 0x93, 0xd2, 0x4c, 0x9e, 0x97, 0x86, 0xf1, 0x9c, 0x61, 0x11, 0xe0, 0x43, 0x90, 0xa8,
    0x99,
];
const SALT_1: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb, 0x7f,
    0x0a,
];
const SALT_2: [u8; 20] = [
    0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd, 0x2e,
    0xd9,
];

/// Whose packets a key protects.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Client,
    Server,
}

/// What opens the Initial packets of one side.
pub(super) struct Keys {
    header: HeaderProtectionKey,
    packet: LessSafeKey,
    iv: [u8; 12],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys that follow from the connection id to which a client sent its first packet. None only where the library refuses.
    pub(super) fn new(version: Version, id: &[u8], side: Side) -> Option<Self> {
        let (salt, labels) = match version {
            Version::Draft23 => (SALT_DRAFT_23, ["quic key", "quic iv", "quic hp"]),
            Version::Draft29 => (SALT_DRAFT_29, ["quic key", "quic iv", "quic hp"]),
            Version::One => (SALT_1, ["quic key", "quic iv", "quic hp"]),
            Version::Two => (SALT_2, ["quicv2 key", "quicv2 iv", "quicv2 hp"]),
        };
        let initial = Salt::new(HKDF_SHA256, &salt).extract(id);
        let label = match side {
            Side::Client => "client in",
            Side::Server => "server in",
        };
        let secret: [u8; 32] = expand(&initial, label)?;
        let secret = Prk::new_less_safe(HKDF_SHA256, &secret);
        let [key, iv, header] = labels;
        let (key, header): ([u8; 16], [u8; 16]) = (expand(&secret, key)?, expand(&secret, header)?);
        Some(Self {
            header: HeaderProtectionKey::new(&quic::AES_128, &header).ok()?,
            packet: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?),
            iv: expand(&secret, iv)?,
        })
    }

    /// The frames of a packet; none where these are not its keys, or it was changed on its way.
    pub(super) fn open(&self, initial: &Initial<'_>) -> Option<Vec<u8>> {
        let at = initial.number_at;
        let sample = initial.bytes.get(at + 4..at + 20)?;
        let mask = self.header.new_mask(sample).ok()?;
        let mut header = initial.bytes.get(..at + 4)?.to_vec();
        header[0] ^= mask[0] & 0x0f;
        let length = usize::from(header[0] & 3) + 1;
        header.truncate(at + length);
        let mut nonce = self.iv;
        for index in 0..length {
            header[at + index] ^= mask[index + 1];
            // The number is short, and the first ones of a connection are small.
            nonce[12 - length + index] ^= header[at + index];
        }
        let mut payload = initial.bytes.get(at + length..)?.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = self.packet.open_in_place(nonce, Aad::from(&header), &mut payload).ok()?.len();
        payload.truncate(plain);
        Some(payload)
    }
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label of RFC 8446 section 7.1 with an empty context.
fn expand<const N: usize>(secret: &Prk, label: &str) -> Option<[u8; N]> {
    let length = (N as u16).to_be_bytes();
    let info = [&length[..], &[6 + label.len() as u8], b"tls13 ", label.as_bytes(), &[0]];
    let mut out = [0; N];
    secret.expand(&info, Length(N)).ok()?.fill(&mut out).ok()?;
    Some(out)
}

#[cfg(test)]
impl Keys {
    pub(super) fn mask(&self, sample: &[u8]) -> [u8; 5] {
        self.header.new_mask(sample).unwrap()
    }

    pub(super) const fn nonce(&self) -> [u8; 12] {
        self.iv
    }

    pub(super) fn seal_in_place(&self, nonce: [u8; 12], header: &[u8], body: &mut Vec<u8>) {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.packet.seal_in_place_append_tag(nonce, Aad::from(header), body).unwrap();
    }
}
