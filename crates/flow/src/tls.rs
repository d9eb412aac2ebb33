//! TLS client hellos in a TCP stream: names, protocols, versions and the JA4 fingerprint.

mod hello;
mod ja4;
mod scanner;

pub use hello::ClientHello;
pub use ja4::ja4;
pub use scanner::Scanner;

/// Whether a stream that begins with these bytes may be TLS: a handshake record of version 3.x, or a hello in the form of SSL 2.
#[must_use]
pub fn looks_like_tls(start: &[u8]) -> bool {
    const HANDSHAKE_OF_VERSION_3: [u8; 2] = [0x16, 0x03];
    match start {
        [first] => *first == HANDSHAKE_OF_VERSION_3[0],
        [] => false,
        _ => start.starts_with(&HANDSHAKE_OF_VERSION_3) || scanner::is_version_2_hello(start),
    }
}
