//! Uploaded captures.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use axum::{
    Json,
    body::Body,
    extract::{ConnectInfo, FromRequest as _, Multipart, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;
use tracing::{Instrument as _, Span};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;
use weir_proto::{Capture as Stored, capture::State as StoredState};

mod jobs;
mod live;
mod packets;
mod report;

pub(super) use jobs::*;
pub(super) use live::*;
pub(super) use packets::*;
pub(super) use report::*;

use crate::{
    App, Error, captures, cursor,
    extract::{Parameters, Segment},
    upload::Incoming,
    values::{Moment, Page},
};

/// The longest name of a capture that is kept, in characters.
const MAX_NAME: usize = 200;
/// The most captures at one time.
const MAX_LIMIT: u32 = 1_000;

/// The state of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum CaptureState {
    /// It waits for a worker
    Queued,
    /// A worker reads it, or a host records it
    Running,
    /// All of it that can be read is in the tables
    Done,
    /// It could not be read
    Failed,
    /// It was removed because of its age
    Expired,
}

impl CaptureState {
    fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Expired => "expired",
        }
    }
}

/// An uploaded capture and what is known about it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CaptureStatus {
    capture_id: Uuid,
    name: String,
    /// Of the uploaded bytes, hexadecimal
    sha256: String,
    size_bytes: u64,
    state: CaptureState,
    /// Null = none. One that is done may have one: where the file was damaged; all before it is in the tables
    error: Option<String>,
    /// Bytes of the file that were read so far
    bytes_read: u64,
    /// The same as a part of the whole, from 0 to 1
    progress: f64,
    /// What goes on: `recording`, `waiting`, `reading`, `report`, `storing`; null = nothing
    phase: Option<&'static str>,
    /// Somebody asked to end the analysis, and a worker will
    cancelling: bool,
    /// Times that a worker took it
    attempts: u32,
    packets: u64,
    /// Bytes of the packets on the wire
    bytes: u64,
    first_packet: Option<Moment>,
    last_packet: Option<Moment>,
    uploaded_at: Option<Moment>,
    finished_at: Option<Moment>,
    expires_at: Option<Moment>,
    /// Null = it was uploaded
    recording: Option<RecordingStatus>,
}

impl From<&Stored> for CaptureStatus {
    fn from(stored: &Stored) -> Self {
        let state = state_of(stored);
        let read =
            if state == CaptureState::Done { stored.size_bytes } else { stored.bytes_read.min(stored.size_bytes) };
        Self {
            capture_id: captures::id_of(stored),
            name: stored.name.clone(),
            sha256: captures::hex(&stored.sha256),
            size_bytes: stored.size_bytes,
            state,
            error: Some(stored.error.clone()).filter(|error| !error.is_empty()),
            bytes_read: read,
            progress: if captures::is_recording(stored) {
                captures::recorded(stored)
            } else {
                read as f64 / stored.size_bytes.max(1) as f64
            },
            phase: phase(stored),
            cancelling: stored.cancel,
            attempts: stored.attempts,
            packets: stored.packets,
            bytes: stored.bytes,
            first_packet: Moment::known(stored.first_packet),
            last_packet: Moment::known(stored.last_packet),
            uploaded_at: Moment::known(stored.uploaded_at),
            finished_at: Moment::known(stored.finished_at),
            expires_at: Moment::known(stored.expires_at),
            recording: RecordingStatus::of(stored),
        }
    }
}

fn phase(stored: &Stored) -> Option<&'static str> {
    match state_of(stored) {
        CaptureState::Queued => Some("waiting"),
        CaptureState::Running => Some(match (stored.state(), stored.phase.as_str()) {
            (StoredState::Done | StoredState::Failed, _) => "storing",
            (_, "report") => "report",
            (_, captures::RECORDING) => captures::RECORDING,
            _ => "reading",
        }),
        CaptureState::Done | CaptureState::Failed | CaptureState::Expired => None,
    }
}

fn state_of(stored: &Stored) -> CaptureState {
    match stored.state() {
        StoredState::Unspecified | StoredState::Queued => CaptureState::Queued,
        StoredState::Running => CaptureState::Running,
        // Its rows are on their way: who is told that it is done finds them.
        StoredState::Done | StoredState::Failed if !stored.stored => CaptureState::Running,
        StoredState::Done => CaptureState::Done,
        StoredState::Failed => CaptureState::Failed,
        StoredState::Expired => CaptureState::Expired,
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadParameters {
    /// What people call it; the file's name in a multipart body, or the beginning of its hash, when absent
    name: Option<String>,
}

/// The first file of a multipart body.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only described")]
struct Form {
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// Upload a capture
///
/// The body is the capture itself, or a multipart form whose first file it is: pcap or pcapng, plain or in gzip, zstd, lz4 or xz. It streams; what
/// is cut off, empty, too large or no capture leaves nothing behind. The same bytes again give the capture that is there.
#[utoipa::path(
    post, path = "/api/v1/captures", tag = "captures", params(UploadParameters),
    request_body(content(
        (Vec<u8> = "application/octet-stream"),
        (Vec<u8> = "application/vnd.tcpdump.pcap"),
        (Form = "multipart/form-data"),
    )),
    responses(
        (status = 202, description = "It is there, and its analysis goes on or is done", body = CaptureStatus,
            headers(("Location" = String, description = "Where its state is"))),
    )
)]
pub(super) async fn upload(
    State(app): State<Arc<App>>,
    Parameters(parameters): Parameters<UploadParameters>,
    request: Request,
) -> Result<Response, Error> {
    let place = app.upload_place()?;
    app.bus()?;
    let owner = owner(&request);
    app.rates.take(&owner, Instant::now())?;
    let limit = app.config.max_upload_bytes;
    if length(request.headers()).is_some_and(|length| length > limit) && !is_multipart(request.headers()) {
        return Err(Error::TooLarge { what: "a capture", limit });
    }
    // A task of its own: when the client goes away the rest of this function is gone with it, and what was stored must not stay.
    let task = tokio::spawn(
        async move {
            let _place = place;
            if is_multipart(request.headers()) {
                receive_form(&app, parameters.name, &owner, request).await
            } else {
                receive(&app, parameters.name, &owner, request.into_body().into_data_stream()).await
            }
        }
        .instrument(Span::current()),
    );
    let capture = task.await.map_err(Error::internal)??;
    let capture = CaptureStatus::from(&capture);
    let location = format!("/api/v1/captures/{}", capture.capture_id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(capture)).into_response())
}

/// Who limits count for: the address that the connection comes from.
fn owner(request: &Request) -> String {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    peer.map_or_else(String::new, |ConnectInfo(peer)| peer.ip().to_canonical().to_string())
}

async fn receive<S, E>(app: &App, name: Option<String>, owner: &str, body: S) -> Result<Stored, Error>
where
    S: futures::Stream<Item = Result<bytes::Bytes, E>> + Unpin + Send,
    E: std::fmt::Display,
{
    let name = clean(name.as_deref().unwrap_or(""));
    let (incoming, progress) = Incoming::new(body, app.config.max_upload_bytes, app.config.upload_idle());
    captures::upload(app, (&name, owner), incoming, &progress).await
}

async fn receive_form(app: &App, name: Option<String>, owner: &str, request: Request) -> Result<Stored, Error> {
    let wrong = |error: &dyn std::fmt::Display| Error::Body(format!("the multipart body cannot be read: {error}"));
    let mut form = Multipart::from_request(request, &()).await.map_err(|error| wrong(&error.body_text()))?;
    while let Some(field) = form.next_field().await.map_err(|error| wrong(&error.body_text()))? {
        // Fields that are no files belong to the page that sent the form.
        if field.file_name().is_some() || field.name() == Some("file") {
            let name = name.or_else(|| field.file_name().map(ToOwned::to_owned));
            return receive(app, name, owner, field).await;
        }
    }
    Err(Error::Body("the multipart body has no file".into()))
}

fn is_multipart(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    kind.trim_start().to_ascii_lowercase().starts_with("multipart/form-data")
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The name of a file without directories and without what a terminal would act on.
fn clean(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or("");
    base.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect::<String>().trim().to_owned()
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParameters {
    /// How many, from 1 to 1000; 100 when absent
    limit: Option<u32>,
    /// `next_cursor` of the part before
    cursor: Option<String>,
}

/// The captures, the latest first
#[utoipa::path(
    get, path = "/api/v1/captures", tag = "captures", params(ListParameters),
    responses((status = 200, description = "A part of the captures", body = Page<CaptureStatus>))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Parameters(parameters): Parameters<ListParameters>,
) -> Result<Json<Page<CaptureStatus>>, Error> {
    let limit = cursor::limit(parameters.limit, 100, MAX_LIMIT)? as usize;
    let before = parameters.cursor.as_deref().map(cursor::decode::<(u64, Uuid)>).transpose()?;
    let all = captures::list(&app).await?;
    let mut rest = all.iter().filter(|capture| before.is_none_or(|before| captures::place(capture) < before));
    let items: Vec<_> = rest.by_ref().take(limit).collect();
    let next = match (items.last(), rest.next()) {
        (Some(last), Some(_)) => Some(cursor::encode(&captures::place(last))?),
        _ => None,
    };
    Ok(Json(Page { items: items.into_iter().map(CaptureStatus::from).collect(), next_cursor: next }))
}

/// A capture and its state
#[utoipa::path(
    get, path = "/api/v1/captures/{capture_id}", tag = "captures", params(("capture_id" = Uuid, Path)),
    responses((status = 200, description = "What is known about it", body = CaptureStatus))
)]
pub(super) async fn get(State(app): State<Arc<App>>, Segment(id): Segment) -> Result<Json<CaptureStatus>, Error> {
    find(&app, &id).await.map(|stored| Json(CaptureStatus::from(&stored)))
}

/// Delete a capture
///
/// Its bytes, its report and its rows go; the rows within moments.
#[utoipa::path(
    delete, path = "/api/v1/captures/{capture_id}", tag = "captures", params(("capture_id" = Uuid, Path)),
    responses((status = 204, description = "It is deleted"))
)]
pub(super) async fn delete(State(app): State<Arc<App>>, Segment(text): Segment) -> Result<StatusCode, Error> {
    let id = id(&text)?;
    app.bus()?;
    // To its end also when the client goes away.
    let task = tokio::spawn(async move { captures::delete(&app, id).await }.instrument(Span::current()));
    if task.await.map_err(Error::internal)?? { Ok(StatusCode::NO_CONTENT) } else { Err(no_capture(&text)) }
}

/// The course of a capture, as server-sent events
///
/// Each event `capture` has the capture as its data, the first one as it is now. The last one is that of its end; an event `deleted`
/// without data says that it is gone.
#[utoipa::path(
    get, path = "/api/v1/captures/{capture_id}/events", tag = "captures", params(("capture_id" = Uuid, Path)),
    responses((status = 200, description = "Events until the capture is done, failed or deleted", body = CaptureStatus,
        content_type = "text/event-stream"))
)]
pub(super) async fn events(
    State(app): State<Arc<App>>,
    Segment(id): Segment,
) -> Result<Sse<impl Stream<Item = Result<Event, axum::Error>>>, Error> {
    let place = app.request_place()?;
    let stored = find(&app, &id).await?;
    let changes = captures::watch(&app, captures::id_of(&stored)).await?;
    let events = changes.map(move |stored| {
        // The place is held for as long as the client listens.
        let _held = &place;
        match stored {
            Some(stored) => Event::default().event("capture").json_data(CaptureStatus::from(&stored)),
            None => Ok(Event::default().event("deleted").data("")),
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// A name that every system and every header can hold.
fn file_name(stored: &Stored) -> String {
    let name: String =
        stored.name.chars().map(|c| if c.is_ascii_alphanumeric() || ".-_".contains(c) { c } else { '_' }).collect();
    if name.trim_matches(['.', '_']).is_empty() { format!("{}.pcap", captures::id_of(stored)) } else { name }
}

/// An object as a body; where reading it fails the connection closes before the end.
fn stream(object: weir_bus::ObjectReader) -> Body {
    Body::from_stream(ReaderStream::with_capacity(object, 64 << 10))
}

async fn find(app: &App, text: &str) -> Result<Stored, Error> {
    let entry = captures::find(app, id(text)?).await?;
    entry.map(|entry| entry.value).ok_or_else(|| no_capture(text))
}

fn id(text: &str) -> Result<Uuid, Error> {
    text.parse().map_err(|_| Error::parameter("capture_id", "this is no UUID"))
}

fn no_capture(text: &str) -> Error {
    Error::NotFound { what: "capture", name: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_a_file_and_nothing_else() {
        for (given, kept) in [
            ("a.pcap", "a.pcap"),
            ("../../etc/passwd", "passwd"),
            ("C:\\x\\y.pcapng", "y.pcapng"),
            ("a\u{1b}[31m\r\nb", "a[31mb"),
            ("", ""),
        ] {
            assert_eq!(clean(given), kept);
        }
        assert_eq!(clean(&"é".repeat(1000)).chars().count(), MAX_NAME);
        let stored = Stored { name: "a \"b\"\u{e9}.pcap".into(), ..Stored::default() };
        assert_eq!(file_name(&stored), "a__b__.pcap");
    }
}
