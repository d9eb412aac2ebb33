//! Which sources there are: what the options name, or what is found on this host.

use std::path::{Path, PathBuf};

use crate::{
    Config,
    cgroup::{Served, tree::Tree},
    config::Runtime,
    containerd,
    docker::{DockerHost, EndpointError},
    runtime::Address,
};

/// Where containerd listens: by itself, and as k3s starts it.
const CONTAINERD: [&str; 2] = ["/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock"];
/// Where CRI-O listens.
const CRIO: &str = "/run/crio/crio.sock";
/// Where Podman's service of root listens.
const PODMAN: &str = "/run/podman/podman.sock";

/// All sources, each once. `root` is where the paths of this host begin.
pub(crate) fn addresses(config: &Config, root: &Path) -> Result<Vec<Address>, EndpointError> {
    let auto = config.runtimes.contains(&Runtime::Auto);
    let named = |runtime| config.runtimes.contains(&runtime);
    let mut addresses = Vec::new();
    let others = others(config, root, auto);
    let endpoint = config.docker.endpoint()?;
    // Where nothing else is, Docker is waited for.
    let is_expected = config.docker.is_explicit() || others.is_empty() || is_there(&endpoint.host);
    if named(Runtime::Docker) || (auto && is_expected) {
        addresses.push(Address::Docker(endpoint));
    }
    addresses.extend(others);
    let has_cgroups = Tree::shared().is_some_and(|tree| tree.v2.is_some() || !tree.v1.is_empty());
    if named(Runtime::Cgroup) || (auto && has_cgroups) {
        let served = Served::new(addresses.len());
        addresses.push(Address::Cgroup(served));
    }
    Ok(addresses)
}

/// All but Docker and cgroups.
fn others(config: &Config, root: &Path, auto: bool) -> Vec<Address> {
    let named = |runtime| config.runtimes.contains(&runtime);
    let mut found = Vec::new();
    if named(Runtime::Podman) || auto {
        let mut sockets = config.podman_socket.clone();
        if sockets.is_empty() {
            sockets = podman_sockets(root);
        }
        if sockets.is_empty() && named(Runtime::Podman) {
            sockets.push(PODMAN.into());
        }
        found.extend(sockets.into_iter().map(Address::Podman));
    }
    let usual = |said: &Option<PathBuf>, usual: &[&str], is_named: bool| {
        let there = usual.iter().map(PathBuf::from).find(|path| below(root, path).exists());
        let fallback = usual.first().filter(|_| is_named).map(PathBuf::from);
        said.clone().or(there).or(fallback)
    };
    if named(Runtime::Containerd) || auto {
        let socket = usual(&config.containerd_socket, &CONTAINERD, named(Runtime::Containerd));
        let address = |socket| containerd::Address { socket, namespaces: config.containerd_namespace.clone() };
        found.extend(socket.map(|socket| Address::Containerd(address(socket))));
    }
    if named(Runtime::Cri) || auto {
        let [own, k3s] = CONTAINERD;
        let said = config.cri_socket.as_deref().map(strip_scheme).or_else(|| config.containerd_socket.clone());
        found.extend(usual(&said, &[CRIO, k3s, own], named(Runtime::Cri)).map(Address::Cri));
    }
    found
}

/// `crictl` and kubelet write the address as a URL.
fn strip_scheme(path: &Path) -> PathBuf {
    path.to_str().and_then(|text| text.strip_prefix("unix://")).map_or_else(|| path.to_owned(), PathBuf::from)
}

fn podman_sockets(root: &Path) -> Vec<PathBuf> {
    let of_root = Some(PathBuf::from(PODMAN)).filter(|path| below(root, path).exists());
    let users = std::fs::read_dir(root.join("run/user"));
    let of_users = users.into_iter().flatten().flatten().map(|user| user.path().join("podman/podman.sock"));
    of_root.into_iter().chain(of_users.filter(|path| path.exists())).collect()
}

fn is_there(host: &DockerHost) -> bool {
    match host {
        DockerHost::Unix(path) => path.exists(),
        DockerHost::Tcp(_) => true,
    }
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn kinds(arguments: &[&str], root: &Path) -> Vec<&'static str> {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().display().to_string();
        let config = Config::try_parse_from(["x", "--docker-config", &config].iter().chain(arguments)).unwrap();
        addresses(&config, root).unwrap().iter().map(Address::kind).filter(|kind| *kind != "cgroup").collect()
    }

    #[test]
    fn what_is_there_is_watched_and_docker_where_nothing_else_is() {
        let root = tempfile::tempdir().unwrap();
        let nowhere = ["--docker-host", "unix:///nowhere.sock"];
        assert_eq!(kinds(&nowhere, root.path()), ["docker"]);
        for socket in [PODMAN, CONTAINERD[0], "/run/user/1000/podman/podman.sock"] {
            let path = below(root.path(), Path::new(socket));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        assert_eq!(kinds(&nowhere, root.path()), ["docker", "podman", "podman", "containerd", "cri"]);
    }

    #[test]
    fn what_is_named_is_watched_whether_it_is_there_or_not() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(kinds(&["--runtimes", "podman,cri"], root.path()), ["podman", "cri"]);
        assert_eq!(kinds(&["--runtimes", "containerd"], root.path()), ["containerd"]);
    }
}
