//! What may stand between an `EtherType` and the network layer.

use super::super::{Layer, Unanalysed};
use super::{MAX_TAGS, Network, TRUNCATED_SHIM, Walk, is_ip};
use crate::bytes::{array_at, u8_at, u16_at, u32_at};

/// Headers of these kinds in one frame beyond which it is taken for hostile. What an MPLS label carries is tried in two ways, each of
/// which may have labels again: there are at most two to the power of this many.
const MAX_SHIMS: usize = 6;

impl<'a> Walk<'a> {
    fn shim(&mut self) -> Result<&mut Self, Unanalysed> {
        self.shims += 1;
        if self.shims > MAX_SHIMS { Err(Unanalysed::TooDeep) } else { Ok(self) }
    }

    /// A tag of so many bytes that says nothing here: that of VN-Tag, of 802.1BR, of Cisco's security groups. Gives the `EtherType` after it.
    pub(super) fn tag(&mut self, length: usize) -> Result<u16, Unanalysed> {
        let next = u16_at(self.shim()?.rest(), length).ok_or(TRUNCATED_SHIM)?;
        self.offset += length + 2;
        Ok(next)
    }

    /// When a switch of Arista had the frame, in 8 bytes or 6.
    pub(super) fn arista_time(&mut self) -> Result<u16, Unanalysed> {
        let [kind, version] = [0, 2].map(|at| u16_at(self.rest(), at));
        match (kind.ok_or(TRUNCATED_SHIM)?, version.ok_or(TRUNCATED_SHIM)?) {
            (1, 0x0010 | 0x0110) => self.tag(12),
            (1, 0x0020 | 0x0120) => self.tag(10),
            _ => Err(Unanalysed::EtherType(0xd28b)),
        }
    }

    /// IEEE 802.1AE; of what is encrypted nothing can be said.
    pub(super) fn macsec(&mut self) -> Result<u16, Unanalysed> {
        const SENDER_IS_NAMED: u8 = 0x20;
        const IS_CHANGED: u8 = 0x0c;
        let control = u8_at(self.rest(), 0).ok_or(TRUNCATED_SHIM)?;
        if control & IS_CHANGED != 0 {
            return Err(Unanalysed::EtherType(0x88e5));
        }
        self.tag(if control & SENDER_IS_NAMED == 0 { 6 } else { 14 })
    }

    /// IEEE 802.1ah: the customer's frame after the number of the service.
    pub(super) fn backbone(&mut self) -> Result<Network<'a>, Unanalysed> {
        self.shim()?.skip(4).ethernet()
    }

    /// Cisco's, between switches: the frame after a tag.
    pub(super) fn fabric_path(&mut self) -> Result<Network<'a>, Unanalysed> {
        self.shim()?.skip(2).ethernet()
    }

    /// RFC 6325: options of a stated length, and the frame.
    pub(super) fn trill(&mut self) -> Result<Network<'a>, Unanalysed> {
        let field = u16_at(self.shim()?.rest(), 0).ok_or(TRUNCATED_SHIM)?;
        self.skip(6 + usize::from(field >> 6 & 0x1f) * 4).ethernet()
    }

    /// RFC 2516, session stage.
    pub(super) fn pppoe(&mut self) -> Result<Network<'a>, Unanalysed> {
        self.shim()?.skip(6).ppp_protocol()
    }

    /// RFC 3032; what is below the stack is not named, so its first four bits decide (RFC 4928).
    pub(super) fn mpls(&mut self) -> Result<Network<'a>, Unanalysed> {
        self.shim()?;
        for _ in 0..MAX_TAGS {
            let entry = u32_at(self.rest(), 0).ok_or(TRUNCATED_SHIM)?;
            self.offset += 4;
            if entry & 0x100 == 0 {
                continue;
            }
            return match u8_at(self.rest(), 0).ok_or(TRUNCATED_SHIM)? >> 4 {
                4 | 6 => Ok(self.found()),
                // An Ethernet pseudowire (RFC 4448), mostly with a control word before the frame.
                first => {
                    let plain = Self { shims: self.shims, ..Self::new(self.rest()) }.ethernet();
                    if first != 0 || plain.is_ok_and(|plain| is_ip(plain.packet)) {
                        return self.ethernet();
                    }
                    self.skip(4).ethernet()
                }
            };
        }
        Err(Unanalysed::TooDeep)
    }

    /// RFC 8300: a length in words of 4 bytes, and what follows.
    pub(super) fn service_header(&mut self) -> Result<Network<'a>, Unanalysed> {
        let header: [u8; 4] = array_at(self.shim()?.rest(), 0).ok_or(TRUNCATED_SHIM)?;
        self.offset += (usize::from(header[1] & 0x3f) * 4).max(8);
        match header[3] {
            1 | 2 => self.raw(),
            3 => self.ethernet(),
            5 => self.mpls(),
            _ => Err(Unanalysed::Malformed(Layer::Shim)),
        }
    }
}
