//! Link layers that few captures have.

use super::super::{Layer, Unanalysed};
use super::{LinkType, Network, TRUNCATED_LINK, Walk};
use crate::bytes::{array_at, u8_at, u16_at};

impl<'a> Walk<'a> {
    /// IEEE 802.5, with the route that the source of a frame may give.
    pub(super) fn token_ring(&mut self) -> Result<Network<'a>, Unanalysed> {
        let source = u8_at(self.rest(), 8).ok_or(TRUNCATED_LINK)?;
        let route = if source & 0x80 == 0 { 0 } else { u8_at(self.rest(), 14).ok_or(TRUNCATED_LINK)? & 0x1f };
        self.offset += 14 + usize::from(route);
        self.llc()
    }

    /// `ARCnet`: RFC 1201, and RFC 1051 before it, which has no sequence number. `before` bytes come before the type.
    pub(super) fn arcnet(&mut self, before: usize) -> Result<Network<'a>, Unanalysed> {
        const EXCEPTION: u8 = 0xff;
        let kind = u8_at(self.rest(), before).ok_or(TRUNCATED_LINK)?;
        let after = before + 1;
        let is_exception = before == 2 && u8_at(self.rest(), after) == Some(EXCEPTION);
        match kind {
            240 => self.skip(after).raw(),
            // A frame that is one of several has only the first one's header.
            212 | 196 if is_exception => self.skip(after + 7).raw(),
            212 | 196 => self.skip(after + 3).raw(),
            other => Err(Unanalysed::EtherType(u16::from(other))),
        }
    }

    /// RFC 2427 after an address of 2 to 4 bytes, or Cisco's own form with an `EtherType`.
    pub(super) fn frame_relay(&mut self) -> Result<Network<'a>, Unanalysed> {
        let address = (0..4).position(|at| u8_at(self.rest(), at).is_some_and(|byte| byte & 1 == 1));
        self.offset += address.filter(|last| *last > 0).ok_or(Unanalysed::Malformed(Layer::Link))? + 1;
        let [control, next]: [u8; 2] = array_at(self.rest(), 0).ok_or(TRUNCATED_LINK)?;
        match (control, next) {
            (0x03, 0xcc | 0x8e) => self.skip(2).raw(),
            // The identifier of SNAP, perhaps after a byte that pads it.
            (0x03, 0x80) => self.snap(2),
            (0x03, 0x00) if u8_at(self.rest(), 2) == Some(0x80) => self.snap(3),
            _ => {
                let ether_type = u16::from_be_bytes([control, next]);
                self.skip(2).ether_type(ether_type)
            }
        }
    }

    fn snap(&mut self, at: usize) -> Result<Network<'a>, Unanalysed> {
        let organisation: [u8; 3] = array_at(self.rest(), at).ok_or(TRUNCATED_LINK)?;
        let kind = u16_at(self.rest(), at + 3).ok_or(TRUNCATED_LINK)?;
        match (organisation, kind) {
            ([0, 0, 0], ether_type) => self.skip(at + 5).ether_type(ether_type),
            // Bridged Ethernet, with and without its check sequence (RFC 2427 section 4.2).
            ([0, 0x80, 0xc2], 1 | 7) => self.skip(at + 5).ethernet(),
            _ => Err(Unanalysed::Llc(0xaa)),
        }
    }

    /// Classical IP over ATM (RFC 2225), with 802.2 or without.
    pub(super) fn atm_clip(&mut self) -> Result<Network<'a>, Unanalysed> {
        if self.rest().starts_with(&[0xaa, 0xaa, 3]) { self.llc() } else { self.raw() }
    }

    /// RFC 4391: the global route header, then an `EtherType` and two bytes that mean nothing.
    pub(super) fn infiniband(&mut self) -> Result<Network<'a>, Unanalysed> {
        let ether_type = u16_at(self.rest(), 40).ok_or(TRUNCATED_LINK)?;
        self.skip(44).ether_type(ether_type)
    }

    /// The tag of a switch between the addresses and the `EtherType`.
    pub(super) fn tagged(&mut self, tag: usize) -> Result<Network<'a>, Unanalysed> {
        let field = u16_at(self.rest(), 12 + tag).ok_or(TRUNCATED_LINK)?;
        self.skip(14 + tag).type_or_length(field)
    }

    /// Apple's own header, in the byte order of the capturing host, which is little-endian: its length, and the link type that follows.
    pub(super) fn pktap(&mut self) -> Result<Network<'a>, Unanalysed> {
        let header: [u8; 12] = array_at(self.rest(), 0).ok_or(TRUNCATED_LINK)?;
        let word = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        self.offset += (word(0) as usize).max(12);
        self.inside(LinkType::from_file(word(8)))
    }

    /// `pppd` puts the direction in the place of the address byte.
    pub(super) fn pppd(&mut self) -> Result<Network<'a>, Unanalysed> {
        if matches!(array_at(self.rest(), 0), Some([0 | 1u8, 3u8])) {
            self.offset += 2;
        }
        self.ppp()
    }
}
