//! Flows in sum: the greatest groups, the course of time.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{MAX_LIMIT, ask, in_range, table};
use crate::{
    App, Error, cursor,
    extract::Parameters,
    routes::rows,
    time::{self, Range},
    values::{Moment, Page},
};

/// The most points of a series.
const MAX_POINTS: i64 = 5_000;
/// The points of a series where no step is given, about.
const POINTS: i64 = 120;

/// What flows are summed by.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    /// Bytes in both directions
    #[default]
    Bytes,
    /// Packets in both directions
    Packets,
    /// Flows
    Flows,
    /// TCP segments that were sent again
    Retransmits,
}

impl Metric {
    fn column(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Packets => "packets",
            Self::Flows => "flow_count",
            Self::Retransmits => "retransmits",
        }
    }
}

/// Sums over records. Flows are counted exactly.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub(crate) struct Sums {
    bytes: u64,
    packets: u64,
    #[serde(rename(deserialize = "flow_count"))]
    flows: u64,
    #[serde(rename(deserialize = "sent_bytes"))]
    tx_bytes: u64,
    #[serde(rename(deserialize = "received_bytes"))]
    rx_bytes: u64,
    retransmits: u64,
}

/// The columns of [`Sums`]; no alias is the name of a column.
const SUMS: &str = "sum(tx_bytes + rx_bytes) AS bytes, sum(tx_packets + rx_packets) AS packets, uniqExact(flow_id) AS flow_count, \
    sum(tx_bytes) AS sent_bytes, sum(rx_bytes) AS received_bytes, \
    sum(ifNull(tx_retransmits, 0) + ifNull(rx_retransmits, 0)) AS retransmits";

/// What flows can be grouped by.
const DIMENSIONS: [&str; 28] = [
    "src_ip",
    "dst_ip",
    "src_port",
    "dst_port",
    "protocol",
    "app",
    "src_container",
    "dst_container",
    "src_container_id",
    "dst_container_id",
    "src_image",
    "dst_image",
    "src_name",
    "dst_name",
    "src_process",
    "dst_process",
    "host",
    "interface",
    "source",
    "capture_id",
    "vlan",
    "tunnel",
    "end_reason",
    "drop_reason",
    "tcp_flags_tx",
    "tcp_flags_rx",
    "community_id",
    "flow_id",
];

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TopParameters {
    /// Records that start at or after this moment; RFC 3339 or relative such as -15m; the last hour when absent
    from: Option<String>,
    /// and before this one; now when absent
    to: Option<String>,
    /// Only those that fit
    filter: Option<String>,
    /// One to four columns with commas, for example `src_ip` or `src_container,dst_port`; `src_ip` when absent
    by: Option<String>,
    /// What makes one greater than another; `bytes` when absent
    #[param(inline)]
    metric: Option<Metric>,
    /// How many, from 1 to 10000; 10 when absent
    limit: Option<u32>,
}

/// A group of flows.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Group {
    /// The values of the columns in `by`
    #[schema(value_type = Object, example = json!({"src_ip": "192.0.2.7"}))]
    key: BTreeMap<&'static str, serde_json::Value>,
    #[serde(flatten)]
    sums: Sums,
}

/// The greatest groups of flows
#[utoipa::path(
    get, path = "/api/v1/flows/top", tag = "flows", params(TopParameters),
    responses((status = 200, description = "The greatest first", body = Page<Group>))
)]
pub(crate) async fn top(
    State(app): State<Arc<App>>,
    Parameters(parameters): Parameters<TopParameters>,
) -> Result<Json<Page<Group>>, Error> {
    let limit = cursor::limit(parameters.limit, 10, MAX_LIMIT)?;
    let condition = weir_filter::condition(parameters.filter.as_deref().unwrap_or(""))?;
    let range = Range::read(parameters.from.as_deref(), parameters.to.as_deref(), Timestamp::now())?;
    let by = dimensions(parameters.by.as_deref().unwrap_or("src_ip"))?;
    let sql = format!(
        "SELECT {}, {SUMS} FROM {} WHERE {} AND {} GROUP BY {} ORDER BY {} DESC, {} LIMIT {limit}",
        keys(&by),
        table(&format!("{} {}", by.join(" "), condition.sql)),
        in_range(),
        condition.sql,
        by.join(", "),
        parameters.metric.unwrap_or_default().column(),
        by.join(", "),
    );
    let _place = app.query_place()?;
    let rows: Vec<GroupRow> = rows(ask(&app, &sql, range, &condition)).await?;
    let items = rows.into_iter().map(|row| Ok(Group { key: key(&by, row.keys)?, sums: row.sums }));
    Ok(Json(Page::whole(items.collect::<Result<_, Error>>()?)))
}

/// A row of `top` and `timeseries`.
#[derive(Deserialize)]
struct GroupRow {
    #[serde(default)]
    bucket: i64,
    keys: Vec<String>,
    #[serde(flatten)]
    sums: Sums,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SeriesParameters {
    /// Records that start at or after this moment; RFC 3339 or relative such as -15m; the last hour when absent
    from: Option<String>,
    /// and before this one; now when absent
    to: Option<String>,
    /// Only those that fit
    filter: Option<String>,
    /// One to four columns with commas: a series for each of the greatest groups; one series of all when absent
    by: Option<String>,
    /// What makes one group greater than another; `bytes` when absent
    #[param(inline)]
    metric: Option<Metric>,
    /// The length of an interval such as `10s`, `1m`, `1h`; about 120 intervals when absent
    step: Option<String>,
    /// How many groups, from 1 to 100; 10 when absent
    limit: Option<u32>,
}

/// An interval of a series. A record counts where it starts; it covers at most a minute.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Point {
    /// The start of the interval
    time: Moment,
    /// The values of the columns in `by`
    #[schema(value_type = Object)]
    key: BTreeMap<&'static str, serde_json::Value>,
    #[serde(flatten)]
    sums: Sums,
}

/// The course of time.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Series {
    step_seconds: i64,
    /// The earliest first. Without `by` every interval is there; with it those in which a group had flows.
    items: Vec<Point>,
    /// Always null: a series is whole
    next_cursor: Option<String>,
}

/// Sums of flows over time
#[utoipa::path(
    get, path = "/api/v1/flows/timeseries", tag = "flows", params(SeriesParameters),
    responses((status = 200, description = "The intervals", body = Series))
)]
pub(crate) async fn timeseries(
    State(app): State<Arc<App>>,
    Parameters(parameters): Parameters<SeriesParameters>,
) -> Result<Json<Series>, Error> {
    let condition = weir_filter::condition(parameters.filter.as_deref().unwrap_or(""))?;
    let range = Range::read(parameters.from.as_deref(), parameters.to.as_deref(), Timestamp::now())?;
    let step_seconds = step(parameters.step.as_deref(), range)?;
    let groups = cursor::limit(parameters.limit, 10, 100)?;
    let by = parameters.by.as_deref().map(dimensions).transpose()?.unwrap_or_default();
    let table = table(&format!("{} {}", by.join(" "), condition.sql));
    let among = if by.is_empty() {
        String::new()
    } else {
        format!(
            " AND ({0},) IN (SELECT ({0},) FROM (SELECT {0}, {SUMS} FROM {table} WHERE {1} AND {2} GROUP BY {0} ORDER BY {3} DESC, {0} LIMIT {groups}))",
            by.join(", "),
            in_range(),
            condition.sql,
            parameters.metric.unwrap_or_default().column(),
        )
    };
    let also = by.iter().fold(String::new(), |also, column| also + ", " + column);
    let sql = format!(
        "SELECT intDiv(toUnixTimestamp64Micro(start_time), {}) AS bucket, {}, {SUMS} FROM {table} WHERE {} AND {}{among} \
         GROUP BY bucket{also} ORDER BY bucket{also}",
        step_seconds * 1_000_000,
        keys(&by),
        in_range(),
        condition.sql,
    );
    let _place = app.query_place()?;
    let rows: Vec<GroupRow> = rows(ask(&app, &sql, range, &condition)).await?;
    let points = rows.into_iter().map(|row| {
        Ok(Point { time: Moment(row.bucket * step_seconds * 1_000_000), key: key(&by, row.keys)?, sums: row.sums })
    });
    let points = points.collect::<Result<Vec<_>, Error>>()?;
    let items = if by.is_empty() { filled(points, range, step_seconds * 1_000_000) } else { points };
    Ok(Json(Series { step_seconds, items, next_cursor: None }))
}

fn dimensions(text: &str) -> Result<Vec<&'static str>, Error> {
    let mut by = Vec::new();
    for name in text.split(',').map(str::trim) {
        let Some(known) = DIMENSIONS.iter().find(|known| **known == name) else {
            let name: String = name.chars().take(60).collect();
            let reason = format!("{name:?} is nothing to group by: {}", DIMENSIONS.join(", "));
            return Err(Error::parameter("by", reason));
        };
        if !by.contains(known) {
            by.push(*known);
        }
    }
    if by.len() > 4 { Err(Error::parameter("by", "at most four columns")) } else { Ok(by) }
}

fn keys(by: &[&str]) -> String {
    let texts: Vec<_> = by.iter().map(|column| format!("toString({column})")).collect();
    if texts.is_empty() { "emptyArrayString() AS keys".into() } else { format!("[{}] AS keys", texts.join(", ")) }
}

/// The texts of a group's values as what they are.
fn key(by: &[&'static str], texts: Vec<String>) -> Result<BTreeMap<&'static str, serde_json::Value>, Error> {
    let value = |column: &str, text: String| -> Result<serde_json::Value, Error> {
        Ok(match column {
            "src_ip" | "dst_ip" => {
                let address: std::net::Ipv6Addr = text.parse().map_err(Error::internal)?;
                address.to_canonical().to_string().into()
            }
            "src_port" | "dst_port" | "protocol" | "vlan" | "tcp_flags_tx" | "tcp_flags_rx" => {
                text.parse::<u32>().map_err(Error::internal)?.into()
            }
            _ => text.into(),
        })
    };
    by.iter().zip(texts).map(|(column, text)| Ok((*column, value(column, text)?))).collect()
}

fn step(text: Option<&str>, range: Range) -> Result<i64, Error> {
    const STEPS: [i64; 16] = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 10_800, 21_600, 86_400];
    let seconds = match text {
        None => STEPS.into_iter().find(|step| range.seconds() / step <= POINTS).unwrap_or(range.seconds() / POINTS),
        Some(text) => time::span(text)
            .map(|span| span.as_secs())
            .filter(|seconds| (1..=31_536_000).contains(seconds))
            .ok_or_else(|| Error::parameter("step", "a step is such as 10s, 1m or 1h, from 1s to a year"))?,
    };
    if range.seconds() / seconds > MAX_POINTS {
        let reason = format!("that would be more than {MAX_POINTS} intervals: a longer step, or a shorter time");
        return Err(Error::parameter("step", reason));
    }
    Ok(seconds)
}

/// The points with those between them in which nothing was.
fn filled(points: Vec<Point>, range: Range, step: i64) -> Vec<Point> {
    let mut known: BTreeMap<i64, Point> = points.into_iter().map(|point| (point.time.0, point)).collect();
    let buckets = range.from.div_euclid(step)..=(range.to - 1).div_euclid(step);
    buckets
        .map(|bucket| {
            known.remove(&(bucket * step)).unwrap_or_else(|| Point {
                time: Moment(bucket * step),
                key: BTreeMap::new(),
                sums: Sums::default(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_chosen_so_that_a_series_can_be_drawn() {
        let range = |seconds: i64| Range { from: 0, to: seconds * 1_000_000 };
        for (seconds, expected) in [(60, 1), (3600, 30), (86_400, 900), (604_800, 10_800)] {
            assert_eq!(step(None, range(seconds)).unwrap(), expected, "{seconds}");
        }
        assert_eq!(step(Some("5m"), range(3600)).unwrap(), 300);
        for text in ["0s", "-1s", "5", "m", "99w9"] {
            assert!(step(Some(text), range(3600)).is_err(), "{text}");
        }
        assert!(step(Some("1s"), range(86_400)).is_err());
    }

    #[test]
    fn a_series_without_groups_has_every_interval() {
        let point = Point { time: Moment(20), key: BTreeMap::new(), sums: Sums { bytes: 7, ..Sums::default() } };
        let points = filled(vec![point], Range { from: 5, to: 40 }, 10);
        let seen: Vec<_> = points.iter().map(|point| (point.time.0, point.sums.bytes)).collect();
        assert_eq!(seen, [(0, 0), (10, 0), (20, 7), (30, 0)]);
    }
}
