//! What a cgroup counts, in v1 and v2 (Linux, `Documentation/admin-guide/cgroup-v1/` and `cgroup-v2.rst`).

use std::{collections::BTreeMap, fs, path::Path};

use weir_proto::{ContainerDevice, ContainerStats};

use super::tree::Place;

/// Above this a limit of v1 means none: it is `i64::MAX` rounded down to a page.
const UNLIMITED: u64 = 1 << 62;
/// More devices than this are not listed; their sums are whole.
const MAX_DEVICES: usize = 64;

/// The fields of memory pressure.
pub const PRESSURE_FIELDS: [&str; 2] = ["memory_pressure_some_us", "memory_pressure_full_us"];

/// Reads all there is; what there is not is named in `missing`.
pub fn read(place: &Place, record: &mut ContainerStats) {
    cpu(place, record);
    memory(place, record);
    block(place, record);
    record.pids = place.controller("pids").or(place.v2.as_deref()).and_then(|at| number(&at.join("pids.current")));
    if record.pids.is_none() {
        absent(record, &["pids"], "there is no pids controller");
    }
    match &place.v2 {
        Some(directory) => add_pressure(directory, record),
        None => absent(record, &PRESSURE_FIELDS, "there is no tree of cgroup v2, which alone knows pressure"),
    }
}

fn cpu(place: &Place, record: &mut ContainerStats) {
    if let Some(directory) = place.controller("cpuacct") {
        record.cpu_usage_ns = number(&directory.join("cpuacct.usage"));
    }
    let directory = place.controller("cpu").or(place.v2.as_deref());
    let stat = directory.map(|at| fields(&at.join("cpu.stat"))).unwrap_or_default();
    let microseconds = |name: &str| stat.get(name).map(|value| value.saturating_mul(1000));
    record.cpu_usage_ns = record.cpu_usage_ns.or_else(|| microseconds("usage_usec"));
    // Without a quota v1 has the fields and v2 has not; neither counts anything then.
    if stat.get("nr_periods").is_some_and(|periods| *periods > 0) {
        record.cpu_periods = stat.get("nr_periods").copied();
        record.cpu_throttled_periods = stat.get("nr_throttled").copied();
        record.cpu_throttled_ns = stat.get("throttled_time").copied().or_else(|| microseconds("throttled_usec"));
    }
    if record.cpu_usage_ns.is_none() {
        absent(record, &["cpu_usage_ns"], "there is no CPU accounting");
    }
}

fn memory(place: &Place, record: &mut ContainerStats) {
    let (usage, limit, stat, swap) = if let Some(directory) = place.controller("memory") {
        let stat = fields(&directory.join("memory.stat"));
        let usage = number(&directory.join("memory.usage_in_bytes"));
        let limit = number(&directory.join("memory.limit_in_bytes"));
        let swap = stat.get("total_swap").copied();
        (usage, limit, stat, swap)
    } else if let Some(directory) = &place.v2 {
        let read = |name: &str| number(&directory.join(name));
        (
            read("memory.current"),
            read("memory.max"),
            fields(&directory.join("memory.stat")),
            read("memory.swap.current"),
        )
    } else {
        (None, None, BTreeMap::new(), None)
    };
    let inactive = stat.get("total_inactive_file").or_else(|| stat.get("inactive_file")).copied();
    record.memory_bytes = usage.map(|usage| usage.saturating_sub(inactive.unwrap_or(0)));
    record.memory_limit_bytes = limit.filter(|limit| *limit < UNLIMITED);
    record.memory_swap_bytes = swap;
    if usage.is_none() {
        absent(record, &["memory_bytes"], "there is no memory controller");
    }
    if swap.is_none() {
        absent(record, &["memory_swap_bytes"], "swap is not accounted");
    }
}

fn block(place: &Place, record: &mut ContainerStats) {
    let devices = if let Some(directory) = place.controller("blkio") {
        let bytes = fs::read_to_string(directory.join("blkio.throttle.io_service_bytes_recursive"));
        let operations = fs::read_to_string(directory.join("blkio.throttle.io_serviced_recursive"));
        bytes.ok().map(|bytes| devices_v1(&bytes, operations.as_deref().unwrap_or_default()))
    } else {
        let stat = place.v2.as_deref().and_then(|at| fs::read_to_string(at.join("io.stat")).ok());
        stat.map(|stat| devices_v2(&stat))
    };
    match devices {
        None => absent(record, &["block_read_bytes", "block_write_bytes"], "there is no controller of block I/O"),
        Some(devices) if devices.is_empty() => {
            let reason = "no block device is listed: nothing was read or written, or this kernel does not account it";
            absent(record, &["block_read_bytes", "block_write_bytes"], reason);
        }
        Some(devices) => set_devices(record, devices),
    }
}

/// Sets the devices and their sums.
pub(crate) fn set_devices(record: &mut ContainerStats, mut devices: Vec<ContainerDevice>) {
    let sum = |bytes: fn(&ContainerDevice) -> u64| devices.iter().map(bytes).fold(0, u64::saturating_add);
    record.block_read_bytes = Some(sum(|device| device.read_bytes));
    record.block_write_bytes = Some(sum(|device| device.write_bytes));
    devices.truncate(MAX_DEVICES);
    record.devices = devices;
}

/// `254:0 Read 4096`, one line per operation, and a total.
fn devices_v1(bytes: &str, operations: &str) -> Vec<ContainerDevice> {
    let mut devices = BTreeMap::new();
    for (text, is_bytes) in [(bytes, true), (operations, false)] {
        for line in text.lines() {
            let mut words = line.split(' ');
            let (Some(numbers), Some(operation), Some(Ok(value))) =
                (words.next().and_then(numbers), words.next(), words.next().map(str::parse))
            else {
                continue;
            };
            count(devices.entry(numbers).or_insert_with(|| device(numbers)), operation, is_bytes, value);
        }
    }
    devices.into_values().collect()
}

/// Adds a value of an operation, in the words of v1 and of Docker.
pub(crate) fn count(device: &mut ContainerDevice, operation: &str, is_bytes: bool, value: u64) {
    let counter = match (operation.to_ascii_lowercase().as_str(), is_bytes) {
        ("read", true) => &mut device.read_bytes,
        ("write", true) => &mut device.write_bytes,
        ("read", false) => &mut device.read_operations,
        ("write", false) => &mut device.write_operations,
        _ => return,
    };
    *counter = counter.saturating_add(value);
}

/// `254:0 rbytes=4096 wbytes=0 rios=1 wios=0 ...`, one line per device.
fn devices_v2(stat: &str) -> Vec<ContainerDevice> {
    let mut devices = Vec::new();
    for line in stat.lines() {
        let mut words = line.split(' ');
        let Some(numbers) = words.next().and_then(numbers) else { continue };
        let mut device = device(numbers);
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Ok(value) = value.parse() else { continue };
            match key {
                "rbytes" => device.read_bytes = value,
                "wbytes" => device.write_bytes = value,
                "rios" => device.read_operations = value,
                "wios" => device.write_operations = value,
                _ => {}
            }
        }
        devices.push(device);
    }
    devices
}

fn numbers(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

pub(crate) fn device((major, minor): (u32, u32)) -> ContainerDevice {
    ContainerDevice { major, minor, ..ContainerDevice::default() }
}

/// Adds pressure stall information of a v2 directory (Linux, `Documentation/accounting/psi.rst`).
pub(super) fn add_pressure(directory: &Path, record: &mut ContainerStats) {
    let Ok(text) = fs::read_to_string(directory.join("memory.pressure")) else {
        return absent(record, &PRESSURE_FIELDS, "this kernel accounts no pressure (PSI)");
    };
    record.memory_pressure_some_us = stalled(&text, "some ");
    record.memory_pressure_full_us = stalled(&text, "full ");
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=42`
fn stalled(text: &str, kind: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
    line.split(' ').find_map(|word| word.strip_prefix("total=")?.parse().ok())
}

/// A file with one number; `max` is none.
pub(super) fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A file with a name and a number on each line.
fn fields(path: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let field = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(field).collect()
}

fn absent(record: &mut ContainerStats, names: &[&str], reason: &str) {
    record.missing.extend(names.iter().map(|name| ((*name).to_owned(), reason.to_owned())));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    #[test]
    fn v2_is_read_from_one_directory() {
        let cgroup = directory(&[
            ("cpu.stat", "usage_usec 5000\nnr_periods 10\nnr_throttled 3\nthrottled_usec 700\n"),
            ("memory.current", "1000\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 500\ninactive_file 100\n"),
            ("memory.swap.current", "7\n"),
            (
                "memory.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=40\n",
            ),
            ("io.stat", "254:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n7:0 \nbad\n"),
            ("pids.current", "3\n"),
        ]);
        let place = Place { v2: Some(cgroup.path().to_owned()), ..Place::default() };
        let mut record = ContainerStats::default();
        read(&place, &mut record);
        assert_eq!(record.cpu_usage_ns, Some(5_000_000));
        let throttled = (record.cpu_periods, record.cpu_throttled_periods, record.cpu_throttled_ns);
        assert_eq!(throttled, (Some(10), Some(3), Some(700_000)));
        assert_eq!(
            (record.memory_bytes, record.memory_limit_bytes, record.memory_swap_bytes),
            (Some(900), None, Some(7))
        );
        assert_eq!((record.memory_pressure_some_us, record.memory_pressure_full_us), (Some(42), Some(40)));
        assert_eq!((record.block_read_bytes, record.block_write_bytes, record.pids), (Some(4096), Some(8192), Some(3)));
        assert_eq!((record.devices.len(), record.devices[0].write_operations), (2, 2));
        assert!(record.missing.is_empty(), "{:?}", record.missing);
    }

    #[test]
    fn v1_is_read_from_a_directory_per_controller() {
        let all = directory(&[
            ("cpuacct.usage", "5000\n"),
            ("cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n"),
            ("memory.usage_in_bytes", "1000\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 100\ntotal_swap 9\n"),
            ("blkio.throttle.io_service_bytes_recursive", "254:0 Read 10\n254:0 Write 20\n254:0 Total 30\nTotal 30\n"),
            ("blkio.throttle.io_serviced_recursive", "254:0 Read 1\n254:0 Write 2\n"),
            ("pids.current", "3\n"),
        ]);
        let v1 = ["cpu", "cpuacct", "memory", "blkio", "pids"].map(|name| (name, all.path().to_owned())).into();
        let mut record = ContainerStats::default();
        read(&Place { v2: None, v1 }, &mut record);
        assert_eq!((record.cpu_usage_ns, record.cpu_periods), (Some(5000), None));
        assert_eq!(
            (record.memory_bytes, record.memory_limit_bytes, record.memory_swap_bytes),
            (Some(900), None, Some(9))
        );
        let device = &record.devices[0];
        assert_eq!((device.read_bytes, device.write_bytes, device.write_operations), (10, 20, 2));
        assert!(record.missing["memory_pressure_some_us"].contains("v2"));
    }

    #[test]
    fn what_is_not_there_is_absent_and_says_why() {
        let mut record = ContainerStats::default();
        read(&Place::default(), &mut record);
        assert_eq!((record.cpu_usage_ns, record.memory_bytes, record.pids), (None, None, None));
        for field in ["cpu_usage_ns", "memory_bytes", "memory_swap_bytes", "block_read_bytes", "pids"] {
            assert!(record.missing.contains_key(field), "{field}");
        }
    }
}
