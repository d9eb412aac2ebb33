//! Options of docker-watcher.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

/// Watches the containers of this host: what they use, what happens to them, and which addresses and cgroups are theirs.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "weir-docker-watcher", version, about)]
pub struct Config {
    /// Address of the engine: `unix:///path` or `tcp://host:port`
    #[arg(long, env = "DOCKER_HOST", value_name = "URL", default_value = DockerHost::DEFAULT)]
    pub docker_host: DockerHost,
    /// Seconds between two samples of a container
    #[arg(
        long,
        env = "WEIR_DOCKER_WATCHER_STATS_INTERVAL",
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    pub stats_interval: u64,
    /// How many containers are sampled at one time; engine 20.10 lets each request wait for its next second, so this times the
    /// interval bounds how many it can sample
    #[arg(
        long,
        env = "WEIR_DOCKER_WATCHER_STATS_CONCURRENCY",
        value_name = "COUNT",
        default_value_t = 128,
        value_parser = clap::value_parser!(u16).range(1..=1024)
    )]
    pub stats_concurrency: u16,
    /// How many containers are inspected at one time
    #[arg(
        long,
        env = "WEIR_DOCKER_WATCHER_INSPECT_CONCURRENCY",
        value_name = "COUNT",
        default_value_t = 4,
        value_parser = clap::value_parser!(u16).range(1..=64)
    )]
    pub inspect_concurrency: u16,
    /// Seconds after which an engine that does not answer a request counts as hung
    #[arg(
        long,
        env = "WEIR_DOCKER_WATCHER_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=600)
    )]
    pub timeout: u64,
    /// Seconds between two comparisons with the engine's list; it is compared after each connect, too
    #[arg(
        long,
        env = "WEIR_DOCKER_WATCHER_RECONCILE_INTERVAL",
        value_name = "SECONDS",
        default_value_t = 300,
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    pub reconcile_interval: u64,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub spool: weir_bus::SpoolOptions,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub bus: weir_bus::Options,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub service: weir_service::Options,
}

impl Config {
    /// Where batches wait for NATS.
    #[must_use]
    pub fn spool_dir(&self) -> PathBuf {
        self.spool.spool_dir.clone().unwrap_or_else(|| self.service.data_dir.join("spool").join("docker-watcher"))
    }

    /// Where the place in the engine's events is kept.
    #[must_use]
    pub fn position_file(&self) -> PathBuf {
        self.service.data_dir.join("docker-watcher").join("events")
    }

    pub(crate) fn stats_interval(&self) -> Duration {
        Duration::from_secs(self.stats_interval)
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    pub(crate) fn reconcile_interval(&self) -> Duration {
        Duration::from_secs(self.reconcile_interval)
    }
}

/// Where the engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerHost {
    /// A socket on this host.
    Unix(PathBuf),
    /// `host:port`, without TLS.
    Tcp(String),
}

impl DockerHost {
    /// The socket of an engine that was installed in the usual way.
    pub const DEFAULT: &str = "unix:///var/run/docker.sock";
}

/// An address of the engine that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("not unix:///path or tcp://host:port")]
pub struct NoHost;

impl FromStr for DockerHost {
    type Err = NoHost;

    fn from_str(text: &str) -> Result<Self, NoHost> {
        // An empty DOCKER_HOST means the default, as it does for `docker`.
        let text = if text.is_empty() { Self::DEFAULT } else { text };
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(NoHost) };
        }
        let address = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://")).ok_or(NoHost)?;
        let address = address.trim_end_matches('/');
        if address.is_empty() || address.contains('/') { Err(NoHost) } else { Ok(Self::Tcp(address.to_owned())) }
    }
}

impl fmt::Display for DockerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn the_engines_address_is_a_socket_or_host_and_port() {
        let parse = |text: &str| text.parse::<DockerHost>().ok();
        assert_eq!(parse(""), parse(DockerHost::DEFAULT));
        assert_eq!(parse("unix:///run/x.sock"), Some(DockerHost::Unix("/run/x.sock".into())));
        assert_eq!(parse("tcp://127.0.0.1:2375"), Some(DockerHost::Tcp("127.0.0.1:2375".into())));
        for bad in ["x", "ssh://host", "unix://relative", "tcp://", "tcp://h/path"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_bad_value_names_its_option() {
        let error = Config::try_parse_from(["x", "--stats-interval", "0"]).unwrap_err().to_string();
        assert!(error.contains("--stats-interval"), "{error}");
        let error = Config::try_parse_from(["x", "--docker-host", "ssh://h"]).unwrap_err().to_string();
        assert!(error.contains("--docker-host"), "{error}");
    }

    #[test]
    fn the_command_is_sound() {
        use clap::CommandFactory as _;
        Config::command().debug_assert();
    }
}
