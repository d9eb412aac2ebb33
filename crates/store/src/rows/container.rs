//! `container_stats`, `container_events`, `containers`.

use std::{collections::BTreeMap, net::Ipv6Addr};

use serde::Serialize;
use weir_proto::{Container, ContainerDevice, ContainerEvent, ContainerInterface, ContainerStats, Ip, PublishedPort};

use super::{Context, block_table, replacing_table};

/// One row of `container_stats`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the .sql files say what each column is")]
pub struct ContainerStatsRow {
    pub time: i64,
    pub recorded_at: u32,
    pub stream_sequence: u64,
    pub host: String,
    pub runtime: String,
    pub container_id: String,
    pub name: String,
    pub image: String,
    pub labels: BTreeMap<String, String>,
    pub cpu_percent: Option<f64>,
    pub cpu_usage_ns: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub memory_limit_bytes: Option<u64>,
    pub network_rx_bytes: Option<u64>,
    pub network_tx_bytes: Option<u64>,
    pub network_rx_packets: Option<u64>,
    pub network_tx_packets: Option<u64>,
    pub block_read_bytes: Option<u64>,
    pub block_write_bytes: Option<u64>,
    pub pids: Option<u64>,
    pub missing: BTreeMap<String, String>,
    pub tier: String,
    pub cpu_periods: Option<u64>,
    pub cpu_throttled_periods: Option<u64>,
    pub cpu_throttled_ns: Option<u64>,
    pub memory_swap_bytes: Option<u64>,
    pub memory_pressure_some_us: Option<u64>,
    pub memory_pressure_full_us: Option<u64>,
    pub restarts: Option<u64>,
    pub interfaces: Vec<InterfaceTuple>,
    pub devices: Vec<DeviceTuple>,
}

/// Name; bytes, packets, errors and drops, each received and sent.
type InterfaceTuple = (String, u64, u64, u64, u64, u64, u64, u64, u64);
/// Major and minor number; bytes and operations, each read and written.
type DeviceTuple = (u32, u32, u64, u64, u64, u64);

block_table!(ContainerStatsRow, "container_stats");

impl ContainerStatsRow {
    pub(super) fn new(stats: ContainerStats, context: &mut Context) -> Self {
        Self {
            time: context.time(stats.time),
            recorded_at: context.recorded_at,
            stream_sequence: context.stream_sequence,
            host: context.host.clone(),
            runtime: stats.runtime,
            container_id: stats.container_id,
            name: stats.name,
            image: stats.image,
            labels: stats.labels,
            cpu_percent: stats.cpu_percent,
            cpu_usage_ns: stats.cpu_usage_ns,
            memory_bytes: stats.memory_bytes,
            memory_limit_bytes: stats.memory_limit_bytes,
            network_rx_bytes: stats.network_rx_bytes,
            network_tx_bytes: stats.network_tx_bytes,
            network_rx_packets: stats.network_rx_packets,
            network_tx_packets: stats.network_tx_packets,
            block_read_bytes: stats.block_read_bytes,
            block_write_bytes: stats.block_write_bytes,
            pids: stats.pids,
            missing: stats.missing,
            tier: stats.tier,
            cpu_periods: stats.cpu_periods,
            cpu_throttled_periods: stats.cpu_throttled_periods,
            cpu_throttled_ns: stats.cpu_throttled_ns,
            memory_swap_bytes: stats.memory_swap_bytes,
            memory_pressure_some_us: stats.memory_pressure_some_us,
            memory_pressure_full_us: stats.memory_pressure_full_us,
            restarts: stats.restarts,
            interfaces: stats.interfaces.into_iter().map(interface).collect(),
            devices: stats.devices.into_iter().map(device).collect(),
        }
    }
}

fn interface(of: ContainerInterface) -> InterfaceTuple {
    (
        of.name,
        of.rx_bytes,
        of.tx_bytes,
        of.rx_packets,
        of.tx_packets,
        of.rx_errors,
        of.tx_errors,
        of.rx_dropped,
        of.tx_dropped,
    )
}

fn device(of: ContainerDevice) -> DeviceTuple {
    (of.major, of.minor, of.read_bytes, of.write_bytes, of.read_operations, of.write_operations)
}

/// One row of `container_events`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the .sql files say what each column is")]
pub struct ContainerEventRow {
    pub time: i64,
    pub recorded_at: u32,
    pub stream_sequence: u64,
    pub host: String,
    pub runtime: String,
    pub container_id: String,
    pub name: String,
    pub image: String,
    pub action: String,
    pub exit_code: Option<i32>,
    pub labels: BTreeMap<String, String>,
    pub attributes: BTreeMap<String, String>,
    pub tier: String,
}

block_table!(ContainerEventRow, "container_events");

impl ContainerEventRow {
    pub(super) fn new(event: ContainerEvent, context: &mut Context) -> Self {
        Self {
            time: context.time(event.time),
            recorded_at: context.recorded_at,
            stream_sequence: context.stream_sequence,
            host: context.host.clone(),
            runtime: event.runtime,
            container_id: event.container_id,
            name: event.name,
            image: event.image,
            action: event.action,
            exit_code: event.exit_code,
            labels: event.labels,
            attributes: event.attributes,
            tier: event.tier,
        }
    }
}

/// One row of `containers`: what is known of one life.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the .sql files say what each column is")]
pub struct ContainerRow {
    pub host: String,
    pub runtime: String,
    pub container_id: String,
    pub name: String,
    pub image: String,
    pub image_id: String,
    pub labels: BTreeMap<String, String>,
    pub ip_addresses: Vec<Ipv6Addr>,
    pub networks: Vec<(String, String, Ipv6Addr, String)>,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: Option<i64>,
    pub exit_code: Option<i32>,
    pub oom_killed: bool,
    pub health: String,
    pub state: String,
    pub pid: u32,
    pub host_network: bool,
    pub cgroup_path: String,
    pub cgroup_id: u64,
    pub observed_at: i64,
    pub tier: String,
    pub restarts: Option<u64>,
    pub image_digest: String,
    pub ports: Vec<(Ipv6Addr, u16, u16, u8)>,
    pub host_addresses: Vec<Ipv6Addr>,
    pub interfaces: Vec<String>,
    pub cpu_limit: Option<f64>,
    pub memory_limit_bytes: Option<u64>,
    pub pids_limit: Option<u64>,
}

replacing_table!(ContainerRow, "containers");

impl ContainerRow {
    pub(super) fn new(container: Container, context: &mut Context) -> Self {
        let networks: Vec<_> = container
            .networks
            .into_iter()
            .map(|network| {
                let address = Ipv6Addr::from(Ip::new(network.ip_high, network.ip_low));
                (network.name, network.network_id, address, network.mac_address)
            })
            .collect();
        Self {
            host: if container.host.is_empty() { context.host.clone() } else { container.host },
            runtime: container.runtime,
            container_id: container.container_id,
            name: container.name,
            image: container.image,
            image_id: container.image_id,
            labels: container.labels,
            ip_addresses: networks
                .iter()
                .map(|(_, _, address, _)| *address)
                .filter(|address| !address.is_unspecified())
                .collect(),
            networks,
            created_at: context.time(container.created_at),
            started_at: context.time(container.started_at),
            finished_at: context.time_or_null(container.finished_at),
            exit_code: container.exit_code,
            oom_killed: container.oom_killed,
            health: container.health,
            state: container.state,
            pid: container.pid,
            host_network: container.host_network,
            cgroup_path: container.cgroup_path,
            cgroup_id: container.cgroup_id,
            observed_at: context.time(container.observed_at),
            tier: container.tier,
            restarts: container.restarts,
            image_digest: container.image_digest,
            ports: container.ports.into_iter().map(|port| port_tuple(port, context)).collect(),
            host_addresses: container.host_addresses.iter().map(|ip| Ip::new(ip.high, ip.low).into()).collect(),
            interfaces: container.interfaces,
            cpu_limit: container.cpu_limit,
            memory_limit_bytes: container.memory_limit_bytes,
            pids_limit: container.pids_limit,
        }
    }
}

fn port_tuple(port: PublishedPort, context: &mut Context) -> (Ipv6Addr, u16, u16, u8) {
    let address = Ip::new(port.host_ip_high, port.host_ip_low);
    (address.into(), context.u16(port.host_port), context.u16(port.container_port), context.u8(port.protocol))
}
