//! Community ID version 1: one name for a flow in the tools of all vendors.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

use crate::key::icmp_counterpart;
use crate::packet::ip::protocol;

/// The Community ID v1 with seed 0, for example `1:wCb3OG7yAFWelaUydu0D+125CLM=`; the same for both directions of a flow.
///
/// Addresses are 16 bytes in network order, IPv4 mapped. For ICMP and `ICMPv6` the ports are type and code of a packet; protocols without
/// ports are hashed without them, whatever the arguments.
#[must_use]
pub fn community_id(src_ip: [u8; 16], dst_ip: [u8; 16], src_port: u16, dst_port: u16, protocol: u8) -> String {
    const SEED: [u8; 2] = [0, 0];
    let (ports, one_way) = port_equivalents(src_port, dst_port, protocol);
    let (src, dst) = (address_bytes(&src_ip), address_bytes(&dst_ip));
    let (src_port, dst_port) = ports.unwrap_or_default();
    let in_order = one_way || (src, src_port) <= (dst, dst_port);
    let (low, low_port, high, high_port) =
        if in_order { (src, src_port, dst, dst_port) } else { (dst, dst_port, src, src_port) };

    let mut hash = Sha1::new();
    hash.update(SEED);
    hash.update(low);
    hash.update(high);
    hash.update([protocol, 0]);
    if ports.is_some() {
        hash.update(low_port.to_be_bytes());
        hash.update(high_port.to_be_bytes());
    }
    format!("1:{}", STANDARD.encode(hash.finalize()))
}

/// What takes the place of the ports, and whether the order of the ends is kept.
fn port_equivalents(src_port: u16, dst_port: u16, protocol: u8) -> (Option<(u16, u16)>, bool) {
    match protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => (Some((src_port, dst_port)), false),
        protocol::ICMP | protocol::ICMPV6 => match icmp_counterpart(protocol, src_port) {
            Some(counterpart) => (Some((src_port, counterpart)), false),
            None => (Some((src_port, dst_port)), true),
        },
        _ => (None, false),
    }
}

/// Four bytes for a mapped IPv4 address, sixteen otherwise.
fn address_bytes(ip: &[u8; 16]) -> &[u8] {
    const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    if ip.starts_with(&MAPPED) { &ip[12..] } else { ip }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn id(src: &str, dst: &str, src_port: u16, dst_port: u16, protocol: u8) -> String {
        let octets = |text: &str| weir_proto::Ip::from(text.parse::<IpAddr>().unwrap()).octets();
        community_id(octets(src), octets(dst), src_port, dst_port, protocol)
    }

    #[test]
    fn published_vectors_hold_in_both_directions() {
        let vectors = [
            ("1.2.3.4", "5.6.7.8", 1122, 3344, 6, "1:wCb3OG7yAFWelaUydu0D+125CLM="),
            ("5.6.7.8", "1.2.3.4", 3344, 1122, 6, "1:wCb3OG7yAFWelaUydu0D+125CLM="),
            ("1.2.3.4", "5.6.7.8", 1122, 3344, 17, "1:0Mu9InQx6z4ZiCZM/7HXi2WMhOg="),
            ("128.232.110.120", "66.35.250.204", 34855, 80, 6, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            ("66.35.250.204", "128.232.110.120", 80, 34855, 6, "1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
            ("10.0.0.1", "10.0.0.2", 10, 11569, 6, "1:SXBGMX1lBOwhhoDrZynfROxnhnM="),
            ("192.168.1.52", "8.8.8.8", 54585, 53, 17, "1:d/FP5EW3wiY1vCndhwleRRKHowQ="),
            ("192.168.170.8", "192.168.170.56", 7, 80, 132, "1:jQgCxbku+pNGw8WPbEc/TS/uTpQ="),
            ("192.168.170.56", "192.168.170.8", 80, 7, 132, "1:jQgCxbku+pNGw8WPbEc/TS/uTpQ="),
        ];
        for (src, dst, src_port, dst_port, protocol, expected) in vectors {
            assert_eq!(id(src, dst, src_port, dst_port, protocol), expected, "{src} {dst}");
        }
    }

    #[test]
    fn icmp_pairs_type_and_counterpart() {
        for (src, dst, kind, code, expected) in [
            ("192.168.0.89", "192.168.0.1", 8, 0, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
            ("192.168.0.1", "192.168.0.89", 0, 8, "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="),
            ("192.168.0.89", "192.168.0.1", 20, 0, "1:3o2RFccXzUgjl7zDpqmY7yJi8rI="),
            ("192.168.0.89", "192.168.0.1", 20, 1, "1:tz/fHIDUHs19NkixVVoOZywde+I="),
        ] {
            assert_eq!(id(src, dst, kind, code, 1), expected, "{kind}/{code}");
        }
    }

    #[test]
    fn icmpv6_pairs_solicitation_and_advertisement_and_keeps_one_way_types_apart() {
        for (src, dst, kind, expected) in [
            ("fe80::200:86ff:fe05:80da", "fe80::260:97ff:fe07:69ea", 135, "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="),
            ("fe80::260:97ff:fe07:69ea", "fe80::200:86ff:fe05:80da", 136, "1:dGHyGvjMfljg6Bppwm3bg0LO8TY="),
            ("3ffe:507:0:1:260:97ff:fe07:69ea", "3ffe:507:0:1:200:86ff:fe05:80da", 3, "1:NdobDX8PQNJbAyfkWxhtL2Pqp5w="),
            ("3ffe:507:0:1:200:86ff:fe05:80da", "3ffe:507:0:1:260:97ff:fe07:69ea", 3, "1:/OGBt9BN1ofenrmSPWYicpij2Vc="),
        ] {
            assert_eq!(id(src, dst, kind, 0, 58), expected, "{kind}");
        }
    }

    #[test]
    fn a_protocol_without_ports_is_hashed_without_them() {
        assert_eq!(id("10.1.24.4", "10.1.12.1", 0, 0, 46), "1:/nQI4Rh/TtY3mf0R2gJFBkVlgS4=");
        assert_eq!(id("10.1.12.1", "10.1.24.4", 7, 9, 46), "1:/nQI4Rh/TtY3mf0R2gJFBkVlgS4=");
    }
}
