//! TLS handshakes: who asked for what, what the server chose, and its certificate where it is not encrypted.
//!
//! Hellos come from three carriers: [`Connection`] reads the records of TLS over TCP (RFC 8446, and 5246 for what is older),
//! [`Datagrams`] those of DTLS (RFC 6347), and [`crate::quic`] its Initial packets. All of them give [`Session`]s.

mod certificate;
mod connection;
mod dtls;
mod handshake;
mod hello;
mod ja4;
mod scanner;
mod server;

pub use certificate::Certificate;
pub use connection::Connection;
pub use dtls::{Datagrams, looks_like_dtls, looks_like_encrypted_dtls, single as single_datagram};
pub use handshake::{Answer, Session};
pub(crate) use handshake::{Handshake, Message, read_messages};
pub use hello::ClientHello;
#[cfg(test)]
pub(crate) use hello::tests::hello as test_hello;
pub use ja4::{Carrier, ja4};
pub use scanner::Scanner;
pub use server::ServerHello;
#[cfg(test)]
pub(crate) use server::tests::asks_again as test_asks_again;

/// Whether a stream that begins with these bytes may be TLS: a handshake record or an alert of version 3.x, or a hello in the form of
/// SSL 2.
#[must_use]
pub fn looks_like_tls(start: &[u8]) -> bool {
    match start {
        [0x16] | [0x16, 3] | [0x16, 3, 0..=4, ..] | [0x15, 3, 0..=4, 0, 2, 1 | 2, ..] => true,
        _ => scanner::is_version_2_hello(start),
    }
}

/// Whether a piece of a stream begins with a record that is encrypted: its handshake was before.
#[must_use]
pub fn is_encrypted(piece: &[u8]) -> bool {
    let [kind @ (0x15 | 0x17), 3, 1..=3, high, low, rest @ ..] = piece else { return false };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let goes_on = matches!(rest.get(length..), None | Some([] | [0x14..=0x17] | [0x14..=0x17, 3, ..]));
    // An alert has a place of its own in a segment, and is not much larger than what makes it secret.
    let (least, most) = if *kind == 0x17 { (1, scanner::MAX_RECORD) } else { (rest.len().max(16), 96) };
    goes_on && (least..=most).contains(&length)
}

/// Whether a piece of a stream begins with a client hello.
#[must_use]
pub fn is_hello_of_client(piece: &[u8]) -> bool {
    matches!(piece, [0x16, 3, 0..=4, _, _, 1, 0, ..])
}

/// The client hello in one packet alone, if it is all there.
#[must_use]
pub fn single(payload: &[u8]) -> Option<ClientHello> {
    let mut found = None;
    Scanner::default().push(payload, &mut |message| {
        if let Message::ClientHello(hello) = message {
            found.get_or_insert(hello);
        }
    });
    found.map(|hello| *hello)
}
