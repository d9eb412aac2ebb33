//! Who reset a connection, by what passed.

use crate::ResetBy;

/// RST in the TCP header (RFC 9293 section 3.1).
const RST: u32 = 4;

impl ResetBy {
    /// From the TCP flags of both directions.
    #[must_use]
    pub fn of_flags(tx: u32, rx: u32) -> Self {
        match (tx & RST != 0, rx & RST != 0) {
            (false, false) => Self::Unspecified,
            (true, false) => Self::Src,
            (false, true) => Self::Dst,
            (true, true) => Self::Both,
        }
    }

    /// One of `src`, `dst`, `both`; empty where nobody has.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "",
            Self::Src => "src",
            Self::Dst => "dst",
            Self::Both => "both",
        }
    }
}
