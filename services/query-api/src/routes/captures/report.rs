//! The report of a capture, in the form that is asked for.

use tokio::io::AsyncReadExt as _;
use weir_bus::{Error as BusError, names};
use weir_report::{Comparison, Report, Table, VERSION};

use super::{
    App, Arc, CaptureState, Deserialize, Error, HeaderMap, IntoParams, IntoResponse, Parameters, Response, Segment,
    State, Stored, ToSchema, captures, file_name, find, header, state_of, stream,
};

/// The largest report that is read here.
const MAX_BYTES: u64 = 64 << 20;
/// A page that comes from here runs nothing and loads nothing, whatever a stranger has put into a capture.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; sandbox";

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in crate::routes) struct ReportParameters {
    /// `json`, `html`, `markdown`, `csv`; what `Accept` prefers when absent, else `json`
    format: Option<ReportFormat>,
    /// Another capture: what is different now from what was in that one
    compare: Option<String>,
    /// Of `csv`: `findings`, `talkers`, `conversations`, `services`, `timeline`, `domains`, `health`
    #[serde(default)]
    table: Table,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::routes) enum ReportFormat {
    /// For programs; `docs/reference/report.schema.json` describes it
    Json,
    /// A page of its own: no script, nothing from elsewhere, good on paper
    Html,
    /// For tickets
    Markdown,
    /// One table
    Csv,
}

impl ReportFormat {
    const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Html => "text/html; charset=utf-8",
            Self::Markdown => "text/markdown; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    /// What the client likes best of what there is (RFC 9110, section 12.5.1).
    fn accepted(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("*/*");
        let mut best = (0.0, Self::Json);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next().unwrap_or("").to_ascii_lowercase().as_str() {
                "text/html" | "application/xhtml+xml" => Self::Html,
                "text/markdown" | "text/plain" => Self::Markdown,
                "text/csv" => Self::Csv,
                "application/json" | "application/*" | "*/*" => Self::Json,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f64>().ok()).unwrap_or(1.0);
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }
}

/// The report of a capture
///
/// A problem of the type `urn:weir:problem:capture-not-ready` says that the capture is not done, `capture-expired` (410) that it was.
#[utoipa::path(
    get, path = "/api/v1/captures/{capture_id}/report", tag = "captures",
    params(("capture_id" = uuid::Uuid, Path), ReportParameters),
    responses((status = 200, description = "What the analysis found; with `compare` a `Comparison`", content(
        (Report = "application/json"), (String = "text/html"), (String = "text/markdown"), (String = "text/csv"),
    )))
)]
pub(in crate::routes) async fn report(
    State(app): State<Arc<App>>,
    Segment(id): Segment,
    Parameters(parameters): Parameters<ReportParameters>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let format = parameters.format.unwrap_or_else(|| ReportFormat::accepted(&headers));
    let stored = done(&app, &id).await?;
    let body = match parameters.compare {
        Some(other) => {
            let before = read(&app, &done(&app, &other).await?, other).await?;
            compared(&Comparison::new(&before, &read(&app, &stored, id).await?), format)?
        }
        // As it is stored, whatever its version.
        None if format == ReportFormat::Json => stream(open(&app, &stored, id).await?).into_response(),
        None => written(&read(&app, &stored, id).await?, format, parameters.table).into_response(),
    };
    let name = format!("{}.{}", file_name(&stored), if format == ReportFormat::Csv { "csv" } else { "md" });
    let mut response = body;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(format.media_type()));
    headers.insert(header::VARY, header::HeaderValue::from_static("accept"));
    if format == ReportFormat::Html {
        headers.insert(header::CONTENT_SECURITY_POLICY, header::HeaderValue::from_static(POLICY));
    } else if format != ReportFormat::Json
        && let Ok(disposition) = header::HeaderValue::from_str(&format!("attachment; filename=\"{name}\""))
    {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    Ok(response)
}

fn written(report: &Report, format: ReportFormat, table: Table) -> String {
    match format {
        ReportFormat::Html => weir_report::html(report),
        ReportFormat::Csv => weir_report::csv(report, table),
        ReportFormat::Markdown | ReportFormat::Json => weir_report::markdown(report),
    }
}

fn compared(comparison: &Comparison, format: ReportFormat) -> Result<Response, Error> {
    match format {
        ReportFormat::Json => Ok(serde_json::to_string(comparison).map_err(Error::internal)?.into_response()),
        ReportFormat::Html => Ok(weir_report::comparison_html(comparison).into_response()),
        ReportFormat::Markdown => Ok(weir_report::comparison_markdown(comparison).into_response()),
        ReportFormat::Csv => Err(Error::parameter("format", "a comparison is json, html or markdown")),
    }
}

/// A capture that has a report.
async fn done(app: &App, id: &str) -> Result<Stored, Error> {
    let stored = find(app, id).await?;
    match state_of(&stored) {
        CaptureState::Done => Ok(stored),
        CaptureState::Expired => Err(Error::Expired),
        state => Err(Error::NotReady { state: state.name() }),
    }
}

async fn open(app: &App, stored: &Stored, id: String) -> Result<weir_bus::ObjectReader, Error> {
    let name = captures::report_name(captures::id_of(stored));
    match app.objects(names::ARTIFACTS).await?.get(&name).await {
        Ok(object) => Ok(object),
        Err(BusError::NoObject { .. }) => Err(Error::NotFound { what: "report of capture", name: id }),
        Err(error) => Err(error.into()),
    }
}

async fn read(app: &App, stored: &Stored, id: String) -> Result<Report, Error> {
    let mut json = Vec::new();
    open(app, stored, id).await?.take(MAX_BYTES).read_to_end(&mut json).await.map_err(Error::internal)?;
    match serde_json::from_slice::<Report>(&json) {
        Ok(report) if report.version == VERSION => Ok(report),
        _ => Err(Error::ReportVersion),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_gets_a_page_and_a_program_json() {
        let accepted = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            ReportFormat::accepted(&headers)
        };
        assert_eq!(accepted("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), ReportFormat::Html);
        assert_eq!(accepted("*/*"), ReportFormat::Json);
        assert_eq!(accepted("text/csv;q=0.5, text/markdown"), ReportFormat::Markdown);
        assert_eq!(accepted("image/png"), ReportFormat::Json);
        assert_eq!(ReportFormat::accepted(&HeaderMap::new()), ReportFormat::Json);
    }
}
