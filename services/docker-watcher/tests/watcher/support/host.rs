//! What the throwaway runtimes share: programs, the image of busybox, and what they leave on the host.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};

const APPLETS: [&str; 16] = [
    "sh", "dd", "cat", "nc", "ping", "sleep", "true", "false", "touch", "mkdir", "rm", "sync", "test", "kill", "env",
    "yes",
];

/// Why there can be no runtime here.
pub(crate) fn missing(programs: &[&str]) -> Option<String> {
    if !geteuid().is_root() {
        return Some("a container runtime of its own needs root".to_owned());
    }
    for program in programs {
        if on_path(program).is_none() {
            return Some(format!("there is no {program} here"));
        }
    }
    if busybox().is_none() {
        return Some("there is no static busybox here to make an image of (Debian: busybox-static)".to_owned());
    }
    None
}

/// The files of an image that has busybox and nothing else, as a tar archive.
pub(crate) fn image(directory: &Path) -> Vec<u8> {
    let root = directory.join("image");
    for directory in ["bin", "tmp", "data"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy(busybox().unwrap(), root.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).output().unwrap().stdout
}

/// Kills the processes that have a directory in their command line, then all in these cgroups, and removes the cgroups and the mounts below the
/// directory.
pub(crate) fn sweep(root: &Path, cgroups: &[PathBuf]) {
    // First the shims, so that nobody restarts anything.
    for process in processes_of(root) {
        let _gone = kill(process, Signal::SIGKILL);
    }
    for _ in 0..200 {
        let inside: Vec<_> = cgroups.iter().flat_map(|cgroup| members(cgroup)).collect();
        if inside.is_empty() {
            break;
        }
        for process in inside {
            let _gone = kill(process, Signal::SIGKILL);
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    for cgroup in cgroups {
        let _gone = fs::remove_dir(cgroup);
    }
    for mount in mounts_below(root) {
        let _gone = umount2(&mount, MntFlags::MNT_DETACH);
    }
}

/// A directory in every hierarchy, where it is there.
pub(crate) fn in_hierarchies(path: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    std::iter::once(root.to_owned())
        .chain(names(root).into_iter().map(|name| root.join(name)))
        .map(|hierarchy| hierarchy.join(path))
        .filter(|directory| directory.is_dir())
        .collect()
}

/// A program, also where only root looks.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// A busybox without a dynamic loader, which a container would not have.
fn busybox() -> Option<PathBuf> {
    on_path("busybox").filter(|file| {
        fs::read(file)
            .is_ok_and(|bytes| !bytes.windows(10).any(|window| window == b"/ld-linux-" || window == b"/ld-musl-x"))
    })
}

/// What is in a directory.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn processes_of(root: &Path) -> Vec<Pid> {
    let needle = root.display().to_string();
    let own = std::process::id();
    names(Path::new("/proc"))
        .iter()
        .filter_map(|name| name.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&needle))
        })
        .map(|pid| Pid::from_raw(pid.cast_signed()))
        .collect()
}

fn members(cgroup: &Path) -> Vec<Pid> {
    let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    processes.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1).map(Pid::from_raw).collect()
}

/// The innermost first.
fn mounts_below(root: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut below: Vec<_> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|mount| mount.starts_with(root))
        .collect();
    below.reverse();
    below
}
