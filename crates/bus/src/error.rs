//! What can go wrong on the bus.

/// An operation on the bus that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address or the credentials are unusable; trying again does not help.
    #[error("cannot use {url}")]
    Address {
        /// The address without credentials.
        url: String,
        /// What the client says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server is away or refuses; trying again may help.
    #[error("{operation}")]
    Unavailable {
        /// What was tried.
        operation: String,
        /// What the client says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The key was changed by somebody else since it was read.
    #[error("{key} was changed by somebody else")]
    Conflict {
        /// The key.
        key: String,
    },
    /// There is no such object.
    #[error("there is no object {name}")]
    NoObject {
        /// Its name.
        name: String,
    },
    /// The store has no room for more.
    #[error("the store {store} is full")]
    Full {
        /// Its name.
        store: &'static str,
    },
    /// The value is larger than a message may be.
    #[error("a message of {bytes} bytes is larger than the server takes")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The stored value is not what it should be.
    #[error("cannot decode {what}")]
    Decode {
        /// What it should be.
        what: String,
        /// Why it is not.
        #[source]
        source: prost::DecodeError,
    },
    /// Reading what was to be stored failed: the sender went away.
    #[error("cannot read what is to be stored")]
    Input(#[source] std::io::Error),
    /// The spool's directory cannot be used.
    #[error("cannot use the spool {path}")]
    Spool {
        /// The directory.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The process is stopping.
    #[error("stopped while waiting for the bus")]
    Stopped,
}

/// Wraps a client's error as [`Error::Unavailable`].
pub(crate) fn unavailable<E>(operation: impl Into<String>) -> impl FnOnce(E) -> Error
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let operation = operation.into();
    move |source| Error::Unavailable { operation, source: source.into() }
}
