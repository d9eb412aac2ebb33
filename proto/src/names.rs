//! Values as people write them: in SQL, in JSON, in filters.

use crate::EndReason;

impl EndReason {
    /// One of `active`, `idle`, `fin`, `rst`, `evicted`, `eof`; empty where no reason is given.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "",
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Fin => "fin",
            Self::Rst => "rst",
            Self::Evicted => "evicted",
            Self::Eof => "eof",
        }
    }
}
