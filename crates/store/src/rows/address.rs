//! An address as the one value that its column has; of itself it is a tuple of sixteen.

use std::net::Ipv6Addr;

use serde::Serializer;

pub(super) fn serialize<S: Serializer>(address: &Ipv6Addr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u128(u128::from_le_bytes(address.octets()))
}
