//! Lives of containers by what traffic shows of them. Pure.
//!
//! The cgroup of an end says who it was, whatever its address is. The interface tells apart containers that share an address, and names
//! one whose addresses nobody knows. Then comes the address; then the one that conntrack says is behind a translated address; and last, where
//! nobody asked conntrack, the port of the host that is published for a container.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::Arc,
};

use weir_bus::Change;
use weir_proto::{Container, Ip};
use weir_store::rows::{ContainerNames, Containers, End, Seen};

/// What comes this much later than a container's start, in microseconds, is no correction: it has joined or left a network.
const SETTLED: u64 = 10_000_000;
/// Lives that are kept although their container is gone: flows of its last seconds are still on their way.
const MAX_GONE: usize = 4096;

/// The containers of all hosts.
#[derive(Debug, Default)]
pub(crate) struct Known {
    by_host: HashMap<String, Host>,
    /// For captures, which do not say where they were made.
    anywhere: Index<Ip>,
    /// The present life of each key of the bucket.
    keys: HashMap<String, Arc<Life>>,
    /// Lives that ended, oldest first.
    gone: VecDeque<Arc<Life>>,
}

#[derive(Debug, Default)]
struct Host {
    cgroups: Index<u64>,
    interfaces: Index<String>,
    addresses: Index<Ip>,
    /// Port of the host and protocol.
    ports: Index<(u16, u8)>,
}

#[derive(Debug)]
struct Life {
    host: String,
    names: ContainerNames,
    addresses: Vec<Held>,
    interfaces: Vec<String>,
    ports: Vec<Port>,
    host_addresses: Vec<Ip>,
    cgroup: u64,
    started_at: u64,
    /// 0 = runs.
    finished_at: u64,
}

/// An address, and since when it is the container's.
#[derive(Clone, Copy, Debug)]
struct Held {
    address: Ip,
    since: u64,
}

/// A port of the host that leads to the container.
#[derive(Debug)]
struct Port {
    /// `None` = every address of the host.
    address: Option<Ip>,
    number: u16,
    protocol: u8,
}

impl Life {
    /// `before` = what was said of the same life, and `now` when this came.
    fn new(container: Container, before: Option<&Self>, now: u64) -> Self {
        let joined_at = change_of_networks(&container, now).unwrap_or(container.started_at);
        let since = |address: Ip| match before {
            Some(before) => before.since(address).unwrap_or(joined_at),
            None => container.started_at,
        };
        let addresses = if container.host_network {
            // Its addresses are the host's.
            Vec::new()
        } else {
            let addresses = container.networks.iter().map(|network| Ip::new(network.ip_high, network.ip_low));
            let known = addresses.filter(|address| *address != Ip::default());
            known.map(|address| Held { address, since: since(address) }).collect()
        };
        let ports = container.ports.iter().filter_map(|port| {
            let host_ip = Ip::new(port.host_ip_high, port.host_ip_low);
            Some(Port {
                address: (!host_ip.canonical().is_unspecified()).then_some(host_ip),
                number: u16::try_from(port.host_port).ok().filter(|port| *port != 0)?,
                protocol: u8::try_from(port.protocol).ok()?,
            })
        });
        Self {
            ports: ports.collect(),
            host_addresses: container.host_addresses.iter().map(|ip| Ip::new(ip.high, ip.low)).collect(),
            interfaces: if container.host_network { Vec::new() } else { container.interfaces },
            host: container.host,
            names: ContainerNames { id: container.container_id, name: container.name, image: container.image },
            addresses,
            cgroup: container.cgroup_id,
            started_at: container.started_at,
            finished_at: container.finished_at,
        }
    }

    fn covers(&self, from: u64, to: u64) -> bool {
        self.covers_since(self.started_at, from, to)
    }

    /// Of something that it has since a time.
    fn covers_since(&self, since: u64, from: u64, to: u64) -> bool {
        self.started_at != 0 && since <= to && (self.finished_at == 0 || self.finished_at >= from)
    }

    /// Since when it has an address.
    fn since(&self, address: Ip) -> Option<u64> {
        self.addresses.iter().find(|held| held.address == address).map(|held| held.since)
    }

    /// Whether it had an address in that time.
    fn had(&self, address: Ip, from: u64, to: u64) -> bool {
        self.since(address).is_some_and(|since| self.covers_since(since, from, to))
    }

    /// Whether it has no address less than another.
    fn has_all_of(&self, other: &Self) -> bool {
        other.addresses.iter().all(|held| self.since(held.address).is_some())
    }

    /// Whether an address and port of the host lead to it.
    fn publishes(&self, end: &End, protocol: u8) -> bool {
        self.ports.iter().filter(|port| port.number == end.port && port.protocol == protocol).any(|port| {
            match port.address {
                Some(address) => address == end.address,
                None => end.address.canonical().is_loopback() || self.host_addresses.contains(&end.address),
            }
        })
    }
}

/// When a container has joined or left networks, if a statement of other addresses than before means that.
fn change_of_networks(container: &Container, now: u64) -> Option<u64> {
    let observed_at = if container.observed_at == 0 { now } else { container.observed_at };
    Some(observed_at).filter(|at| *at > container.started_at.saturating_add(SETTLED))
}

impl Known {
    /// Takes a change of the bucket; `now` is when it came, microseconds since 1970.
    pub(crate) fn apply(&mut self, change: Change<Container>, now: u64) {
        let Some(container) = change.value else {
            if let Some(life) = self.keys.remove(&change.key) {
                self.keep_gone(life, now);
            }
            return;
        };
        let of_life = |before: &&Arc<Life>| before.started_at == container.started_at;
        let before = self.keys.get(&change.key).filter(of_life).map(Arc::as_ref);
        let left_at = change_of_networks(&container, now);
        let life = Arc::new(Life::new(container, before, now));
        self.insert(&life);
        let Some(before) = self.keys.insert(change.key, Arc::clone(&life)) else { return };
        // What is said of a life replaces what was said of it before; an earlier life stays for the flows that are on their way, and so does an
        // address that it has given up.
        let is_next = before.started_at != life.started_at;
        let left_at = left_at.filter(|_| !life.has_all_of(&before));
        let left_at = left_at.map(|at| if life.finished_at == 0 { at } else { at.min(life.finished_at) });
        let ended_at = if is_next { Some(life.started_at) } else { left_at };
        match ended_at.filter(|_| before.started_at != 0) {
            Some(ended_at) => self.keep_gone(before, ended_at),
            None => self.remove(&before),
        }
    }

    /// `end` = the latest time at which it can have ended, where nobody said when.
    fn keep_gone(&mut self, mut life: Arc<Life>, end: u64) {
        if life.finished_at == 0 {
            self.remove(&life);
            if let Some(life) = Arc::get_mut(&mut life) {
                life.finished_at = end.max(life.started_at);
            }
            self.insert(&life);
        }
        self.gone.push_back(life);
        if self.gone.len() > MAX_GONE
            && let Some(oldest) = self.gone.pop_front()
        {
            self.remove(&oldest);
        }
    }

    fn insert(&mut self, life: &Arc<Life>) {
        let host = self.by_host.entry(life.host.clone()).or_default();
        if life.cgroup != 0 {
            host.cgroups.insert(life.cgroup, life);
        }
        for interface in &life.interfaces {
            host.interfaces.insert(interface.clone(), life);
        }
        for Held { address, .. } in &life.addresses {
            host.addresses.insert(*address, life);
            self.anywhere.insert(*address, life);
        }
        for port in &life.ports {
            host.ports.insert((port.number, port.protocol), life);
        }
    }

    fn remove(&mut self, life: &Arc<Life>) {
        for held in &life.addresses {
            self.anywhere.remove(&held.address, life);
        }
        let Some(host) = self.by_host.get_mut(&life.host) else { return };
        host.cgroups.remove(&life.cgroup, life);
        life.interfaces.iter().for_each(|interface| host.interfaces.remove(interface, life));
        life.addresses.iter().for_each(|held| host.addresses.remove(&held.address, life));
        life.ports.iter().for_each(|port| host.ports.remove(&(port.number, port.protocol), life));
        if host.cgroups.is_empty() && host.interfaces.is_empty() && host.addresses.is_empty() && host.ports.is_empty() {
            self.by_host.remove(&life.host);
        }
    }

    /// The only container anywhere that had an address.
    fn only(&self, address: Ip, seen: &Seen<'_>) -> Option<&Life> {
        let mut holders = self.anywhere.of(&address).iter().filter(|life| life.had(address, seen.from, seen.to));
        let first = holders.next()?;
        let is_same = |life: &Arc<Life>| life.names.id == first.names.id && life.host == first.host;
        holders.all(is_same).then_some(first)
    }
}

impl Containers for Known {
    fn find(&self, seen: &Seen<'_>) -> [Option<&ContainerNames>; 2] {
        let found = match seen.host {
            Some(host) => self.by_host.get(host).map_or([None, None], |host| host.find(seen)),
            None => [&seen.src, &seen.dst].map(|end| self.only(end.address, seen)),
        };
        found.map(|life| life.map(|life| &life.names))
    }
}

impl Host {
    fn find(&self, seen: &Seen<'_>) -> [Option<&Life>; 2] {
        let ends = [&seen.src, &seen.dst];
        if seen.apart {
            return ends.map(|end| self.cgroups.at(&end.cgroup, seen));
        }
        let wired = self.wired(seen);
        let mut found = ends.map(|end| {
            self.cgroups
                .at(&end.cgroup, seen)
                .or_else(|| wired.iter().copied().find(|life| life.had(end.address, seen.from, seen.to)))
                .or_else(|| self.holder(end.address, seen))
                .or_else(|| self.translated(end, seen))
                .or_else(|| self.published(end, seen))
        });
        if let Some(life) = wired.into_iter().find(|life| life.addresses.is_empty())
            && let Some(nameless) = nameless_end(found, ends)
            && found.into_iter().flatten().all(|other| !std::ptr::eq(other, life))
        {
            found[nameless] = Some(life);
        }
        found
    }

    /// The containers behind the interfaces that saw it.
    fn wired(&self, seen: &Seen<'_>) -> Vec<&Life> {
        if self.interfaces.is_empty() {
            return Vec::new();
        }
        let interfaces = std::iter::once(seen.interface).chain(seen.interfaces.iter().map(String::as_str));
        interfaces.filter_map(|interface| self.interfaces.at(interface, seen)).collect()
    }

    /// Who had an address at the first packet; else, of those that had it in that time, who got it last.
    fn holder(&self, address: Ip, seen: &Seen<'_>) -> Option<&Life> {
        let holders = self.addresses.of(&address).iter().filter(|life| life.had(address, seen.from, seen.to));
        holders.max_by_key(|life| (life.had(address, seen.from, seen.from), life.since(address))).map(Arc::as_ref)
    }

    fn translated(&self, end: &End, seen: &Seen<'_>) -> Option<&Life> {
        if end.nat == Ip::default() { None } else { self.holder(end.nat, seen) }
    }

    fn published(&self, end: &End, seen: &Seen<'_>) -> Option<&Life> {
        let lives = self.ports.of(&(end.port, seen.protocol)).iter();
        held(lives.filter(|life| life.publishes(end, seen.protocol)), seen)
    }
}

/// The end that must be the container behind an interface whose addresses nobody knows: the only one without a name, or of two the only one
/// with an address that is not the internet's. What goes to many is copied to interfaces that it is not for.
fn nameless_end(found: [Option<&Life>; 2], ends: [&End; 2]) -> Option<usize> {
    let addresses = ends.map(|end| end.address.canonical());
    if addresses.iter().any(|address| address.is_multicast() || address.is_unspecified()) {
        return None;
    }
    match found {
        [None, Some(_)] => Some(0),
        [Some(_), None] => Some(1),
        [None, None] => match addresses.map(is_private) {
            [true, false] => Some(0),
            [false, true] => Some(1),
            _ => None,
        },
        [Some(_), Some(_)] => None,
    }
}

/// RFC 1918, RFC 3927, RFC 4193, RFC 4291 section 2.5.6.
fn is_private(address: std::net::IpAddr) -> bool {
    match address {
        std::net::IpAddr::V4(v4) => v4.is_private() || v4.is_link_local(),
        std::net::IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Lives by one of their signs.
#[derive(Debug)]
struct Index<K> {
    lives: HashMap<K, Vec<Arc<Life>>>,
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self { lives: HashMap::new() }
    }
}

impl<K: Hash + Eq> Index<K> {
    fn insert(&mut self, key: K, life: &Arc<Life>) {
        let lives = self.lives.entry(key).or_default();
        if !lives.iter().any(|known| Arc::ptr_eq(known, life)) {
            lives.push(Arc::clone(life));
        }
    }

    fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q, life: &Arc<Life>)
    where
        K: std::borrow::Borrow<Q>,
    {
        if let Some(lives) = self.lives.get_mut(key) {
            lives.retain(|known| !Arc::ptr_eq(known, life));
            if lives.is_empty() {
                self.lives.remove(key);
            }
        }
    }

    fn of<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> &[Arc<Life>]
    where
        K: std::borrow::Borrow<Q>,
    {
        self.lives.get(key).map_or(&[], Vec::as_slice)
    }

    fn at<Q: Hash + Eq + ?Sized>(&self, key: &Q, seen: &Seen<'_>) -> Option<&Life>
    where
        K: std::borrow::Borrow<Q>,
    {
        held(self.of(key).iter(), seen)
    }

    fn is_empty(&self) -> bool {
        self.lives.is_empty()
    }
}

/// Of several lives with one sign the one that had it at the first packet; else, of those that overlap, the one that began last.
fn held<'a>(lives: impl Iterator<Item = &'a Arc<Life>>, seen: &Seen<'_>) -> Option<&'a Life> {
    let covering = lives.filter(|life| life.covers(seen.from, seen.to));
    covering.max_by_key(|life| (life.covers(seen.from, seen.from), life.started_at)).map(Arc::as_ref)
}

#[cfg(test)]
mod tests;
