//! An interval of a flow as the record that goes over the bus.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use weir_capture_common::{
    contained::is_contained,
    facts::{Local, PROCESS, Tunnel, reset, tunnel},
    flow::Address,
    flow::FlowKey,
    icmp,
};
use weir_proto::{Flow, ResetBy};

use crate::{
    clock::Clock,
    drain::{Interval, Story},
    namespaces::Inside,
};

/// What a record needs beside the interval.
pub struct Context<'a> {
    /// Of this drain.
    pub clock: Clock,
    /// Different for each life of the process: the same key and boot time on two hosts are two flows.
    pub seed: u64,
    /// Name of an interface by its index; empty = not known any more.
    pub interface: &'a dyn Fn(u32) -> String,
    /// What keeps the flows of a [contained](weir_capture_common::contained) interface apart, by its number; `None` = not known any more.
    pub inside: &'a dyn Fn(u32) -> Option<Inside>,
    /// Path of what a process executes; empty = not known.
    pub executable: &'a dyn Fn(u32) -> String,
    /// The kernel's name for a reason to drop a packet; `None` = this kernel does not tell what it drops.
    pub drop_reason: Option<&'a dyn Fn(u32) -> String>,
    /// The kernel's name for a reason to reset a connection; empty = it has none.
    pub reset_reason: &'a dyn Fn(u32) -> String,
}

/// Makes the record.
#[must_use]
pub fn flow(interval: &Interval, context: &Context<'_>) -> Flow {
    let mut key = interval.key;
    let inside =
        if is_contained(interval.ifindex) { (context.inside)(interval.ifindex) } else { Some(Inside::default()) };
    let Inside { mask, namespace } = inside.unwrap_or_default();
    // All that had no room, by protocol and port; and what a life before has left of a container: nobody knows its addresses.
    let nameless = key.is_overflow() || inside.is_none();
    key.apart(mask);
    let key = key.inside(interval.story.tunnel.kind);
    let (mut src, src_port) = key.end(interval.initiator);
    let (mut dst, dst_port) = key.end(interval.initiator.other());
    if nameless {
        (src, dst) = (Address::default(), Address::default());
    }
    let protocol = key.protocol();
    let mut flow = Flow {
        start_time: context.clock.to_utc_us(interval.start),
        end_time: context.clock.to_utc_us(interval.end),
        interface: (context.interface)(interval.ifindex),
        flow_id: flow_id(&interval.key, interval.flow_start, context.seed),
        src_ip_high: src.high,
        src_ip_low: src.low,
        dst_ip_high: dst.high,
        dst_ip_low: dst.low,
        src_port: u32::from(src_port),
        dst_port: responder_port(protocol, dst_port),
        protocol: u32::from(protocol),
        vlan: key.vlan(),
        tx_bytes: interval.tx.bytes,
        tx_packets: interval.tx.packets,
        rx_bytes: interval.rx.bytes,
        rx_packets: interval.rx.packets,
        tcp_flags_tx: u32::from(interval.tx.tcp_flags),
        tcp_flags_rx: u32::from(interval.rx.tcp_flags),
        end_reason: interval.end_reason.into(),
        network_namespace: if mask == 0 { 0 } else { namespace },
        ..Flow::default()
    };
    tell(&mut flow, &interval.story, context);
    tell_reset(&mut flow, interval, context);
    flow
}

/// Adds who has ended the conversation with a reset. What passes shows which side it came from; the TCP of an end on this host knows whether
/// it was a real one.
fn tell_reset(flow: &mut Flow, interval: &Interval, context: &Context<'_>) {
    let by = ResetBy::of_flags(flow.tcp_flags_tx, flow.tcp_flags_rx);
    flow.reset_by = by.into();
    let (src, dst) = (interval.initiator, interval.initiator.other());
    let (sent, taken) = match by {
        ResetBy::Unspecified => return,
        ResetBy::Src => (reset::sent(src), reset::taken(dst)),
        ResetBy::Dst => (reset::sent(dst), reset::taken(src)),
        ResetBy::Both => (reset::sent(src) | reset::sent(dst), reset::taken(src) | reset::taken(dst)),
    };
    let marks = interval.story.reset_marks;
    flow.reset_confirmed = marks & (sent | taken) != 0;
    if marks & sent != 0 {
        flow.reset_reason = (context.reset_reason)(interval.story.reset_reason);
    }
}

/// Adds what happened and who it was.
fn tell(flow: &mut Flow, story: &Story, context: &Context<'_>) {
    if let Some(tcp) = story.tcp {
        flow.handshake_us = tcp.handshake_us;
        flow.rtt_us = tcp.rtt_us;
        (flow.tx_rtt_us, flow.rx_rtt_us) = (tcp.tx_rtt_us, tcp.rx_rtt_us);
        flow.syn_retransmits = tcp.syn_retransmits;
        (flow.tx_retransmits, flow.rx_retransmits) = (tcp.tx.retransmits, tcp.rx.retransmits);
        (flow.tx_out_of_order, flow.rx_out_of_order) = (tcp.tx.out_of_order, tcp.rx.out_of_order);
        (flow.tx_zero_windows, flow.rx_zero_windows) = (tcp.tx.zero_windows, tcp.rx.zero_windows);
    }
    if let Some(name) = context.drop_reason {
        flow.drops = Some(story.drops);
        if story.drops > 0 {
            flow.drop_reason = name(story.drop_reason);
        }
    }
    (flow.src_cgroup, flow.dst_cgroup) = (story.src.cgroup, story.dst.cgroup);
    (flow.src_pid, flow.dst_pid) = (story.src.pid, story.dst.pid);
    (flow.src_process, flow.src_executable) = process(&story.src, context);
    (flow.dst_process, flow.dst_executable) = process(&story.dst, context);
    let others = story.others.iter().filter(|&&index| index != 0).map(|&index| (context.interface)(index));
    flow.interfaces = others.filter(|name| !name.is_empty() && *name != flow.interface).collect();
    flow.tunnel = tunnel_name(&story.tunnel);
    (flow.tunnel_src_high, flow.tunnel_src_low) = (story.tunnel.src.high, story.tunnel.src.low);
    (flow.tunnel_dst_high, flow.tunnel_dst_low) = (story.tunnel.dst.high, story.tunnel.dst.low);
}

/// Name and executable of a local end's process.
fn process(local: &Local, context: &Context<'_>) -> (String, String) {
    if local.marks & PROCESS == 0 {
        return (String::new(), String::new());
    }
    let end = local.comm.iter().position(|&byte| byte == 0).unwrap_or(local.comm.len());
    (String::from_utf8_lossy(&local.comm[..end]).into_owned(), (context.executable)(local.pid))
}

/// As the analyzer of captures names it.
fn tunnel_name(tunnel: &Tunnel) -> String {
    match tunnel.kind {
        tunnel::VXLAN => format!("vxlan:{}", tunnel.id),
        tunnel::GENEVE => format!("geneve:{}", tunnel.id),
        tunnel::GRE => "gre".to_owned(),
        tunnel::IPIP => "ipip".to_owned(),
        tunnel::IP6 => "ip6".to_owned(),
        _ => String::new(),
    }
}

/// In a record the port of an ICMP responder is the code of the first message. In the key it is the answer's type, where there can be an
/// answer (the code is 0 then), or a marked code.
fn responder_port(protocol: u8, dst_port: u16) -> u32 {
    match protocol {
        icmp::ICMP | icmp::ICMPV6 if dst_port & icmp::ONE_WAY == 0 => 0,
        icmp::ICMP | icmp::ICMPV6 => u32::from(dst_port & !icmp::ONE_WAY),
        _ => u32::from(dst_port),
    }
}

/// The name of the flow that began with its key at `flow_start` (`CLOCK_BOOTTIME` in nanoseconds); `seed` as in [`Context`].
#[must_use]
pub fn flow_id(key: &FlowKey, flow_start: u64, seed: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    key.hash(&mut hasher);
    flow_start.hash(&mut hasher);
    // 0 means that a flow is not known.
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use weir_capture_common::{
        contained::CONTAINED,
        dissect::Headers,
        flow::{Address, FlowKey},
    };
    use weir_proto::EndReason;

    use super::*;
    use crate::drain::Traffic;

    fn interval(headers: Headers, flow_start: u64, start: u64) -> Interval {
        let (key, initiator) = FlowKey::new(&headers);
        Interval {
            key,
            initiator,
            flow_start,
            start,
            end: start + 5_000,
            tx: Traffic { packets: 2, bytes: 200, tcp_flags: 2 },
            rx: Traffic { packets: 1, bytes: 60, tcp_flags: 18 },
            ifindex: 7,
            end_reason: EndReason::Active,
            story: Story::default(),
        }
    }

    fn record(interval: &Interval) -> Flow {
        let context = Context {
            clock: Clock::sample().unwrap(),
            seed: 1,
            interface: &|index| format!("if{index}"),
            inside: &|number| (number % 2 == 0).then_some(Inside { mask: 0x5eed, namespace: 4_026_532_281 }),
            executable: &|pid| format!("/bin/{pid}"),
            drop_reason: Some(&|reason| format!("R{reason}")),
            reset_reason: &|reason| format!("S{reason}"),
        };
        flow(interval, &context)
    }

    #[test]
    fn a_record_tells_who_and_what_only_where_it_is_known() {
        let plain = record(&interval(headers(6, 50000, 443), 10, 10));
        assert_eq!(
            (plain.src_process.as_str(), plain.src_pid, plain.drops, plain.handshake_us),
            ("", 0, Some(0), None)
        );
        assert_eq!((plain.tx_retransmits, plain.drop_reason.as_str(), plain.tunnel.as_str()), (None, "", ""));
        let mut known = interval(headers(6, 50000, 443), 10, 10);
        let mut comm = [0; 16];
        comm[..4].copy_from_slice(b"curl");
        known.story.src = Local { cgroup: 9, pid: 77, marks: PROCESS, comm, ..Local::default() };
        (known.story.drops, known.story.drop_reason) = (2, 5);
        known.story.others = [7, 8, 0, 0];
        let known = record(&known);
        assert_eq!((known.src_process.as_str(), known.src_pid, known.src_cgroup), ("curl", 77, 9));
        assert_eq!((known.src_executable.as_str(), known.dst_executable.as_str()), ("/bin/77", ""));
        assert_eq!((known.drops, known.drop_reason.as_str()), (Some(2), "R5"));
        assert_eq!(known.interfaces, ["if8"]);
    }

    #[test]
    fn a_reset_is_of_who_sent_it_and_confirmed_by_a_tcp_of_this_host() {
        let told = |tx: u8, rx: u8, marks: u32| {
            let mut interval = interval(headers(6, 50000, 443), 10, 10);
            (interval.tx.tcp_flags, interval.rx.tcp_flags) = (tx, rx);
            (interval.story.reset_marks, interval.story.reset_reason) = (marks, 9);
            let record = record(&interval);
            (record.reset_by(), record.reset_confirmed, record.reset_reason)
        };
        let (_, src) = FlowKey::new(&headers(6, 50000, 443));
        let dst = src.other();
        assert_eq!(told(2, 18, reset::sent(src)), (ResetBy::Unspecified, false, String::new()));
        assert_eq!(told(4, 18, 0), (ResetBy::Src, false, String::new()));
        assert_eq!(told(4, 18, reset::sent(src)), (ResetBy::Src, true, "S9".to_owned()));
        // What src has taken it did not send.
        assert_eq!(told(4, 18, reset::taken(src)), (ResetBy::Src, false, String::new()));
        assert_eq!(told(2, 20, reset::taken(src)), (ResetBy::Dst, true, String::new()));
        assert_eq!(told(2, 20, reset::sent(dst) | reset::taken(src)), (ResetBy::Dst, true, "S9".to_owned()));
        assert_eq!(told(4, 4, reset::sent(dst)), (ResetBy::Both, true, "S9".to_owned()));
    }

    #[test]
    fn a_flow_inside_a_container_has_its_own_addresses_back() {
        let mut inside = interval(headers(6, 50000, 443), 10, 10);
        let known = record(&inside);
        inside.ifindex = CONTAINED;
        inside.key.apart(0x5eed);
        let apart = record(&inside);
        assert_eq!((apart.src_ip_high, apart.dst_ip_high), (known.src_ip_high, known.dst_ip_high));
        assert_eq!((apart.network_namespace, known.network_namespace), (4_026_532_281, 0));
        assert_ne!(apart.flow_id, known.flow_id);
        inside.ifindex = CONTAINED | 1;
        let forgotten = record(&inside);
        assert_eq!((forgotten.src_ip_high, forgotten.dst_ip_high, forgotten.tx_packets), (0, 0, 2));
    }

    fn headers(protocol: u8, src_port: u16, dst_port: u16) -> Headers {
        let (src, dst) = (Address { high: 9, low: 9 }, Address { high: 1, low: 1 });
        Headers { src, dst, src_port, dst_port, protocol, vlan: 5, ..Headers::default() }
    }

    #[test]
    fn the_initiator_is_src() {
        let record = record(&interval(headers(6, 50000, 443), 10, 10));
        assert_eq!((record.src_ip_high, record.src_port, record.dst_ip_high, record.dst_port), (9, 50000, 1, 443));
        assert_eq!((record.tx_packets, record.rx_packets, record.tcp_flags_tx, record.tcp_flags_rx), (2, 1, 2, 18));
        assert_eq!((record.vlan, record.protocol, record.interface.as_str()), (5, 6, "if7"));
        assert_eq!(record.end_time - record.start_time, 5);
    }

    #[test]
    fn a_ping_has_its_request_s_type_and_code() {
        let record = record(&interval(headers(1, 8, 0), 10, 10));
        assert_eq!((record.src_port, record.dst_port), (8, 0));
        let unreachable = self::record(&interval(headers(1, 3, icmp::ONE_WAY + 13), 10, 10));
        assert_eq!((unreachable.src_port, unreachable.dst_port), (3, 13));
        let solicitation = self::record(&interval(headers(58, 135, 136), 10, 10));
        assert_eq!((solicitation.src_port, solicitation.dst_port), (135, 0));
    }

    #[test]
    fn all_records_of_a_flow_have_its_id_and_no_others() {
        let first = record(&interval(headers(17, 1, 2), 10, 10));
        let second = record(&interval(headers(17, 1, 2), 10, 5_000_000));
        let reopened = record(&interval(headers(17, 1, 2), 11, 11));
        assert_eq!(first.flow_id, second.flow_id);
        assert_ne!(first.flow_id, reopened.flow_id);
        assert_eq!(first.end_reason(), EndReason::Active);
    }
}
