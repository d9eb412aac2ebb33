//! Link layers: from the first byte of a frame to the network layer.

use super::{Layer, Unanalysed};
use crate::bytes::{after, array_at, u8_at, u16_at};

mod aggregate;
mod rare;
mod shims;
mod wlan;

pub use aggregate::{Subframe, Subframes, subframes};

/// Number of a link type, as in the header of a capture file.
///
/// The upper bits of the field in a file hold the length of the frame check sequence and are not part of the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkType(pub u16);

impl LinkType {
    /// BSD loopback: address family in the byte order of the capturing host.
    pub const NULL: Self = Self(0);
    /// Ethernet, also 802.3 with LLC.
    pub const ETHERNET: Self = Self(1);
    /// IEEE 802.5.
    pub const TOKEN_RING: Self = Self(6);
    /// `ARCnet` as BSDs capture it.
    pub const ARCNET_BSD: Self = Self(7);
    /// SLIP with the direction and the compressed header of BSDs.
    pub const SLIP: Self = Self(8);
    /// PPP, with or without its HDLC address and control bytes.
    pub const PPP: Self = Self(9);
    /// FDDI with LLC.
    pub const FDDI: Self = Self(10);
    /// PPP in HDLC-like framing.
    pub const PPP_HDLC: Self = Self(50);
    /// `PPPoE` session packets without Ethernet.
    pub const PPP_ETHER: Self = Self(51);
    /// ATM with RFC 1483: 802.2 without anything before it.
    pub const ATM_RFC1483: Self = Self(100);
    /// Raw IP.
    pub const RAW: Self = Self(101);
    /// Cisco HDLC.
    pub const C_HDLC: Self = Self(104);
    /// IEEE 802.11.
    pub const WLAN: Self = Self(105);
    /// Linux's classical IP over ATM.
    pub const ATM_CLIP: Self = Self(106);
    /// Frame relay.
    pub const FRAME_RELAY: Self = Self(107);
    /// `OpenBSD` loopback: address family in network order.
    pub const LOOP: Self = Self(108);
    /// `OpenBSD`'s view into `IPsec`.
    pub const ENC: Self = Self(109);
    /// Linux cooked capture v1.
    pub const LINUX_SLL: Self = Self(113);
    /// IEEE 802.11 after the header of Prism cards, or that of AVS.
    pub const PRISM: Self = Self(119);
    /// IP over Fibre Channel (RFC 2625).
    pub const FIBRE_CHANNEL: Self = Self(122);
    /// ATM as `SunATM` captures it.
    pub const SUN_ATM: Self = Self(123);
    /// IEEE 802.11 after a radiotap header.
    pub const RADIOTAP: Self = Self(127);
    /// `ARCnet` as Linux captures it.
    pub const ARCNET_LINUX: Self = Self(129);
    /// IP over IEEE 1394 as macOS captures it.
    pub const IEEE_1394: Self = Self(138);
    /// IEEE 802.11 after the header of AVS.
    pub const AVS: Self = Self(163);
    /// PPP as `pppd` captures it.
    pub const PPPD: Self = Self(166);
    /// Any link type after per-packet information.
    pub const PPI: Self = Self(192);
    /// Ethernet after 4 bytes of Hilscher's netANALYZER.
    pub const NETANALYZER: Self = Self(240);
    /// The same with preamble and delimiter.
    pub const NETANALYZER_TRANSPARENT: Self = Self(241);
    /// IP over `InfiniBand`.
    pub const IPOIB: Self = Self(242);
    /// Any link type after the header of macOS.
    pub const PKTAP: Self = Self(258);
    /// Ethernet with preamble and delimiter.
    pub const MPACKET: Self = Self(274);
    /// Ethernet with the tag of a Broadcom switch after the addresses.
    pub const BRCM_TAG: Self = Self(281);
    /// Ethernet with the tag of a Broadcom switch before the addresses.
    pub const BRCM_TAG_PREPEND: Self = Self(282);
    /// Ethernet with the tag of a Marvell switch.
    pub const DSA: Self = Self(284);
    /// The same with an `EtherType` of its own.
    pub const EDSA: Self = Self(285);
    /// The packet filter's log of BSDs.
    pub const PFLOG: Self = Self(117);
    /// Juniper's own header before Ethernet.
    pub const JUNIPER_ETHER: Self = Self(178);
    /// PPP after a byte that says which way it went.
    pub const PPP_WITH_DIRECTION: Self = Self(204);
    /// Solaris IP observability.
    pub const IPNET: Self = Self(226);
    /// Raw IPv4.
    pub const IPV4: Self = Self(228);
    /// Raw IPv6.
    pub const IPV6: Self = Self(229);
    /// Linux netfilter log messages.
    pub const NFLOG: Self = Self(239);
    /// Linux cooked capture v2.
    pub const LINUX_SLL2: Self = Self(276);

    /// Raw IP under the numbers that BSDs gave to it in files.
    const RAW_BSD: [Self; 2] = [Self(12), Self(14)];

    /// The number of the link type in a file's field.
    #[must_use]
    pub const fn from_file(field: u32) -> Self {
        Self((field & 0xffff) as u16)
    }
}

/// What the link layer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network<'a> {
    /// Starts with an IPv4 or IPv6 header.
    pub packet: &'a [u8],
    /// Bytes of the frame before `packet`.
    pub offset: usize,
    /// Outer VLAN id in the lower 12 bits, inner id in the next 12; 0 = untagged.
    pub vlan: u32,
}

/// VLAN tags or MPLS labels in one frame beyond which it is taken for hostile.
const MAX_TAGS: usize = 16;

/// Finds the network layer of a frame. One that carries several packets is [`Unanalysed::Aggregate`]: [`subframes`] has them.
pub fn network(link_type: LinkType, frame: &[u8]) -> Result<Network<'_>, Unanalysed> {
    Walk::new(frame).link(link_type)
}

/// What follows the link layer of a frame that is not IP, for example an ARP packet.
pub(crate) fn not_ip(link_type: LinkType, frame: &[u8]) -> Option<&[u8]> {
    let mut walk = Walk::new(frame);
    let found = walk.link(link_type);
    matches!(found, Err(Unanalysed::EtherType(_))).then(|| walk.rest())
}

/// The network layer of an Ethernet frame inside a tunnel.
pub(crate) fn ethernet(frame: &[u8]) -> Result<Network<'_>, Unanalysed> {
    network(LinkType::ETHERNET, frame)
}

/// The network layer of a frame of 802.11 inside a tunnel. Some access points swap the two bytes that it begins with.
pub(crate) fn wlan(frame: &[u8]) -> Result<Network<'_>, Unanalysed> {
    Walk::new(frame).wlan_swapped()
}

/// The network layer of what an `EtherType` announces, inside a tunnel.
pub(crate) fn typed(ether_type: u16, data: &[u8]) -> Result<Network<'_>, Unanalysed> {
    Walk::new(data).ether_type(ether_type)
}

/// Whether this begins as a packet of IP does, of either version.
pub(crate) fn is_ip(packet: &[u8]) -> bool {
    matches!(packet.first(), Some(0x45..=0x4f | 0x60..=0x6f))
}

/// The network layer of a PPP frame inside a tunnel.
pub(crate) fn ppp(data: &[u8]) -> Result<Network<'_>, Unanalysed> {
    network(LinkType::PPP, data)
}

const TRUNCATED_LINK: Unanalysed = Unanalysed::Truncated(Layer::Link);
const TRUNCATED_SHIM: Unanalysed = Unanalysed::Truncated(Layer::Shim);

/// A walk over the headers of one frame.
struct Walk<'a> {
    frame: &'a [u8],
    offset: usize,
    vlan: u32,
    /// VLAN tags so far.
    tags: usize,
    /// Headers of other kinds between link and network layer so far.
    shims: usize,
}

impl<'a> Walk<'a> {
    const fn new(frame: &'a [u8]) -> Self {
        Self { frame, offset: 0, vlan: 0, tags: 0, shims: 0 }
    }

    /// From the first byte of a frame on.
    fn link(&mut self, link_type: LinkType) -> Result<Network<'a>, Unanalysed> {
        match link_type {
            LinkType::ETHERNET => self.ethernet(),
            LinkType::LINUX_SLL => self.typed_at(14, 16),
            LinkType::LINUX_SLL2 => self.typed_at(0, 20),
            LinkType::WLAN => self.wlan(false),
            LinkType::RADIOTAP => self.radiotap(),
            LinkType::PRISM | LinkType::AVS => self.prism(),
            LinkType::PPI => self.ppi(),
            LinkType::PKTAP => self.pktap(),
            LinkType::NULL | LinkType::LOOP => self.family(),
            LinkType::RAW | LinkType::IPV4 | LinkType::IPV6 => self.raw(),
            raw if LinkType::RAW_BSD.contains(&raw) => self.raw(),
            LinkType::C_HDLC => self.typed_at(2, 4),
            LinkType::PPP | LinkType::PPP_HDLC => self.ppp(),
            LinkType::PPP_ETHER => self.pppoe(),
            LinkType::FDDI => self.from(13).llc(),
            LinkType::ATM_RFC1483 => self.llc(),
            LinkType::PPP_WITH_DIRECTION => self.from(1).ppp(),
            LinkType::ENC => self.from(12).raw(),
            LinkType::PFLOG => {
                let length = u8_at(self.frame, 0).ok_or(TRUNCATED_LINK)?;
                self.from(usize::from(length).next_multiple_of(4)).raw()
            }
            LinkType::JUNIPER_ETHER => self.juniper(),
            LinkType::NFLOG => self.nflog(),
            LinkType::IPNET => self.from(24).raw(),
            LinkType::TOKEN_RING => self.token_ring(),
            LinkType::ARCNET_BSD => self.arcnet(2),
            LinkType::ARCNET_LINUX => self.arcnet(4),
            LinkType::SLIP => self.from(16).raw(),
            LinkType::ATM_CLIP => self.atm_clip(),
            LinkType::FRAME_RELAY => self.frame_relay(),
            LinkType::FIBRE_CHANNEL => self.from(16).llc(),
            LinkType::SUN_ATM => self.from(4).llc(),
            LinkType::IEEE_1394 => self.typed_at(16, 18),
            LinkType::PPPD => self.pppd(),
            LinkType::NETANALYZER | LinkType::BRCM_TAG_PREPEND => self.from(4).ethernet(),
            LinkType::NETANALYZER_TRANSPARENT => self.from(12).ethernet(),
            LinkType::IPOIB => self.infiniband(),
            LinkType::MPACKET => self.from(8).ethernet(),
            LinkType::BRCM_TAG | LinkType::DSA => self.tagged(4),
            LinkType::EDSA => self.tagged(8),
            LinkType(number) => Err(Unanalysed::LinkType(number)),
        }
    }

    const fn from(&mut self, offset: usize) -> &mut Self {
        self.offset = offset;
        self
    }

    const fn skip(&mut self, length: usize) -> &mut Self {
        self.offset += length;
        self
    }

    /// A frame of another link type after a header that said so; one such header in another is hostile.
    fn inside(&mut self, link_type: LinkType) -> Result<Network<'a>, Unanalysed> {
        if matches!(link_type, LinkType::PPI | LinkType::PKTAP) {
            return Err(Unanalysed::TooDeep);
        }
        let mut walk = Self::new(self.rest());
        let found = walk.link(link_type);
        let before = self.offset;
        self.offset += walk.offset;
        found.map(|found| Network { offset: before + found.offset, ..found })
    }

    fn rest(&self) -> &'a [u8] {
        after(self.frame, self.offset)
    }

    fn found(&self) -> Network<'a> {
        Network { packet: self.rest(), offset: self.offset, vlan: self.vlan }
    }

    fn ethernet(&mut self) -> Result<Network<'a>, Unanalysed> {
        let field = u16_at(self.rest(), 12).ok_or(TRUNCATED_LINK)?;
        self.offset += 14;
        self.type_or_length(field)
    }

    /// An `EtherType`, or below 0x0600 the length of an 802.3 frame.
    fn type_or_length(&mut self, field: u16) -> Result<Network<'a>, Unanalysed> {
        if field < 0x0600 { self.llc() } else { self.ether_type(field) }
    }

    /// A header with an `EtherType` at a fixed place.
    fn typed_at(&mut self, type_at: usize, length: usize) -> Result<Network<'a>, Unanalysed> {
        let field = u16_at(self.frame, type_at).ok_or(TRUNCATED_LINK)?;
        if self.frame.len() < length {
            return Err(TRUNCATED_LINK);
        }
        self.offset = length;
        match field {
            // Linux cooked: 802.2 frames have no EtherType (linux/if_ether.h: ETH_P_802_3, ETH_P_802_2).
            0x0001 | 0x0004 => self.llc(),
            _ => self.ether_type(field),
        }
    }

    fn ether_type(&mut self, mut ether_type: u16) -> Result<Network<'a>, Unanalysed> {
        loop {
            // Of nearly all frames; the others are told from each other more slowly.
            if let 0x0800 | 0x86dd = ether_type {
                return Ok(self.found());
            }
            match ether_type {
                0x8100 | 0x88a8 | 0x9100 | 0x9200 => ether_type = self.vlan_tag()?,
                0x8847 | 0x8848 => return self.mpls(),
                0x8864 => return self.pppoe(),
                0x894f => return self.service_header(),
                0x88e7 => return self.backbone(),
                0x8903 => return self.fabric_path(),
                0x22f3 => return self.trill(),
                0x8926 => ether_type = self.tag(4)?,
                0x893f | 0x8909 => ether_type = self.tag(6)?,
                0xd28b => ether_type = self.arista_time()?,
                0x88e5 => ether_type = self.macsec()?,
                other if other < 0x0600 => return self.llc(),
                other => return Err(Unanalysed::EtherType(other)),
            }
        }
    }

    /// One VLAN tag; gives the `EtherType` after it.
    fn vlan_tag(&mut self) -> Result<u16, Unanalysed> {
        let rest = self.rest();
        let tag = u16_at(rest, 0).ok_or(TRUNCATED_SHIM)?;
        let next = u16_at(rest, 2).ok_or(TRUNCATED_SHIM)?;
        let id = u32::from(tag & 0x0fff);
        match self.tags {
            0 => self.vlan = id,
            1 => self.vlan |= id << 12,
            MAX_TAGS => return Err(Unanalysed::TooDeep),
            _ => {}
        }
        self.tags += 1;
        self.offset += 4;
        Ok(next)
    }

    /// IEEE 802.2, with SNAP where its service access points say so.
    fn llc(&mut self) -> Result<Network<'a>, Unanalysed> {
        let header: [u8; 3] = array_at(self.rest(), 0).ok_or(TRUNCATED_LINK)?;
        match header {
            [0xaa, 0xaa, 0x03] => {
                let [a, b, c]: [u8; 3] = array_at(self.rest(), 3).ok_or(TRUNCATED_LINK)?;
                let ether_type = u16_at(self.rest(), 6).ok_or(TRUNCATED_LINK)?;
                // RFC 1042 and the bridge-tunnel encapsulation of 802.1H carry an EtherType.
                if ![[0, 0, 0], [0, 0, 0xf8]].contains(&[a, b, c]) || ether_type < 0x0600 {
                    return Err(Unanalysed::Llc(0xaa));
                }
                self.offset += 8;
                self.ether_type(ether_type)
            }
            [0x06, 0x06, 0x03] => {
                self.offset += 3;
                self.raw()
            }
            [dsap, ..] => Err(Unanalysed::Llc(dsap)),
        }
    }

    /// An address family before the packet; its number for IPv6 depends on the system that captured.
    fn family(&mut self) -> Result<Network<'a>, Unanalysed> {
        let field: [u8; 4] = array_at(self.frame, 0).ok_or(TRUNCATED_LINK)?;
        let family = u32::from_be_bytes(field).min(u32::from_le_bytes(field));
        self.offset = 4;
        match family {
            2 | 10 | 24 | 28 | 30 => self.raw(),
            // Some systems write an EtherType here.
            other => self.ether_type(u16::try_from(other).unwrap_or(0xffff)),
        }
    }

    /// IP without anything before it that says which version.
    fn raw(&mut self) -> Result<Network<'a>, Unanalysed> {
        match u8_at(self.rest(), 0).ok_or(TRUNCATED_LINK)? >> 4 {
            4 | 6 => Ok(self.found()),
            _ => Err(Unanalysed::Malformed(Layer::Link)),
        }
    }

    /// RFC 1661, with the HDLC bytes of RFC 1662 where they are there, and protocol field compression.
    fn ppp(&mut self) -> Result<Network<'a>, Unanalysed> {
        if self.rest().starts_with(&[0xff, 0x03]) {
            self.offset += 2;
        } else if let Some([0x0f | 0x8f, 0x00]) = array_at::<2>(self.rest(), 0) {
            // Cisco HDLC under a PPP link type.
            let ether_type = u16_at(self.rest(), 2).ok_or(TRUNCATED_LINK)?;
            self.offset += 4;
            return self.ether_type(ether_type);
        }
        self.ppp_protocol()
    }

    /// The number of the protocol, which may be compressed (RFC 1661 section 6.5).
    fn ppp_protocol(&mut self) -> Result<Network<'a>, Unanalysed> {
        let first = u8_at(self.rest(), 0).ok_or(TRUNCATED_LINK)?;
        let protocol = if first & 1 == 1 {
            self.offset += 1;
            u16::from(first)
        } else {
            let protocol = u16_at(self.rest(), 0).ok_or(TRUNCATED_LINK)?;
            self.offset += 2;
            protocol
        };
        match protocol {
            0x0021 | 0x0057 => self.raw(),
            0x0281 | 0x0283 => self.mpls(),
            other => Err(Unanalysed::Ppp(other)),
        }
    }

    /// A magic number, flags, and where these say so extensions of a stated length.
    fn juniper(&mut self) -> Result<Network<'a>, Unanalysed> {
        const EXTENSIONS: u8 = 0x80;
        const NO_LINK_HEADER: u8 = 0x02;
        let [m, g, c, flags]: [u8; 4] = array_at(self.frame, 0).ok_or(TRUNCATED_LINK)?;
        if [m, g, c] != *b"MGC" {
            return Err(Unanalysed::Malformed(Layer::Link));
        }
        self.offset = 4;
        if flags & EXTENSIONS != 0 {
            self.offset += 2 + usize::from(u16_at(self.frame, 4).ok_or(TRUNCATED_LINK)?);
        }
        if flags & NO_LINK_HEADER != 0 { self.raw() } else { self.ethernet() }
    }

    /// Type-length-value attributes in the byte order of the capturing host; attribute 9 is the packet.
    fn nflog(&mut self) -> Result<Network<'a>, Unanalysed> {
        const PAYLOAD: u16 = 9;
        self.offset = 4;
        for _ in 0..MAX_TAGS * 2 {
            let header: [u8; 4] = array_at(self.rest(), 0).ok_or(TRUNCATED_LINK)?;
            // The kernel's attributes are below 32, so the byte that is zero tells the order.
            let little = header[3] == 0 && header[2] != 0;
            let read = if little { u16::from_le_bytes } else { u16::from_be_bytes };
            let length = usize::from(read([header[0], header[1]]));
            if read([header[2], header[3]]) & 0x7fff == PAYLOAD {
                self.offset += 4;
                return self.raw();
            }
            if length < 4 {
                return Err(Unanalysed::Malformed(Layer::Link));
            }
            self.offset += length.next_multiple_of(4);
        }
        Err(Unanalysed::TooDeep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IP: [u8; 4] = [0x45, 0, 0, 20];
    const MAC: [u8; 12] = [2; 12];

    fn found(link_type: LinkType, parts: &[&[u8]]) -> (usize, u32) {
        let frame = [parts.concat(), IP.to_vec()].concat();
        let network = network(link_type, &frame).unwrap();
        assert_eq!(network.packet, IP);
        (network.offset, network.vlan)
    }

    #[test]
    fn every_link_type_leads_to_the_network_layer() {
        let snap: &[u8] = &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0];
        let cases: [(LinkType, &[&[u8]]); 56] = [
            (LinkType::WLAN, &[&[0x08, 1], &[0; 22], snap]),
            (LinkType::WLAN, &[&[0x88, 3], &[0; 30], snap]),
            (LinkType::RADIOTAP, &[&[0, 0, 8, 0, 0, 0, 0, 0], &[0x08, 2], &[0; 22], snap]),
            (LinkType::RADIOTAP, &[&[0, 0, 9, 0, 2, 0, 0, 0, 0x20], &[0x88, 2], &[0; 26], snap]),
            (LinkType::PRISM, &[&[0; 144], &[0x08, 1], &[0; 22], snap]),
            (LinkType::AVS, &[&[0x80, 0x21, 0x10, 1, 0, 0, 0, 64], &[0; 56], &[0x08, 1], &[0; 22], snap]),
            (LinkType::PPI, &[&[0, 0, 12, 0, 105, 0, 0, 0], &[0; 4], &[0x08, 1], &[0; 22], snap]),
            (LinkType::PKTAP, &[&[16, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0], &[0; 4], &MAC, &[8, 0]]),
            (LinkType::TOKEN_RING, &[&[0; 14], snap]),
            (LinkType::TOKEN_RING, &[&[0; 8], &[0x80; 6], &[4, 0, 0, 0], snap]),
            (LinkType::ARCNET_BSD, &[&[1, 2, 212, 0, 0, 1]]),
            (LinkType::ARCNET_LINUX, &[&[1, 2, 0, 0, 240]]),
            (LinkType::SLIP, &[&[0; 16]]),
            (LinkType::FRAME_RELAY, &[&[0x18, 0x41, 3, 0xcc]]),
            (LinkType::FRAME_RELAY, &[&[0x18, 0x41, 3, 0, 0x80, 0, 0, 0, 8, 0]]),
            (LinkType::FRAME_RELAY, &[&[0x18, 0x41, 8, 0]]),
            (LinkType::FIBRE_CHANNEL, &[&[0; 16], snap]),
            (LinkType::IEEE_1394, &[&[0; 16], &[8, 0]]),
            (LinkType::PPPD, &[&[1, 3, 0, 0x21]]),
            (LinkType::IPOIB, &[&[0; 40], &[8, 0, 0, 0]]),
            (LinkType::BRCM_TAG, &[&MAC, &[0; 4], &[8, 0]]),
            (LinkType::ETHERNET, &[&MAC, &[8, 0]]),
            (LinkType::ETHERNET, &[&MAC, &[0, 12], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]]),
            (LinkType::ETHERNET, &[&MAC, &[0, 12], &[6, 6, 3]]),
            (LinkType::ETHERNET, &[&MAC, &[0x88, 0x64], &[0x11, 0, 0, 5, 0, 6, 0, 0x21]]),
            (LinkType::ETHERNET, &[&MAC, &[0x88, 0x47], &[0, 1, 0, 64, 0, 2, 1, 64]]),
            (LinkType::ETHERNET, &[&MAC, &[0x88, 0x47], &[0, 2, 1, 64], &[0, 0, 0, 9], &MAC, &[8, 0]]),
            (LinkType::ETHERNET, &[&MAC, &[0x88, 0x47], &[0, 2, 1, 64], &MAC, &[8, 0]]),
            (LinkType::ETHERNET, &[&MAC, &[0x88, 0x47], &[0, 2, 1, 64], &[0x90; 12], &[8, 0]]),
            (LinkType::ETHERNET, &[&MAC, &[0x89, 0x4f], &[0, 4, 1, 3], &[9; 12], &MAC, &[8, 0]]),
            (LinkType::ETHERNET, &[&MAC, &[0x88, 0x64], &[0x11, 0, 0, 5, 0, 6, 0x21]]),
            (LinkType::ETHERNET, &[&MAC, &[0x89, 0x26], &[0, 1, 0, 2], &[8, 0]]),
            (LinkType::ETHERNET, &[&MAC, &[0x89, 0x3f], &[0, 1, 0, 2, 0, 0], &[8, 0]]),
            (LinkType::ETHERNET, &[&MAC, &[0x89, 0x09], &[1, 1, 0, 1, 0, 9], &[8, 0]]),
            (LinkType::ETHERNET, &[&MAC, &[0x88, 0xe7], &[0, 0, 0, 7], &MAC, &[8, 0]]),
            (LinkType::ETHERNET, &[&MAC, &[0x89, 0x03], &[0, 0x60], &MAC, &[8, 0]]),
            (LinkType::ETHERNET, &[&MAC, &[0x22, 0xf3], &[0, 0x40, 0, 1, 0, 2], &[0; 4], &MAC, &[8, 0]]),
            (LinkType::ETHERNET, &[&MAC, &[0xd2, 0x8b], &[0, 1, 0, 0x10], &[0; 8], &[8, 0]]),
            (LinkType::ETHERNET, &[&MAC, &[0xd2, 0x8b], &[0, 1, 1, 0x20], &[0; 6], &[8, 0]]),
            (LinkType::ETHERNET, &[&MAC, &[0x88, 0xe5], &[0x20, 0, 0, 0, 0, 1], &[0; 8], &[8, 0]]),
            (LinkType::ETHERNET, &[&MAC, &[0x88, 0xe5], &[0, 0, 0, 0, 0, 1], &[8, 0]]),
            (LinkType::LINUX_SLL, &[&[0; 14], &[8, 0]]),
            (LinkType::LINUX_SLL2, &[&[8, 0], &[0; 18]]),
            (LinkType::NULL, &[&[2, 0, 0, 0]]),
            (LinkType::NULL, &[&[0, 0, 0, 30]]),
            (LinkType::LOOP, &[&[0, 0, 0, 24]]),
            (LinkType::RAW, &[]),
            (LinkType(12), &[]),
            (LinkType::IPV6, &[]),
            (LinkType::PPP, &[&[0xff, 3, 0, 0x21]]),
            (LinkType::PPP, &[&[0x21]]),
            (LinkType::PPP_WITH_DIRECTION, &[&[1, 0xff, 3, 0, 0x57]]),
            (LinkType::C_HDLC, &[&[0x0f, 0, 8, 0]]),
            (LinkType::FDDI, &[&[0; 13], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0]]),
            (LinkType::PFLOG, &[&[61], &[0; 63]]),
            (LinkType::NFLOG, &[&[2, 0, 0, 7], &[5, 0, 10, 0, 9, 0, 0, 0], &[8, 0, 9, 0]]),
        ];
        for (link_type, parts) in cases {
            let expected = parts.iter().map(|part| part.len()).sum();
            assert_eq!(found(link_type, parts), (expected, 0), "{link_type:?} {parts:?}");
        }
    }

    #[test]
    fn of_many_tags_the_outer_two_are_kept() {
        let tags: &[&[u8]] = &[&MAC, &[0x91, 0, 0, 1], &[0x88, 0xa8, 0x20, 2], &[0x81, 0, 0, 3], &[8, 0]];
        assert_eq!(found(LinkType::ETHERNET, tags), (26, 1 | 2 << 12));
        let endless = [&MAC[..], &[0x81, 0, 0, 1].repeat(300)].concat();
        assert_eq!(network(LinkType::ETHERNET, &endless), Err(Unanalysed::TooDeep));
    }

    #[test]
    fn frames_in_frames_end() {
        let nested =
            [[&MAC[..], &[0x88, 0xe7, 0, 0, 0, 7]].concat(), [&[0x90; 12][..], &[0x88, 0x47, 0, 2, 1, 64]].concat()];
        for header in nested {
            assert_eq!(network(LinkType::ETHERNET, &header.repeat(10_000)), Err(Unanalysed::TooDeep));
        }
        let encrypted = [&MAC[..], &[0x88, 0xe5, 0x0c, 0, 0, 0, 0, 1, 8, 0]].concat();
        assert_eq!(network(LinkType::ETHERNET, &encrypted), Err(Unanalysed::EtherType(0x88e5)));
    }

    #[test]
    fn a_frame_cut_within_its_headers_says_so() {
        let frame = [&MAC[..], &[0x81, 0, 0, 5, 8, 0]].concat();
        assert_eq!(network(LinkType::ETHERNET, &frame[..13]), Err(TRUNCATED_LINK));
        assert_eq!(network(LinkType::ETHERNET, &frame[..16]), Err(TRUNCATED_SHIM));
        assert_eq!(network(LinkType::RAW, &[]), Err(TRUNCATED_LINK));
    }

    #[test]
    fn the_length_of_the_check_sequence_is_not_part_of_the_number() {
        assert_eq!(LinkType::from_file(0x3000_0001), LinkType::ETHERNET);
    }
}
