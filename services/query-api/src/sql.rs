//! SQL from strangers: what may reach `ClickHouse`.
//!
//! The reader's user is read-only, has grants on Weir's tables alone and runs within limits; that holds whatever stands here. Grants do
//! not cover everything: the scalar function `file` reads any file of the server, and other functions reach the network, wait, or tell
//! about the server. So `ClickHouse` itself is asked to parse the statement first (`EXPLAIN AST`, which evaluates nothing), and the tree
//! is compared with lists: of kinds of statements, of kinds of nodes, of functions. What is on no list is refused.

mod check;
mod functions;
mod statement;
mod tree;

use axum::http::StatusCode;

pub use check::check;
pub use statement::prepare;

/// Why a statement is not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no statement.
    #[error("there is no statement")]
    Empty,
    /// A kind of statement that changes something or is not needed for reading.
    #[error("{0} is not possible here: only SELECT, WITH, EXPLAIN, DESCRIBE, SHOW TABLES and SHOW CREATE TABLE are")]
    Statement(String),
    /// A part of a statement.
    #[error("{what} is not possible here{instead}")]
    Clause {
        /// Which part.
        what: String,
        /// What to do instead, after a colon; may be empty.
        instead: &'static str,
    },
    /// A function that may not be called.
    #[error("the function {name} may not be called here: {reason}")]
    Function {
        /// Its name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A table that is not Weir's.
    #[error("{0} is no table of the database weir: SHOW TABLES lists what can be read")]
    Table(String),
    /// The tree is larger than a statement of a person can be.
    #[error("the statement is too large to be checked")]
    TooLarge,
    /// The engine's description of the statement is not understood.
    #[error("the statement cannot be checked: {0}")]
    Unreadable(&'static str),
}

impl Refused {
    pub(crate) fn describe(&self) -> crate::error::Description {
        match self {
            Self::Empty => ("sql-syntax", StatusCode::BAD_REQUEST, "the SQL cannot be read"),
            Self::Statement(_) => ("sql-statement-refused", StatusCode::FORBIDDEN, "this statement is not possible"),
            Self::Clause { .. } => ("sql-clause-refused", StatusCode::FORBIDDEN, "a part of the SQL is not possible"),
            Self::Function { .. } => ("sql-function-refused", StatusCode::FORBIDDEN, "a function may not be called"),
            Self::Table(_) => ("sql-access-denied", StatusCode::FORBIDDEN, "the SQL asks for what it may not have"),
            Self::TooLarge | Self::Unreadable(_) => {
                ("sql-unchecked", StatusCode::UNPROCESSABLE_ENTITY, "the SQL cannot be checked")
            }
        }
    }
}
