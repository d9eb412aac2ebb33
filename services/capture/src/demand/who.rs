//! Who sends and who receives: processes and cgroups as the flow records tell them, containers as the bus knows them.
//!
//! Records come some seconds after their packets. Nothing is kept while nobody records.

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::Ipv6Addr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use weir_bus::Change;
use weir_proto::{Container, Flow, Ip};

use super::frame::Ends;

/// Flows of which the ends are known; those that come when there are more have no names.
const MAX_FLOWS: usize = 65_536;
/// Containers that are known.
const MAX_CONTAINERS: usize = 16_384;
/// Characters of a name of strangers.
const MAX_NAME: usize = 128;

/// Shared by the thread that reports flows, the one that records, and who listens to the bus.
#[derive(Debug, Default)]
pub struct Who {
    asked: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    flows: HashMap<Tuple, [Local; 2]>,
    containers: HashMap<String, Known>,
    by_cgroup: HashMap<u64, String>,
    by_address: HashMap<Ipv6Addr, String>,
    by_interface: HashMap<String, String>,
}

/// Both ends in the order of their addresses and ports, so that both directions have the same.
type Tuple = ([(Ipv6Addr, u16); 2], u8);

/// A local end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Local {
    process: Box<str>,
    pid: u32,
    cgroup: u64,
}

#[derive(Debug)]
struct Known {
    cgroup: u64,
    addresses: Vec<Ipv6Addr>,
    interfaces: Vec<String>,
}

impl Who {
    /// From now on names are kept.
    pub(super) fn begin(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    /// Nobody records any more.
    pub(super) fn end(&self) {
        self.asked.store(false, Ordering::Relaxed);
        *self.state() = State::default();
    }

    /// Takes what records tell. It costs next to nothing while nobody records.
    pub fn learn(&self, flows: &[Flow]) {
        if !self.asked.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.state();
        // What has addresses of a container is not seen where packets are recorded.
        for flow in flows.iter().filter(|flow| flow.network_namespace == 0) {
            let local = |process: &str, pid, cgroup| Local { process: named(process).into(), pid, cgroup };
            let src = local(&flow.src_process, flow.src_pid, flow.src_cgroup);
            let dst = local(&flow.dst_process, flow.dst_pid, flow.dst_cgroup);
            if src == Local::default() && dst == Local::default() {
                continue;
            }
            let ends = Ends {
                addresses: [
                    Ip::new(flow.src_ip_high, flow.src_ip_low).into(),
                    Ip::new(flow.dst_ip_high, flow.dst_ip_low).into(),
                ],
                ports: ports(flow),
                protocol: flow.protocol as u8,
            };
            let (tuple, swapped) = tuple(&ends);
            if state.flows.len() < MAX_FLOWS || state.flows.contains_key(&tuple) {
                state.flows.insert(tuple, if swapped { [dst, src] } else { [src, dst] });
            }
        }
    }

    /// Takes what the bus says of a container of this host.
    pub(super) fn container(&self, change: Change<Container>) {
        let mut state = self.state();
        state.forget(&change.key);
        if let Some(container) = change.value.filter(|container| container.finished_at == 0)
            && state.containers.len() < MAX_CONTAINERS
        {
            state.learn(change.key, container);
        }
    }

    /// The container behind an interface of the host; empty = none is known.
    pub(super) fn behind(&self, interface: &str) -> String {
        self.state().by_interface.get(interface).cloned().unwrap_or_default()
    }

    /// `container=web process=nginx pid=7 -> container=db`: what is known of the sender and of the receiver; empty = nothing.
    pub(super) fn comment(&self, ends: &Ends) -> String {
        let state = self.state();
        let (tuple, swapped) = tuple(ends);
        let mut locals = state.flows.get(&tuple).cloned().unwrap_or_default();
        if swapped {
            locals.reverse();
        }
        let [sender, receiver] = [0, 1].map(|end| state.described(&locals[end], ends.addresses[end]));
        match (sender.is_empty(), receiver.is_empty()) {
            (true, true) => String::new(),
            (_, true) => sender,
            (true, false) => format!("-> {receiver}"),
            (false, false) => format!("{sender} -> {receiver}"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn learn(&mut self, key: String, container: Container) {
        let name = named(&container.name);
        let of_host = |address: &Ipv6Addr| address.is_unspecified() || address.is_loopback();
        let addresses = container.networks.iter().map(|network| Ip::new(network.ip_high, network.ip_low).into());
        let addresses: Vec<Ipv6Addr> =
            if container.host_network { Vec::new() } else { addresses.filter(|address| !of_host(address)).collect() };
        let known = Known { cgroup: container.cgroup_id, addresses, interfaces: container.interfaces };
        if known.cgroup != 0 {
            self.by_cgroup.insert(known.cgroup, name.clone());
        }
        self.by_address.extend(known.addresses.iter().map(|address| (*address, name.clone())));
        self.by_interface.extend(known.interfaces.iter().map(|interface| (interface.clone(), name.clone())));
        self.containers.insert(key, known);
    }

    fn forget(&mut self, key: &str) {
        let Some(known) = self.containers.remove(key) else { return };
        self.by_cgroup.remove(&known.cgroup);
        for address in &known.addresses {
            self.by_address.remove(address);
        }
        for interface in &known.interfaces {
            self.by_interface.remove(interface);
        }
    }

    fn described(&self, local: &Local, address: Ipv6Addr) -> String {
        let container = self.by_cgroup.get(&local.cgroup).or_else(|| self.by_address.get(&address));
        let mut text = String::new();
        // Writing to a String cannot fail.
        if let Some(container) = container {
            let _written = write!(text, "container={container}");
        }
        if !local.process.is_empty() {
            let space = if text.is_empty() { "" } else { " " };
            let _written = write!(text, "{space}process={} pid={}", local.process, local.pid);
        }
        text
    }
}

/// What a line can hold of a name.
fn named(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(MAX_NAME).collect()
}

fn ports(flow: &Flow) -> [u16; 2] {
    match flow.protocol {
        1 | 58 => [0; 2],
        _ => [flow.src_port as u16, flow.dst_port as u16],
    }
}

/// The key of a flow, and whether its first end is the receiver.
fn tuple(ends: &Ends) -> (Tuple, bool) {
    let [sender, receiver] = [0, 1].map(|end| (ends.addresses[end], ends.ports[end]));
    if sender <= receiver {
        (([sender, receiver], ends.protocol), false)
    } else {
        (([receiver, sender], ends.protocol), true)
    }
}

#[cfg(test)]
mod tests {
    use weir_proto::ContainerNetwork;

    use super::*;

    fn ip(last: u8) -> Ipv6Addr {
        std::net::Ipv4Addr::new(10, 0, 0, last).to_ipv6_mapped()
    }

    fn ends(from: (u8, u16), to: (u8, u16)) -> Ends {
        Ends { addresses: [ip(from.0), ip(to.0)], ports: [from.1, to.1], protocol: 6 }
    }

    fn flow() -> Flow {
        let [src, dst] = [9, 1].map(|last| Ip::from(ip(last).octets()));
        Flow {
            src_ip_high: src.high,
            src_ip_low: src.low,
            dst_ip_high: dst.high,
            dst_ip_low: dst.low,
            src_port: 40_000,
            dst_port: 80,
            protocol: 6,
            src_process: "curl".into(),
            src_pid: 77,
            src_cgroup: 5,
            ..Flow::default()
        }
    }

    fn container(name: &str, cgroup_id: u64, address: u8) -> Container {
        let ip = Ip::from(ip(address).octets());
        let network = ContainerNetwork { ip_high: ip.high, ip_low: ip.low, ..ContainerNetwork::default() };
        let interfaces = vec![format!("veth-{name}")];
        Container { name: name.into(), cgroup_id, networks: vec![network], interfaces, ..Container::default() }
    }

    fn change(key: &str, value: Option<Container>) -> Change<Container> {
        Change { key: key.into(), value, revision: 1 }
    }

    #[test]
    fn a_packet_tells_who_sends_and_who_receives() {
        let who = Who::default();
        who.learn(&[flow()]);
        assert_eq!(who.comment(&ends((9, 40_000), (1, 80))), "", "nobody records");
        who.begin();
        who.learn(&[flow()]);
        who.container(change("a", Some(container("shop", 5, 99))));
        who.container(change("b", Some(container("web\n1", 6, 1))));
        let there = "container=shop process=curl pid=77 -> container=web\u{fffd}1";
        assert_eq!(who.comment(&ends((9, 40_000), (1, 80))), there);
        let back = "container=web\u{fffd}1 -> container=shop process=curl pid=77";
        assert_eq!(who.comment(&ends((1, 80), (9, 40_000))), back);
        assert_eq!(who.comment(&ends((9, 40_001), (1, 80))), "-> container=web\u{fffd}1");
        assert_eq!(who.comment(&ends((9, 40_001), (8, 80))), "");
        assert_eq!(who.behind("veth-shop"), "shop");
        who.container(change("b", None));
        assert_eq!(who.comment(&ends((9, 40_000), (1, 80))), "container=shop process=curl pid=77");
        who.end();
        assert_eq!(who.comment(&ends((9, 40_000), (1, 80))), "");
    }
}
