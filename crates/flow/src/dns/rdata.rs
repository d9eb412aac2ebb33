//! The data of resource records in presentation form.

use std::fmt::Write as _;
use std::net::Ipv6Addr;

use super::name;
use crate::bytes::{array_at, u16_at, u32_at};

/// Bytes of a record's data that are written out; the rest is left away.
const MAX_BYTES: usize = 512;

/// The data of the record of type `kind` in `message[start..end]`. What has no known form, or is malformed, is in that of RFC 3597.
pub(super) fn present(message: &[u8], kind: u16, start: usize, end: usize) -> String {
    let data = message.get(start..end).unwrap_or_default();
    known(message, kind, start, data).unwrap_or_else(|| opaque(data))
}

fn known(message: &[u8], kind: u16, start: usize, data: &[u8]) -> Option<String> {
    let name_at = |offset: usize| name::read(message, start + offset).ok();
    match kind {
        // A
        1 if data.len() == 4 => Some(dotted(array_at(data, 0)?)),
        // AAAA
        28 if data.len() == 16 => Some(Ipv6Addr::from(array_at::<16>(data, 0)?).to_string()),
        // NS, CNAME, PTR, DNAME
        2 | 5 | 12 | 39 => Some(name_at(0)?.0),
        // MX
        15 => Some(format!("{} {}", u16_at(data, 0)?, name_at(2)?.0)),
        // SRV
        33 => Some(format!("{} {} {} {}", u16_at(data, 0)?, u16_at(data, 2)?, u16_at(data, 4)?, name_at(6)?.0)),
        // TXT, SPF
        16 | 99 => texts(data),
        // SOA
        6 => soa(message, start),
        // DS
        43 => Some(format!("{} {} {} {}", u16_at(data, 0)?, data.get(2)?, data.get(3)?, hex(data.get(4..)?))),
        _ => None,
    }
}

/// An address of IPv4. Most answers are made of one, and the formatter of the standard library takes seven times as long.
fn dotted(address: [u8; 4]) -> String {
    const LONGEST: usize = "255.255.255.255".len();
    let mut text = String::with_capacity(LONGEST);
    for (at, byte) in address.into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        for unit in [100, 10, 1] {
            if byte >= unit || unit == 1 {
                text.push(char::from(b'0' + byte / unit % 10));
            }
        }
    }
    text
}

fn soa(message: &[u8], start: usize) -> Option<String> {
    let (primary, next) = name::read(message, start).ok()?;
    let (mailbox, next) = name::read(message, next).ok()?;
    let mut text = format!("{primary} {mailbox}");
    for field in 0..5 {
        write!(text, " {}", u32_at(message, next + field * 4)?).ok()?;
    }
    Some(text)
}

/// Character strings in quotes.
fn texts(mut data: &[u8]) -> Option<String> {
    let mut text = String::new();
    while let Some((&length, rest)) = data.split_first() {
        let (string, rest) = rest.split_at_checked(usize::from(length))?;
        text.push_str(if text.is_empty() { "\"" } else { " \"" });
        for &byte in string {
            match byte {
                b'"' | b'\\' => {
                    text.push('\\');
                    text.push(char::from(byte));
                }
                0x20..=0x7e => text.push(char::from(byte)),
                _ => write!(text, "\\{byte:03}").ok()?,
            }
        }
        text.push('"');
        if text.len() > MAX_BYTES * 2 {
            break;
        }
        data = rest;
    }
    Some(text)
}

/// RFC 3597 section 5.
fn opaque(data: &[u8]) -> String {
    if data.is_empty() { "\\# 0".to_owned() } else { format!("\\# {} {}", data.len(), hex(data)) }
}

fn hex(data: &[u8]) -> String {
    data.iter().take(MAX_BYTES).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::dotted;

    proptest! {
        #[test]
        fn an_address_is_written_as_everywhere(bytes: [u8; 4]) {
            prop_assert_eq!(dotted(bytes), Ipv4Addr::from(bytes).to_string());
        }
    }
}
