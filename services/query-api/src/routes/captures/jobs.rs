//! Ending an analysis, and doing it again.

use serde_json::{Map, Value};
use weir_flow::findings::Thresholds;

use super::{
    App, Arc, CaptureStatus, Deserialize, Error, Json, Segment, State, StatusCode, ToSchema, captures, id, no_capture,
};

/// End the analysis of a capture
///
/// The capture ends `failed` with the error `cancelled`: one that waits at once, one that a worker reads as soon as the worker has seen
/// it. Rows that were made of it are removed. Its file stays, and can be analysed again.
#[utoipa::path(
    post, path = "/api/v1/captures/{capture_id}/cancel", tag = "captures", params(("capture_id" = uuid::Uuid, Path)),
    responses((status = 202, description = "It ends, or has ended", body = CaptureStatus))
)]
pub(in crate::routes) async fn cancel(
    State(app): State<Arc<App>>,
    Segment(text): Segment,
) -> Result<(StatusCode, Json<CaptureStatus>), Error> {
    let id = id(&text)?;
    // To its end also when the client goes away.
    let task = tokio::spawn(async move { captures::cancel(&app, id).await });
    let changed = task.await.map_err(Error::internal)??.ok_or_else(|| no_capture(&text))?;
    Ok((StatusCode::ACCEPTED, Json(CaptureStatus::from(&changed))))
}

/// How a capture is analysed.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct Analysis {
    /// Thresholds of findings that are to differ from the defaults, as `docs/reference/findings.md` lists them
    #[serde(default)]
    #[schema(value_type = Object)]
    thresholds: Map<String, Value>,
}

/// Analyse a capture again
///
/// With other thresholds, or with a newer version. The rows, the findings and the report of the analysis before are replaced: the old
/// rows go before the first new one comes, so nothing counts twice at any time.
#[utoipa::path(
    post, path = "/api/v1/captures/{capture_id}/analyse", tag = "captures", params(("capture_id" = uuid::Uuid, Path)),
    request_body = Analysis,
    responses((status = 202, description = "It is queued", body = CaptureStatus))
)]
pub(in crate::routes) async fn analyse(
    State(app): State<Arc<App>>,
    Segment(text): Segment,
    crate::extract::Json(Analysis { thresholds }): crate::extract::Json<Analysis>,
) -> Result<(StatusCode, Json<CaptureStatus>), Error> {
    let thresholds = checked(thresholds)?;
    let id = id(&text)?;
    // To its end also when the client goes away: a capture that is queued has a job.
    let task = tokio::spawn(async move { captures::analyse_again(&app, id, &thresholds).await });
    let changed = task.await.map_err(Error::internal)??.ok_or_else(|| no_capture(&text))?;
    Ok((StatusCode::ACCEPTED, Json(CaptureStatus::from(&changed))))
}

/// As JSON; empty for none.
fn checked(thresholds: Map<String, Value>) -> Result<String, Error> {
    if thresholds.is_empty() {
        return Ok(String::new());
    }
    let json = Value::Object(thresholds).to_string();
    match Thresholds::from_json(json.as_bytes()) {
        Ok(_) => Ok(json),
        Err(error) => Err(Error::Body(weir_service::chain(&error))),
    }
}
