//! What can be wrong with a capture file.

use std::io;

use super::input::ReadError;

/// The file is not a capture that can be read at all.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No bytes.
    #[error("the file is empty")]
    Empty,
    /// Compressed, with no bytes inside.
    #[error("the file is {0} with nothing in it")]
    EmptyInside(&'static str),
    /// Shorter than its own header.
    #[error("the file ends within its header")]
    HeaderCut,
    /// The first bytes are those of no capture.
    #[error("the file is neither pcap nor pcapng, as it is or in gzip, zstd, lz4 or xz: it begins with {:02x} {:02x} {:02x} {:02x}", .0[0], .0[1], .0[2], .0[3])]
    NotACapture([u8; 4]),
    /// Compressed data within compressed data.
    #[error("the file is compressed twice")]
    CompressedTwice,
    /// A field of the header makes no sense.
    #[error("the header of the file is damaged: {0}")]
    Header(&'static str),
    /// Damaged compression right at the beginning.
    #[error("the file cannot be decompressed")]
    Decompress(#[source] io::Error),
    /// The source failed; the file may be fine.
    #[error("cannot read the file")]
    Source(#[source] io::Error),
    /// Decompresses to more than is allowed.
    #[error(transparent)]
    Bomb(#[from] Bomb),
}

impl OpenError {
    pub(super) fn from_read(error: ReadError) -> Self {
        match error {
            ReadError::End | ReadError::Cut => Self::HeaderCut,
            ReadError::Decompress(error) => Self::Decompress(error),
            ReadError::Source(error) => Self::Source(error),
            ReadError::Bomb(bomb) => Self::Bomb(bomb),
        }
    }

    /// Whether trying again may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Source(_))
    }
}

/// Reading ended before the end of the file.
#[derive(Debug, thiserror::Error)]
pub enum Stop {
    /// The file is damaged; what came before counts.
    #[error(transparent)]
    Damage(Damage),
    /// Decompresses to more than is allowed.
    #[error(transparent)]
    Bomb(Bomb),
    /// The source failed; the file may be fine.
    #[error("cannot read the file")]
    Source(#[source] io::Error),
}

/// Where and how a file is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("damaged after packet {packets}, at byte {offset} of the (decompressed) file: {reason}")]
pub struct Damage {
    /// Packets before the damage.
    pub packets: u64,
    /// Where in the decompressed file the damaged record begins.
    pub offset: u64,
    /// What is wrong.
    pub reason: String,
}

/// Decompressed data that outgrows the limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bomb {
    /// Too much in all.
    #[error("the file decompresses to more than {0} bytes")]
    Size(u64),
    /// Too much for what it was packed in.
    #[error("the file decompresses to more than {0} times its size")]
    Ratio(u64),
}

/// Why a record could not be read.
#[derive(Debug)]
pub(super) enum Fault {
    Read(ReadError),
    Field(String),
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl Fault {
    pub(super) fn field(reason: impl Into<String>) -> Self {
        Self::Field(reason.into())
    }

    pub(super) fn into_stop(self, packets: u64, offset: u64) -> Stop {
        let damage = |reason| Stop::Damage(Damage { packets, offset, reason });
        match self {
            Self::Read(ReadError::End | ReadError::Cut) => damage("the file ends within a record".to_owned()),
            Self::Read(ReadError::Decompress(error)) => damage(format!("cannot be decompressed: {error}")),
            Self::Read(ReadError::Source(error)) => Stop::Source(error),
            Self::Read(ReadError::Bomb(bomb)) => Stop::Bomb(bomb),
            Self::Field(reason) => damage(reason),
        }
    }

    pub(super) fn into_open_error(self, field: &'static str) -> OpenError {
        match self {
            Self::Read(error) => OpenError::from_read(error),
            Self::Field(_) => OpenError::Header(field),
        }
    }
}
