//! Processes that were there before capture: what they execute, from `/proc`.
//!
//! A process that ends, or executes something else, between the look and the moment when the kernel's own notes begin must not be told wrong. So
//! each is looked at again then: when it was started, its name and its arguments have to be the same, all of which anybody may read.

use std::{collections::BTreeMap, fs, io::Read as _, path::Path};

use weir_capture_common::socket::PATH;

/// Where the kernel shows them.
const PROC: &str = "/proc";
/// Processes that are looked at, at most.
const MAX_LOOKS: usize = 65_536;
/// Executables that are kept, at most: the kernel's table has room for 8192, and those of processes to come are worth more.
const MAX_KEPT: usize = 6144;
/// Of a process's status and of its arguments.
const MAX_BYTES: u64 = 4096;
/// The kernel adds it to the path of a file that is not there any more.
const DELETED: &str = " (deleted)";

/// Executables by process, as they were when this was read.
#[derive(Clone, Debug, Default)]
pub struct Processes {
    found: BTreeMap<u32, Process>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    executable: [u8; PATH],
    identity: Identity,
}

/// What changes when another process has the number, or the process executes another file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    /// In clock ticks since the host was started.
    started: u64,
    name: Vec<u8>,
    arguments: Vec<u8>,
}

impl Processes {
    /// Looks at all that this process may look at.
    #[must_use]
    pub fn read() -> Self {
        Self::below(Path::new(PROC))
    }

    fn below(proc: &Path) -> Self {
        let Ok(entries) = fs::read_dir(proc) else { return Self::default() };
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let found = pids.take(MAX_LOOKS).filter_map(|pid| Some((pid, Process::read(proc, pid)?)));
        Self { found: found.take(MAX_KEPT).collect() }
    }

    /// Each with what it executes, zero-terminated.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[u8; PATH])> {
        self.found.iter().map(|(pid, process)| (*pid, &process.executable))
    }

    /// Whether the process of this number is still the one that was looked at.
    #[must_use]
    pub fn is_same(&self, pid: u32) -> bool {
        self.found.get(&pid).is_some_and(|found| Identity::read(Path::new(PROC), pid).as_ref() == Some(&found.identity))
    }
}

impl Process {
    fn read(proc: &Path, pid: u32) -> Option<Self> {
        let identity = Identity::read(proc, pid)?;
        // A thread of the kernel has none, and that of a stranger is not shown to everybody.
        let path = fs::read_link(proc.join(pid.to_string()).join("exe")).ok()?;
        (Identity::read(proc, pid)? == identity).then(|| Self { executable: zero_terminated(path.to_str()), identity })
    }
}

impl Identity {
    fn read(proc: &Path, pid: u32) -> Option<Self> {
        let of = |name: &str| {
            let mut bytes = Vec::new();
            let file = fs::File::open(proc.join(pid.to_string()).join(name)).ok()?;
            file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
            Some(bytes)
        };
        let (started, name) = status(&of("stat")?)?;
        Some(Self { started, name, arguments: of("cmdline")? })
    }
}

/// When a process was started and its name, from its `stat` (`proc_pid_stat(5)`); the name may hold anything, also parentheses.
fn status(stat: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (first, last) = (stat.iter().position(|&byte| byte == b'(')?, stat.iter().rposition(|&byte| byte == b')')?);
    let name = stat.get(first + 1..last)?;
    let rest = std::str::from_utf8(&stat[last + 1..]).ok()?;
    // The state is the third field, and the time the 22nd.
    Some((rest.split_whitespace().nth(19)?.parse().ok()?, name.to_vec()))
}

fn zero_terminated(path: Option<&str>) -> [u8; PATH] {
    let mut bytes = [0; PATH];
    let path = path.unwrap_or_default();
    let path = path.strip_suffix(DELETED).unwrap_or(path).as_bytes();
    let length = path.len().min(PATH - 1);
    bytes[..length].copy_from_slice(&path[..length]);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_process_is_among_them_and_stays_the_same() {
        let processes = Processes::read();
        let pid = std::process::id();
        let (_, path) = processes.iter().find(|(found, _)| *found == pid).unwrap();
        let own = std::env::current_exe().unwrap();
        assert_eq!(*path, zero_terminated(own.to_str()));
        assert!(processes.is_same(pid));
        assert!(!processes.is_same(u32::MAX));
    }

    #[test]
    fn a_number_that_another_process_has_is_not_the_same() {
        let mut processes = Processes::read();
        let pid = std::process::id();
        processes.found.get_mut(&pid).unwrap().identity.started += 1;
        assert!(!processes.is_same(pid));
    }

    #[test]
    fn a_name_may_look_like_the_rest() {
        let stat = b"7 (a) S (b) R 1 7 7 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0\n";
        assert_eq!(status(stat), Some((4242, b"a) S (b".to_vec())));
    }

    #[test]
    fn a_path_is_cut_and_of_a_file_that_is_gone_its_own() {
        assert_eq!(&zero_terminated(Some("/usr/bin/x (deleted)"))[..11], b"/usr/bin/x\0");
        let long = zero_terminated(Some(&"/y".repeat(200)));
        assert_eq!((long[PATH - 2], long[PATH - 1]), (b'/', 0));
    }

    proptest! {
        #[test]
        fn no_status_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _some_or_none = status(&bytes);
        }
    }
}
