//! Domain names in messages (RFC 1035 section 4.1.4) and in presentation form (section 5.1).

use crate::bytes::{u8_at, u16_at};

/// A name that cannot be read: it leaves the message, points forward, loops, or is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Octets of a name on the wire, RFC 1035 section 2.3.4.
const MAX_OCTETS: usize = 255;
/// Pointers in one name: a server needs one or two, a hostile message would chain thousands.
const MAX_POINTERS: usize = 32;

/// Reads the name at `offset`: lower case, without the final dot, and where it ends in the message.
pub(super) fn read(message: &[u8], offset: usize) -> Result<(String, usize), Malformed> {
    const USUAL: usize = 48;
    let mut text = Vec::with_capacity(USUAL);
    let mut octets = 0;
    let mut at = offset;
    let mut end = None;
    // A pointer may only lead to before the labels that it ends, so every jump goes strictly back and the walk is finite.
    let mut limit = offset;
    let mut pointers = 0;
    loop {
        let length = u8_at(message, at).ok_or(Malformed)?;
        match length >> 6 {
            0 if length == 0 => {
                if text.is_empty() {
                    text.push(b'.');
                }
                // What is written is ASCII.
                let text = String::from_utf8(text).map_err(|_| Malformed)?;
                return Ok((text, end.unwrap_or(at + 1)));
            }
            0 => {
                let label = message.get(at + 1..at + 1 + usize::from(length)).ok_or(Malformed)?;
                octets += label.len() + 1;
                if octets > MAX_OCTETS - 1 {
                    return Err(Malformed);
                }
                push_label(&mut text, label);
                at += 1 + label.len();
            }
            3 => {
                let target = usize::from(u16_at(message, at).ok_or(Malformed)? & 0x3fff);
                end = end.or(Some(at + 2));
                pointers += 1;
                if target >= limit || pointers > MAX_POINTERS {
                    return Err(Malformed);
                }
                limit = target;
                at = target;
            }
            _ => return Err(Malformed),
        }
    }
}

/// Where the name at `offset` ends, without following its pointer.
pub(super) fn skip(message: &[u8], mut offset: usize) -> Result<usize, Malformed> {
    loop {
        let length = u8_at(message, offset).ok_or(Malformed)?;
        match length >> 6 {
            0 if length == 0 => return Ok(offset + 1),
            0 => offset += 1 + usize::from(length),
            3 => return Ok(offset + 2),
            _ => return Err(Malformed),
        }
    }
}

fn push_label(text: &mut Vec<u8>, label: &[u8]) {
    if !text.is_empty() {
        text.push(b'.');
    }
    // Nearly all.
    if label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        let start = text.len();
        text.extend_from_slice(label);
        return text[start..].make_ascii_lowercase();
    }
    for &byte in label {
        match byte {
            b'.' | b'\\' => text.extend([b'\\', byte]),
            0x21..=0x7e => text.push(byte.to_ascii_lowercase()),
            _ => text.extend_from_slice(format!("\\{byte:03}").as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lower_case_and_escaped() {
        let message = b"\x05Ab.\\\x01\x03cOm\x00";
        assert_eq!(read(message, 0), Ok(("ab\\.\\\\\\001.com".to_owned(), message.len())));
        assert_eq!(read(b"\x00", 0), Ok((".".to_owned(), 1)));
    }

    #[test]
    fn a_pointer_leads_back_and_the_name_ends_after_it() {
        let message = b"\x03com\x00\x07example\xc0\x00rest";
        assert_eq!(read(message, 5), Ok(("example.com".to_owned(), 15)));
        assert_eq!(skip(message, 5), Ok(15));
    }

    #[test]
    fn loops_and_forward_pointers_are_malformed() {
        assert_eq!(read(b"\xc0\x00", 0), Err(Malformed));
        assert_eq!(read(b"\x01a\xc0\x00", 0), Err(Malformed));
        assert_eq!(read(b"\xc0\x02\x00", 0), Err(Malformed));
        assert_eq!(read(b"\xc0\x02\xc0\x00", 2), Err(Malformed));
        assert_eq!(read(&[0x3f; 300], 0), Err(Malformed));
        let chain: Vec<u8> =
            (0..1000u16).flat_map(|index| (0xc000 | (index * 2).saturating_sub(2)).to_be_bytes()).collect();
        assert_eq!(read(&chain, 1998), Err(Malformed));
    }
}
