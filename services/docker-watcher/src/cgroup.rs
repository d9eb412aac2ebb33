//! Where a container's processes are in the cgroup v2 tree, and the id that the kernel knows it by.
//!
//! The id is the inode of the cgroup's directory in the v2 tree, which is what `bpf_get_current_cgroup_id()` and
//! `bpf_skb_cgroup_id()` return (Linux, `cgroup_id()` in `include/linux/cgroup.h`: the kernfs node's id). On a hybrid host containers are in
//! the v2 tree, too, without controllers.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// A cgroup: its path from the root of the v2 tree, and its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// For example `/docker/<id>`.
    pub path: String,
    /// 0 = none.
    pub id: u64,
}

/// Finds the cgroup of a container by its first process. `None` where this process sees no v2 tree, or another process by that number.
#[must_use]
pub fn find(pid: u32, container_id: &str) -> Option<Cgroup> {
    find_in(Path::new("/proc"), pid, container_id)
}

fn find_in(proc: &Path, pid: u32, container_id: &str) -> Option<Cgroup> {
    let root = v2_root(&fs::read_to_string(proc.join("self/mountinfo")).ok()?)?;
    let of_process = fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).ok();
    let candidates = of_process
        .as_deref()
        .and_then(v2_path)
        .map(str::to_owned)
        .into_iter()
        .chain([format!("/docker/{container_id}"), format!("/system.slice/docker-{container_id}.scope")]);
    candidates
        // In another PID namespace the number belongs to a stranger: the path must name the container.
        .filter(|path| path.contains(container_id))
        .find_map(|path| {
            let metadata = fs::metadata(root.join(path.trim_start_matches('/'))).ok()?;
            metadata.is_dir().then(|| Cgroup { path, id: metadata.ino() })
        })
}

/// Where the v2 tree is mounted (proc(5), `/proc/pid/mountinfo`: the type stands behind the lone hyphen).
fn v2_root(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        filesystem.starts_with("cgroup2 ").then_some(())?;
        let mut fields = mount.split(' ').skip(3);
        let (root, mount_point) = (fields.next()?, fields.next()?);
        // A bind mount of a part of the tree does not have the paths that /proc/pid/cgroup names.
        (root == "/").then(|| PathBuf::from(mount_point))
    })
}

/// The path in the v2 tree (cgroups(7), `/proc/pid/cgroup`: hierarchy 0, no controllers).
fn v2_path(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "016a3091691bff1ab6e8b55ced6fbcd1cf32e046c645064269dfdd840c7e1fa1";

    /// A `/proc` with one process, and a v2 tree with one cgroup.
    fn host(of_process: &str, directory: &str) -> (tempfile::TempDir, u64) {
        let host = tempfile::tempdir().unwrap();
        let tree = host.path().join("cgroup");
        fs::create_dir_all(host.path().join("self")).unwrap();
        fs::create_dir_all(host.path().join("42")).unwrap();
        fs::create_dir_all(tree.join(directory)).unwrap();
        let mountinfo = format!(
            "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
             41 31 0:38 / {} rw,relatime - cgroup2 cgroup2 rw\n",
            tree.display()
        );
        fs::write(host.path().join("self/mountinfo"), mountinfo).unwrap();
        fs::write(host.path().join("42/cgroup"), of_process).unwrap();
        let id = fs::metadata(tree.join(directory)).unwrap().ino();
        (host, id)
    }

    #[test]
    fn the_id_is_the_inode_of_the_directory_that_the_process_names() {
        let (host, id) = host(&format!("4:memory:/docker/{ID}\n0::/parent/{ID}\n"), &format!("parent/{ID}"));
        assert_eq!(find_in(host.path(), 42, ID), Some(Cgroup { path: format!("/parent/{ID}"), id }));
    }

    #[test]
    fn systemds_scope_is_found_without_the_process() {
        let (host, id) = host("", &format!("system.slice/docker-{ID}.scope"));
        let found = find_in(host.path(), 7, ID).unwrap();
        assert_eq!((found.path, found.id), (format!("/system.slice/docker-{ID}.scope"), id));
    }

    #[test]
    fn another_process_by_that_number_is_not_taken_for_the_container() {
        let (host, _) = host("0::/user.slice\n", "user.slice");
        assert_eq!(find_in(host.path(), 42, ID), None);
    }
}
