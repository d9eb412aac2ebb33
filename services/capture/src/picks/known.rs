//! What is known of flows and addresses, for the records that are made meanwhile.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use weir_proto::{Flow, Ip};

use super::generations::Generations;

/// Flows and addresses in one generation.
const MAX_FLOWS: usize = 65_536;
const MAX_ADDRESSES: usize = 65_536;
/// A flow that is reported at all is reported once a minute, and that keeps it known.
const OF_FLOWS: Duration = Duration::from_mins(5);
/// As long as resolvers and applications keep most answers.
const OF_ADDRESSES: Duration = Duration::from_hours(1);

/// Shared by the thread that learns and the one that reports.
#[derive(Debug)]
pub struct Known(Mutex<State>);

#[derive(Debug)]
struct State {
    flows: Generations<u64, OfFlow>,
    /// By who asked, and what the answer was.
    asked: Generations<(Ipv6Addr, Ipv6Addr), Box<str>>,
    /// By the answer alone: whoever asked, the name is a name of that address.
    answered: Generations<Ipv6Addr, Box<str>>,
}

#[derive(Clone, Debug, Default)]
struct OfFlow {
    app: &'static str,
    /// The name that the client asked the server for.
    server: Box<str>,
}

impl Default for Known {
    fn default() -> Self {
        Self(Mutex::new(State {
            flows: Generations::new(MAX_FLOWS, OF_FLOWS),
            asked: Generations::new(MAX_ADDRESSES, OF_ADDRESSES),
            answered: Generations::new(MAX_ADDRESSES, OF_ADDRESSES),
        }))
    }
}

impl Known {
    /// A flow speaks this protocol.
    pub(super) fn app(&self, flow_id: u64, app: &'static str, now: u64) {
        self.flow(flow_id, now, |flow| flow.app = app);
    }

    /// The client of a flow asked its server for this name.
    pub(super) fn server(&self, flow_id: u64, name: &str, now: u64) {
        if !name.is_empty() {
            self.flow(flow_id, now, |flow| flow.server = name.into());
        }
    }

    /// A client was told that a name has this address.
    pub(super) fn address(&self, client: Ipv6Addr, address: Ipv6Addr, name: &str, now: u64) {
        self.with(|state| {
            state.asked.insert((client, address), name.into(), now);
            state.answered.insert(address, name.into(), now);
        });
    }

    /// Writes names and protocol into a record, where they are known and it has none.
    pub fn name(&self, flow: &mut Flow) {
        let now = flow.end_time;
        let src = Ipv6Addr::from(Ip::new(flow.src_ip_high, flow.src_ip_low));
        let dst = Ipv6Addr::from(Ip::new(flow.dst_ip_high, flow.dst_ip_low));
        self.with(|state| {
            if let Some(known) = state.flows.get(&flow.flow_id, now) {
                set(&mut flow.app, Some(known.app));
                set(&mut flow.dst_name, Some(&known.server));
            }
            set(&mut flow.dst_name, state.asked.get(&(src, dst), now).map(|name| &**name));
            set(&mut flow.dst_name, state.answered.get(&dst, now).map(|name| &**name));
            set(&mut flow.src_name, state.answered.get(&src, now).map(|name| &**name));
        });
    }

    fn flow(&self, flow_id: u64, now: u64, change: impl FnOnce(&mut OfFlow)) {
        self.with(|state| {
            if let Some(known) = state.flows.get(&flow_id, now) {
                return change(known);
            }
            let mut known = OfFlow::default();
            change(&mut known);
            state.flows.insert(flow_id, known, now);
        });
    }

    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn set(field: &mut String, value: Option<&str>) {
    if let Some(value) = value.filter(|value| field.is_empty() && !value.is_empty()) {
        value.clone_into(field);
    }
}

/// The address in an answer's presentation form, IPv4 mapped.
pub(super) fn address(answer: &str) -> Option<Ipv6Addr> {
    match answer.parse().ok()? {
        IpAddr::V4(v4) => Some(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => Some(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000_000;

    fn ip(text: &str) -> Ipv6Addr {
        address(text).unwrap()
    }

    fn named(known: &Known, id: u64, src: &str, dst: &str) -> Flow {
        let (src, dst) = (Ip::from(ip(src).octets()), Ip::from(ip(dst).octets()));
        let mut flow = Flow {
            flow_id: id,
            end_time: NOW,
            src_ip_high: src.high,
            src_ip_low: src.low,
            dst_ip_high: dst.high,
            dst_ip_low: dst.low,
            ..Flow::default()
        };
        known.name(&mut flow);
        flow
    }

    #[test]
    fn a_server_has_the_name_that_its_client_asked_for() {
        let known = Known::default();
        known.address(ip("10.0.0.1"), ip("192.0.2.1"), "mine.example", NOW);
        known.address(ip("10.0.0.2"), ip("192.0.2.1"), "other.example", NOW);
        assert_eq!(named(&known, 1, "10.0.0.1", "192.0.2.1").dst_name, "mine.example");
        assert_eq!(named(&known, 2, "10.0.0.3", "192.0.2.1").dst_name, "other.example");
        assert_eq!(named(&known, 3, "192.0.2.1", "10.0.0.3").src_name, "other.example");
        assert_eq!(named(&known, 3, "10.0.0.1", "192.0.2.2").dst_name, "");
    }

    #[test]
    fn what_the_flow_itself_says_weighs_more_than_dns() {
        let known = Known::default();
        known.address(ip("10.0.0.1"), ip("192.0.2.1"), "cdn.example", NOW);
        known.server(7, "www.example", NOW);
        known.app(7, "tls", NOW);
        let flow = named(&known, 7, "10.0.0.1", "192.0.2.1");
        assert_eq!((flow.dst_name.as_str(), flow.app.as_str()), ("www.example", "tls"));
        assert_eq!(named(&known, 8, "10.0.0.1", "192.0.2.1").app, "");
    }
}
