//! How large the flow table may be, by the memory that there is.

use std::{fs, path::Path};

/// What one flow takes: a slot, its facts, its entries in the index and among the recent flows.
const FLOW_BYTES: u64 = 530;
const FEWEST: u64 = 16_384;
const MOST: u64 = 1_048_576;

/// The default of `--max-flows` on this machine.
pub(super) fn flows() -> u32 {
    let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let total = total_memory(&text(Path::new("/proc/meminfo")));
    let limit = own_cgroup(&text(Path::new("/proc/self/cgroup")))
        .and_then(|group| text(&Path::new("/sys/fs/cgroup").join(group).join("memory.max")).trim().parse().ok());
    flows_for(total, limit)
}

/// A 256th of all memory, at most a quarter of the cgroup's limit: maps count as memory of who made them.
fn flows_for(total: Option<u64>, limit: Option<u64>) -> u32 {
    let share = total.map_or(u64::MAX, |bytes| bytes / 256).min(limit.map_or(u64::MAX, |bytes| bytes / 4));
    if share == u64::MAX {
        return FEWEST as u32;
    }
    let flows = (share / FLOW_BYTES).clamp(FEWEST, MOST);
    // Down to a power of two.
    (1u64 << flows.ilog2()) as u32
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The process's group in the v2 tree, as `/proc/self/cgroup` has it, without its leading slash.
fn own_cgroup(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1 << 30;

    #[test]
    fn the_table_follows_the_memory() {
        for (total, flows) in [(1, 16_384), (4, 16_384), (8, 32_768), (24, 131_072), (64, 262_144), (4096, 1_048_576)] {
            assert_eq!(flows_for(Some(total * GB), None), flows, "{total} GB");
        }
        assert_eq!(flows_for(None, None), 16_384);
    }

    #[test]
    fn a_cgroup_with_less_has_a_smaller_one() {
        assert_eq!(flows_for(Some(64 * GB), Some(GB / 8)), 32_768);
        assert_eq!(flows_for(Some(64 * GB), Some(64 * GB)), 262_144);
    }

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!(total_memory("MemTotal:       24683520 kB\nMemFree: 1 kB\n"), Some(24_683_520 << 10));
        assert_eq!(total_memory("MemTotal: x"), None);
        assert_eq!(own_cgroup("1:cpu:/a\n0::/system.slice/weir.service\n"), Some("system.slice/weir.service"));
        assert!(flows() >= 16_384);
    }
}
