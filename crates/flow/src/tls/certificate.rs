//! What a certificate says of its owner (RFC 5280).

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use super::hello::Reader;
use crate::bytes::u8_at;

/// Bytes of a name that are kept.
const MAX_NAME: usize = 1024;

/// The certificate of the server itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// Distinguished name, for example `CN=weir.example`.
    pub subject: String,
    /// Distinguished name of who signed it.
    pub issuer: String,
    /// Microseconds since the epoch.
    pub not_before: u64,
    /// Microseconds since the epoch.
    pub not_after: u64,
}

impl Certificate {
    /// Reads the first certificate of a certificate message of TLS up to 1.2 (RFC 5246 section 7.4.2).
    #[must_use]
    pub fn of_message(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        reader.take(3)?;
        let length = u32::from(reader.u8()?) << 16 | u32::from(reader.u16()?);
        Self::parse(reader.take(length as usize)?)
    }

    /// Reads a certificate in DER.
    #[must_use]
    pub fn parse(der: &[u8]) -> Option<Self> {
        // A sequence; anything else is not worth the parser's time.
        if u8_at(der, 0)? != 0x30 {
            return None;
        }
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let time = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000);
        let name = |name: String| {
            let end = name.floor_char_boundary(MAX_NAME);
            name[..end].to_owned()
        };
        Some(Self {
            subject: name(certificate.subject().to_string()),
            issuer: name(certificate.issuer().to_string()),
            not_before: time(certificate.validity().not_before.timestamp()),
            not_after: time(certificate.validity().not_after.timestamp()),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Made by `openssl req -x509 -newkey ed25519 -subj /O=Weir/CN=weir.example -days 3650 -outform DER`.
    pub(in crate::tls) const DER: &[u8] = include_bytes!("testdata/ed25519.der");

    /// The body of a certificate message.
    pub(in crate::tls) fn message() -> Vec<u8> {
        let length = |length: usize| (length as u32).to_be_bytes()[1..].to_vec();
        [length(DER.len() + 3), length(DER.len()), DER.to_vec()].concat()
    }

    #[test]
    fn a_certificate_gives_names_and_times() {
        let certificate = Certificate::of_message(&message()).unwrap();
        assert_eq!(certificate.subject, "O=Weir, CN=weir.example");
        assert_eq!(certificate.issuer, certificate.subject);
        assert_eq!(certificate.not_after - certificate.not_before, 3650 * 86_400 * 1_000_000);
    }

    #[test]
    fn a_certificate_cut_anywhere_is_none() {
        let message = message();
        assert!((0..message.len()).all(|length| Certificate::of_message(&message[..length]).is_none()));
    }

    proptest! {
        #[test]
        fn any_change_is_read_without_a_panic(at in 0..DER.len(), value: u8) {
            let mut der = DER.to_vec();
            der[at] = value;
            let _ = Certificate::parse(&der);
        }
    }
}
