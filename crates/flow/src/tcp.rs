//! What the segments of one TCP connection say about how it went: from their sequence numbers alone, as they pass the place of capture.
//!
//! [`Connection`] takes the segments of both directions in the order of the capture and says of each what it is: the [`Marks`] of a
//! segment. Over an interval the marks add up to a [`Report`], with the round trips, turns and windows that can be told only from several
//! segments. The state of a connection without trouble is some 350 bytes; what only a few connections need is allocated when they need it.
//!
//! The names of the marks are those of Wireshark, and so are most of the rules; `docs/reference/tcp-analysis.md` says where the rules
//! here know more.

mod connection;
mod holes;
mod marks;
mod options;
mod report;
mod samples;
mod sequence;
mod side;
mod silence;

pub use connection::{Connection, Segment};
pub use marks::Marks;
pub use options::Options;
pub use report::{Counts, Report, Reset};
pub use silence::{Silence, Silences, Stand, Wait};

/// Of a pair: what the initiator sent.
pub const TX: usize = 0;
/// Of a pair: what the responder sent.
pub const RX: usize = 1;

#[cfg(test)]
mod tests;
