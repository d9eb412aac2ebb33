//! What a capture file says besides its packets.

use std::collections::BTreeMap;

/// Comments that are kept.
const MAX_COMMENTS: usize = 100;
/// Bytes of a text that are kept.
pub(super) const MAX_TEXT: usize = 1024;

/// What a file says besides its packets; bounded, so that a file cannot fill the memory with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// The program that wrote it; empty = not said.
    pub application: String,
    /// The operating system that it was captured on; empty = not said.
    pub os: String,
    /// The first comments.
    pub comments: Vec<Comment>,
    /// Comments in all.
    pub comment_count: u64,
    /// Blocks of secrets that decrypt what was captured. What is in them is never looked at.
    pub secrets: u64,
    /// Secrets, or names, that were passed over because their block is too large.
    pub left_out: u64,
    /// Names of addresses.
    pub names: u64,
    /// Packets without a time. They are taken to have come with the packet before them.
    pub untimed: u64,
    /// Packets that the capture did not take, by interface, as it says itself.
    pub dropped: BTreeMap<usize, u64>,
}

/// A remark that somebody left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// Number of the packet; none = of the file or an interface.
    pub packet: Option<u64>,
    /// What it says.
    pub text: String,
}

/// What stands between packets and matters to who copies them.
#[derive(Clone, PartialEq, Eq)]
pub enum Aside {
    /// Secrets for decryption: their kind as the file has it, and they.
    Secrets(u32, Vec<u8>),
    /// A name of an address (network order, IPv4 mapped).
    Name([u8; 16], String),
}

impl std::fmt::Debug for Aside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secrets(kind, data) => write!(f, "Secrets(0x{kind:08x}, {} bytes)", data.len()),
            Self::Name(address, name) => f.debug_tuple("Name").field(address).field(name).finish(),
        }
    }
}

impl Notes {
    pub(super) fn comment(&mut self, packet: Option<u64>, bytes: &[u8]) {
        self.comment_count += 1;
        if self.comments.len() < MAX_COMMENTS {
            self.comments.push(Comment { packet, text: text(bytes) });
        }
    }
}

/// The beginning of a text of strangers.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_TEXT)]).trim_end_matches('\0').to_owned()
}
