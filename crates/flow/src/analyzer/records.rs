//! Finished intervals become flow records.

use weir_proto::{Flow, Ip};

use super::Analyzer;
use crate::key::Key;
use crate::tracker::Finished;

impl Analyzer {
    /// The name of the `ordinal`-th flow of this analysis.
    pub(super) fn flow_id(&self, key: &Key, ordinal: u64) -> u64 {
        key.flow_id(&self.config.producer, self.tunnels.name(key.tunnel), ordinal)
    }

    pub(super) fn flow_record(&self, finished: &Finished) -> Flow {
        let Finished { key, interval, initiator, .. } = finished;
        let (src, dst) = (Ip::from(key.src(*initiator).ip), Ip::from(key.dst(*initiator).ip));
        Flow {
            start_time: interval.start,
            end_time: interval.end,
            interface: self.interfaces.name(finished.interface).to_owned(),
            flow_id: self.flow_id(key, finished.ordinal),
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
            handshake_us: finished.handshake_us,
            app: finished.app.to_owned(),
            ..Flow::default()
        }
    }
}
