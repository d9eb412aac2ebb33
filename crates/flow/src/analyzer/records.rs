//! Finished intervals become flow records.

use weir_proto::{Flow, Ip, ResetBy};

use super::{Analyzer, Record};
use crate::key::Key;
use crate::rtp;
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

    /// Makes the records of intervals, and counts them.
    pub(super) fn flow_records(&mut self, finished: &[Finished]) {
        let before = self.records.len();
        for finished in finished {
            let record = Record::Flow(self.flow_record(finished));
            self.records.push(record);
        }
        let records = self.records[before..].iter().filter_map(|record| match record {
            Record::Flow(flow) => Some(flow),
            Record::Dns(_) | Record::Tls(_) | Record::Http(_) | Record::Finding(_) => None,
        });
        let ended: Vec<_> = records.zip(finished).collect();
        self.summary.flows(&ended);
        self.watch.flows(&ended);
    }

    fn flow_record(&self, finished: &Finished) -> Flow {
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
            reset_by: ResetBy::of_flags(interval.flags[0].into(), interval.flags[1].into()).into(),
            end_reason: finished.reason.into(),
            app: finished.app.to_owned(),
            src_name: self.hosts.name(finished.facts.names[0]).to_owned(),
            dst_name: self.hosts.name(finished.facts.names[1]).to_owned(),
            tx_jitter_us: finished.facts.jitter_us[0],
            rx_jitter_us: finished.facts.jitter_us[1],
            ..Flow::default()
        };
        stream_fields(&mut flow, &finished.stream);
        self.told_names(&mut flow, finished);
        if let Some([src, dst]) = self.tunnel_ends.ends(finished.facts.tunnel_ends) {
            let (src, dst) = (Ip::from(src), Ip::from(dst));
            (flow.tunnel_src_high, flow.tunnel_src_low) = (src.high, src.low);
            (flow.tunnel_dst_high, flow.tunnel_dst_low) = (dst.high, dst.low);
        }
        if let Some(report) = &finished.tcp {
            tcp_fields(&mut flow, report);
        }
        flow
    }

    /// Where neither hello nor DNS named an end, the file may.
    fn told_names(&self, flow: &mut Flow, finished: &Finished) {
        if self.told.is_empty() {
            return;
        }
        let name = |ip: [u8; 16]| self.told.get(&ip).map_or("", |number| self.hosts.name(*number));
        if flow.src_name.is_empty() {
            name(finished.key.src(finished.initiator).ip).clone_into(&mut flow.src_name);
        }
        if flow.dst_name.is_empty() {
            name(finished.key.dst(finished.initiator).ip).clone_into(&mut flow.dst_name);
        }
    }
}

/// How evenly the packets of a media stream came.
fn stream_fields(flow: &mut Flow, [tx, rx]: &[Option<rtp::Report>; 2]) {
    let part = |side: &Option<rtp::Report>, part: usize| Some(side.as_ref()?.variation_us?[part]);
    (flow.tx_delay_variation_us, flow.rx_delay_variation_us) = (part(tx, 0), part(rx, 0));
    (flow.tx_delay_variation_p95_us, flow.rx_delay_variation_p95_us) = (part(tx, 1), part(rx, 1));
    (flow.tx_delay_variation_p99_us, flow.rx_delay_variation_p99_us) = (part(tx, 2), part(rx, 2));
    (flow.tx_rtp_lost, flow.rx_rtp_lost) = (tx.map(|side| side.lost), rx.map(|side| side.lost));
    (flow.tx_rtp_reordered, flow.rx_rtp_reordered) = (tx.map(|side| side.reordered), rx.map(|side| side.reordered));
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
