//! What a container uses, by its own cgroup files and network namespace, on cgroup v1 and v2.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Cumulative but for the memory and the processes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) cpu_ns: u64,
    /// Without the inactive page cache.
    pub(crate) memory: u64,
    pub(crate) pids: u64,
    pub(crate) block_read: u64,
    pub(crate) block_written: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) rx_packets: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_packets: u64,
}

/// Reads it now.
pub(crate) fn usage(id: &str, pid: u32) -> Usage {
    let root = Path::new("/sys/fs/cgroup");
    let mut usage = if root.join("cgroup.controllers").exists() { of_v2(&v2(root, pid)) } else { of_v1(root, id) };
    let interfaces = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    for line in interfaces.lines().skip(2) {
        let (name, counters) = line.split_once(':').unwrap();
        let counters: Vec<u64> = counters.split_whitespace().map(|number| number.parse().unwrap()).collect();
        if name.trim() != "lo" {
            usage.rx_bytes += counters[0];
            usage.rx_packets += counters[1];
            usage.tx_bytes += counters[8];
            usage.tx_packets += counters[9];
        }
    }
    usage
}

fn of_v1(root: &Path, id: &str) -> Usage {
    let file = |controller: &str, name: &str| {
        let path = root.join(controller).join("docker").join(id).join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let number = |controller, name| file(controller, name).trim().parse::<u64>().unwrap();
    let inactive = field(&file("memory", "memory.stat"), "total_inactive_file");
    let io = file("blkio", "blkio.throttle.io_service_bytes_recursive");
    let moved = |operation: &str| {
        io.lines().filter_map(|line| line.split_once(' ')?.1.strip_prefix(operation)?.trim().parse::<u64>().ok()).sum()
    };
    Usage {
        cpu_ns: number("cpuacct", "cpuacct.usage"),
        memory: number("memory", "memory.usage_in_bytes") - inactive,
        pids: number("pids", "pids.current"),
        block_read: moved("Read "),
        block_written: moved("Write "),
        rx_bytes: 0,
        rx_packets: 0,
        tx_bytes: 0,
        tx_packets: 0,
    }
}

fn of_v2(cgroup: &Path) -> Usage {
    let file = |name: &str| fs::read_to_string(cgroup.join(name)).unwrap();
    let io = file("io.stat");
    let moved = |key: &str| io.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum();
    Usage {
        cpu_ns: field(&file("cpu.stat"), "usage_usec") * 1000,
        memory: file("memory.current").trim().parse::<u64>().unwrap() - field(&file("memory.stat"), "inactive_file"),
        pids: file("pids.current").trim().parse().unwrap(),
        block_read: moved("rbytes="),
        block_written: moved("wbytes="),
        rx_bytes: 0,
        rx_packets: 0,
        tx_bytes: 0,
        tx_packets: 0,
    }
}

fn v2(root: &Path, pid: u32) -> PathBuf {
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    root.join(cgroup.lines().find_map(|line| line.strip_prefix("0::/")).unwrap())
}

fn field(text: &str, name: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap()
}

/// The whole disk that holds a path, if it is one: block I/O is limited and counted there.
pub(crate) fn disk_of(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let device = fs::metadata(path).ok()?.dev();
    let device = format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let mut directory = fs::canonicalize(Path::new("/sys/dev/block").join(device)).ok()?;
    if directory.join("partition").exists() {
        directory.pop();
    }
    Some(format!("/dev/{}", directory.file_name()?.to_str()?))
}
