//! The host's side of a container's network: the ends of its veth pairs, and the addresses where its published ports are.
//!
//! Both ends of a veth pair know the index of the other. The container's interfaces and their indices come from the kernel's own tables of
//! its network namespace (`/proc/pid/net/dev_mcast`); nothing is read from the container's file system, which the container could make up.

use std::{collections::HashSet, fs, net::IpAddr, path::Path};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};
use weir_proto::{Address, Ip};

/// Most addresses of a host that are kept.
const MAX_ADDRESSES: usize = 64;
/// Most interfaces of a container that are kept.
const MAX_INTERFACES: usize = 64;

/// The host's ends of the veth pairs of a process's network namespace, in the order of their names. Empty where they cannot be told.
#[must_use]
pub fn host_ends(pid: u32) -> Vec<String> {
    host_ends_in(Path::new("/"), pid)
}

fn host_ends_in(root: &Path, pid: u32) -> Vec<String> {
    let process = root.join("proc").join(pid.to_string());
    let namespace = |process: &Path| fs::read_link(process.join("ns/net")).ok();
    if namespace(&process).is_none() || namespace(&process) == namespace(&root.join("proc/self")) {
        return Vec::new();
    }
    let table = fs::read_to_string(process.join("net/dev_mcast")).unwrap_or_default();
    let inside: HashSet<u32> = table.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    let mut ends: Vec<_> = far_ends(root).into_iter().filter(|(_, far)| inside.contains(far)).collect();
    // Namespaces number their interfaces by themselves: the same far index twice says nothing.
    let all: Vec<u32> = far_ends(root).into_iter().map(|(_, far)| far).collect();
    ends.retain(|(_, far)| all.iter().filter(|other| *other == far).count() == 1);
    let mut names: Vec<_> = ends.into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    names.truncate(MAX_INTERFACES);
    names
}

/// The interfaces of this host whose other end is elsewhere, with the index of that.
fn far_ends(root: &Path) -> Vec<(String, u32)> {
    let Ok(entries) = fs::read_dir(root.join("sys/class/net")) else { return Vec::new() };
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u32>().ok();
    entries
        .flatten()
        .filter_map(|entry| {
            let (index, far) = (number(&entry.path().join("ifindex"))?, number(&entry.path().join("iflink"))?);
            // What stands on another interface of this host (VLAN, macvlan) has a link to it; a veth has none.
            (index != far && !stands_on_another(&entry.path()))
                .then(|| (entry.file_name().to_string_lossy().into_owned(), far))
        })
        .collect()
}

fn stands_on_another(interface: &Path) -> bool {
    fs::read_dir(interface)
        .is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("lower_")))
}

/// The addresses of this host, without those that every host has, in their order.
#[must_use]
pub fn host_addresses() -> Vec<Address> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let mut addresses: Vec<Ip> = interfaces
        .filter(|interface| !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|socket| IpAddr::from(socket.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|socket| IpAddr::from(socket.ip())))
        })
        .filter(|address| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .map(Ip::from)
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MAX_ADDRESSES);
    addresses.into_iter().map(|Ip { high, low }| Address { high, low }).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn interface(root: &Path, name: &str, index: u32, far: u32) {
        let directory = root.join("sys/class/net").join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("ifindex"), format!("{index}\n")).unwrap();
        fs::write(directory.join("iflink"), format!("{far}\n")).unwrap();
    }

    #[test]
    fn the_hosts_end_is_the_one_whose_other_end_is_in_the_namespace() {
        let host = tempfile::tempdir().unwrap();
        let root = host.path();
        for (pid, namespace) in [("self", "net:[1]"), ("42", "net:[2]"), ("43", "net:[1]")] {
            let process = root.join("proc").join(pid);
            fs::create_dir_all(process.join("ns")).unwrap();
            fs::create_dir_all(process.join("net")).unwrap();
            symlink(namespace, process.join("ns/net")).unwrap();
            fs::write(process.join("net/dev_mcast"), "7    eth0   1     0     01005e000001\n2 eth1 1 0 01005e000001\n")
                .unwrap();
        }
        interface(root, "lo", 1, 1);
        interface(root, "eth0", 2, 2);
        interface(root, "veth7", 8, 7);
        interface(root, "veth9", 10, 9);
        interface(root, "eth0.5", 11, 2);
        fs::create_dir(root.join("sys/class/net/eth0.5/lower_eth0")).unwrap();
        assert_eq!(host_ends_in(root, 42), ["veth7"]);
        assert!(host_ends_in(root, 43).is_empty(), "the host's own namespace");
        assert!(host_ends_in(root, 44).is_empty(), "no such process");
        // Another namespace has an interface of that number, too.
        interface(root, "veth11", 12, 7);
        assert!(host_ends_in(root, 42).is_empty());
    }

    #[test]
    fn the_hosts_addresses_are_not_those_that_every_host_has() {
        for Address { high, low } in host_addresses() {
            assert!(!Ip::new(high, low).canonical().is_loopback());
        }
    }
}
