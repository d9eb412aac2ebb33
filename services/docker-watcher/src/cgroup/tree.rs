//! The trees of control groups: one of v2, and on older and hybrid hosts one per controller of v1.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// The controllers of v1 whose counters are read.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuacct", "memory", "blkio", "pids"];

/// Where the trees are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The root of v2.
    pub v2: Option<PathBuf>,
    /// The roots of v1, by controller.
    pub v1: BTreeMap<&'static str, PathBuf>,
}

impl Tree {
    /// The trees that this process sees, as they were when it first looked: mounts of these do not move.
    pub fn shared() -> Option<&'static Self> {
        static TREE: OnceLock<Option<Tree>> = OnceLock::new();
        TREE.get_or_init(|| Self::read(Path::new("/proc")).ok()).as_ref()
    }

    /// Reads proc(5), `/proc/self/mountinfo`: the type stands behind the lone hyphen, the options of v1 name its controllers.
    pub fn read(proc: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        for line in fs::read_to_string(proc.join("self/mountinfo"))?.lines() {
            tree.add(line);
        }
        Ok(tree)
    }

    fn add(&mut self, line: &str) -> Option<()> {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, mount_point) = (fields.next()?, fields.next()?);
        // A bind mount of a part of the tree does not have the paths that /proc/pid/cgroup names.
        (root == "/").then_some(())?;
        let mut filesystem = filesystem.split(' ');
        match filesystem.next()? {
            "cgroup2" => drop(self.v2.get_or_insert_with(|| mount_point.into())),
            "cgroup" => {
                let options = filesystem.nth(1)?;
                for controller in
                    CONTROLLERS.into_iter().filter(|name| options.split(',').any(|option| option == *name))
                {
                    self.v1.entry(controller).or_insert_with(|| mount_point.into());
                }
            }
            _ => {}
        }
        Some(())
    }
}

/// The directories of one cgroup in all trees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// In the tree of v2.
    pub v2: Option<PathBuf>,
    /// In the trees of v1, by controller.
    pub v1: BTreeMap<&'static str, PathBuf>,
}

impl Place {
    /// The place of a process, if it is in a cgroup that `name` is part of (`/proc/pid/cgroup`, cgroups(7)).
    pub fn of(proc: &Path, pid: u32, name: &str) -> io::Result<Self> {
        let text = fs::read_to_string(proc.join(pid.to_string()).join("cgroup"))?;
        if !text.contains(name) || name.is_empty() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let own;
        let tree = if let Some(tree) = Tree::shared().filter(|_| proc == Path::new("/proc")) {
            tree
        } else {
            own = Tree::read(proc)?;
            &own
        };
        Ok(Self::in_tree(tree, &text))
    }

    fn in_tree(tree: &Tree, of_process: &str) -> Self {
        let mut place = Self::default();
        for line in of_process.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let path = path.trim_start_matches('/');
            if controllers.is_empty() {
                place.v2 = tree.v2.as_ref().map(|root| root.join(path));
            }
            for controller in controllers.split(',') {
                if let Some((name, root)) = tree.v1.get_key_value(controller) {
                    place.v1.insert(name, root.join(path));
                }
            }
        }
        place
    }

    /// The directory in v1 that has a controller.
    #[must_use]
    pub fn controller(&self, name: &str) -> Option<&Path> {
        self.v1.get(name).map(PathBuf::as_path)
    }
}

/// The path in the v2 tree (cgroups(7), `/proc/pid/cgroup`: hierarchy 0, no controllers).
pub(super) fn v2_path(cgroup: &str) -> Option<&str> {
    cgroup.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_a_directory_in_every_tree() {
        let mut tree = Tree::default();
        for line in [
            "32 31 0:29 / /c/cpu rw - cgroup cgroup rw,cpu,cpuacct",
            "33 31 0:30 /sub /c/part rw - cgroup cgroup rw,memory",
            "34 31 0:31 / /c/memory rw - cgroup cgroup rw,memory",
            "41 31 0:38 / /c/unified rw,relatime - cgroup2 cgroup2 rw",
            "42 31 0:38 / /again rw,relatime - cgroup2 cgroup2 rw",
            "not a mount",
        ] {
            tree.add(line);
        }
        let place =
            Place::in_tree(&tree, "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n1:name=systemd:/\n0::/docker/x\nbad\n");
        assert_eq!(place.v2, Some("/c/unified/docker/x".into()));
        assert_eq!(place.controller("memory"), Some(Path::new("/c/memory/docker/x")));
        assert_eq!(place.controller("cpuacct"), Some(Path::new("/c/cpu/docker/x")));
        assert_eq!(place.controller("pids"), None);
    }
}
