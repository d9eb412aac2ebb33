//! From the bytes of a frame to the fields of its headers, one layer at a time.
//!
//! Every function takes what the capture kept of a packet and the length that the packet had on the wire, because a snap length may have
//! cut it anywhere; none panics or allocates, whatever the bytes.

pub mod ip;
pub mod link;
pub mod transport;
pub mod tunnel;

pub use ip::{Fragment, IpPacket};
pub use link::{LinkType, Network};
pub use transport::{Tcp, Transport};

/// Why a frame, or the rest of one, makes no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unanalysed {
    /// A link type that is not dissected; its number in the registry of link types.
    LinkType(u16),
    /// Not IP: the `EtherType`, for example 0x0806 for ARP.
    EtherType(u16),
    /// Not IP: IEEE 802.2 without SNAP; the destination service access point.
    Llc(u8),
    /// Not IP: the PPP protocol number.
    Ppp(u16),
    /// An IEEE 802.11 frame that carries no packet: its type in the lower 2 bits, its subtype above.
    Wlan(u8),
    /// An IEEE 802.11 frame whose payload is encrypted.
    Encrypted,
    /// Several packets in one IEEE 802.11 frame, which are looked at one by one, or more of them than are followed.
    Aggregate,
    /// Cut by the snap length, or sent too short, inside this layer.
    Truncated(Layer),
    /// A field of this layer contradicts another one.
    Malformed(Layer),
    /// More layers inside each other than are followed.
    TooDeep,
}

/// A layer whose header could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layer {
    /// The header of the link type itself.
    Link,
    /// VLAN tags, MPLS labels, `PPPoE`: between link and network.
    Shim,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl std::fmt::Display for Unanalysed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LinkType(number) => write!(f, "link type {number}"),
            Self::EtherType(number) => write!(f, "ethertype 0x{number:04x}"),
            Self::Llc(number) => write!(f, "llc 0x{number:02x}"),
            Self::Ppp(number) => write!(f, "ppp protocol 0x{number:04x}"),
            Self::Wlan(number) => write!(f, "802.11 type {} subtype {}", number & 3, number >> 2),
            Self::Encrypted => f.write_str("encrypted 802.11"),
            Self::Aggregate => f.write_str("aggregated 802.11"),
            Self::Truncated(layer) => write!(f, "truncated {layer}"),
            Self::Malformed(layer) => write!(f, "malformed {layer}"),
            Self::TooDeep => f.write_str("too many layers"),
        }
    }
}

impl std::fmt::Display for Layer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Link => "link header",
            Self::Shim => "vlan, mpls or pppoe header",
            Self::Ipv4 => "ipv4 header",
            Self::Ipv6 => "ipv6 header",
        })
    }
}
