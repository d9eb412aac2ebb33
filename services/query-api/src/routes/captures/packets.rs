//! The packets of a capture: all of it as it was uploaded, or those of some flows.
//!
//! Which flows a filter means, the tables say. The file is read by a pcap-worker, which is confined; its pcapng is passed on as it comes.

use axum::body::{Body, Bytes};
use futures::stream as streams;
use jiff::Timestamp;
use prost::Message as _;
use uuid::Uuid;
use weir_bus::{Answer, AnswerError, Bus, Error as BusError, Objects, names};
use weir_proto::{CarvePackets, CarvedFlow, Ip};

use super::{
    App, Arc, CaptureState, Deserialize, Error, IntoParams, IntoResponse, Parameters, Response, Segment, State, Stored,
    captures, file_name, find, header, state_of, stream,
};

/// Flows that one question may name.
const MAX_FLOWS: usize = 100_000;
/// Of these, how many fit into the question itself; more are put beside it.
const MAX_INLINE: usize = 2000;
/// Characters of a comment: what strangers named is in it.
const MAX_COMMENT: usize = 300;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::routes) struct PacketsParameters {
    /// Only the packets of flows that it means, in the language of filters
    filter: Option<String>,
    /// Only the packets of this flow
    flow_id: Option<u64>,
    /// Only packets from this time on (RFC 3339)
    from: Option<String>,
    /// Only packets before this time
    to: Option<String>,
}

impl PacketsParameters {
    fn is_everything(&self) -> bool {
        self.filter.is_none() && self.flow_id.is_none() && self.from.is_none() && self.to.is_none()
    }
}

/// The packets of a capture
///
/// Without parameters the file as it was uploaded. With any of them pcapng with the packets that they mean, in the order of the file. Each has a
/// comment: its flow, the name of the server, the containers; comments of the file stay. A filter means flows by their rows, so the capture has
/// to be done; of a time alone it has not, and then, or where the time has too many flows, the section's comment says which comments are missing.
#[utoipa::path(
    get, path = "/api/v1/captures/{capture_id}/packets", tag = "captures", params(("capture_id" = Uuid, Path), PacketsParameters),
    responses((status = 200, description = "The uploaded bytes, or pcapng", content(
        (Vec<u8> = "application/octet-stream"), (Vec<u8> = "application/x-pcapng"),
    )))
)]
pub(in crate::routes) async fn packets(
    State(app): State<Arc<App>>,
    Segment(id): Segment,
    Parameters(parameters): Parameters<PacketsParameters>,
) -> Result<Response, Error> {
    let stored = find(&app, &id).await?;
    if captures::has_expired(&stored) {
        return Err(Error::Expired);
    }
    if parameters.is_everything() { whole(&app, &stored, id).await } else { some(&app, &stored, &parameters).await }
}

async fn whole(app: &App, stored: &Stored, id: String) -> Result<Response, Error> {
    match app.objects(names::UPLOADS).await?.get(&captures::id_of(stored).to_string()).await {
        Ok(object) => {
            let headers = [
                (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
                (header::CONTENT_LENGTH, object.info().size.to_string()),
                (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", file_name(stored))),
            ];
            Ok((headers, stream(object)).into_response())
        }
        Err(BusError::NoObject { .. }) => Err(Error::NotFound { what: "file of capture", name: id }),
        Err(error) => Err(error.into()),
    }
}

async fn some(app: &App, stored: &Stored, parameters: &PacketsParameters) -> Result<Response, Error> {
    let wanted = wanted(app, stored, parameters).await?;
    let (bus, artifacts) = (app.bus()?.clone(), app.objects(names::ARTIFACTS).await?);
    // On its own, so that a list of flows is removed also where the client does not wait.
    let asking = tokio::spawn(async move { ask(&bus, &artifacts, wanted).await });
    let (first, answer) = asking.await.map_err(Error::internal)??;
    let rest = streams::try_unfold(answer, |mut answer: Answer| async move {
        let piece = answer.next().await.inspect_err(|error| {
            tracing::warn!(error = error as &dyn std::error::Error, "carving broke off");
        })?;
        Ok::<_, AnswerError>(piece.map(|piece| (piece, answer)))
    });
    let pieces = futures::StreamExt::chain(streams::iter(first.map(Ok::<Bytes, AnswerError>)), rest);
    let name = file_name(stored);
    let name = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
    let headers = [
        (header::CONTENT_TYPE, "application/x-pcapng".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}-part.pcapng\"")),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// Asks for packets; the first piece tells whether there is an answer at all, after it there is only breaking off.
async fn ask(bus: &Bus, artifacts: &Objects, mut wanted: CarvePackets) -> Result<(Option<Bytes>, Answer), Error> {
    if wanted.flows.len() <= MAX_INLINE {
        let mut answer = bus.ask(names::CARVE, wanted.encode_to_vec().into()).await?;
        return Ok((answer.next().await.map_err(refused)?, answer));
    }
    let list = format!("carve/{}", Uuid::new_v4());
    artifacts.put(&list, &mut &*wanted.encode_to_vec()).await?;
    wanted.flows.clear();
    wanted.list.clone_from(&list);
    let asked = async {
        let mut answer = bus.ask(names::CARVE, wanted.encode_to_vec().into()).await?;
        Ok((answer.next().await.map_err(refused)?, answer))
    }
    .await;
    // Whoever answers has read it.
    artifacts.delete(&list).await?;
    asked
}

fn refused(error: AnswerError) -> Error {
    match error {
        AnswerError::Nobody => Error::NoWorker,
        AnswerError::Busy => Error::Overloaded { what: "questions for packets" },
        AnswerError::Failed(reason) => Error::Carving(reason),
        AnswerError::BrokeOff => Error::Carving("the worker went away".to_owned()),
        AnswerError::Bus(error) => error.into(),
    }
}

async fn wanted(app: &App, stored: &Stored, parameters: &PacketsParameters) -> Result<CarvePackets, Error> {
    let (from, until) = (moment("from", parameters.from.as_deref())?, moment("to", parameters.to.as_deref())?);
    if until != 0 && from >= until {
        return Err(Error::parameter("to", "this is not after `from`"));
    }
    let all = parameters.filter.is_none() && parameters.flow_id.is_none();
    let (flows, comment) = match state_of(stored) {
        CaptureState::Done => named(flows(app, captures::id_of(stored), parameters, from, until).await?, all)?,
        state if all => {
            let why = format!("Packets have no comments of their flows: the capture is {}, not done.", state.name());
            (Vec::new(), why)
        }
        state => return Err(Error::NotReady { state: state.name() }),
    };
    let capture_id = stored.capture_id.clone();
    Ok(CarvePackets { capture_id, all, flows, from, until, comment, ..CarvePackets::default() })
}

/// The flows that the question names, and what the file says of the others: all packets of a time are wanted whether their flow is named
/// or not.
fn named(mut flows: Vec<CarvedFlow>, all: bool) -> Result<(Vec<CarvedFlow>, String), Error> {
    if flows.len() <= MAX_FLOWS {
        return Ok((flows, String::new()));
    }
    if !all {
        return Err(Error::TooManyFlows { limit: MAX_FLOWS });
    }
    flows.truncate(MAX_FLOWS);
    Ok((flows, format!("Only the packets of the first {MAX_FLOWS} flows of this time have comments.")))
}

fn moment(name: &str, text: Option<&str>) -> Result<u64, Error> {
    let Some(text) = text else { return Ok(0) };
    let time: Timestamp = text.parse().map_err(|_| Error::parameter(name, "this is no time as RFC 3339 has it"))?;
    u64::try_from(time.as_microsecond()).map_err(|_| Error::parameter(name, "this is before 1970"))
}

/// A flow of the capture, from all of its rows.
#[derive(Deserialize)]
struct Row {
    flow_id: crate::values::Id,
    src_ip: std::net::Ipv6Addr,
    dst_ip: std::net::Ipv6Addr,
    src_port: u32,
    dst_port: u32,
    protocol: u32,
    vlan: u32,
    tunnel: String,
    start: String,
    end: String,
    app: String,
    src_name: String,
    dst_name: String,
    src_container: String,
    dst_container: String,
}

/// Flows that have packets of the time, one more than may be named if there are more.
async fn flows(
    app: &App,
    capture: Uuid,
    parameters: &PacketsParameters,
    from: u64,
    until: u64,
) -> Result<Vec<CarvedFlow>, Error> {
    let condition = weir_filter::condition(parameters.filter.as_deref().unwrap_or(""))?;
    // The filter is about rows, and a flow with one such row is meant whole; its time is that of all its rows.
    let sql = format!(
        "SELECT flow_id, any(src_ip) AS src_ip, any(dst_ip) AS dst_ip, any(src_port) AS src_port, any(dst_port) AS dst_port, \
         any(protocol) AS protocol, any(vlan) AS vlan, any(tunnel) AS tunnel, \
         toString(toUnixTimestamp64Micro(min(start_time))) AS start, toString(toUnixTimestamp64Micro(max(end_time))) AS end, \
         max(app) AS app, max(src_name) AS src_name, max(dst_name) AS dst_name, max(src_container) AS src_container, \
         max(dst_container) AS dst_container FROM flows WHERE capture_id = {{of_capture:UUID}} AND flow_id IN (\
         SELECT flow_id FROM flows WHERE capture_id = {{of_capture:UUID}} AND ({condition}){flow}) \
         GROUP BY flow_id HAVING toUnixTimestamp64Micro(max(end_time)) >= {{of_from:Int64}} AND \
         toUnixTimestamp64Micro(min(start_time)) < {{of_until:Int64}} ORDER BY start LIMIT {most}",
        condition = condition.sql,
        flow = if parameters.flow_id.is_some() { " AND flow_id = {of_flow:UInt64}" } else { "" },
        most = MAX_FLOWS + 1,
    );
    let mut query = super::super::typed(app, &sql).param("of_capture", capture.to_string());
    let until = if until == 0 { i64::MAX } else { i64::try_from(until).unwrap_or(i64::MAX) };
    query = query.param("of_from", i64::try_from(from).unwrap_or(i64::MAX)).param("of_until", until);
    if let Some(flow) = parameters.flow_id {
        query = query.param("of_flow", flow);
    }
    for (name, value) in &condition.parameters {
        query = query.param(name, value);
    }
    let _place = app.query_place()?;
    let rows: Vec<Row> = super::super::rows(query).await?;
    rows.into_iter().map(Row::carved).collect()
}

impl Row {
    fn carved(self) -> Result<CarvedFlow, Error> {
        let (src, dst) = (Ip::from(self.src_ip.octets()), Ip::from(self.dst_ip.octets()));
        let comment = self.comment();
        Ok(CarvedFlow {
            flow_id: self.flow_id.0,
            src_ip_high: src.high,
            src_ip_low: src.low,
            dst_ip_high: dst.high,
            dst_ip_low: dst.low,
            src_port: self.src_port,
            dst_port: self.dst_port,
            protocol: self.protocol,
            vlan: self.vlan,
            tunnel: self.tunnel,
            start_time: self.start.parse().map_err(Error::internal)?,
            end_time: self.end.parse().map_err(Error::internal)?,
            comment,
        })
    }

    /// `flow 123, tls, to example.org, from container web`
    fn comment(&self) -> String {
        let mut comment = format!("flow {}", self.flow_id.0);
        let parts = [
            ("", &self.app),
            ("from ", &self.src_name),
            ("to ", &self.dst_name),
            ("from container ", &self.src_container),
            ("to container ", &self.dst_container),
        ];
        for (what, name) in parts.into_iter().filter(|(_, name)| !name.is_empty()) {
            comment.push_str(", ");
            comment.push_str(what);
            comment.push_str(name);
        }
        comment.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(MAX_COMMENT).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_with_more_flows_than_can_be_named_says_that_the_others_have_no_comments() {
        let flows = |count| vec![CarvedFlow::default(); count];
        let (kept, comment) = named(flows(MAX_FLOWS), true).unwrap();
        assert_eq!((kept.len(), comment.as_str()), (MAX_FLOWS, ""));
        let (kept, comment) = named(flows(MAX_FLOWS + 1), true).unwrap();
        assert_eq!(kept.len(), MAX_FLOWS);
        assert_eq!(comment, "Only the packets of the first 100000 flows of this time have comments.");
        assert!(named(flows(MAX_FLOWS), false).is_ok());
        let refused = named(flows(MAX_FLOWS + 1), false);
        assert!(matches!(refused, Err(Error::TooManyFlows { limit: MAX_FLOWS })));
    }
}
