//! Which network namespaces containers have: by the processes in them and their cgroups, without asking any engine.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::Path};

/// Processes that are looked at, at most.
const MAX_LOOKS: usize = 65_536;
/// Digits of the ids that engines give.
const ID_DIGITS: usize = 64;
/// How LXC calls the cgroup of a container's processes.
const LXC: &str = "lxc.payload.";

/// A network namespace with a process of a container in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its number (inode), which may be another's when it is gone.
    pub(super) inode: u64,
    /// A process in it.
    pub(super) pid: u32,
    /// What its engine calls the container; of several in one namespace the one whose process has the lowest number.
    pub(super) container: String,
}

/// All but the one with the number `home`, those with the lowest process numbers first.
pub(super) fn containers(proc: &Path, home: u64) -> Vec<Found> {
    let Ok(entries) = fs::read_dir(proc) else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut pids: Vec<u32> = pids.take(MAX_LOOKS).collect();
    pids.sort_unstable();
    let mut found = BTreeMap::<u64, Found>::new();
    for pid in pids {
        let process = proc.join(pid.to_string());
        // A process that has ended has none, and that of a stranger is not shown to everybody.
        let Ok(namespace) = fs::metadata(process.join("ns/net")) else { continue };
        let inode = namespace.ino();
        if inode == home || found.contains_key(&inode) {
            continue;
        }
        let Ok(cgroups) = fs::read_to_string(process.join("cgroup")) else { continue };
        if let Some(container) = container(&cgroups) {
            found.insert(inode, Found { inode, pid, container: container.to_owned() });
        }
    }
    let mut found: Vec<_> = found.into_values().collect();
    found.sort_unstable_by_key(|found| found.pid);
    found
}

/// The container that a process is in, by the text of its `/proc/PID/cgroup`: the innermost part of a path that is an engine's id
/// (`/docker/<id>`, `/kubepods.slice/.../cri-containerd-<id>.scope`, `/machine.slice/libpod-<id>.scope`), or LXC's name.
fn container(cgroups: &str) -> Option<&str> {
    let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.flat_map(|path| path.rsplit('/')).find_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let id = part.rsplit_once('-').map_or(part, |(_, id)| id);
        let is_id = id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_id { Some(id) } else { part.strip_prefix(LXC).filter(|name| !name.is_empty()) }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "016a3091691bff1ab6e8b55ced6fbcd1cf32e046c645064269dfdd840c7e1fa1";

    #[test]
    fn a_container_is_known_by_its_cgroup_whoever_made_it() {
        for (path, expected) in [
            (format!("0::/docker/{ID}"), Some(ID)),
            (format!("0::/system.slice/docker-{ID}.scope"), Some(ID)),
            (format!("0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"), Some(ID)),
            (format!("0::/machine.slice/libpod-{ID}.scope/container"), Some(ID)),
            (format!("12:cpu:/docker/{ID}\n0::/docker/{ID}/init.scope"), Some(ID)),
            ("0::/lxc.payload.web/init.scope".to_owned(), Some("web")),
            ("0::/system.slice/ssh.service".to_owned(), None),
            (format!("0::/user.slice/{}", &ID[1..]), None),
            ("0::/".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(container(&path), expected, "{path}");
        }
    }

    #[test]
    fn namespaces_without_a_container_are_left_alone() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert!(containers(Path::new("/proc"), own).iter().all(|found| found.inode != own));
        assert_eq!(containers(Path::new("/nowhere"), own), []);
    }

    proptest! {
        #[test]
        fn no_cgroup_is_too_strange(text in ".{0,200}") {
            let _some_or_none = container(&text);
        }
    }
}
