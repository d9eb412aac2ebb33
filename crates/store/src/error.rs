//! What can go wrong with `ClickHouse`.

/// An operation on the tables that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `ClickHouse` answered with an exception.
    #[error("ClickHouse refuses: {message} ({name}, code {code})")]
    Server {
        /// Its number, as in `system.errors`.
        code: u32,
        /// Its name, for example `SYNTAX_ERROR`; empty where the answer had none.
        name: String,
        /// What it says.
        message: String,
    },
    /// `ClickHouse` is away, or the connection broke: whether the operation was done is not known.
    #[error("ClickHouse does not answer")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It took longer than it may: whether the operation was done is not known.
    #[error("ClickHouse did not answer within {seconds} s")]
    TimedOut {
        /// What was allowed.
        seconds: u64,
    },
    /// The client cannot read the answer, or the rows do not fit the table.
    #[error("cannot exchange rows with ClickHouse")]
    Client(#[source] clickhouse::error::Error),
    /// A row of an answer is not what it should be.
    #[error("cannot decode a row of the answer")]
    Decode(#[from] serde_json::Error),
    /// The database was made by a newer version of Weir.
    #[error("the database has schema version {found}, this program knows {known}: update it")]
    Newer {
        /// The version in the database.
        found: u32,
        /// The newest version that this program has.
        known: u32,
    },
    /// A migration that the database has is not the one that this program has.
    #[error(
        "schema version {version} of the database differs from this program's: it was made by another build of Weir"
    )]
    Changed {
        /// Which migration.
        version: u32,
    },
    /// A block is in the table in part, which an insert never leaves behind: somebody else changed the table.
    #[error("the table {table} has {found} of {expected} rows of block {block}")]
    Partial {
        /// Which table.
        table: &'static str,
        /// The block's token.
        block: String,
        /// Rows that the block has.
        expected: u64,
        /// Rows that the table has.
        found: u64,
    },
}

/// Codes that a server gives for a while: out of memory, too many parts, too many queries, shutting down, disk full, ...
const TRANSIENT: [u32; 22] = [
    3,   // UNEXPECTED_END_OF_FILE
    74,  // CANNOT_READ_FROM_FILE_DESCRIPTOR
    75,  // CANNOT_WRITE_TO_FILE_DESCRIPTOR
    159, // TIMEOUT_EXCEEDED
    202, // TOO_MANY_SIMULTANEOUS_QUERIES
    203, // NO_FREE_CONNECTION
    209, // SOCKET_TIMEOUT
    210, // NETWORK_ERROR
    216, // QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING
    236, // ABORTED
    241, // MEMORY_LIMIT_EXCEEDED
    242, // TABLE_IS_READ_ONLY
    243, // NOT_ENOUGH_SPACE
    252, // TOO_MANY_PARTS
    290, // LIMIT_EXCEEDED
    319, // UNKNOWN_STATUS_OF_INSERT
    388, // PREVIOUS_QUERY_STILL_RUNNING
    394, // QUERY_WAS_CANCELLED
    425, // SYSTEM_ERROR
    439, // CANNOT_SCHEDULE_TASK
    473, // DEADLOCK_AVOIDED
    999, // KEEPER_EXCEPTION
];

impl Error {
    /// Whether trying again later may help without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Server { code, .. } => TRANSIENT.contains(code),
            Self::Unavailable(_) | Self::TimedOut { .. } => true,
            Self::Client(_) | Self::Decode(_) | Self::Newer { .. } | Self::Changed { .. } | Self::Partial { .. } => {
                false
            }
        }
    }

    /// The server's number for it, as in `system.errors`; 0 where the server did not answer.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Server { code, .. } => *code,
            _ => 0,
        }
    }
}

impl From<clickhouse::error::Error> for Error {
    fn from(error: clickhouse::error::Error) -> Self {
        use clickhouse::error::Error as Client;
        match error {
            Client::BadResponse(answer) => parse(&answer).unwrap_or_else(|| Self::Unavailable(answer.into())),
            // An answer that ends too early is a server that died.
            Client::Network(source) | Client::Decompression(source) => Self::Unavailable(source),
            other => Self::Client(other),
        }
    }
}

/// `Code: 62. DB::Exception: Syntax error: ... (SYNTAX_ERROR) (version 26.7.2.1 (official build))`.
fn parse(answer: &str) -> Option<Error> {
    let rest = answer.trim().strip_prefix("Code: ")?;
    let (code, rest) = rest.split_once('.').unwrap_or((rest, ""));
    let code = code.trim().parse().ok()?;
    let rest = rest.trim();
    let message = match rest.split_once("Exception: ") {
        Some((kind, message)) if kind.starts_with("DB::") => message,
        _ => rest,
    };
    let message = message.rsplit_once(" (version ").map_or(message, |(message, _)| message).trim_end();
    let (message, name) = match message.rsplit_once(" (") {
        Some((message, name)) if is_name(name.trim_end_matches(')')) => (message, name.trim_end_matches(')')),
        _ => (message, ""),
    };
    Some(Error::Server { code, name: name.to_owned(), message: message.trim_end_matches('.').to_owned() })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exception_gives_its_code_name_and_message() {
        for (answer, expected) in [
            (
                "Code: 62. DB::Exception: Syntax error: failed at position 1 (SELEC): SELEC 1. (SYNTAX_ERROR) (version 26.7.2.1 (official build))",
                (62, "SYNTAX_ERROR", "Syntax error: failed at position 1 (SELEC): SELEC 1"),
            ),
            (
                "Code: 210. DB::NetException: Connection refused (a:1). (NETWORK_ERROR) (version 26.7.2.1)\n",
                (210, "NETWORK_ERROR", "Connection refused (a:1)"),
            ),
            ("Code: 159", (159, "", "")),
        ] {
            let Some(Error::Server { code, name, message }) = parse(answer) else { panic!("{answer}") };
            assert_eq!((code, name.as_str(), message.as_str()), expected);
        }
        assert!(parse("502 Bad Gateway").is_none());
    }
}
