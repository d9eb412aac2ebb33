//! Containers: their lives, what they used, what happened to them.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse as _, Response},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::{IntoParams, ToSchema};

use super::{
    flows::{self, FlowRecord, ListParameters as FlowParameters},
    live,
};
use crate::{
    App, Error, cursor,
    extract::{Parameters, Segment},
    feed::Scope,
    time::Range,
    values::{Address, Moment, Page},
};

/// The most items at one time.
const MAX_LIMIT: u32 = 10_000;
/// The most lives of one container that are told.
const MAX_LIVES: u32 = 100;

/// The address of a container on one network.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct NetworkAddress {
    name: String,
    network_id: String,
    ip: Address,
    mac_address: String,
}

/// A life of a container: from a start to its finish.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct ContainerLife {
    host: String,
    runtime: String,
    container_id: String,
    name: String,
    image: String,
    image_id: String,
    labels: BTreeMap<String, String>,
    ip_addresses: Vec<Address>,
    networks: Vec<NetworkAddress>,
    /// `created`, `running`, `paused`, `exited`, `dead`, `removed`
    state: String,
    /// `starting`, `healthy`, `unhealthy`; empty = no health check
    health: String,
    created_at: Moment,
    /// 1970 = never started
    started_at: Moment,
    /// Null = still running
    finished_at: Option<Moment>,
    exit_code: Option<i32>,
    oom_killed: bool,
    pid: u32,
    host_network: bool,
    cgroup_path: String,
    observed_at: Moment,
    /// `api`, `cri`, `cgroup`: who told
    tier: String,
    restarts: Option<u64>,
    /// Of the repository that the image came from; empty = it was made here, or nobody can say
    image_digest: String,
    compose_project: String,
    compose_service: String,
    pod: String,
    namespace: String,
    /// Ports of the host that lead to it
    ports: Vec<PortMapping>,
    /// The host's ends of its veth pairs
    interfaces: Vec<String>,
    /// Cores; null = no limit
    cpu_limit: Option<f64>,
    /// Null = no limit
    memory_limit_bytes: Option<u64>,
    /// Null = no limit
    pids_limit: Option<u64>,
}

/// A port of the host that leads to a port of a container.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct PortMapping {
    /// `0.0.0.0` and `::` = every address of the host
    host_ip: Address,
    host_port: u16,
    container_port: u16,
    /// IANA protocol number
    protocol: u8,
}

/// The columns of [`ContainerLife`].
const COLUMNS: &str = "host, runtime, container_id, name, image, image_id, labels, ip_addresses, networks, state, health, created_at, \
    started_at, finished_at, exit_code, oom_killed, pid, host_network, cgroup_path, observed_at, tier, restarts, image_digest, \
    compose_project, compose_service, pod, namespace, ports, interfaces, cpu_limit, memory_limit_bytes, pids_limit";

/// A container with its lives.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ContainerWithLives {
    /// The last life
    #[serde(flatten)]
    last: ContainerLife,
    /// All lives that are kept, the last first; at most 100
    lives: Vec<ContainerLife>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParameters {
    /// `key` or `key=value`; several with commas, all of which it must have
    label: Option<String>,
    /// `created`, `running`, `paused`, `exited`, `dead`, `removed`; all when absent
    state: Option<String>,
    /// The image, or the beginning of its name
    image: Option<String>,
    /// A network that it is on, by name or id
    network: Option<String>,
    /// The name
    name: Option<String>,
    /// The compose project
    project: Option<String>,
    /// The host it runs on
    host: Option<String>,
    /// How many, from 1 to 10000; 100 when absent
    limit: Option<u32>,
    /// `next_cursor` of the part before
    cursor: Option<String>,
}

/// Where a list of containers goes on: start, id, host.
type Place = (i64, String, String);

/// The containers, the last started first, each with its last life
#[utoipa::path(
    get, path = "/api/v1/containers", tag = "containers", params(ListParameters),
    responses((status = 200, description = "A part of the containers", body = Page<ContainerLife>))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Page<ContainerLife>>, Error> {
    let limit = cursor::limit(parameters.limit, 100, MAX_LIMIT)?;
    let place = parameters.cursor.as_deref().map(cursor::decode::<Place>).transpose()?;
    let (conditions, values) = conditions(&parameters);
    let mut sql = format!("SELECT {COLUMNS} FROM ({}) WHERE {conditions}", last_lives());
    if place.is_some() {
        sql.push_str(
            " AND (started_at, container_id, host) < (fromUnixTimestamp64Micro({start:Int64}, 'UTC'), {id:String}, {at:String})",
        );
    }
    sql.push_str(" ORDER BY started_at DESC, container_id DESC, host DESC LIMIT ");
    sql.push_str(&(limit + 1).to_string());
    let mut query = super::typed(&app, &sql);
    for (name, value) in &values {
        query = query.param(name, value);
    }
    if let Some((start, id, host)) = &place {
        query = query.param("start", start).param("id", id).param("at", host);
    }
    let _place = app.query_place()?;
    let items: Vec<ContainerLife> = super::rows(query).await?;
    page(items, limit, |last| (last.started_at.0, last.container_id.clone(), last.host.clone())).map(Json)
}

/// The last life of each container.
fn last_lives() -> String {
    format!("SELECT {COLUMNS} FROM containers FINAL ORDER BY started_at DESC LIMIT 1 BY host, container_id")
}

fn conditions(parameters: &ListParameters) -> (String, Vec<(String, String)>) {
    let mut sql = vec!["true".to_owned()];
    let mut values = Vec::new();
    let mut add = |condition: &str, value: &str| {
        let name = format!("p{}", values.len());
        sql.push(condition.replace('$', &format!("{{{name}:String}}")));
        values.push((name, value.to_owned()));
    };
    for label in parameters.label.iter().flat_map(|labels| labels.split(',')).filter(|label| !label.is_empty()) {
        match label.split_once('=') {
            // One value for both: the key is what stands before the first =.
            Some(_) => add("arrayExists((k, v) -> concat(k, '=', v) = $, mapKeys(labels), mapValues(labels))", label),
            None => add("mapContains(labels, $)", label),
        }
    }
    let given = [
        ("state = $", &parameters.state),
        ("startsWith(image, $)", &parameters.image),
        ("arrayExists(n -> n.name = $ OR n.network_id = $, networks)", &parameters.network),
        ("name = $", &parameters.name),
        ("compose_project = $", &parameters.project),
        ("host = $", &parameters.host),
    ];
    for (condition, value) in given {
        if let Some(value) = value {
            add(condition, value);
        }
    }
    (sql.join(" AND "), values)
}

/// A container
#[utoipa::path(
    get, path = "/api/v1/containers/{container}", tag = "containers",
    params(("container" = String, Path, description = "Its id, the beginning of it, or its name")),
    responses((status = 200, description = "Its last life and those before", body = ContainerWithLives))
)]
pub(super) async fn get(
    State(app): State<Arc<App>>,
    Segment(container): Segment,
) -> Result<Json<ContainerWithLives>, Error> {
    let last = find(&app, &container).await?;
    let sql = format!(
        "SELECT {COLUMNS} FROM containers FINAL WHERE container_id = {{id:String}} AND host = {{host:String}} \
         ORDER BY started_at DESC LIMIT {MAX_LIVES}"
    );
    let lives = super::rows(super::typed(&app, &sql).param("id", &last.container_id).param("host", &last.host)).await?;
    Ok(Json(ContainerWithLives { last, lives }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RangeParameters {
    /// At or after this moment; RFC 3339 or relative such as -15m; the last hour when absent
    from: Option<String>,
    /// and before this one; now when absent
    to: Option<String>,
    /// How many, from 1 to 10000; 1000 when absent
    limit: Option<u32>,
    /// `next_cursor` of the part before
    cursor: Option<String>,
    /// `true`: server-sent events from now on, or after `Last-Event-ID`, until the client goes; without the other parameters
    follow: Option<bool>,
}

impl RangeParameters {
    /// Whether to follow, which goes with nothing else.
    fn follows(&self) -> Result<bool, Error> {
        let others = self.from.is_some() || self.to.is_some() || self.limit.is_some() || self.cursor.is_some();
        match self.follow.unwrap_or(false) {
            true if others => Err(Error::parameter("follow", "follow goes without from, to, limit and cursor")),
            follows => Ok(follows),
        }
    }
}

/// What a container used, at one moment. Counters are cumulative since it started; null = could not be read.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Stats {
    time: Moment,
    /// 100 = one core, over the last interval
    cpu_percent: Option<f64>,
    cpu_usage_ns: Option<u64>,
    /// Working set: without inactive page cache
    memory_bytes: Option<u64>,
    /// Null = no limit
    memory_limit_bytes: Option<u64>,
    network_rx_bytes: Option<u64>,
    network_tx_bytes: Option<u64>,
    network_rx_packets: Option<u64>,
    network_tx_packets: Option<u64>,
    block_read_bytes: Option<u64>,
    block_write_bytes: Option<u64>,
    pids: Option<u64>,
    /// Why something is null
    missing: BTreeMap<String, String>,
}

pub(crate) const STATS: &str = "time, cpu_percent, cpu_usage_ns, memory_bytes, memory_limit_bytes, network_rx_bytes, network_tx_bytes, \
    network_rx_packets, network_tx_packets, block_read_bytes, block_write_bytes, pids, missing";

/// What a container used, the latest first
#[utoipa::path(
    get, path = "/api/v1/containers/{container}/stats", tag = "containers",
    params(("container" = String, Path, description = "Its id, the beginning of it, or its name"), RangeParameters),
    responses((status = 200, description = "A part of the samples", body = Page<Stats>))
)]
pub(super) async fn stats(
    State(app): State<Arc<App>>,
    Segment(container): Segment,
    headers: HeaderMap,
    Parameters(parameters): Parameters<RangeParameters>,
) -> Result<Response, Error> {
    if parameters.follows()? {
        let scope = scope(&app, &container).await?;
        return live::follow(&app, |app| &app.stats, &headers, scope, "stats", |_| true).await;
    }
    history(&app, &container, &parameters, STATS, "container_stats", |stats: &Stats| (stats.time, ""))
        .await
        .map(Json::into_response)
}

/// Something that happened to a container.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Event {
    time: Moment,
    /// `create`, `start`, `die`, `oom`, `stop`, `destroy`, `health_status`, ...
    action: String,
    exit_code: Option<i32>,
    labels: BTreeMap<String, String>,
    attributes: BTreeMap<String, String>,
}

/// What happened to a container, the latest first
#[utoipa::path(
    get, path = "/api/v1/containers/{container}/events", tag = "containers",
    params(("container" = String, Path, description = "Its id, the beginning of it, or its name"), RangeParameters),
    responses((status = 200, description = "A part of the events", body = Page<Event>))
)]
pub(super) async fn events(
    State(app): State<Arc<App>>,
    Segment(container): Segment,
    headers: HeaderMap,
    Parameters(parameters): Parameters<RangeParameters>,
) -> Result<Response, Error> {
    if parameters.follows()? {
        let scope = scope(&app, &container).await?;
        return live::follow(&app, |app| &app.events, &headers, scope, "event", |_| true).await;
    }
    let columns = "time, action, exit_code, labels, attributes";
    history(&app, &container, &parameters, columns, "container_events", |event: &Event| (event.time, &event.action))
        .await
        .map(Json::into_response)
}

/// One container, to follow it.
async fn scope(app: &App, container: &str) -> Result<Scope, Error> {
    let found = find(app, container).await?;
    Ok(Scope { container: Some((found.host, found.container_id)) })
}

/// Flows of a container, the latest first
#[utoipa::path(
    get, path = "/api/v1/containers/{container}/flows", tag = "containers",
    params(("container" = String, Path, description = "Its id, the beginning of it, or its name"), FlowParameters),
    responses((status = 200, description = "A part of the records of which it is an end", body = Page<FlowRecord>))
)]
pub(super) async fn flows(
    State(app): State<Arc<App>>,
    Segment(container): Segment,
    Parameters(parameters): Parameters<FlowParameters>,
) -> Result<Json<Page<FlowRecord>>, Error> {
    let container = find(&app, &container).await?;
    flows::page(&app, &parameters, Some(&container.container_id)).await.map(Json)
}

/// Rows of one container with a time, the latest first; `second` orders rows of the same time.
async fn history<T: DeserializeOwned>(
    app: &App,
    container: &str,
    parameters: &RangeParameters,
    columns: &str,
    table: &str,
    place_of: impl Fn(&T) -> (Moment, &str),
) -> Result<Json<Page<T>>, Error> {
    let limit = cursor::limit(parameters.limit, 1000, MAX_LIMIT)?;
    let place = parameters.cursor.as_deref().map(cursor::decode::<(i64, i64, String)>).transpose()?;
    let mut range = Range::read(parameters.from.as_deref(), parameters.to.as_deref(), Timestamp::now())?;
    if let Some((from, _, _)) = &place {
        range.from = *from;
    }
    let second = if table == "container_events" { "action" } else { "''" };
    let before = if place.is_some() {
        format!("(time, {second}) < (fromUnixTimestamp64Micro({{before:Int64}}, 'UTC'), {{second:String}})")
    } else {
        "time < fromUnixTimestamp64Micro({before:Int64}, 'UTC')".into()
    };
    let sql = format!(
        "SELECT {columns} FROM {table} WHERE container_id = {{id:String}} AND host = {{host:String}} \
         AND time >= fromUnixTimestamp64Micro({{from:Int64}}, 'UTC') AND {before} ORDER BY time DESC, {second} DESC LIMIT {}",
        limit + 1
    );
    let container = find(app, container).await?;
    let (before, second) = match &place {
        Some((_, time, second)) => (*time, second.as_str()),
        None => (range.to, ""),
    };
    let mut query = super::typed(app, &sql)
        .param("id", &container.container_id)
        .param("host", &container.host)
        .param("from", range.from)
        .param("before", before);
    if place.is_some() {
        query = query.param("second", second);
    }
    let _place = app.query_place()?;
    let items: Vec<T> = super::rows(query).await?;
    page(items, limit, |last| {
        let (time, second) = place_of(last);
        (range.from, time.0, second.to_owned())
    })
    .map(Json)
}

/// A part of a list of which one item more than `limit` was asked for.
fn page<T, P: Serialize>(mut items: Vec<T>, limit: u32, place: impl Fn(&T) -> P) -> Result<Page<T>, Error> {
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next_cursor = items.last().filter(|_| more).map(|last| cursor::encode(&place(last))).transpose()?;
    Ok(Page { items, next_cursor })
}

/// The container that is meant: by its id, the beginning of it, or its name; of several that had the name the one that started last.
async fn find(app: &App, text: &str) -> Result<ContainerLife, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM ({}) WHERE name = {{text:String}} OR startsWith(container_id, {{text:String}}) \
         ORDER BY container_id = {{text:String}} DESC, name = {{text:String}} DESC, started_at DESC LIMIT 1000",
        last_lives()
    );
    let _place = app.query_place()?;
    let found: Vec<ContainerLife> = super::rows(super::typed(app, &sql).param("text", text)).await?;
    let mut found = found.into_iter();
    let Some(first) = found.next().filter(|_| !text.is_empty()) else {
        return Err(Error::NotFound { what: "container", name: text.chars().take(100).collect() });
    };
    let by_name = first.name == text;
    let also = found.any(|other| {
        // Names are used again after a container is gone; only on another host is one of the same name another one.
        if by_name { other.name == text && other.host != first.host } else { other.container_id != first.container_id }
    });
    if also && first.container_id != text { Err(Error::Ambiguous(text.into())) } else { Ok(first) }
}
