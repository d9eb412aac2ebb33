//! Which containers there are, by the names of their cgroups.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// How deep a container may be: kubelet, systemd and a container in a container together need less.
const MAX_DEPTH: usize = 10;
/// How many directories are looked at before a host counts as broken.
const MAX_DIRECTORIES: usize = 50_000;

/// A container by its cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The runtime that names cgroups so.
    pub runtime: &'static str,
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// The directory.
    pub directory: PathBuf,
}

/// Prefixes of systemd's scopes.
const SCOPES: [(&str, &str); 4] =
    [("docker-", "docker"), ("libpod-", "podman"), ("cri-containerd-", "containerd"), ("crio-", "cri-o")];
/// Parents of plain paths.
const PARENTS: [(&str, &str); 5] = [
    ("docker", "docker"),
    ("libpod", "podman"),
    ("k8s.io", "containerd"),
    ("kubepods", "containerd"),
    // What kubelet calls the directory of a pod below `kubepods`.
    ("pod", "containerd"),
];

/// All containers below the root of a tree.
pub fn scan(root: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut left = MAX_DIRECTORIES;
    walk(root, "", 0, &mut left, &mut found)?;
    Ok(found)
}

fn walk(directory: &Path, name: &str, depth: usize, left: &mut usize, found: &mut Vec<Found>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        // It may be gone since it was listed.
        let Ok(entry) = entry else { continue };
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || *left == 0 {
            continue;
        }
        *left -= 1;
        let path = entry.path();
        let Some(child) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if let Some((runtime, id)) = container(name, child) {
            found.push(Found { runtime, id: id.to_owned(), directory: path });
        } else if depth < MAX_DEPTH {
            let child = child.to_owned();
            let _gone = walk(&path, &child, depth + 1, left, found);
        }
    }
    Ok(())
}

/// The container that a directory is, by its name and that of its parent.
fn container<'a>(parent: &str, name: &'a str) -> Option<(&'static str, &'a str)> {
    if let Some(scope) = name.strip_suffix(".scope") {
        return SCOPES
            .iter()
            .find_map(|(prefix, runtime)| Some((*runtime, scope.strip_prefix(prefix).filter(|id| is_id(id))?)));
    }
    // Podman without systemd: libpod_parent/libpod-<id>.
    if let Some(id) = name.strip_prefix("libpod-").filter(|id| is_id(id)) {
        return Some(("podman", id));
    }
    let runtime = PARENTS.iter().find(|(prefix, _)| parent.starts_with(prefix)).map(|(_, runtime)| *runtime)?;
    is_id(name).then_some((runtime, name))
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The first process of a container: the first in its cgroup, or in the first one below it that has any.
#[must_use]
pub fn first_process(directory: &Path) -> Option<u32> {
    first_below(directory, 0)
}

fn first_below(directory: &Path, depth: usize) -> Option<u32> {
    let processes = fs::read_to_string(directory.join("cgroup.procs")).ok()?;
    // 0 = a process of another PID namespace.
    if let Some(pid) = processes.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).min() {
        return Some(pid);
    }
    if depth == MAX_DEPTH {
        return None;
    }
    let children = fs::read_dir(directory).ok()?;
    children.flatten().filter(|entry| entry.path().is_dir()).find_map(|entry| first_below(&entry.path(), depth + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> String {
        String::from(digit).repeat(64)
    }

    #[test]
    fn each_runtimes_cgroups_are_known_by_their_names() {
        let root = tempfile::tempdir().unwrap();
        let make = |path: String| fs::create_dir_all(root.path().join(path)).unwrap();
        make(format!("system.slice/docker-{}.scope/init", id('a')));
        make(format!("docker/{}", id('b')));
        make(format!("machine.slice/libpod-{}.scope/container", id('c')));
        make(format!("machine.slice/libpod-conmon-{}.scope", id('c')));
        make(format!("libpod_parent/libpod-{}", id('d')));
        make(format!(
            "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-{}.scope",
            id('e')
        ));
        make(format!("kubepods/burstable/pod0a1b/{}", id('f')));
        make(format!("kubepods.slice/crio-{}.scope", id('1')));
        make(format!("user.slice/{}", id('2')));
        make("docker/buildkit".to_owned());
        let mut found = scan(root.path()).unwrap();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        let found: Vec<_> = found.iter().map(|found| (found.runtime, found.id.chars().next().unwrap())).collect();
        let expected = [
            ("cri-o", '1'),
            ("docker", 'a'),
            ("docker", 'b'),
            ("podman", 'c'),
            ("podman", 'd'),
            ("containerd", 'e'),
            ("containerd", 'f'),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn the_first_process_may_be_in_a_cgroup_below() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("init")).unwrap();
        fs::write(root.path().join("cgroup.procs"), "").unwrap();
        fs::write(root.path().join("init/cgroup.procs"), "0\n70\n69\n").unwrap();
        assert_eq!(first_process(root.path()), Some(69));
    }
}
