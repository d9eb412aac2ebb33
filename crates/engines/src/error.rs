//! What can go wrong before an engine answers.

use std::path::PathBuf;

/// Why an engine could not be prepared, started or reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No program of the engine is on this machine.
    #[error("{engine} was not found ({looked}); run `./dev setup`, or set {variable} to the address of your own")]
    NotFound {
        /// `NATS` or `ClickHouse`.
        engine: &'static str,
        /// Where it was looked for.
        looked: String,
        /// The variable that names an own server.
        variable: &'static str,
    },
    /// A file or directory of the engine could not be read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No port of the loopback interface is free.
    #[error("no free port on 127.0.0.1")]
    NoPort(#[source] std::io::Error),
    /// The process could not be started.
    #[error("cannot start {program}")]
    Spawn {
        /// The program.
        program: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The engine does not answer (yet).
    #[error("{engine} does not answer on {address}")]
    NoAnswer {
        /// `NATS` or `ClickHouse`.
        engine: &'static str,
        /// The address that was asked.
        address: String,
        /// What the client said.
        #[source]
        source: reqwest::Error,
    },
    /// The engine answers that it is not well.
    #[error("{engine} answered {status}: {body}")]
    Unwell {
        /// `NATS` or `ClickHouse`.
        engine: &'static str,
        /// The HTTP status.
        status: u16,
        /// The start of what it said.
        body: String,
    },
    /// The engine ended before it was ready.
    #[error("{engine} ended before it was ready ({status}); the end of its log:\n{log}")]
    Ended {
        /// `NATS` or `ClickHouse`.
        engine: &'static str,
        /// The exit status.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// The engine was not ready in time.
    #[error("{engine} was not ready within {seconds} s; the end of its log:\n{log}")]
    Timeout {
        /// `NATS` or `ClickHouse`.
        engine: &'static str,
        /// How long it was waited for.
        seconds: u64,
        /// The last lines of its log.
        log: String,
    },
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
