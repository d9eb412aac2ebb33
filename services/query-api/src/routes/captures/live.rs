//! Recording packets of a host.

use axum::extract::{FromRequest as _, Request};
use weir_filter::{PacketFilter, Unsupported};

use super::{
    App, Arc, CaptureStatus, Deserialize, Error, Instant, IntoResponse, Json, Response, Segment, Serialize, State,
    StatusCode, Stored, ToSchema, captures, clean, header, id, no_capture, owner,
};
use crate::{captures::Wanted, metrics};

/// The smallest file: it holds the names of all interfaces.
const MIN_BYTES: u64 = 64 << 10;
/// The longest name of a host, in bytes.
const MAX_HOST: usize = 253;

/// What is to be recorded.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct LiveCapture {
    /// The host, as it is named in `flows.host`
    host: String,
    /// Only packets that it accepts: of the language of filters what a packet tells (`ip`, `port`, `protocol`, `interface`); every packet
    /// when absent
    #[serde(default)]
    filter: String,
    /// How long; at most `WEIR_LIVE_CAPTURE_SECONDS`
    duration_seconds: u32,
    /// Bytes of the file, at least 65536; `WEIR_LIVE_CAPTURE_BYTES` when absent, and at most
    max_bytes: Option<u64>,
    /// Bytes of each packet that are kept, for example its headers; all when absent or 0
    #[serde(default)]
    snap_length: u32,
    /// What people call the capture
    name: Option<String>,
}

/// How a capture was recorded on demand.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::routes) struct RecordingStatus {
    host: String,
    filter: String,
    duration_seconds: u32,
    max_bytes: u64,
    /// Packets for which the host's kernel had no room
    lost_packets: u64,
    /// Why it ended: `time`, `bytes`, `stopped`, `shutdown`; null = it goes on, or did not come to its end
    ended: Option<String>,
}

impl RecordingStatus {
    pub(super) fn of(stored: &Stored) -> Option<Self> {
        let recording = stored.recording.clone()?;
        Some(Self {
            host: recording.host,
            filter: recording.filter,
            duration_seconds: recording.seconds,
            max_bytes: recording.max_bytes,
            lost_packets: recording.lost,
            ended: Some(recording.ended).filter(|ended| !ended.is_empty()),
        })
    }
}

/// Record packets of a host
///
/// The host's capture writes the packets that pass its interfaces from now on, and that the filter accepts, to a pcapng with the names of
/// interfaces, and comments with container and process where they are known. It is `running` (phase `recording`) meanwhile, and then a capture as any
/// other: rows, report, download. It ends after its time, when the file is full, with `stop`, `cancel` or `DELETE`. Off until the operator turns it on here
/// (`WEIR_LIVE_CAPTURES`) and on the host (`WEIR_CAPTURE_ON_DEMAND`). Each request is in the table `audit`.
#[utoipa::path(
    post, path = "/api/v1/captures/live", tag = "captures", request_body = LiveCapture,
    responses((status = 202, description = "It is being recorded", body = CaptureStatus,
        headers(("Location" = String, description = "Where its state is"))))
)]
pub(in crate::routes) async fn record(State(app): State<Arc<App>>, request: Request) -> Result<Response, Error> {
    let owner = owner(&request);
    if !app.config.live_captures {
        tracing::warn!(client = owner, "packets were to be recorded, and that is off");
        metrics::recording("off", 0);
        return Err(Error::LiveCapturesOff);
    }
    let crate::extract::Json(body) = crate::extract::Json::from_request(request, &()).await?;
    let wanted = checked(&app, body)?;
    app.bus()?;
    app.rates.take(&owner, Instant::now())?;
    // To its end also when the client goes away: what a host records has a state.
    let task = tokio::spawn(async move { captures::record(&app, &wanted, &owner).await });
    let capture = CaptureStatus::from(&task.await.map_err(Error::internal)??);
    let location = format!("/api/v1/captures/{}", capture.capture_id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(capture)).into_response())
}

/// End a recording
///
/// What it has so far is kept and analysed. `cancel` and `DELETE` keep nothing.
#[utoipa::path(
    post, path = "/api/v1/captures/{capture_id}/stop", tag = "captures", params(("capture_id" = uuid::Uuid, Path)),
    responses((status = 202, description = "It will end", body = CaptureStatus))
)]
pub(in crate::routes) async fn stop(
    State(app): State<Arc<App>>,
    Segment(text): Segment,
) -> Result<(StatusCode, Json<CaptureStatus>), Error> {
    let changed = captures::stop(&app, id(&text)?).await?.ok_or_else(|| no_capture(&text))?;
    Ok((StatusCode::ACCEPTED, Json(CaptureStatus::from(&changed))))
}

fn checked(app: &App, body: LiveCapture) -> Result<Wanted, Error> {
    let LiveCapture { host, filter, duration_seconds, max_bytes, snap_length, name } = body;
    if host.trim().is_empty() || host.len() > MAX_HOST || host.chars().any(char::is_control) {
        return Err(Error::parameter("host", "this is no name of a host"));
    }
    match PacketFilter::read(&filter) {
        Ok(_) => {}
        Err(Unsupported::Filter(error)) => return Err(Error::Filter(error)),
        Err(error) => return Err(Error::parameter("filter", error.to_string())),
    }
    let most = app.config.live_capture_seconds;
    if !(1..=most).contains(&duration_seconds) {
        let reason = format!("this is from 1 to {most} (WEIR_LIVE_CAPTURE_SECONDS)");
        return Err(Error::parameter("duration_seconds", reason));
    }
    let most = app.config.live_capture_bytes.min(app.config.max_upload_bytes);
    let max_bytes = max_bytes.unwrap_or(most);
    if !(MIN_BYTES..=most).contains(&max_bytes) {
        let reason = format!("this is from {MIN_BYTES} to {most} (WEIR_LIVE_CAPTURE_BYTES)");
        return Err(Error::parameter("max_bytes", reason));
    }
    let name = Some(clean(name.as_deref().unwrap_or(""))).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| clean(&format!("{host}.pcapng")));
    Ok(Wanted { host, filter, seconds: duration_seconds, max_bytes, snap_length, name })
}
