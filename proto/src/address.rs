//! An address as two halves, the form in which records carry it.

use std::net::{IpAddr, Ipv6Addr};

/// A 16-byte IP address (v4 mapped) as the two `fixed64` fields of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ip {
    /// The first eight bytes in network order.
    pub high: u64,
    /// The last eight bytes in network order.
    pub low: u64,
}

impl Ip {
    /// Joins the two fields of a record.
    #[must_use]
    pub const fn new(high: u64, low: u64) -> Self {
        Self { high, low }
    }

    /// The 16 bytes in network order.
    #[must_use]
    pub fn octets(self) -> [u8; 16] {
        ((u128::from(self.high) << 64) | u128::from(self.low)).to_be_bytes()
    }

    /// The address as people write it: IPv4 where it is mapped.
    #[must_use]
    pub fn canonical(self) -> IpAddr {
        Ipv6Addr::from(self).to_canonical()
    }
}

impl From<[u8; 16]> for Ip {
    fn from(octets: [u8; 16]) -> Self {
        let value = u128::from_be_bytes(octets);
        Self { high: (value >> 64) as u64, low: value as u64 }
    }
}

impl From<IpAddr> for Ip {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets().into(),
            IpAddr::V6(v6) => v6.octets().into(),
        }
    }
}

impl From<Ip> for Ipv6Addr {
    fn from(ip: Ip) -> Self {
        ip.octets().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_way_through_its_halves() {
        for text in ["0.0.0.0", "192.0.2.7", "255.255.255.255", "::", "::1", "2001:db8::ff00:42:8329"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(Ip::from(address).canonical(), address);
        }
    }

    #[test]
    fn ipv4_is_mapped() {
        let ip = Ip::from("192.0.2.7".parse::<IpAddr>().unwrap());
        assert_eq!((ip.high, ip.low), (0, 0x0000_ffff_c000_0207));
    }
}
