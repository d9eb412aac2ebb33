//! The JA4 fingerprint of a TLS client, after its published description.

use sha2::{Digest, Sha256};

use super::ClientHello;

const SERVER_NAME: u16 = 0x0000;
const ALPN: u16 = 0x0010;

/// What carries a hello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Carrier {
    /// TLS.
    #[default]
    Tcp,
    /// QUIC.
    Quic,
    /// DTLS.
    Datagrams,
}

/// The JA4 fingerprint of a hello, for example `t13d1516h2_8daaf6152771_e5627efa2ab1`.
#[must_use]
pub fn ja4(hello: &ClientHello, carrier: Carrier) -> String {
    const LENGTH: usize = 36;
    let (first, last) = alpn_characters(hello.alpn.first());
    let mut text = String::with_capacity(LENGTH);
    text.push(match carrier {
        Carrier::Tcp => 't',
        Carrier::Quic => 'q',
        Carrier::Datagrams => 'd',
    });
    text.push_str(version(hello.version));
    text.push(if hello.has_sni { 'd' } else { 'i' });
    for count in [hello.ciphers.len(), hello.extensions.len()] {
        let count = count.min(99) as u8;
        text.extend([char::from(b'0' + count / 10), char::from(b'0' + count % 10)]);
    }
    text.extend([first, last]);
    for list in [ciphers(hello), extensions(hello)] {
        text.push('_');
        push_truncated_hash(&mut text, &list);
    }
    text
}

fn version(number: u16) -> &'static str {
    match number {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        0xfeff => "d1",
        0xfefd => "d2",
        0xfefc => "d3",
        _ => "00",
    }
}

/// First and last character of the first protocol; of its hexadecimal form where one of them is not alphanumeric.
fn alpn_characters(protocol: Option<&Vec<u8>>) -> (char, char) {
    let Some((&first, &last)) = protocol.and_then(|protocol| protocol.first().zip(protocol.last())) else {
        return ('0', '0');
    };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return (char::from(first), char::from(last));
    }
    (digit(first >> 4), digit(last & 0x0f))
}

fn ciphers(hello: &ClientHello) -> Vec<u8> {
    let mut ciphers = hello.ciphers.clone();
    ciphers.sort_unstable();
    let mut text = Vec::new();
    push_list(&mut text, &ciphers);
    text
}

fn extensions(hello: &ClientHello) -> Vec<u8> {
    let mut extensions: Vec<u16> =
        hello.extensions.iter().copied().filter(|kind| ![SERVER_NAME, ALPN].contains(kind)).collect();
    extensions.sort_unstable();
    let mut text = Vec::with_capacity(5 * (extensions.len() + hello.signature_algorithms.len()) + 1);
    push_list(&mut text, &extensions);
    if !hello.signature_algorithms.is_empty() {
        text.push(b'_');
        push_list(&mut text, &hello.signature_algorithms);
    }
    text
}

/// Four hexadecimal digits each, with commas between.
fn push_list(text: &mut Vec<u8>, values: &[u16]) {
    text.reserve(values.len() * 5);
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        text.extend([12, 8, 4, 0].map(|shift| DIGITS[usize::from(value >> shift & 0xf)]));
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Of the lower four bits.
fn digit(nibble: u8) -> char {
    char::from(DIGITS[usize::from(nibble & 0xf)])
}

/// The first twelve digits of the SHA-256; zeros for an empty list.
fn push_truncated_hash(to: &mut String, list: &[u8]) {
    if list.is_empty() {
        return to.push_str("000000000000");
    }
    for byte in &Sha256::digest(list)[..6] {
        to.extend([digit(byte >> 4), digit(*byte)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hello of the published example.
    fn example() -> ClientHello {
        ClientHello {
            version: 0x0304,
            ciphers: vec![
                0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d,
                0x002f, 0x0035,
            ],
            extensions: vec![
                0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b, 0xff01,
                0x000b, 0x000a, 0x0015,
            ],
            signature_algorithms: vec![0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601],
            sni: "example.com".to_owned(),
            has_sni: true,
            alpn: vec![b"h2".to_vec()],
        }
    }

    #[test]
    fn the_published_example_has_its_fingerprint() {
        assert_eq!(ja4(&example(), Carrier::Tcp), "t13d1516h2_8daaf6152771_e5627efa2ab1");
    }

    #[test]
    fn an_empty_hello_is_all_zeros() {
        assert_eq!(
            ja4(&ClientHello { version: 0x0301, ..ClientHello::default() }, Carrier::Tcp),
            "t10i000000_000000000000_000000000000"
        );
    }

    #[test]
    fn a_protocol_that_is_not_alphanumeric_is_named_by_its_digits() {
        let with = |protocol: &[u8]| {
            ja4(&ClientHello { alpn: vec![protocol.to_vec()], ..example() }, Carrier::Quic)[8..10].to_owned()
        };
        assert_eq!(with(b"http/1.1"), "h1");
        assert_eq!(with(&[0xab]), "ab");
        assert_eq!(with(&[0xab, 0xcd]), "ad");
        assert_eq!(with(&[0x30, 0xab]), "3b");
        assert_eq!(with(b"h"), "hh");
    }
}
