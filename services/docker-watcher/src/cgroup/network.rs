//! A container's network by the namespace of its first process.

use std::{fs, net::Ipv4Addr, path::Path};

use weir_proto::{ContainerInterface, ContainerNetwork, ContainerStats, Ip};

/// The fields that are absent together when a container has no network of its own.
pub const FIELDS: [&str; 4] = ["network_rx_bytes", "network_tx_bytes", "network_rx_packets", "network_tx_packets"];
/// More interfaces and addresses than this are not listed; their sums are whole.
const MAX_INTERFACES: usize = 64;

/// Whether a process is in the network namespace of the host, which is that of process 1; `None` = it cannot be known.
#[must_use]
pub fn is_host(proc: &Path, pid: u32) -> Option<bool> {
    let namespace = |pid: &str| fs::read_link(proc.join(pid).join("ns/net")).ok();
    Some(namespace(&pid.to_string())? == namespace("1")?)
}

/// Reads the counters of all interfaces but the loopback (`/proc/pid/net/dev`).
pub fn read(proc: &Path, pid: u32, record: &mut ContainerStats) {
    let reason = match (is_host(proc, pid), fs::read_to_string(proc.join(pid.to_string()).join("net/dev"))) {
        (Some(true), _) => "host network: the counters are those of the host",
        (_, Err(_)) => "the network namespace of the container cannot be read",
        (_, Ok(text)) => match interfaces(&text) {
            interfaces if interfaces.is_empty() => "the container has no network but its loopback",
            interfaces => return set(record, interfaces),
        },
    };
    record.missing.extend(FIELDS.map(|field| (field.to_owned(), reason.to_owned())));
}

/// Sets the interfaces and their sums.
pub(crate) fn set(record: &mut ContainerStats, mut interfaces: Vec<ContainerInterface>) {
    let sum =
        |counter: fn(&ContainerInterface) -> u64| Some(interfaces.iter().map(counter).fold(0, u64::saturating_add));
    record.network_rx_bytes = sum(|interface| interface.rx_bytes);
    record.network_tx_bytes = sum(|interface| interface.tx_bytes);
    record.network_rx_packets = sum(|interface| interface.rx_packets);
    record.network_tx_packets = sum(|interface| interface.tx_packets);
    interfaces.truncate(MAX_INTERFACES);
    record.interfaces = interfaces;
}

/// proc(5): two lines of heading, then a name and sixteen counters, of which the first eight are of what was received.
fn interfaces(text: &str) -> Vec<ContainerInterface> {
    let interface = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> = counters.split_whitespace().map_while(|number| number.parse().ok()).collect();
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] =
            counters[..]
        else {
            return None;
        };
        let name = name.trim().to_owned();
        let interface = ContainerInterface {
            name,
            rx_bytes,
            tx_bytes,
            rx_packets,
            tx_packets,
            rx_errors,
            tx_errors,
            rx_dropped,
            tx_dropped,
        };
        (interface.name != "lo").then_some(interface)
    };
    text.lines().skip(2).filter_map(interface).collect()
}

/// The addresses of a process's namespace but those of the loopback and of the link; empty = it has none, or cannot be read.
#[must_use]
pub fn addresses(proc: &Path, pid: u32) -> Vec<ContainerNetwork> {
    let net = proc.join(pid.to_string()).join("net");
    let v4 = fs::read_to_string(net.join("fib_trie")).map(|text| addresses_v4(&text)).unwrap_or_default();
    let v6 = fs::read_to_string(net.join("if_inet6")).map(|text| addresses_v6(&text)).unwrap_or_default();
    v4.into_iter().chain(v6).take(MAX_INTERFACES).collect()
}

/// The table of routes: a line with an address, and below it whether it is one of the host itself. Each is there twice.
fn addresses_v4(trie: &str) -> Vec<ContainerNetwork> {
    let mut found: Vec<Ipv4Addr> = Vec::new();
    let mut last = None;
    for line in trie.lines() {
        if let Some(address) = line.trim_start().strip_prefix("|-- ") {
            last = address.trim().parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(address) = last.take()
            && !address.is_loopback()
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found.into_iter().map(|address| network(std::net::IpAddr::from(address).into(), String::new())).collect()
}

/// 32 digits, index, length of the prefix, scope (0 = global), flags, name of the interface.
fn addresses_v6(text: &str) -> Vec<ContainerNetwork> {
    let address = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [digits, _, _, "00", _, name] = words[..] else { return None };
        let bits = u128::from_str_radix(digits, 16).ok()?;
        Some(network(Ip { high: (bits >> 64) as u64, low: bits as u64 }, name.to_owned()))
    };
    text.lines().filter_map(address).collect()
}

/// An address on a network whose name, where it has one, nobody here knows: the interface stands for it.
pub(crate) fn network(Ip { high, low }: Ip, name: String) -> ContainerNetwork {
    ContainerNetwork { name, ip_high: high, ip_low: low, ..ContainerNetwork::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_read_without_the_loopback() {
        let text = "Inter-| Receive | Transmit\n face |bytes packets\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  \
                    eth0: 10 2 3 4 0 0 0 0 20 5 6 7 0 0 0 0\n  bad: 1 2\n";
        let found = interfaces(text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].rx_bytes, found[0].rx_dropped, found[0].tx_packets, found[0].tx_errors), (10, 4, 5, 6));
        let mut record = ContainerStats::default();
        set(&mut record, found);
        assert_eq!((record.network_rx_bytes, record.network_tx_packets), (Some(10), Some(5)));
    }

    #[test]
    fn addresses_are_those_of_the_namespace_itself() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.9.0.2\n        \
                    /32 host LOCAL\n     |-- 10.9.0.255\n        /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n\
                    Local:\n     |-- 10.9.0.2\n        /32 host LOCAL\n";
        let found = addresses_v4(trie);
        assert_eq!(found.len(), 1);
        assert_eq!(Ip::new(found[0].ip_high, found[0].ip_low).canonical().to_string(), "10.9.0.2");
        let text = "00000000000000000000000000000001 01 80 10 80       lo\nfd0077ee000000000000000000000002 02 40 00 80     eth0\n\
                    fe80000000000000000000000000000a 02 40 20 80     eth0\n";
        let found = addresses_v6(text);
        assert_eq!((found.len(), found[0].name.as_str()), (1, "eth0"));
        assert_eq!(Ip::new(found[0].ip_high, found[0].ip_low).canonical().to_string(), "fd00:77ee::2");
    }
}
