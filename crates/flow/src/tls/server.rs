//! The server hello (RFC 8446 section 4.1.3).

use super::hello::{Reader, extension, protocols};
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
}

impl ServerHello {
    /// Reads the body of a server hello; none where its fixed part contradicts itself.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let version = reader.u16().filter(|version| matches!(version >> 8, 3 | 0xfe))?;
        reader.take(32)?;
        reader.prefixed_8()?;
        let cipher = reader.u16()?;
        reader.u8()?;
        let mut hello = Self { version, cipher, ..Self::default() };
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
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The body of a hello of TLS 1.2 by its version field, with the given extensions.
    pub(in crate::tls) fn server_hello(extensions: &[u8]) -> Vec<u8> {
        let length = (extensions.len() as u16).to_be_bytes();
        [&[3, 3][..], &[9; 32], &[2, 7, 7], &[0xc0, 0x2f], &[0], &length, extensions].concat()
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
