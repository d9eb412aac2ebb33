//! IEEE 802.11 data frames, and the headers that capturing programs put before them.

use super::super::{Layer, Unanalysed};
use super::{LinkType, Network, TRUNCATED_LINK, Walk};
use crate::bytes::{array_at, u8_at, u32_at};

/// Type of the frames that carry data.
const DATA: u8 = 2;

impl<'a> Walk<'a> {
    /// From the frame control field on. `padded`: the header is followed by padding to a multiple of 4.
    pub(super) fn wlan(&mut self, padded: bool) -> Result<Network<'a>, Unanalysed> {
        let control = array_at(self.rest(), 0).ok_or(TRUNCATED_LINK)?;
        self.wlan_of(control, padded)
    }

    /// The same where the frame control field may be swapped: as it is, it says a version and a type that there are.
    pub(super) fn wlan_swapped(&mut self) -> Result<Network<'a>, Unanalysed> {
        const VERSION: u8 = 3;
        const SUBTYPE: u8 = 0xf0;
        let mut control: [u8; 2] = array_at(self.rest(), 0).ok_or(TRUNCATED_LINK)?;
        let is_data = |control: u8| control & !SUBTYPE == DATA << 2;
        if control[0] & VERSION != 0 || (!is_data(control[0]) && is_data(control[1])) {
            control.reverse();
        }
        self.wlan_of(control, false)
    }

    fn wlan_of(&mut self, [control, flags]: [u8; 2], padded: bool) -> Result<Network<'a>, Unanalysed> {
        const NO_DATA: u8 = 0x40;
        const QOS: u8 = 0x80;
        const PROTECTED: u8 = 0x40;
        const ORDER: u8 = 0x80;
        const AGGREGATE: u8 = 0x80;
        if (control >> 2) & 3 != DATA || control & NO_DATA != 0 {
            return Err(Unanalysed::Wlan(control >> 2));
        }
        if flags & PROTECTED != 0 {
            return Err(Unanalysed::Encrypted);
        }
        let is_quality = control & QOS != 0;
        let mut length = if flags & 3 == 3 { 30 } else { 24 };
        let mut is_aggregate = false;
        if is_quality {
            is_aggregate = u8_at(self.rest(), length).ok_or(TRUNCATED_LINK)? & AGGREGATE != 0;
            length += if flags & ORDER != 0 { 6 } else { 2 };
        }
        self.offset += if padded { length.next_multiple_of(4) } else { length };
        if is_aggregate { Err(Unanalysed::Aggregate) } else { self.llc() }
    }

    /// Radiotap: a length and, for the flags, the fields that come before them.
    pub(super) fn radiotap(&mut self) -> Result<Network<'a>, Unanalysed> {
        const MORE: u8 = 0x80;
        const PADDED: u8 = 0x20;
        let header: [u8; 8] = array_at(self.rest(), 0).ok_or(TRUNCATED_LINK)?;
        let length = usize::from(u16::from_le_bytes([header[2], header[3]]));
        // Words that say what is present, until one without the highest bit.
        let mut at = 4;
        while u8_at(self.rest(), at + 3).ok_or(TRUNCATED_LINK)? & MORE != 0 {
            at += 4;
        }
        at += 4;
        if header[4] & 1 != 0 {
            at = at.next_multiple_of(8) + 8;
        }
        let flags = if header[4] & 2 != 0 { u8_at(self.rest(), at).unwrap_or(0) } else { 0 };
        if header[0] != 0 || length < 8 {
            return Err(Unanalysed::Malformed(Layer::Link));
        }
        self.offset += length;
        self.wlan(flags & PADDED != 0)
    }

    /// The AVS header says its length; the older one of Prism cards has 144 bytes.
    pub(super) fn prism(&mut self) -> Result<Network<'a>, Unanalysed> {
        const AVS: u32 = 0x8021_1001;
        let magic = u32_at(self.rest(), 0).ok_or(TRUNCATED_LINK)?;
        self.offset += if magic & 0xffff_fff0 == AVS & 0xffff_fff0 {
            u32_at(self.rest(), 4).ok_or(TRUNCATED_LINK)? as usize
        } else {
            144
        };
        self.wlan(false)
    }

    /// Per-packet information: a length, and the number of the link type that follows.
    pub(super) fn ppi(&mut self) -> Result<Network<'a>, Unanalysed> {
        let header: [u8; 8] = array_at(self.rest(), 0).ok_or(TRUNCATED_LINK)?;
        let link_type = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        self.offset += usize::from(u16::from_le_bytes([header[2], header[3]])).max(8);
        self.inside(LinkType::from_file(link_type))
    }
}
