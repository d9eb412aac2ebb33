//! An interval of a flow as the record that goes over the bus.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use weir_capture_common::icmp;
use weir_proto::Flow;

use crate::{clock::Clock, drain::Interval};

/// What a record needs beside the interval.
pub struct Context<'a> {
    /// Of this drain.
    pub clock: Clock,
    /// Different for each life of the process: the same key and boot time on two hosts are two flows.
    pub seed: u64,
    /// Name of an interface by its index; empty = not known any more.
    pub interface: &'a dyn Fn(u32) -> String,
}

/// Makes the record.
#[must_use]
pub fn flow(interval: &Interval, context: &Context<'_>) -> Flow {
    let (src, src_port) = interval.key.end(interval.initiator);
    let (dst, dst_port) = interval.key.end(interval.initiator.other());
    let protocol = interval.key.protocol();
    Flow {
        start_time: context.clock.to_utc_us(interval.start),
        end_time: context.clock.to_utc_us(interval.end),
        interface: (context.interface)(interval.ifindex),
        flow_id: flow_id(interval, context.seed),
        src_ip_high: src.high,
        src_ip_low: src.low,
        dst_ip_high: dst.high,
        dst_ip_low: dst.low,
        src_port: u32::from(src_port),
        dst_port: responder_port(protocol, dst_port),
        protocol: u32::from(protocol),
        vlan: interval.key.vlan(),
        tx_bytes: interval.tx.bytes,
        tx_packets: interval.tx.packets,
        rx_bytes: interval.rx.bytes,
        rx_packets: interval.rx.packets,
        tcp_flags_tx: u32::from(interval.tx.tcp_flags),
        tcp_flags_rx: u32::from(interval.rx.tcp_flags),
        end_reason: interval.end_reason.into(),
        ..Flow::default()
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

fn flow_id(interval: &Interval, seed: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    seed.hash(&mut hasher);
    interval.key.hash(&mut hasher);
    interval.flow_start.hash(&mut hasher);
    // 0 means that a flow is not known.
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use weir_capture_common::{
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
        }
    }

    fn record(interval: &Interval) -> Flow {
        let context = Context { clock: Clock::sample().unwrap(), seed: 1, interface: &|index| format!("if{index}") };
        flow(interval, &context)
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
