//! Packets that user space wants to read: those that may name what a flow is about.
//!
//! DNS messages, the first packets of a TCP flow that begin as TLS, HTTP or SSH do, and QUIC's first packets. Of a TLS record that is spread over several
//! packets the rest is picked too. Only the beginning of a flow is looked at, so a packet in the middle of one costs a comparison.

use crate::{dissect::Headers, flow::FlowKey, initiator::TCP};

/// The most that is copied of a packet.
pub const SNAP: usize = 4096;
/// Packets of one direction that are looked at, of a TCP flow and of a UDP flow.
pub const LOOKED_AT: u64 = 16;
/// The same for DNS over TCP, where one connection may carry many messages.
pub const LOOKED_AT_DNS: u64 = 256;
/// The longest TLS record (RFC 8446 section 5.1), with its header: more is not waited for.
const MAX_RECORD: u32 = (1 << 14) + 256 + 5;
/// A client pads the datagram with its first packet to at least so much (RFC 9000 section 14.1).
const MIN_QUIC: u32 = 1200;

const UDP: u8 = 17;

/// Why a packet was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// It is from or to a port of DNS.
    Dns = 1,
    /// A TLS handshake record begins.
    Tls = 2,
    /// The rest of one, or of what comes first in an HTTP/2 connection.
    Continued = 3,
    /// An HTTP request or response begins.
    Http = 4,
    /// SSH's greeting.
    Ssh = 5,
    /// A long header of QUIC.
    Quic = 6,
}

impl Kind {
    /// From its number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Dns, Self::Tls, Self::Continued, Self::Http, Self::Ssh, Self::Quic]
            .into_iter()
            .find(|kind| *kind as u32 == number)
    }
}

/// What stands before the bytes of a packet in the ring buffer. 80 bytes without padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Head {
    /// Its flow.
    pub key: FlowKey,
    /// `CLOCK_BOOTTIME` in nanoseconds of the flow's first packet: with the key it names the flow.
    pub first_seen: u64,
    /// The same of this packet.
    pub now: u64,
    /// Number of the interface: its index, or that of one in a container.
    pub ifindex: u32,
    /// Bytes that follow.
    pub captured: u32,
    /// Bytes of the frame.
    pub original: u32,
    /// [`Kind`]
    pub kind: u32,
    /// Lowest byte: 0 = an Ethernet header comes first, 1 = the IP header. Above it the kind of the tunnel that the flow is in.
    pub link: u64,
}

/// What the kernel sends: the bytes that follow the head are as many as it says.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Pick {
    /// About the packet.
    pub head: Head,
    /// The packet.
    pub data: [u8; SNAP],
}

/// The key under which the rest of a TLS record, or of the first packets of an HTTP/2 connection, is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Continued {
    /// The flow.
    pub key: FlowKey,
    /// Who sends it.
    pub side: u64,
}

/// What to do about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing.
    No,
    /// Pick it.
    Pick,
    /// Look at the first bytes of its payload ([`begins`]).
    Payload,
}

/// Whether a packet is worth a look, by its headers; `before` = packets of this direction of its flow before it.
#[inline(always)]
#[must_use]
pub fn look(headers: &Headers, before: u64) -> Look {
    let payload = headers.ip_bytes.saturating_sub(headers.header_bytes);
    let on = |port: u16| headers.src_port == port || headers.dst_port == port;
    if headers.protocol == UDP {
        if on(53) || on(5353) || on(5355) {
            return Look::Pick;
        }
        return if before < LOOKED_AT && payload >= MIN_QUIC { Look::Payload } else { Look::No };
    }
    if headers.protocol != TCP || payload == 0 {
        return Look::No;
    }
    if on(53) {
        return if before < LOOKED_AT_DNS { Look::Pick } else { Look::No };
    }
    if before < LOOKED_AT { Look::Payload } else { Look::No }
}

/// What a payload begins with, by its first eight bytes.
#[inline(always)]
#[must_use]
pub fn begins(protocol: u8, start: [u8; 8]) -> Option<Kind> {
    if protocol == UDP {
        return is_quic(start).then_some(Kind::Quic);
    }
    if start[0] == 0x16 && start[1] == 3 && start[2] <= 4 {
        return Some(Kind::Tls);
    }
    let word = u32::from_be_bytes([start[0], start[1], start[2], start[3]]);
    match &word.to_be_bytes() {
        b"GET " | b"POST" | b"PUT " | b"HEAD" | b"DELE" | b"OPTI" | b"PATC" | b"CONN" | b"HTTP" | b"PRI " => {
            Some(Kind::Http)
        }
        b"SSH-" => Some(Kind::Ssh),
        _ => None,
    }
}

/// A long header of version 1 or 2, or of a draft (RFC 9000 section 17.2, RFC 9369).
#[inline(always)]
fn is_quic(start: [u8; 8]) -> bool {
    let version = u32::from_be_bytes([start[1], start[2], start[3], start[4]]);
    start[0] & 0xc0 == 0xc0 && (version == 1 || version == 0x6b33_43cf || version >> 8 == 0x00ff_0000)
}

/// What is waited for of each direction of an HTTP/2 connection: all that is looked at of it.
pub const HTTP2_REST: u32 = 1 << 30;

/// Whether a payload begins the preface of an HTTP/2 client (RFC 9113 section 3.4).
#[inline(always)]
#[must_use]
pub fn is_http2_preface(start: [u8; 8]) -> bool {
    u64::from_be_bytes(start) == u64::from_be_bytes(*b"PRI * HT")
}

/// Bytes of the TLS record that begins with `start` that are not in a payload of this length; 0 = it is whole.
#[inline(always)]
#[must_use]
pub fn missing(start: [u8; 8], payload: u32) -> u32 {
    let record = u32::from(u16::from_be_bytes([start[3], start[4]])) + 5;
    let record = if record > MAX_RECORD { MAX_RECORD } else { record };
    record.saturating_sub(payload)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn headers(protocol: u8, dst_port: u16, payload: u32) -> Headers {
        Headers { protocol, src_port: 40_000, dst_port, ip_bytes: 40 + payload, header_bytes: 40, ..Headers::default() }
    }

    #[test]
    fn only_the_beginning_of_a_flow_is_looked_at() {
        assert_eq!(look(&headers(TCP, 443, 500), 2), Look::Payload);
        assert_eq!(look(&headers(TCP, 443, 500), LOOKED_AT), Look::No);
        assert_eq!(look(&headers(TCP, 443, 0), 0), Look::No);
        assert_eq!(look(&headers(UDP, 443, 1200), 0), Look::Payload);
        assert_eq!(look(&headers(UDP, 443, 64), 0), Look::No);
        assert_eq!(look(&headers(132, 443, 500), 0), Look::No);
    }

    #[test]
    fn the_preface_of_http2_is_known() {
        assert!(is_http2_preface(*b"PRI * HT") && begins(TCP, *b"PRI * HT") == Some(Kind::Http));
        assert!(!is_http2_preface(*b"PRI /x H") && !is_http2_preface(*b"GET / HT"));
    }

    #[test]
    fn dns_is_always_picked() {
        assert_eq!(look(&headers(UDP, 53, 30), u64::MAX), Look::Pick);
        assert_eq!(look(&headers(TCP, 53, 30), 200), Look::Pick);
        assert_eq!(look(&headers(TCP, 53, 30), LOOKED_AT_DNS), Look::No);
    }

    #[test]
    fn a_payload_is_known_by_its_first_bytes() {
        for (start, kind) in [
            (*b"\x16\x03\x01\x02\x00\x01\x00\x01", Some(Kind::Tls)),
            (*b"GET / HT", Some(Kind::Http)),
            (*b"HTTP/1.1", Some(Kind::Http)),
            (*b"SSH-2.0-", Some(Kind::Ssh)),
            (*b"\x17\x03\x03\x00\x00\x00\x00\x00", None),
            (*b"GETTER\0\0", None),
        ] {
            assert_eq!(begins(TCP, start), kind, "{start:?}");
        }
        assert_eq!(begins(UDP, *b"\xc3\x00\x00\x00\x01\x08\x01\x02"), Some(Kind::Quic));
        assert_eq!(begins(UDP, *b"\x43\x00\x00\x00\x01\x08\x01\x02"), None);
        assert_eq!(begins(UDP, *b"GET / HT"), None);
    }

    #[test]
    fn the_rest_of_a_record_is_what_the_payload_does_not_hold() {
        let start = *b"\x16\x03\x01\x07\x00\x01\x00\x06";
        assert_eq!(missing(start, 1400), 0x700 + 5 - 1400);
        assert_eq!(missing(start, 3000), 0);
        assert_eq!(missing(*b"\x16\x03\x01\xff\xff\x01\x00\x06", 100), MAX_RECORD - 100);
    }

    proptest! {
        #[test]
        fn however_a_record_is_cut_it_is_picked_to_its_last_byte(
            length in 8u16..=1 << 14, cuts in proptest::collection::vec(8..3000u32, 1..40),
        ) {
            let [high, low] = length.to_be_bytes();
            let start = [0x16, 3, 1, high, low, 1, 0, 0];
            let whole = u32::from(length) + 5;
            let (mut picked, mut rest) = (0, None);
            let mut pieces: Vec<u32> = Vec::new();
            for cut in cuts {
                let left = whole - pieces.iter().sum::<u32>();
                pieces.push(cut.min(left));
            }
            for piece in pieces {
                // As the kernel's program does it.
                rest = match rest {
                    None => Some(missing(start, piece)),
                    Some(0) => break,
                    Some(rest) => Some(rest.saturating_sub(piece)),
                };
                picked += piece;
            }
            prop_assert_eq!(rest, Some(whole - picked));
        }

        #[test]
        fn only_the_beginning_is_looked_at_whatever_comes(
            protocol: u8, ports: (u16, u16), ip_bytes: u32, header_bytes: u32, before: u64, start: [u8; 8],
        ) {
            let (src_port, dst_port) = ports;
            let headers = Headers { src_port, dst_port, protocol, ip_bytes, header_bytes, ..Headers::default() };
            let looked = look(&headers, before);
            let dns = [53, 5353, 5355].iter().any(|port| src_port == *port || dst_port == *port);
            prop_assert!(looked == Look::No || dns || before < LOOKED_AT);
            prop_assert!(looked == Look::No || protocol == TCP || protocol == UDP);
            prop_assert!(missing(start, ip_bytes) <= MAX_RECORD);
            let kind = begins(protocol, start);
            prop_assert_eq!(kind.and_then(|kind| Kind::from_number(kind as u32)), kind);
            prop_assert_eq!(kind == Some(Kind::Quic), kind.is_some() && protocol == UDP);
        }
    }

    #[test]
    fn heads_have_no_padding() {
        assert_eq!(size_of::<Head>(), 80);
        assert_eq!(size_of::<Continued>(), 48);
    }
}
