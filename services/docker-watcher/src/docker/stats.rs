//! The counters of one container.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerBlkioStatEntry, ContainerBlkioStats, ContainerMemoryStats, ContainerNetworkStats, ContainerStatsResponse,
};
use weir_proto::{ContainerDevice, ContainerInterface, ContainerStats};

use super::nanoseconds;
use crate::{
    cgroup::{counters, network},
    runtime::Sample,
    text,
};

/// Above this a limit of cgroup v1 means none: it is `i64::MAX` rounded down to a page.
const UNLIMITED: u64 = 1 << 62;

/// An empty list has two reasons, and the engine does not tell them apart.
const NO_BLOCK_DEVICE: &str =
    "the engine lists no block device: nothing was read or written, or this kernel does not account it";

/// Reads a sample; `memory_total` is the memory of the engine's host. `None` = the container does not run: the engine then answers with zeros
/// and no time.
#[must_use]
pub fn sample(response: &ContainerStatsResponse, memory_total: Option<u64>) -> Option<Sample> {
    let read_ns = response.read.as_deref().and_then(nanoseconds)?;
    let mut record = ContainerStats {
        time: read_ns as u64 / 1000,
        container_id: response.id.clone().unwrap_or_default(),
        ..ContainerStats::default()
    };
    let mut missing = BTreeMap::new();
    let mut absent = |fields: &[&str], reason: &str| {
        missing.extend(fields.iter().map(|field| ((*field).to_owned(), reason.to_owned())));
    };
    record.cpu_usage_ns = response.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref()?.total_usage);
    if record.cpu_usage_ns.is_none() {
        absent(&["cpu_usage_ns"], "the engine reports no CPU use");
    }
    match response.memory_stats.as_ref().and_then(memory_bytes) {
        Some(bytes) => record.memory_bytes = Some(bytes),
        None => absent(&["memory_bytes"], "the engine reports no memory use: no memory controller"),
    }
    record.memory_limit_bytes = response.memory_stats.as_ref().and_then(|memory| memory_limit(memory, memory_total));
    record.memory_swap_bytes = response.memory_stats.as_ref().and_then(swap);
    match response.networks.as_ref().filter(|networks| !networks.is_empty()) {
        Some(networks) => network::set(&mut record, interfaces(networks)),
        None => absent(&network::FIELDS, "the engine reports no network of this container"),
    }
    match response.blkio_stats.as_ref().and_then(devices) {
        Some(devices) => counters::set_devices(&mut record, devices),
        None => absent(&["block_read_bytes", "block_write_bytes"], NO_BLOCK_DEVICE),
    }
    // Without a quota the engine says zeros.
    let throttling = response.cpu_stats.as_ref().and_then(|cpu| cpu.throttling_data.as_ref());
    if let Some(throttling) = throttling.filter(|throttling| throttling.periods.is_some_and(|periods| periods > 0)) {
        record.cpu_periods = throttling.periods;
        record.cpu_throttled_periods = throttling.throttled_periods;
        record.cpu_throttled_ns = throttling.throttled_time;
    }
    record.pids = response.pids_stats.as_ref().and_then(|pids| pids.current);
    if record.pids.is_none() {
        absent(&["pids"], "the engine reports no processes: no pids controller");
    }
    record.missing = missing;
    Some(Sample { read_ns, record })
}

/// The working set: usage without the page cache that can be dropped at once. cgroup v1 counts the cgroup and its children in
/// `total_inactive_file`, v2 always (Linux, `Documentation/admin-guide/cgroup-v1/memory.rst` and `cgroup-v2.rst`).
fn memory_bytes(memory: &ContainerMemoryStats) -> Option<u64> {
    let usage = memory.usage?;
    let stats = memory.stats.as_ref();
    let inactive = stats.and_then(|stats| stats.get("total_inactive_file").or_else(|| stats.get("inactive_file")));
    Some(usage.saturating_sub(inactive.copied().unwrap_or(0)))
}

/// The limit, unless it is none: v1 says a huge number then, and Docker itself the memory of the host.
fn memory_limit(memory: &ContainerMemoryStats, memory_total: Option<u64>) -> Option<u64> {
    let limit = memory.limit.filter(|limit| *limit > 0 && *limit < UNLIMITED)?;
    if memory_total.is_some_and(|total| limit >= total) { None } else { Some(limit) }
}

/// Swap in use, where the engine passes on what the kernel says (cgroup v1).
fn swap(memory: &ContainerMemoryStats) -> Option<u64> {
    let stats = memory.stats.as_ref()?;
    stats.get("total_swap").or_else(|| stats.get("swap")).copied()
}

/// By the names that they have in the container, in their order.
fn interfaces(networks: &HashMap<String, ContainerNetworkStats>) -> Vec<ContainerInterface> {
    let interface = |(name, network): (&String, &ContainerNetworkStats)| ContainerInterface {
        name: text::cut(name, text::MAX_NETWORK_VALUE).to_owned(),
        rx_bytes: network.rx_bytes.unwrap_or_default(),
        tx_bytes: network.tx_bytes.unwrap_or_default(),
        rx_packets: network.rx_packets.unwrap_or_default(),
        tx_packets: network.tx_packets.unwrap_or_default(),
        rx_errors: network.rx_errors.unwrap_or_default(),
        tx_errors: network.tx_errors.unwrap_or_default(),
        rx_dropped: network.rx_dropped.unwrap_or_default(),
        tx_dropped: network.tx_dropped.unwrap_or_default(),
    };
    let mut interfaces: Vec<_> = networks.iter().map(interface).collect();
    interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    interfaces
}

/// What was read and written on each device. v1 names the operations `Read` and `Write` (and sums of them, which are left out), v2 `read` and
/// `write`. `None` = no device is listed.
fn devices(blkio: &ContainerBlkioStats) -> Option<Vec<ContainerDevice>> {
    let bytes = blkio.io_service_bytes_recursive.as_ref().filter(|entries| !entries.is_empty())?;
    let mut devices = BTreeMap::new();
    let mut add = |entries: &[ContainerBlkioStatEntry], is_bytes| {
        for entry in entries {
            let numbers = (entry.major.unwrap_or_default() as u32, entry.minor.unwrap_or_default() as u32);
            let device = devices.entry(numbers).or_insert_with(|| counters::device(numbers));
            let operation = entry.op.as_deref().unwrap_or_default();
            counters::count(device, operation, is_bytes, entry.value.unwrap_or_default());
        }
    };
    add(bytes, true);
    add(blkio.io_serviced_recursive.as_deref().unwrap_or_default(), false);
    Some(devices.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = include_str!("../../tests/watcher/recorded/stats-cgroup-v1.json");
    const V2: &str = include_str!("../../tests/watcher/recorded/stats-cgroup-v2.json");
    const TOTAL: Option<u64> = Some(25_276_502_016);

    fn read(json: &str, change: impl FnOnce(&mut serde_json::Value)) -> Option<Sample> {
        let mut json: serde_json::Value = serde_json::from_str(json).unwrap();
        change(&mut json);
        sample(&serde_json::from_value(json).unwrap(), TOTAL)
    }

    #[test]
    fn counters_of_cgroup_v1() {
        let Sample { read_ns, record } = read(V1, |_| ()).unwrap();
        assert_eq!(read_ns, 1_795_301_488_341_526_734);
        assert_eq!(record.cpu_usage_ns, Some(36_080_384));
        assert_eq!(record.memory_bytes, Some(356_352 - 8192));
        assert_eq!(record.memory_limit_bytes, None, "the host's memory is no limit");
        assert_eq!((record.block_read_bytes, record.block_write_bytes), (Some(2_113_536 + 512), Some(2_113_536)));
        assert_eq!(record.pids, Some(1));
        assert_eq!((record.network_rx_bytes, record.network_tx_bytes), (Some(1042 + 58), Some(42)));
        assert_eq!((record.network_rx_packets, record.network_tx_packets), (Some(12), Some(1)));
        assert_eq!(record.missing, BTreeMap::new());
    }

    #[test]
    fn counters_of_cgroup_v2() {
        let record = read(V2, |_| ()).unwrap().record;
        assert_eq!(record.cpu_usage_ns, Some(1_250_431_000));
        assert_eq!(record.memory_bytes, Some(12_500_992 - 4_194_304));
        assert_eq!(record.memory_limit_bytes, Some(67_108_864));
        assert_eq!((record.block_read_bytes, record.block_write_bytes), (Some(135_168), Some(4_202_496)));
        assert_eq!(record.pids, Some(3));
    }

    #[test]
    fn a_working_set_is_never_negative() {
        let record = read(V2, |json| json["memory_stats"]["usage"] = 1000.into()).unwrap().record;
        assert_eq!(record.memory_bytes, Some(0));
    }

    #[test]
    fn the_huge_number_of_cgroup_v1_is_no_limit() {
        let record =
            read(V1, |json| json["memory_stats"]["limit"] = 9_223_372_036_854_771_712_u64.into()).unwrap().record;
        assert_eq!(record.memory_limit_bytes, None);
    }

    #[test]
    fn what_cannot_be_read_is_absent_and_says_why() {
        let record = read(V1, |json| {
            json["networks"].take();
            json["memory_stats"] = serde_json::json!({});
            json["pids_stats"] = serde_json::json!({});
            json["blkio_stats"] = serde_json::json!({"io_service_bytes_recursive": null});
            json["cpu_stats"].take();
        })
        .unwrap()
        .record;
        let mut expected = vec!["block_read_bytes", "block_write_bytes", "cpu_usage_ns", "memory_bytes", "pids"];
        expected.extend(network::FIELDS);
        expected.sort_unstable();
        assert_eq!(record.missing.keys().collect::<Vec<_>>(), expected);
        assert_eq!((record.network_rx_bytes, record.block_read_bytes, record.pids), (None, None, None));
        assert_eq!((record.memory_bytes, record.cpu_usage_ns), (None, None));
    }

    #[test]
    fn a_container_that_does_not_run_has_no_sample() {
        assert_eq!(read(V1, |json| json["read"] = "0001-01-01T00:00:00Z".into()), None);
        assert_eq!(sample(&ContainerStatsResponse::default(), None), None);
    }
}
