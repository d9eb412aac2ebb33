//! Protocols over UDP.

use crate::bytes::{array_at, u8_at, u16_at, u32_at};

/// A protocol and what says that a datagram is of it.
struct Form {
    name: &'static str,
    is: fn(&[u8]) -> bool,
}

const fn form(name: &'static str, is: fn(&[u8]) -> bool) -> Form {
    Form { name, is }
}

const FORMS: [Form; 16] = [
    form("stun", is_stun),
    // RFC 2131: an operation, Ethernet or another link, and the cookie.
    form("dhcp", |b| matches!(b, [1 | 2, _, 0..=16, ..]) && array_at(b, 236) == Some([99, 130, 83, 99])),
    form("dhcpv6", is_dhcpv6),
    form("ntp", is_ntp),
    form("snmp", is_snmp),
    // RFC 3261.
    form("sip", is_sip),
    // UPnP (SSDP) is HTTP in datagrams.
    form("http", |b| crate::http::start(b) == crate::http::Start::Request || b.starts_with(b"HTTP/1.1 ")),
    form("wireguard", is_wireguard),
    form("openvpn", |b| is_openvpn(b) && b.len() < 200),
    form("bittorrent", is_bittorrent),
    // RFC 7296: a header whose length is that of the datagram.
    form("ike", is_ike),
    // RFC 5424 and 3164: a priority in angle brackets.
    form("syslog", is_syslog),
    // RFC 1350: a request names a file and a mode.
    form("tftp", is_tftp),
    form("radius", is_radius),
    form("memcached", is_memcached),
    form("netbios", is_netbios),
];

pub(super) fn name(payload: &[u8]) -> Option<&'static str> {
    FORMS.iter().find(|form| (form.is)(payload)).map(|form| form.name)
}

/// RFC 8489: the magic cookie, and a length that is a multiple of four and fits.
pub(super) fn is_stun(bytes: &[u8]) -> bool {
    let length = u16_at(bytes, 2).map(usize::from);
    matches!(bytes, [0..=0x3f, _, ..])
        && u32_at(bytes, 4) == Some(0x2112_a442)
        && length
            .is_some_and(|length| length % 4 == 0 && bytes.len() >= 20 && length + 20 <= bytes.len().max(20) + 1500)
}

/// RFC 8415: a kind of message, and options that fill the datagram.
fn is_dhcpv6(bytes: &[u8]) -> bool {
    if !matches!(bytes, [1..=11, ..]) || bytes.len() < 12 {
        return false;
    }
    let mut at = 4;
    let mut options = 0;
    while at < bytes.len() {
        let (Some(code), Some(length)) = (u16_at(bytes, at), u16_at(bytes, at + 2)) else { return false };
        if !(1..=150).contains(&code) {
            return false;
        }
        at += 4 + usize::from(length);
        options += 1;
    }
    // One of them says who is who: every message but a relayed one has it.
    at == bytes.len() && options >= 2
}

/// RFC 5905: 48 bytes and extensions; version 1 to 4, a mode, and fields of a clock that exists. Only simple clients and servers
/// (RFC 4330) leave its precision away.
fn is_ntp(bytes: &[u8]) -> bool {
    let Some(&first) = bytes.first() else { return false };
    let (version, mode) = (first >> 3 & 7, first & 7);
    let simple = bytes.len() == 48 && matches!(mode, 3 | 4);
    let clock = |poll: u8, precision: u8| poll <= 17 && ((simple && precision == 0) || precision >= 0xe0);
    matches!(version, 1..=4)
        && matches!(mode, 1..=5)
        && matches!(bytes.len(), 48 | 52 | 60..=140)
        && bytes[1] <= 16
        && clock(bytes[2], bytes[3])
}

/// RFC 1157, 3416, 3412: a sequence that is the datagram, and a version.
fn is_snmp(bytes: &[u8]) -> bool {
    let (length, inside) = match bytes {
        [0x30, length @ 0..=0x7f, rest @ ..] | [0x30, 0x81, length, rest @ ..] => (usize::from(*length), rest),
        [0x30, 0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return false,
    };
    length == inside.len() && matches!(inside, [2, 1, 0 | 1, 4, ..] | [2, 1, 3, 0x30, ..])
}

fn is_sip(bytes: &[u8]) -> bool {
    let line = bytes.iter().position(|byte| *byte == b'\n').map(|at| &bytes[..at]);
    bytes.starts_with(b"SIP/2.0 ") || line.is_some_and(|line| line.trim_ascii_end().ends_with(b" SIP/2.0"))
}

/// Kinds and lengths of a handshake (initiation, response, cookie), or data in blocks of 16 behind a counter that is not that large.
fn is_wireguard(bytes: &[u8]) -> bool {
    match (u32_at(bytes, 0), bytes.len()) {
        (Some(0x0100_0000), 148) | (Some(0x0200_0000), 92) | (Some(0x0300_0000), 64) => true,
        (Some(0x0400_0000), length @ 32..) => length % 16 == 0 && bytes[13..16] == [0; 3] && bytes[4..8] != [0; 4],
        _ => false,
    }
}

/// A reset of client or server (version 2), with a session and nothing acknowledged that long ago.
pub(super) fn is_openvpn(bytes: &[u8]) -> bool {
    let keyed = matches!(bytes, [0x38 | 0x40 | 0x50, ..]);
    // Without a hash: a session, no acknowledgements, packet 0.
    let plain = bytes.len() == 14 && bytes[9..] == [0; 5];
    // With one of 16 to 64 bytes: a replay number of 1, a time, no acknowledgements, packet 0.
    let signed = [20usize, 32, 64].iter().any(|hash| {
        let at = 9 + hash;
        bytes.len() >= at + 13 && u32_at(bytes, at) == Some(1) && bytes[at + 8..at + 13] == [0; 5]
    });
    keyed && (plain || signed)
}

/// The distributed hash table (BEP 5) and the transport (BEP 29), trackers (BEP 15).
fn is_bittorrent(bytes: &[u8]) -> bool {
    let dictionary =
        [&b"d1:ad2:id20:"[..], b"d1:rd2:id20:", b"d2:ip6:", b"d1:eli"].iter().any(|start| bytes.starts_with(start));
    dictionary || (bytes.len() >= 16 && bytes.starts_with(&[0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80]))
}

fn is_ike(bytes: &[u8]) -> bool {
    // Behind four zeros on the port that goes through address translation.
    let bytes = bytes.strip_prefix(&[0; 4]).filter(|rest| u32_at(rest, 24) == Some(rest.len() as u32)).unwrap_or(bytes);
    bytes.len() >= 28
        && u32_at(bytes, 24) == Some(bytes.len() as u32)
        && matches!(bytes[17], 0x10 | 0x20)
        && bytes[..8] != [0; 8]
}

fn is_syslog(bytes: &[u8]) -> bool {
    let Some(rest) = bytes.strip_prefix(b"<") else { return false };
    // One more than a priority has, however many there are.
    let digits = rest.iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
    let value = rest[..digits].iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    (1..=3).contains(&digits) && value <= 191 && rest.get(digits) == Some(&b'>') && rest.len() > digits + 1
}

fn is_tftp(bytes: &[u8]) -> bool {
    let [0, 1 | 2, rest @ ..] = bytes else { return false };
    let mut texts = rest.split(|byte| *byte == 0);
    let (Some(file), Some(mode)) = (texts.next(), texts.next()) else { return false };
    let modes = [&b"octet"[..], b"netascii", b"mail"];
    !file.is_empty()
        && file.iter().all(u8::is_ascii_graphic)
        && modes.iter().any(|name| mode.eq_ignore_ascii_case(name))
}

/// RFC 2865: a code, the length of the datagram, and attributes that fill it.
fn is_radius(bytes: &[u8]) -> bool {
    let head = matches!(u8_at(bytes, 0), Some(1..=5 | 11 | 12)) && u16_at(bytes, 2) == Some(bytes.len() as u16);
    let Some(mut attributes) = bytes.get(20..).filter(|_| head) else { return false };
    while let [1..=255, length @ 2..=255, ..] = *attributes {
        let Some(rest) = attributes.get(usize::from(length)..) else { return false };
        attributes = rest;
    }
    attributes.is_empty()
}

/// A header of eight bytes before the text protocol: first of one datagram.
fn is_memcached(bytes: &[u8]) -> bool {
    let alone = matches!(bytes, [_, _, 0, 0, 0, 1, 0, 0, ..]);
    let texts = [&b"get "[..], b"gets ", b"stats", b"VALUE ", b"STAT ", b"END\r\n", b"version\r\n"];
    alone && texts.iter().any(|text| bytes[8..].starts_with(text))
}

/// RFC 1002 section 4.2: a question or an answer about an encoded name.
fn is_netbios(bytes: &[u8]) -> bool {
    let encoded = bytes.get(13..45).is_some_and(|name| name.iter().all(|byte| (b'A'..=b'P').contains(byte)));
    u8_at(bytes, 12) == Some(32) && encoded
}
