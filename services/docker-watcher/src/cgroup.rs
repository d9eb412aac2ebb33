//! Control groups: where a container's processes are, what they use, and which containers there are by their groups alone.
//!
//! The id of a cgroup is the inode of its directory in the v2 tree, which is what `bpf_get_current_cgroup_id()` and
//! `bpf_skb_cgroup_id()` return (Linux, `cgroup_id()` in `include/linux/cgroup.h`: the kernfs node's id). On a hybrid host containers are in
//! the v2 tree, too, without controllers.

pub mod counters;
pub mod network;
pub mod process;
pub mod scan;
pub mod tree;

mod engine;

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

use weir_proto::{Container, ContainerStats};

use crate::{Error, docker::now_ns, runtime::Sample};
pub use engine::{Engine, Served};
use tree::{Place, Tree};

/// What `tier` says of what was read here.
pub const TIER: &str = "cgroup";

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
    let root = Tree::read(proc).ok()?.v2?;
    let of_process = fs::read_to_string(proc.join(pid.to_string()).join("cgroup")).ok();
    let candidates = of_process
        .as_deref()
        .and_then(tree::v2_path)
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

/// What the cgroup of a container counts now. `None` = it does not run, or not on this host.
pub async fn sample(life: &Container) -> Result<Option<Sample>, Error> {
    let (pid, id) = (life.pid, own_name(&life.container_id).to_owned());
    let read = tokio::task::spawn_blocking(move || {
        let place = Place::of(Path::new("/proc"), pid, &id)?;
        let mut record = ContainerStats { tier: TIER.to_owned(), ..ContainerStats::default() };
        let read_ns = now_ns();
        counters::read(&place, &mut record);
        network::read(Path::new("/proc"), pid, &mut record);
        record.time = read_ns as u64 / 1000;
        Ok(Sample { read_ns, record })
    });
    match read.await {
        Ok(Ok(sample)) => Ok(Some(sample)),
        Ok(Err(error)) if is_gone(&error) => Ok(None),
        Ok(Err(source)) => Err(Error::Host { path: format!("/proc/{pid}/cgroup").into(), source }),
        // The runtime stops.
        Err(_) => Ok(None),
    }
}

/// Whether an error says that a process is gone: its files vanish, or refuse.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

/// Adds the memory pressure, which no runtime tells, and the swap, where the runtime does not tell it.
pub fn add_pressure(life: &Container, record: &mut ContainerStats) {
    let pressure =
        Tree::shared().and_then(|tree| tree.v2.as_deref()).filter(|_| !life.cgroup_path.is_empty()).map(|root| {
            let directory = root.join(life.cgroup_path.trim_start_matches('/'));
            counters::add_pressure(&directory, record);
            if record.memory_swap_bytes.is_none() {
                record.memory_swap_bytes = counters::number(&directory.join("memory.swap.current"));
            }
        });
    if pressure.is_none() {
        let reason = "the container's cgroup cannot be seen from here";
        for field in counters::PRESSURE_FIELDS {
            record.missing.insert(field.to_owned(), reason.to_owned());
        }
    }
}

/// The part of a container's id that its cgroup names: containerd's own ids are `namespace/id`.
#[must_use]
pub fn own_name(container_id: &str) -> &str {
    container_id.rsplit_once('/').map_or(container_id, |(_, id)| id)
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
