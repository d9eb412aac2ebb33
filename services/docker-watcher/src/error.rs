//! What can go wrong with the engine, and what to do about it.

use std::{error::Error as StdError, io, path::PathBuf};

/// Why a client of a runtime failed.
pub(crate) type Source = Box<dyn StdError + Send + Sync>;

/// A request to the engine that failed. All but [`Error::NotFound`] are tried again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is at the socket's path.
    #[error("there is no {path}: install the runtime and start it, or say where it listens ({option})")]
    NoSocket {
        /// The socket.
        path: PathBuf,
        /// What says where the runtime listens.
        option: &'static str,
    },
    /// The socket is there and may not be used.
    #[error(
        "no permission for {path}: this process must be in the group {group} (usermod --append --groups {group} USER, and log in \
         again), or run as root"
    )]
    Permission {
        /// The socket.
        path: PathBuf,
        /// The group that may use it.
        group: String,
    },
    /// Nobody listens there.
    #[error("nobody answers at {address}: is the engine running?")]
    Unreachable {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The engine is there and does not answer.
    #[error("the engine has not answered {operation} for {seconds} s")]
    Timeout {
        /// What was asked.
        operation: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// There is no such container.
    #[error("no such container")]
    NotFound,
    /// The engine refuses.
    #[error("the engine refuses {operation}: {message} (status {status})")]
    Refused {
        /// What was asked.
        operation: &'static str,
        /// Its status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// The engine's answer is not what its API promises.
    #[error("cannot read the engine's answer to {operation}")]
    Answer {
        /// What was asked.
        operation: &'static str,
        /// Why.
        #[source]
        source: Source,
    },
    /// The connection broke.
    #[error("{operation} failed")]
    Connection {
        /// What was asked.
        operation: &'static str,
        /// Why.
        #[source]
        source: Source,
    },
    /// The runtime does not offer this.
    #[error("the runtime does not offer {operation}: {message}")]
    Unsupported {
        /// What was asked.
        operation: &'static str,
        /// Its words.
        message: String,
    },
    /// Files of this host that are not there.
    #[error("cannot read {path}")]
    Host {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The engine ended the stream of events: it stops or restarts.
    #[error("the engine closed the stream of events")]
    Closed,
}

impl Error {
    /// A stable word for metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoSocket { .. } => "no_socket",
            Self::Permission { .. } => "permission",
            Self::Unreachable { .. } => "unreachable",
            Self::Timeout { .. } => "timeout",
            Self::NotFound => "not_found",
            Self::Refused { .. } => "refused",
            Self::Answer { .. } => "bad_answer",
            Self::Connection { .. } => "connection",
            Self::Unsupported { .. } => "unsupported",
            Self::Host { .. } => "host",
            Self::Closed => "closed",
        }
    }

    /// The whole chain on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        weir_service::chain(self)
    }

    /// Sorts the client's error of a request.
    pub(crate) fn request(
        operation: &'static str,
        timeout: std::time::Duration,
        error: bollard::errors::Error,
    ) -> Self {
        use bollard::errors::Error as Client;
        match error {
            Client::RequestTimeoutError => Self::Timeout { operation, seconds: timeout.as_secs() },
            Client::DockerResponseServerError { status_code: 404, .. } => Self::NotFound,
            Client::DockerResponseServerError { status_code, message } => {
                Self::Refused { operation, status: status_code, message: crate::text::cut(&message, 500).to_owned() }
            }
            Client::JsonDataError { .. } | Client::JsonSerdeError { .. } | Client::StrParseError { .. } => {
                Self::Answer { operation, source: error.into() }
            }
            _ => Self::Connection { operation, source: error.into() },
        }
    }

    /// Sorts the error of connecting to a socket.
    pub(crate) fn socket(path: &std::path::Path, source: io::Error) -> Self {
        Self::socket_of(path, "DOCKER_HOST", source)
    }

    /// Sorts the error of connecting to a socket that an option names.
    pub(crate) fn socket_of(path: &std::path::Path, option: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::NoSocket { path: path.to_owned(), option },
            io::ErrorKind::PermissionDenied => Self::Permission { path: path.to_owned(), group: group(path) },
            _ => Self::Unreachable { address: path.display().to_string(), source },
        }
    }
}

/// The group that owns a file: its name, or else its number.
fn group(path: &std::path::Path) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(metadata) = std::fs::metadata(path) else { return "docker".to_owned() };
    let gid = nix::unistd::Gid::from_raw(metadata.gid());
    match nix::unistd::Group::from_gid(gid) {
        Ok(Some(group)) => group.name,
        Ok(None) | Err(_) => gid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_may_not_be_used_names_the_group_that_may() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let group = group(file.path());
        let text = Error::socket(file.path(), io::ErrorKind::PermissionDenied.into()).to_string();
        assert!(text.contains(&format!("in the group {group} ")), "{text}");
        let text =
            Error::socket(std::path::Path::new("/nowhere/docker.sock"), io::ErrorKind::NotFound.into()).to_string();
        assert!(text.contains("install the runtime") && text.contains("DOCKER_HOST"), "{text}");
    }

    #[test]
    fn the_engines_refusal_is_told_from_a_container_that_is_gone() {
        let refusal =
            |status_code| bollard::errors::Error::DockerResponseServerError { status_code, message: "m".into() };
        let sort = |error| Error::request("inspect", std::time::Duration::from_secs(1), error).reason();
        assert_eq!(sort(refusal(404)), "not_found");
        assert_eq!(sort(refusal(500)), "refused");
        assert_eq!(sort(bollard::errors::Error::RequestTimeoutError), "timeout");
    }
}
