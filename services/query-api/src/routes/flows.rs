//! Flows: the records here, what they sum up to in [`sums`].

pub(super) mod sums;

use std::sync::Arc;

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use weir_filter::Condition;

use crate::{
    App, Error, cursor,
    extract::Parameters,
    time::Range,
    values::{Address, Id, Moment, Page},
};

/// The most records at one time.
const MAX_LIMIT: u32 = 10_000;

/// A record: an interval of one flow, both directions. Bytes are IP bytes, packets are packets on the wire, durations are microseconds;
/// null = not measured.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct FlowRecord {
    start_time: Moment,
    end_time: Moment,
    /// `ebpf`, `pcap`
    source: String,
    host: String,
    /// Zero for live traffic
    capture_id: Uuid,
    interface: String,
    flow_id: Id,
    community_id: String,
    src_ip: Address,
    dst_ip: Address,
    src_port: u16,
    dst_port: u16,
    /// IANA protocol number
    protocol: u8,
    vlan: u32,
    tunnel: String,
    tx_bytes: u64,
    tx_packets: u64,
    rx_bytes: u64,
    rx_packets: u64,
    tcp_flags_tx: u8,
    tcp_flags_rx: u8,
    /// `active`, `idle`, `fin`, `rst`, `evicted`, `eof`
    end_reason: String,
    handshake_us: Option<u32>,
    rtt_us: Option<u32>,
    tx_retransmits: Option<u64>,
    rx_retransmits: Option<u64>,
    tx_out_of_order: Option<u64>,
    rx_out_of_order: Option<u64>,
    tx_zero_windows: Option<u64>,
    rx_zero_windows: Option<u64>,
    drops: Option<u64>,
    drop_reason: String,
    src_name: String,
    dst_name: String,
    src_container: String,
    dst_container: String,
    src_container_id: String,
    dst_container_id: String,
    src_image: String,
    dst_image: String,
    src_process: String,
    dst_process: String,
    app: String,
    /// What src is on its own side of the host's address translation; `::` = not translated
    src_nat_ip: Address,
    src_nat_port: u16,
    dst_nat_ip: Address,
    dst_nat_port: u16,
}

/// The columns of [`FlowRecord`].
pub(super) const COLUMNS: &str = "start_time, end_time, source, host, capture_id, interface, flow_id, community_id, src_ip, dst_ip, src_port, \
    dst_port, protocol, vlan, tunnel, tx_bytes, tx_packets, rx_bytes, rx_packets, tcp_flags_tx, tcp_flags_rx, end_reason, handshake_us, \
    rtt_us, tx_retransmits, rx_retransmits, tx_out_of_order, rx_out_of_order, tx_zero_windows, rx_zero_windows, drops, drop_reason, \
    src_name, dst_name, src_container, dst_container, src_container_id, dst_container_id, src_image, dst_image, src_process, \
    dst_process, app, src_nat_ip, src_nat_port, dst_nat_ip, dst_nat_port";

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParameters {
    /// Records that start at or after this moment; RFC 3339 or relative such as -15m; the last hour when absent
    pub(super) from: Option<String>,
    /// and before this one; now when absent
    pub(super) to: Option<String>,
    /// Only those that fit, for example `dst_port = 443 and not dst_ip in 10.0.0.0/8`
    pub(super) filter: Option<String>,
    /// How many, from 1 to 10000; 100 when absent
    pub(super) limit: Option<u32>,
    /// `next_cursor` of the part before
    pub(super) cursor: Option<String>,
}

/// The place of a record in the order of the list, and the range that the first part had: relative times move.
#[derive(Serialize, Deserialize)]
struct Place {
    from: i64,
    to: i64,
    start: i64,
    flow: u64,
    capture: Uuid,
    host: String,
    interface: String,
    end: i64,
}

/// Records of flows, the latest first
#[utoipa::path(
    get, path = "/api/v1/flows", tag = "flows", params(ListParameters),
    responses((status = 200, description = "A part of the records", body = Page<FlowRecord>))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Page<FlowRecord>>, Error> {
    page(&app, &parameters, None).await.map(Json)
}

/// A part of the records; with a container those of which it is an end.
pub(super) async fn page(
    app: &App,
    parameters: &ListParameters,
    container_id: Option<&str>,
) -> Result<Page<FlowRecord>, Error> {
    let limit = cursor::limit(parameters.limit, 100, MAX_LIMIT)?;
    let condition = weir_filter::condition(parameters.filter.as_deref().unwrap_or(""))?;
    let place = parameters.cursor.as_deref().map(cursor::decode::<Place>).transpose()?;
    let range = match &place {
        Some(place) => Range { from: place.from, to: place.to },
        None => Range::read(parameters.from.as_deref(), parameters.to.as_deref(), Timestamp::now())?,
    };
    let mut chosen = format!("{} AND {}", in_range(), condition.sql);
    if container_id.is_some() {
        chosen.push_str(" AND (src_container_id = {container:String} OR dst_container_id = {container:String})");
    }
    if place.is_some() {
        chosen.push_str(
            " AND start_time <= fromUnixTimestamp64Micro({start:Int64}, 'UTC') \
             AND (start_time, flow_id, capture_id, host, interface, end_time) < (fromUnixTimestamp64Micro({start:Int64}, 'UTC'), \
             {flow:UInt64}, {capture:UUID}, {host:String}, {interface:String}, fromUnixTimestamp64Micro({end:Int64}, 'UTC'))",
        );
    }
    let order = "start_time DESC, flow_id DESC, capture_id DESC, host DESC, interface DESC, end_time DESC";
    // One more than asked for tells whether there is a next part.
    let part = limit + 1;
    // All columns, and names that came late, are read for the records of this part alone.
    let first = format!("SELECT start_time FROM {} WHERE {chosen} ORDER BY {order} LIMIT {part}", table(&chosen));
    let sql = format!(
        "SELECT {COLUMNS} FROM flows_named WHERE {chosen} AND start_time >= (SELECT min(start_time) FROM ({first})) \
         ORDER BY {order} LIMIT {part}"
    );
    let mut query = ask(app, &sql, range, &condition);
    if let Some(container) = container_id {
        query = query.param("container", container);
    }
    if let Some(place) = &place {
        query = query
            .param("start", place.start)
            .param("flow", place.flow)
            .param("capture", place.capture.to_string())
            .param("host", &place.host)
            .param("interface", &place.interface)
            .param("end", place.end);
    }
    let _place = app.query_place()?;
    let mut items: Vec<FlowRecord> = super::rows(query).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(|last| {
        cursor::encode(&Place {
            from: range.from,
            to: range.to,
            start: last.start_time.0,
            flow: last.flow_id.0,
            capture: last.capture_id,
            host: last.host.clone(),
            interface: last.interface.clone(),
            end: last.end_time.0,
        })
    });
    Ok(Page { next_cursor: next.transpose()?, items })
}

/// What to read for SQL that names these columns: names that came too late for the row cost a join.
fn table(columns: &str) -> &'static str {
    let named = ["src_container", "dst_container", "src_image", "dst_image"].iter().any(|name| columns.contains(name));
    if named { "flows_named" } else { "flows" }
}

fn in_range() -> &'static str {
    "start_time >= fromUnixTimestamp64Micro({from:Int64}, 'UTC') AND start_time < fromUnixTimestamp64Micro({to:Int64}, 'UTC')"
}

/// A query with the parameters that every question about flows has.
fn ask(app: &App, sql: &str, range: Range, condition: &Condition) -> weir_store::Query {
    let mut query = super::typed(app, sql).param("from", range.from).param("to", range.to);
    for (name, value) in &condition.parameters {
        query = query.param(name, value);
    }
    query
}
