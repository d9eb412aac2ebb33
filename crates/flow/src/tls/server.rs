//! The server hello (RFC 8446 section 4.1.3).

use super::hello::{Reader, extension, is_dtls, protocols};
use crate::bytes::{u16_at, up_to};

/// What Weir keeps of a server hello, or of a request to try again, which has the same form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerHello {
    /// Version chosen, as on the wire.
    pub version: u16,
    /// Cipher suite chosen.
    pub cipher: u16,
    /// Protocol for the application; empty = none, or encrypted.
    pub alpn: String,
    /// It is a request to try again.
    pub asks_again: bool,
}

/// What stands for the random number in a request to try again.
const ASKS_AGAIN: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

impl ServerHello {
    /// Reads the body of a server hello; none where its fixed part contradicts itself.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let version = reader.u16().filter(|&version| version >> 8 == 3 || is_dtls(version))?;
        let asks_again = *reader.take(32)? == ASKS_AGAIN;
        reader.prefixed_8()?;
        let cipher = reader.u16()?;
        reader.u8()?;
        let mut hello = Self { version, cipher, asks_again, ..Self::default() };
        let length = reader.u16().unwrap_or(0);
        let mut extensions = Reader(up_to(reader.0, usize::from(length)));
        while let (Some(kind), Some(body)) = (extensions.u16(), extensions.prefixed_16()) {
            match kind {
                extension::SUPPORTED_VERSIONS => hello.version = u16_at(body, 0).unwrap_or(version),
                extension::ALPN => {
                    let chosen = protocols(body).into_iter().next().unwrap_or_default();
                    hello.alpn = String::from_utf8_lossy(&chosen).into_owned();
                }
                _ => {}
            }
        }
        Some(hello)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body of a hello of TLS 1.2 by its version field, with the given extensions.
    pub(in crate::tls) fn server_hello(extensions: &[u8]) -> Vec<u8> {
        with_random([9; 32], extensions)
    }

    /// The same with extensions that choose TLS 1.3.
    pub(crate) fn asks_again() -> Vec<u8> {
        with_random(ASKS_AGAIN, &[0, 43, 0, 2, 3, 4])
    }

    fn with_random(random: [u8; 32], extensions: &[u8]) -> Vec<u8> {
        let length = (extensions.len() as u16).to_be_bytes();
        [&[3, 3][..], &random, &[2, 7, 7], &[0xc0, 0x2f], &[0], &length, extensions].concat()
    }

    #[test]
    fn the_version_is_that_of_the_extension() {
        let old = ServerHello::parse(&server_hello(b"\0\x10\0\x05\0\x03\x02h2")).unwrap();
        assert_eq!((old.version, old.cipher, old.alpn.as_str()), (0x0303, 0xc02f, "h2"));
        let new = ServerHello::parse(&server_hello(&[0, 43, 0, 2, 3, 4])).unwrap();
        assert_eq!((new.version, new.alpn.as_str()), (0x0304, ""));
    }

    #[test]
    fn a_hello_cut_before_its_extensions_is_none() {
        let body = server_hello(&[]);
        let fixed = body.len() - 2;
        assert!((0..fixed).all(|length| ServerHello::parse(&body[..length]).is_none()));
        assert!((fixed..body.len()).all(|length| ServerHello::parse(&body[..length]).is_some()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (ServerHello::parse(&bytes), ServerHello::parse(&server_hello(&bytes)));
        }
    }
}
