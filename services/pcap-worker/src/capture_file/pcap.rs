//! The classic form (draft-ietf-opsawg-pcap): a header, then one record after the other.

use weir_flow::packet::LinkType;

use super::error::{Fault, OpenError};
use super::input::{Input, ReadError, cut};
use super::{Header, MAX_PACKET};

/// What the first four bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Variant {
    big_endian: bool,
    nanoseconds: bool,
    /// Record headers have eight bytes more, as an old patch of libpcap wrote them.
    modified: bool,
}

impl Variant {
    /// None where this is not the beginning of a pcap file.
    pub(super) fn of(magic: [u8; 4]) -> Option<Self> {
        let kind = |value| match value {
            0xa1b2_c3d4_u32 => Some((false, false)),
            0xa1b2_3c4d => Some((true, false)),
            0xa1b2_cd34 => Some((false, true)),
            _ => None,
        };
        let of =
            |value, big_endian| kind(value).map(|(nanoseconds, modified)| Self { big_endian, nanoseconds, modified });
        of(u32::from_be_bytes(magic), true).or_else(|| of(u32::from_le_bytes(magic), false))
    }

    fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn u16(self, bytes: &[u8], at: usize) -> u16 {
        let bytes = [bytes[at], bytes[at + 1]];
        if self.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }
}

/// Reads records.
pub(super) struct Reader {
    variant: Variant,
    link_type: LinkType,
    /// Version 2.2 and before wrote the two lengths the other way around, and 2.3 did either.
    old_version: bool,
}

impl Reader {
    /// Reads what follows the first four bytes of the header.
    pub(super) fn open(input: &mut Input, variant: Variant) -> Result<Self, OpenError> {
        let header: [u8; 20] = input.read_array().map_err(OpenError::from_read)?;
        let (major, minor) = (variant.u16(&header, 0), variant.u16(&header, 2));
        Ok(Self {
            variant,
            link_type: LinkType::from_file(variant.u32(&header, 16)),
            old_version: major == 2 && minor < 4,
        })
    }

    pub(super) fn next(&mut self, input: &mut Input) -> Result<Option<Header>, Fault> {
        let header: [u8; 16] = match input.read_array() {
            Ok(header) => header,
            Err(ReadError::End) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if self.variant.modified {
            input.read_array::<8>().map_err(cut)?;
        }
        let field = |at| self.variant.u32(&header, at);
        let (seconds, fraction) = (u64::from(field(0)), u64::from(field(4)));
        let (mut captured, mut original) = (field(8), field(12));
        if self.old_version && captured > original {
            (captured, original) = (original, captured);
        }
        if captured > MAX_PACKET {
            return Err(Fault::field(format!("a packet claims to hold {captured} bytes")));
        }
        let data = input.take(captured as usize).map_err(cut)?;
        let (fraction_us, nanoseconds) =
            if self.variant.nanoseconds { (fraction / 1000, (fraction % 1000) as u16) } else { (fraction, 0) };
        Ok(Some(Header {
            time_us: seconds * 1_000_000 + fraction_us,
            nanoseconds,
            link_type: self.link_type,
            interface: 0,
            original_length: original,
            data,
            comment: 0..0,
        }))
    }
}
