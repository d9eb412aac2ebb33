//! Finished intervals become flow records.

use weir_proto::{Flow, Ip};

use super::Analyzer;
use crate::key::Key;
use crate::tcp::Report;
use crate::tracker::Finished;

impl Analyzer {
    /// The name of the `ordinal`-th flow of this analysis.
    pub(super) fn flow_id(&self, key: &Key, ordinal: u64) -> u64 {
        key.flow_id(&self.config.producer, self.tunnels.name(key.tunnel), ordinal)
    }

    /// The name that the flow table keeps, or the same made anew where it keeps none.
    pub(super) fn kept_id(&self, id: u64, key: &Key, ordinal: u64) -> u64 {
        if id == 0 { self.flow_id(key, ordinal) } else { id }
    }

    pub(super) fn flow_record(&self, finished: &Finished) -> Flow {
        let Finished { key, interval, initiator, .. } = finished;
        let (src, dst) = (Ip::from(key.src(*initiator).ip), Ip::from(key.dst(*initiator).ip));
        let mut flow = Flow {
            start_time: interval.start,
            end_time: interval.end,
            interface: self.interfaces.name(finished.interface).to_owned(),
            flow_id: self.kept_id(finished.id, key, finished.ordinal),
            src_ip_high: src.high,
            src_ip_low: src.low,
            dst_ip_high: dst.high,
            dst_ip_low: dst.low,
            src_port: u32::from(finished.ports.0),
            dst_port: u32::from(finished.ports.1),
            protocol: u32::from(key.protocol),
            vlan: key.vlan,
            tunnel: self.tunnels.name(key.tunnel).to_owned(),
            tx_bytes: interval.bytes[0],
            tx_packets: interval.packets[0],
            rx_bytes: interval.bytes[1],
            rx_packets: interval.packets[1],
            tcp_flags_tx: u32::from(interval.flags[0]),
            tcp_flags_rx: u32::from(interval.flags[1]),
            end_reason: finished.reason.into(),
            app: finished.app.to_owned(),
            src_name: self.hosts.name(finished.facts.names[0]).to_owned(),
            dst_name: self.hosts.name(finished.facts.names[1]).to_owned(),
            tx_jitter_us: finished.facts.jitter_us[0],
            rx_jitter_us: finished.facts.jitter_us[1],
            ..Flow::default()
        };
        if let Some(report) = &finished.tcp {
            tcp_fields(&mut flow, report);
        }
        flow
    }
}

/// What the segments of the interval said.
fn tcp_fields(flow: &mut Flow, report: &Report) {
    let [tx, rx] = &report.counts;
    flow.handshake_us = report.handshake_us;
    flow.syn_ack_us = report.syn_ack_us;
    flow.rtt_us = report.smoothed_rtt_us;
    [flow.tx_rtt_us, flow.rx_rtt_us] = report.rtt_us;
    flow.first_byte_us = report.first_byte_us;
    flow.response_us = report.response_us;
    flow.syn_retransmits = Some(u64::from(tx.syn_retransmits));
    [flow.tx_max_in_flight, flow.rx_max_in_flight] = report.max_in_flight;
    let count = |value: u32| Some(u64::from(value));
    (flow.tx_retransmits, flow.rx_retransmits) = (count(tx.retransmits), count(rx.retransmits));
    (flow.tx_fast_retransmits, flow.rx_fast_retransmits) = (count(tx.fast), count(rx.fast));
    (flow.tx_spurious_retransmits, flow.rx_spurious_retransmits) = (count(tx.spurious), count(rx.spurious));
    (flow.tx_out_of_order, flow.rx_out_of_order) = (count(tx.out_of_order), count(rx.out_of_order));
    (flow.tx_lost_segments, flow.rx_lost_segments) = (count(tx.lost_segments), count(rx.lost_segments));
    (flow.tx_duplicate_acks, flow.rx_duplicate_acks) = (count(tx.duplicate_acks), count(rx.duplicate_acks));
    (flow.tx_zero_windows, flow.rx_zero_windows) = (count(tx.zero_windows), count(rx.zero_windows));
    (flow.tx_zero_window_us, flow.rx_zero_window_us) = (Some(tx.zero_window_us), Some(rx.zero_window_us));
    (flow.tx_window_full, flow.rx_window_full) = (count(tx.window_full), count(rx.window_full));
    (flow.tx_keep_alives, flow.rx_keep_alives) = (count(tx.keep_alives), count(rx.keep_alives));
}
