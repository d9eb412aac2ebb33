//! `flows`.

use std::net::Ipv6Addr;

use clickhouse::Row;
use serde::Serialize;
use uuid::Uuid;
use weir_proto::{EndReason, Flow, Ip};

use super::{ContainerNames, Containers, Context, block_table};

/// One row of `flows`.
#[derive(Clone, Debug, PartialEq, Row, Serialize)]
#[expect(missing_docs, reason = "the .sql files say what each column is")]
pub struct FlowRow {
    pub start_time: i64,
    pub end_time: i64,
    pub recorded_at: u32,
    pub stream_sequence: u64,
    pub source: i8,
    pub host: String,
    #[serde(with = "clickhouse::serde::uuid")]
    pub capture_id: Uuid,
    pub interface: String,
    pub flow_id: u64,
    pub community_id: String,
    pub src_ip: Ipv6Addr,
    pub dst_ip: Ipv6Addr,
    pub src_port: u16,
    pub dst_port: u16,
    pub protocol: u8,
    pub vlan: u32,
    pub tunnel: String,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub tcp_flags_tx: u8,
    pub tcp_flags_rx: u8,
    pub end_reason: i8,
    pub handshake_us: Option<u32>,
    pub rtt_us: Option<u32>,
    pub tx_retransmits: Option<u64>,
    pub rx_retransmits: Option<u64>,
    pub tx_out_of_order: Option<u64>,
    pub rx_out_of_order: Option<u64>,
    pub tx_zero_windows: Option<u64>,
    pub rx_zero_windows: Option<u64>,
    pub drops: Option<u64>,
    pub drop_reason: String,
    pub src_name: String,
    pub dst_name: String,
    pub src_container: String,
    pub dst_container: String,
    pub src_container_id: String,
    pub dst_container_id: String,
    pub src_image: String,
    pub dst_image: String,
    pub src_process: String,
    pub dst_process: String,
    pub app: String,
    pub interfaces: Vec<String>,
    pub tunnel_src_ip: Ipv6Addr,
    pub tunnel_dst_ip: Ipv6Addr,
    pub sampling: u32,
    pub src_pid: u32,
    pub dst_pid: u32,
    pub src_executable: String,
    pub dst_executable: String,
    pub syn_retransmits: Option<u64>,
    pub tx_rtt_us: Option<u32>,
    pub rx_rtt_us: Option<u32>,
    pub first_byte_us: Option<u32>,
    pub response_us: Option<u32>,
    pub tx_duplicate_acks: Option<u64>,
    pub rx_duplicate_acks: Option<u64>,
    pub tx_lost_segments: Option<u64>,
    pub rx_lost_segments: Option<u64>,
    pub tx_fast_retransmits: Option<u64>,
    pub rx_fast_retransmits: Option<u64>,
    pub tx_spurious_retransmits: Option<u64>,
    pub rx_spurious_retransmits: Option<u64>,
    pub tx_jitter_us: Option<u32>,
    pub rx_jitter_us: Option<u32>,
    pub syn_ack_us: Option<u32>,
    pub tx_max_in_flight: Option<u32>,
    pub rx_max_in_flight: Option<u32>,
    pub tx_zero_window_us: Option<u64>,
    pub rx_zero_window_us: Option<u64>,
    pub tx_window_full: Option<u64>,
    pub rx_window_full: Option<u64>,
    pub tx_keep_alives: Option<u64>,
    pub rx_keep_alives: Option<u64>,
}

block_table!(FlowRow, "flows");

impl FlowRow {
    pub(super) fn new(flow: Flow, context: &mut Context, containers: &impl Containers) -> Self {
        let src_ip = Ip::new(flow.src_ip_high, flow.src_ip_low);
        let dst_ip = Ip::new(flow.dst_ip_high, flow.dst_ip_low);
        let (src_port, dst_port) = (context.u16(flow.src_port), context.u16(flow.dst_port));
        let protocol = context.u8(flow.protocol);
        let find = |ip, cgroup| {
            let found = containers.find(&context.host, ip, cgroup, flow.start_time, flow.end_time);
            found.filter(|_| context.is_live()).cloned().unwrap_or_default()
        };
        let ContainerNames { id: src_container_id, name: src_container, image: src_image } =
            find(src_ip, flow.src_cgroup);
        let ContainerNames { id: dst_container_id, name: dst_container, image: dst_image } =
            find(dst_ip, flow.dst_cgroup);
        Self {
            start_time: context.time(flow.start_time),
            end_time: context.time(flow.end_time),
            recorded_at: context.recorded_at,
            stream_sequence: context.stream_sequence,
            source: context.source,
            host: context.host.clone(),
            capture_id: context.capture_id,
            interface: flow.interface,
            flow_id: flow.flow_id,
            community_id: weir_flow::community_id(src_ip.octets(), dst_ip.octets(), src_port, dst_port, protocol),
            src_ip: src_ip.into(),
            dst_ip: dst_ip.into(),
            src_port,
            dst_port,
            protocol,
            vlan: flow.vlan,
            tunnel: flow.tunnel,
            tx_bytes: flow.tx_bytes,
            tx_packets: flow.tx_packets,
            rx_bytes: flow.rx_bytes,
            rx_packets: flow.rx_packets,
            tcp_flags_tx: context.u8(flow.tcp_flags_tx),
            tcp_flags_rx: context.u8(flow.tcp_flags_rx),
            end_reason: context.choice::<EndReason>(flow.end_reason),
            handshake_us: flow.handshake_us,
            rtt_us: flow.rtt_us,
            tx_retransmits: flow.tx_retransmits,
            rx_retransmits: flow.rx_retransmits,
            tx_out_of_order: flow.tx_out_of_order,
            rx_out_of_order: flow.rx_out_of_order,
            tx_zero_windows: flow.tx_zero_windows,
            rx_zero_windows: flow.rx_zero_windows,
            drops: flow.drops,
            drop_reason: flow.drop_reason,
            src_name: flow.src_name,
            dst_name: flow.dst_name,
            src_container,
            dst_container,
            src_container_id,
            dst_container_id,
            src_image,
            dst_image,
            src_process: flow.src_process,
            dst_process: flow.dst_process,
            app: flow.app,
            interfaces: flow.interfaces,
            tunnel_src_ip: Ip::new(flow.tunnel_src_high, flow.tunnel_src_low).into(),
            tunnel_dst_ip: Ip::new(flow.tunnel_dst_high, flow.tunnel_dst_low).into(),
            sampling: flow.sampling.max(1),
            src_pid: flow.src_pid,
            dst_pid: flow.dst_pid,
            src_executable: flow.src_executable,
            dst_executable: flow.dst_executable,
            syn_retransmits: flow.syn_retransmits,
            tx_rtt_us: flow.tx_rtt_us,
            rx_rtt_us: flow.rx_rtt_us,
            first_byte_us: flow.first_byte_us,
            response_us: flow.response_us,
            tx_duplicate_acks: flow.tx_duplicate_acks,
            rx_duplicate_acks: flow.rx_duplicate_acks,
            tx_lost_segments: flow.tx_lost_segments,
            rx_lost_segments: flow.rx_lost_segments,
            tx_fast_retransmits: flow.tx_fast_retransmits,
            rx_fast_retransmits: flow.rx_fast_retransmits,
            tx_spurious_retransmits: flow.tx_spurious_retransmits,
            rx_spurious_retransmits: flow.rx_spurious_retransmits,
            tx_jitter_us: flow.tx_jitter_us,
            rx_jitter_us: flow.rx_jitter_us,
            syn_ack_us: flow.syn_ack_us,
            tx_max_in_flight: flow.tx_max_in_flight,
            rx_max_in_flight: flow.rx_max_in_flight,
            tx_zero_window_us: flow.tx_zero_window_us,
            rx_zero_window_us: flow.rx_zero_window_us,
            tx_window_full: flow.tx_window_full,
            rx_window_full: flow.rx_window_full,
            tx_keep_alives: flow.tx_keep_alives,
            rx_keep_alives: flow.rx_keep_alives,
        }
    }
}
