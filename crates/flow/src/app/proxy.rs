//! The PROXY protocol (versions 1 and 2): the header with which a balancer begins a connection that it passes on.

use crate::bytes::u16_at;

/// Longest header of version 1, with its line end.
const MOST_TEXT: usize = 107;
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length of what follows.
const FIXED: usize = 16;

/// What stands behind the header that a stream begins with; none where there is no such header, or not all of it.
#[must_use]
pub fn behind_proxy_header(start: &[u8]) -> Option<&[u8]> {
    let length = if start.starts_with(SIGNATURE) {
        let is_known = matches!(start.get(12..14), Some([0x20 | 0x21, 0 | 0x11 | 0x12 | 0x21 | 0x22 | 0x31 | 0x32]));
        FIXED + usize::from(u16_at(start, 14).filter(|_| is_known)?)
    } else {
        let line = start.strip_prefix(b"PROXY ")?;
        let is_known = [&b"TCP4 "[..], b"TCP6 ", b"UNKNOWN"].iter().any(|family| line.starts_with(family));
        let end = start.iter().take(MOST_TEXT).position(|byte| *byte == b'\n').filter(|_| is_known)?;
        end + 1
    };
    start.get(length..)
}

/// Whether more bytes may make a header of what a stream begins with.
#[must_use]
pub fn may_be_proxy_header(start: &[u8]) -> bool {
    let begins = |with: &[u8]| start.len() < with.len() && with.starts_with(start) || start.starts_with(with);
    begins(SIGNATURE) || (begins(b"PROXY ") && start.len() < MOST_TEXT)
}
