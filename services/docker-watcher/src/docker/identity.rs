//! What an inspection says beside the life: published ports and limits.

use std::{collections::HashMap, net::IpAddr};

use bollard::models::{HostConfig, PortBinding};
use weir_proto::{Ip, PublishedPort};

/// Most published ports of one container that are kept: the first by port.
pub(crate) const MAX_PORTS: usize = 256;

/// What a container may use; `None` = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Cores.
    pub cpu: Option<f64>,
    /// Bytes.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// The limits of a container.
#[must_use]
pub fn limits(host: &HostConfig) -> Limits {
    let positive = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0);
    // The period that the kernel and the engine take when only the quota is given.
    let period = positive(host.cpu_period).unwrap_or(100_000);
    let cpu = match (positive(host.nano_cpus), positive(host.cpu_quota)) {
        (Some(nanos), _) => Some(nanos as f64 / 1e9),
        (None, Some(quota)) => Some(quota as f64 / period as f64),
        (None, None) => None,
    };
    Limits { cpu, memory_bytes: positive(host.memory), pids: positive(host.pids_limit) }
}

/// The ports of the host that lead to a container, in the order of the ports.
#[must_use]
#[expect(clippy::implicit_hasher, reason = "the client's type")]
pub fn ports(all: HashMap<String, Option<Vec<PortBinding>>>) -> Vec<PublishedPort> {
    let mut ports: Vec<_> = all
        .into_iter()
        .flat_map(|(inside, bindings)| {
            bindings.unwrap_or_default().into_iter().filter_map(move |binding| port(&inside, &binding))
        })
        .collect();
    ports.sort_unstable_by_key(|port| (port.host_port, port.protocol, port.host_ip_high, port.host_ip_low));
    ports.truncate(MAX_PORTS);
    ports
}

/// `inside` = "80/tcp".
fn port(inside: &str, binding: &PortBinding) -> Option<PublishedPort> {
    let (container_port, protocol) = inside.split_once('/')?;
    let host_port = binding.host_port.as_deref()?.parse::<u16>().ok()?;
    published(binding.host_ip.as_deref().unwrap_or_default(), host_port, container_port.parse().ok()?, protocol)
}

/// A published port; no address = every one. `None` = it is none.
pub(crate) fn published(host_ip: &str, host_port: u16, container_port: u16, protocol: &str) -> Option<PublishedPort> {
    let host_ip = if host_ip.is_empty() { "0.0.0.0" } else { host_ip };
    let Ip { high, low } = host_ip.parse::<IpAddr>().ok()?.into();
    Some(PublishedPort {
        host_ip_high: high,
        host_ip_low: low,
        host_port: host_port.into(),
        container_port: container_port.into(),
        protocol: match protocol {
            "tcp" => 6,
            "udp" => 17,
            "sctp" => 132,
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_and_what_is_none_is_left_out() {
        let json = serde_json::json!({
            "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}],
            "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "5353"}],
            "81/tcp": null,
            "x/tcp": [{"HostIp": "", "HostPort": "1"}],
            "82/tcp": [{"HostIp": "", "HostPort": ""}]
        });
        let read: Vec<_> = ports(serde_json::from_value(json).unwrap())
            .iter()
            .map(|port| {
                let address = Ip::new(port.host_ip_high, port.host_ip_low).canonical();
                (address.to_string(), port.host_port, port.container_port, port.protocol)
            })
            .collect();
        let expected = [("127.0.0.1", 5353, 53, 17), ("::", 8080, 80, 6), ("0.0.0.0", 8080, 80, 6)];
        assert_eq!(
            read,
            expected.map(|(address, host, inside, protocol)| (address.to_owned(), host, inside, protocol))
        );
    }

    #[test]
    fn limits_are_those_that_were_set() {
        assert_eq!(
            limits(&HostConfig { pids_limit: Some(-1), memory: Some(0), ..HostConfig::default() }),
            Limits::default()
        );
        let host = HostConfig {
            nano_cpus: Some(1_500_000_000),
            memory: Some(1 << 20),
            pids_limit: Some(7),
            ..HostConfig::default()
        };
        assert_eq!(limits(&host), Limits { cpu: Some(1.5), memory_bytes: Some(1 << 20), pids: Some(7) });
        let host = HostConfig { cpu_quota: Some(50_000), ..HostConfig::default() };
        assert_eq!(limits(&host).cpu, Some(0.5));
    }
}
