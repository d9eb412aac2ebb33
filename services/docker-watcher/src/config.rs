//! Options of docker-watcher.

use std::{path::PathBuf, time::Duration};

use crate::docker;

/// Watches the containers of this host: what they use, what happens to them, and which addresses and cgroups are theirs.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "weir-docker-watcher", version, about)]
pub struct Config {
    /// Which runtimes to watch: `docker`, `podman`, `containerd`, `cri`, and `cgroup` for containers that none of them tells about. `auto` =
    /// Docker, and of the others those whose socket is there at the start
    #[arg(
        long,
        env = "WEIR_DOCKER_WATCHER_RUNTIMES",
        value_name = "RUNTIME",
        value_delimiter = ',',
        value_enum,
        default_value = "auto"
    )]
    pub runtimes: Vec<Runtime>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub docker: docker::Options,
    /// Socket of Podman's service; without it the usual ones of root and of users
    #[arg(long, env = "WEIR_DOCKER_WATCHER_PODMAN_SOCKET", value_name = "PATH", value_delimiter = ',')]
    pub podman_socket: Vec<PathBuf>,
    /// Socket of containerd; without it the usual ones
    #[arg(long, env = "CONTAINERD_SOCKET", value_name = "PATH")]
    pub containerd_socket: Option<PathBuf>,
    /// Namespaces of containerd to watch; without it all but Docker's (`moby`) and Kubernetes's (`k8s.io`), which have APIs of their own
    #[arg(long, env = "CONTAINERD_NAMESPACE", value_name = "NAME", value_delimiter = ',')]
    pub containerd_namespace: Vec<String>,
    /// Socket of the runtime that Kubernetes uses; without it the usual ones of containerd, k3s and CRI-O
    #[arg(long, env = "CONTAINER_RUNTIME_ENDPOINT", value_name = "PATH")]
    pub cri_socket: Option<PathBuf>,
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
    pub filter: crate::filter::Options,
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

    /// Where the place in a source's events is kept.
    #[must_use]
    pub fn position_file(&self, kind: &str) -> PathBuf {
        // Docker's was there first.
        let name = if kind == "docker" { "events".to_owned() } else { format!("events-{kind}") };
        self.service.data_dir.join("docker-watcher").join(name)
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

/// A kind of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Runtime {
    /// What is there.
    Auto,
    /// Docker, or what speaks its API at its address.
    Docker,
    /// Podman's service.
    Podman,
    /// containerd's own API.
    Containerd,
    /// The Container Runtime Interface.
    Cri,
    /// Control groups alone.
    Cgroup,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

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
