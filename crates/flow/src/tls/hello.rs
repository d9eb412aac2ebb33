//! The client hello (RFC 8446 section 4.1.2) and those of its extensions that say who asks for what.

use crate::bytes::{u8_at, u16_at, up_to};

/// What Weir keeps of a client hello. Values of GREASE (RFC 8701) are left out of every list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// Highest version offered, as on the wire.
    pub version: u16,
    /// Cipher suites in the order of the client.
    pub ciphers: Vec<u16>,
    /// Types of the extensions in the order of the client.
    pub extensions: Vec<u16>,
    /// Signature algorithms in the order of the client.
    pub signature_algorithms: Vec<u16>,
    /// The name of the server, cut where it is longer than a name can be; empty = none was given.
    pub sni: String,
    /// Whether there was a server name extension.
    pub has_sni: bool,
    /// Protocols for the application in the order of the client, as on the wire.
    pub alpn: Vec<Vec<u8>>,
}

pub(super) mod extension {
    pub(in crate::tls) const SERVER_NAME: u16 = 0;
    pub(in crate::tls) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(in crate::tls) const ALPN: u16 = 16;
    pub(in crate::tls) const SUPPORTED_VERSIONS: u16 = 43;
}

impl ClientHello {
    /// Reads the body of a client hello, of TLS or of DTLS (which has a cookie more, RFC 6347 section 4.2.1); none where its fixed part
    /// contradicts itself.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let legacy_version = reader.u16()?;
        let datagrams = is_dtls(legacy_version);
        if legacy_version >> 8 != 3 && !datagrams {
            return None;
        }
        reader.take(32)?;
        reader.prefixed_8()?;
        if datagrams {
            reader.prefixed_8()?;
        }
        let ciphers = reader.prefixed_16()?;
        let compression = reader.u8()?;
        reader.take(usize::from(compression))?;
        let mut hello = Self { version: legacy_version, ciphers: numbers(ciphers), ..Self::default() };
        // Before TLS 1.2 a hello may end here.
        if let Some(length) = reader.u16() {
            hello.read_extensions(Reader(up_to(reader.0, usize::from(length))));
        }
        Some(hello)
    }

    /// Reads a hello in the form of SSL 2 (RFC 5246 appendix E.2), which offers a version and ciphers and nothing else.
    #[must_use]
    pub fn parse_version_2(message: &[u8]) -> Option<Self> {
        let mut reader = Reader(message);
        reader.u8()?;
        let version = reader.u16()?;
        let length = reader.u16()?;
        reader.take(4)?;
        let ciphers = reader.take(usize::from(length))?;
        // Three bytes each; those of TLS begin with a zero.
        let ciphers = ciphers.chunks_exact(3).filter(|cipher| cipher[0] == 0);
        let ciphers = ciphers.map(|cipher| u16::from_be_bytes([cipher[1], cipher[2]])).collect();
        Some(Self { version, ciphers, ..Self::default() })
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let numbers = self.ciphers.len() + self.extensions.len() + self.signature_algorithms.len();
        2 * numbers + self.sni.len() + self.alpn.iter().map(|name| size_of::<Vec<u8>>() + name.len()).sum::<usize>()
    }

    fn read_extensions(&mut self, mut reader: Reader<'_>) {
        const USUAL: usize = 20;
        self.extensions.reserve(USUAL);
        while let (Some(kind), Some(body)) = (reader.u16(), reader.prefixed_16()) {
            if is_grease(kind) {
                continue;
            }
            self.extensions.push(kind);
            match kind {
                extension::SERVER_NAME => {
                    self.has_sni = true;
                    self.sni = server_name(body).unwrap_or_default();
                }
                extension::ALPN => self.alpn = protocols(body),
                extension::SIGNATURE_ALGORITHMS => {
                    self.signature_algorithms = numbers(Reader(body).prefixed_16().unwrap_or_default());
                }
                extension::SUPPORTED_VERSIONS => {
                    let versions = numbers(Reader(body).prefixed_8().unwrap_or_default()).into_iter();
                    // DTLS counts downwards.
                    let highest = if is_dtls(self.version) { versions.min() } else { versions.max() };
                    self.version = highest.unwrap_or(self.version);
                }
                _ => {}
            }
        }
    }
}

/// Bytes of a server's name: those of a domain name.
const MAX_NAME: usize = 255;
/// Protocols that are kept of one hello.
const MAX_PROTOCOLS: usize = 64;

/// What OpenSSL 0.9.8 had for DTLS 1.0, and some that talk to its like have still.
const DRAFT_OF_DTLS: u16 = 0x0100;

/// Whether a version is one of DTLS: the complement of that of TLS.
pub(super) const fn is_dtls(version: u16) -> bool {
    version >> 8 == 0xfe || version == DRAFT_OF_DTLS
}

/// RFC 8701: both bytes alike, the lower half of each is 0xA.
pub(super) fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

/// RFC 6066 section 3: the first name of type `host_name`.
fn server_name(body: &[u8]) -> Option<String> {
    let mut list = Reader(Reader(body).prefixed_16()?);
    while let (Some(kind), Some(name)) = (list.u8(), list.prefixed_16()) {
        if kind == 0 {
            return Some(String::from_utf8_lossy(up_to(name, MAX_NAME)).into_owned());
        }
    }
    None
}

/// RFC 7301.
pub(super) fn protocols(body: &[u8]) -> Vec<Vec<u8>> {
    let mut list = Reader(Reader(body).prefixed_16().unwrap_or_default());
    let mut protocols = Vec::new();
    while let Some(name) = list.prefixed_8().filter(|_| protocols.len() < MAX_PROTOCOLS) {
        // GREASE for ALPN is two bytes like its numbers.
        if !<[u8; 2]>::try_from(name).is_ok_and(|pair| is_grease(u16::from_be_bytes(pair))) {
            protocols.push(name.to_vec());
        }
    }
    protocols
}

fn numbers(list: &[u8]) -> Vec<u16> {
    let values = list.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let mut numbers = Vec::with_capacity(list.len() / 2);
    numbers.extend(values.filter(|value| !is_grease(*value)));
    numbers
}

/// Takes fields from the front of a slice.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        u8_at(self.take(1)?, 0)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        u16_at(self.take(2)?, 0)
    }

    pub(super) fn prefixed_8(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.take(usize::from(length))
    }

    pub(super) fn prefixed_16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &(body.len() as u16).to_be_bytes(), body].concat()
    }

    fn list_16(body: &[u8]) -> Vec<u8> {
        [&(body.len() as u16).to_be_bytes()[..], body].concat()
    }

    /// The body of a hello for TLS 1.3 with a name, GREASE in every list, and `h2` before `http/1.1`.
    pub(crate) fn hello(name: &str) -> Vec<u8> {
        let server_name = [&[0][..], &list_16(name.as_bytes())].concat();
        let extensions = [
            extension(0x2a2a, &[]),
            extension(0, &list_16(&server_name)),
            extension(16, &list_16(b"\x02\x0a\x0a\x02h2\x08http/1.1")),
            extension(43, &[6, 0x1a, 0x1a, 3, 4, 3, 3]),
            extension(13, &list_16(&[4, 3, 8, 4])),
        ]
        .concat();
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.push(0);
        body.extend(list_16(&[0x3a, 0x3a, 0x13, 0x01, 0xc0, 0x2b]));
        body.extend([1, 0]);
        body.extend(list_16(&extensions));
        body
    }

    #[test]
    fn a_hello_gives_name_protocols_and_highest_version_without_grease() {
        let hello = ClientHello::parse(&hello("Weir.example")).unwrap();
        assert_eq!(hello.sni, "Weir.example");
        assert_eq!(hello.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert_eq!(hello.version, 0x0304);
        assert_eq!(hello.ciphers, [0x1301, 0xc02b]);
        assert_eq!(hello.extensions, [0, 16, 43, 13]);
        assert_eq!(hello.signature_algorithms, [0x0403, 0x0804]);
    }

    #[test]
    fn a_hello_without_extensions_is_whole() {
        let body = hello("x");
        let fixed = 2 + 32 + 1 + 8 + 2;
        let hello = ClientHello::parse(&body[..fixed]).unwrap();
        assert_eq!((hello.version, hello.has_sni), (0x0303, false));
        assert_eq!(ClientHello::parse(&body[..fixed - 1]), None);
    }

    #[test]
    fn a_hello_in_the_form_of_ssl_2_gives_version_and_ciphers() {
        let message = [&[1, 3, 1, 0, 6, 0, 0, 0, 16, 0, 0, 0x2f, 1, 0, 0x80][..], &[9; 16]].concat();
        let hello = ClientHello::parse_version_2(&message).unwrap();
        assert_eq!((hello.version, hello.ciphers), (0x0301, vec![0x002f]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = (ClientHello::parse(&bytes), ClientHello::parse_version_2(&bytes));
            let _ = ClientHello::parse(&[&hello("a")[..40], &bytes].concat());
        }
    }
}
