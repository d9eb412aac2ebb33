//! Which protocol a payload belongs to, by what it says and never by its port alone.
//!
//! One row of a table per form that a first message can have. A form has to be one that hardly anything else has by chance: about four
//! bytes that are fixed, or lengths and counts that agree with each other.

mod datagrams;
mod proxy;
mod streams;

pub use proxy::{behind_proxy_header, may_be_proxy_header};

/// What the first bytes of a payload say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The protocol.
    Known(&'static str),
    /// Too few bytes to tell.
    Undecided,
    /// None that is known here.
    Unknown,
}

/// Bytes of a stream that are looked at before it is given up.
pub const MOST: usize = 128;

/// The protocol of a stream whose one direction begins with these bytes. TLS, HTTP and DNS have readers of their own, which are asked
/// first.
#[must_use]
pub fn of_stream(start: &[u8]) -> Verdict {
    streams::verdict(start)
}

/// Whether a protocol has a word after which TLS begins in the same stream: STARTTLS and its like (RFC 3207, 2595, 4217, 6120, 4511), the
/// requests for encryption of `PostgreSQL`, `MySQL` and RDP, the greeting of NATS.
#[must_use]
pub fn may_go_on_as_tls(name: &str) -> bool {
    ["smtp", "imap", "pop3", "ftp", "xmpp", "irc", "ldap", "postgres", "mysql", "rdp", "nats"].contains(&name)
}

/// The protocol of a flow of datagrams with this one in it; none where it says nothing. DNS, QUIC and DTLS have readers of their own.
#[must_use]
pub fn of_datagram(payload: &[u8]) -> Option<&'static str> {
    datagrams::name(payload)
}

/// The protocol of a datagram alone, those with readers of their own among them.
#[must_use]
pub fn of_single_datagram(src_port: u16, dst_port: u16, payload: &[u8]) -> Option<&'static str> {
    if crate::dns::is_dns(src_port, dst_port, payload) {
        Some("dns")
    } else if crate::quic::looks_like_quic(payload) {
        Some("quic")
    } else if crate::tls::looks_like_dtls(payload) {
        Some("tls")
    } else {
        of_datagram(payload)
    }
}

#[cfg(test)]
mod tests;
