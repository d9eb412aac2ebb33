//! The filter language, the same in the API, the command line and the console:
//! `dst_port = 443 and src_container = "web" and not dst_ip in 10.0.0.0/8`.
//!
//! Text becomes a tree ([`parse`]), and the tree one of three things: a condition with parameters for SQL ([`Condition`]; no text of a
//! stranger ever becomes SQL), a test of records as they come ([`Evaluator`]), or a test of packets that is cheap enough for the kernel
//! ([`PacketFilter`]). `docs/reference/filter.md` describes the language.

mod compile;
mod evaluate;
mod fields;
mod lexer;
mod packet;
mod parser;

pub use compile::{Condition, Value as Parameter};
pub use evaluate::{Datum, Evaluator, FlowSubject, Subject};
pub use fields::{Field, FieldType, fields};
pub use packet::{Atom, MAX_ATOMS, MAX_TERMS, Packet, PacketFilter, Prefix, Term, Unsupported};
pub use parser::{Expression, Operator, Value, parse};

/// The longest filter.
pub const MAX_BYTES: usize = 8192;

/// Why a filter cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}, after {position} characters")]
pub struct Error {
    /// Characters before the place that is wrong.
    pub position: usize,
    /// What is wrong there.
    pub reason: String,
}

impl Error {
    /// At a place.
    #[must_use]
    pub fn at(position: usize, reason: impl Into<String>) -> Self {
        Self { position, reason: reason.into() }
    }
}

/// Reads a filter; nothing but spaces accepts everything.
pub fn condition(text: &str) -> Result<Condition, Error> {
    match parse(text)? {
        Some(expression) => Ok(compile::compile(&expression)),
        None => Ok(Condition::everything()),
    }
}

#[cfg(test)]
mod tests;
