//! Packets with a long header, as far as they are in the clear (RFC 9000 section 17.2).

use crate::bytes::{array_at, u8_at};

/// Longest connection id (RFC 9000 section 17.2).
const MAX_ID: usize = 20;

/// Versions whose Initial packets can be decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// Drafts 23 to 28, and what Meta's programs say when they mean one of these.
    Draft23,
    /// Drafts 29 to 32.
    Draft29,
    /// RFC 9000, and the drafts 33 and 34.
    One,
    /// RFC 9369.
    Two,
}

impl Version {
    const fn known(number: u32) -> Option<Self> {
        match number {
            1 | 0xff00_0021 | 0xff00_0022 => Some(Self::One),
            0x6b33_43cf => Some(Self::Two),
            0xff00_001d..=0xff00_0020 => Some(Self::Draft29),
            0xff00_0017..=0xff00_001c | 0xface_b002 | 0xface_b00e => Some(Self::Draft23),
            _ => None,
        }
    }

    /// RFC 9369 section 3.2 numbers the types anew.
    const fn is_initial(self, kind: u8) -> bool {
        match self {
            Self::Two => kind == 1,
            Self::Draft23 | Self::Draft29 | Self::One => kind == 0,
        }
    }

    const fn is_retry(self, kind: u8) -> bool {
        match self {
            Self::Two => kind == 0,
            Self::Draft23 | Self::Draft29 | Self::One => kind == 3,
        }
    }
}

/// An Initial packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Initial<'a> {
    pub(super) version: Version,
    pub(super) destination: &'a [u8],
    /// From the first byte to the last one of the payload.
    pub(super) bytes: &'a [u8],
    /// Where the packet number begins in them.
    pub(super) number_at: usize,
}

pub(super) enum Packet<'a> {
    Initial(Initial<'a>),
    /// A server asks for the first one again.
    Retry,
    /// A type that cannot be decrypted.
    Other,
}

/// The packets with a long header at the front of a datagram.
pub(super) struct Packets<'a>(&'a [u8]);

impl<'a> Packets<'a> {
    pub(super) const fn new(datagram: &'a [u8]) -> Self {
        Self(datagram)
    }

    fn read(&mut self) -> Option<Packet<'a>> {
        let bytes = self.0;
        let first = u8_at(bytes, 0).filter(|first| first & 0x80 != 0)?;
        let version = Version::known(u32::from_be_bytes(array_at(bytes, 1)?))?;
        let kind = first >> 4 & 3;
        let (destination, at) = id(bytes, 5)?;
        let (_, mut at) = id(bytes, at)?;
        let is_initial = version.is_initial(kind);
        if version.is_retry(kind) {
            self.0 = &[];
            return Some(Packet::Retry);
        }
        if is_initial {
            let (length, token) = integer(bytes, at)?;
            at = token.checked_add(usize::try_from(length).ok()?)?;
        }
        let (length, number_at) = integer(bytes, at)?;
        let end = number_at.checked_add(usize::try_from(length).ok()?)?;
        let (packet, rest) = bytes.split_at_checked(end)?;
        self.0 = rest;
        Some(if is_initial {
            Packet::Initial(Initial { version, destination, bytes: packet, number_at })
        } else {
            Packet::Other
        })
    }
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let packet = self.read();
        if packet.is_none() {
            self.0 = &[];
        }
        packet
    }
}

/// Whether a datagram begins with a packet of QUIC with a long header: of a version that is read here, or one that asks for another
/// version (RFC 8999).
#[must_use]
pub fn looks_like_quic(datagram: &[u8]) -> bool {
    let Some(version) = array_at(datagram, 1).map(u32::from_be_bytes) else { return false };
    let long = datagram[0] & 0x80 != 0;
    let fixed = datagram[0] & 0x40 != 0;
    let draft = version >> 8 == 0x00ff_0000;
    // Versions that only provoke negotiation (RFC 9000 section 15).
    let greased = version & 0x0f0f_0f0f == 0x0a0a_0a0a;
    let known = Version::known(version).is_some() || draft || greased;
    let ids = || id(datagram, 5).and_then(|(_, at)| id(datagram, at)).is_some();
    // An Initial fills its datagram (RFC 9000 section 14.1); those of a server begin a flow whose start was not captured.
    long && fixed && known && datagram.len() >= 20 && ids()
}

/// A connection id after its length, and where the next field begins.
fn id(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let length = usize::from(u8_at(bytes, at)?);
    let end = at + 1 + length;
    Some((bytes.get(at + 1..end).filter(|_| length <= MAX_ID)?, end))
}

/// RFC 9000 section 16: a number of variable length, and where the next field begins.
pub(super) fn integer(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let first = u8_at(bytes, at)?;
    let length = 1 << (first >> 6);
    let field = bytes.get(at..at.checked_add(length)?)?;
    let value = field.iter().skip(1).fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, at + length))
}
