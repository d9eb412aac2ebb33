//! The Huffman code of HPACK (RFC 7541 appendix B). It is canonical: the codes of one length follow each other in the order of the
//! symbols, so the symbols by length are all there is to know.

/// For each length in bits from 5 to 28, and 30, the symbols with a code of it.
const SYMBOLS: [(u32, &[u8]); 21] = [
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, &[92, 195, 208]),
    (20, &[128, 130, 131, 162, 184, 194, 224, 226]),
    (21, &[153, 161, 167, 172, 176, 177, 179, 209, 216, 217, 227, 229, 230]),
    (
        22,
        &[
            129, 132, 133, 134, 136, 146, 154, 156, 160, 163, 164, 169, 170, 173, 178, 181, 185, 186, 187, 189, 190,
            196, 198, 228, 232, 233,
        ],
    ),
    (
        23,
        &[
            1, 135, 137, 138, 139, 140, 141, 143, 147, 149, 150, 151, 152, 155, 157, 158, 165, 166, 168, 174, 175, 180,
            182, 183, 188, 191, 197, 231, 239,
        ],
    ),
    (24, &[9, 142, 144, 145, 148, 159, 171, 206, 215, 225, 236, 237]),
    (25, &[199, 207, 234, 235]),
    (26, &[192, 193, 200, 201, 202, 205, 210, 213, 218, 219, 238, 240, 242, 243, 255]),
    (27, &[203, 204, 211, 212, 214, 221, 222, 223, 241, 244, 245, 246, 247, 248, 250, 251, 252, 253, 254]),
    (
        28,
        &[
            2, 3, 4, 5, 6, 7, 8, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 23, 24, 25, 26, 27, 28, 29, 30, 31, 127, 220,
            249,
        ],
    ),
    (30, &[10, 13, 22]),
];

/// Hands on each octet; none where the code is broken (RFC 7541 section 5.2).
pub(super) fn decode(bytes: &[u8], mut sink: impl FnMut(u8)) -> Option<()> {
    let (mut code, mut length) = (0u32, 0u32);
    let (mut group, mut first) = (0, 0u32);
    let mut first_length = SYMBOLS[0].0;
    for byte in bytes {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            if length < first_length {
                continue;
            }
            let symbols = SYMBOLS[group].1;
            if let Some(symbol) = code.checked_sub(first).and_then(|index| symbols.get(index as usize)) {
                sink(*symbol);
                (code, length, group, first, first_length) = (0, 0, 0, 0, SYMBOLS[0].0);
            } else {
                // Thirty ones are the end of the string, which must not be sent.
                let next = SYMBOLS.get(group + 1)?.0;
                first = (first + symbols.len() as u32) << (next - first_length);
                (group, first_length) = (group + 1, next);
            }
        }
    }
    // What is left over is the beginning of the end of the string: less than a byte of ones.
    (length < 8 && code == (1 << length) - 1).then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: &[u8]) -> Option<String> {
        let mut text = Vec::new();
        decode(bytes, |octet| text.push(octet))?;
        String::from_utf8(text).ok()
    }

    #[test]
    fn the_examples_of_the_rfc_are_decoded() {
        let www = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(text(&www).as_deref(), Some("www.example.com"));
        assert_eq!(text(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).as_deref(), Some("no-cache"));
        let date = [
            0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66, 0xe0, 0x82,
            0xa6, 0x2d, 0x1b, 0xff,
        ];
        assert_eq!(text(&date).as_deref(), Some("Mon, 21 Oct 2013 20:13:21 GMT"));
    }

    #[test]
    fn each_symbol_has_one_code_and_the_code_is_complete() {
        let mut seen = [false; 256];
        let mut space = 0u64;
        for (length, symbols) in SYMBOLS {
            for symbol in symbols {
                assert!(!std::mem::replace(&mut seen[usize::from(*symbol)], true), "{symbol}");
                space += 1 << (30 - length);
            }
        }
        assert!(seen.iter().all(|seen| *seen));
        // The end of the string has the last code of 30 bits.
        assert_eq!(space, (1 << 30) - 1);
    }

    #[test]
    fn padding_that_is_not_ones_or_too_long_is_broken() {
        assert_eq!(text(&[0x07]), Some("0".to_owned()));
        assert_eq!(text(&[0x00]), None);
        assert_eq!(text(&[0x07, 0xff]), None);
        assert_eq!(text(&[0xff; 4]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut octets = 0;
            let _ = decode(&bytes, |_| octets += 1);
            prop_assert!(octets <= bytes.len() * 8 / 5);
        }
    }
}
