//! What can go wrong with a request, and the one place where it becomes HTTP.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// Why a request was not answered as asked. Each has a stable `type` (see [`Error::describe`]).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A parameter in the path or the query.
    #[error("{reason}")]
    Parameter {
        /// Its name; empty where the request does not tell.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The body is not what the operation takes.
    #[error("{0}")]
    Body(String),
    /// The filter does not parse.
    #[error("{0}")]
    Filter(#[from] weir_filter::Error),
    /// The body's media type.
    #[error("{0}")]
    MediaType(String),
    /// More than may be sent.
    #[error("{what} may have at most {limit} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it may be.
        limit: u64,
    },
    /// No such path.
    #[error("there is nothing at this path; /api/v1/openapi.json lists what there is")]
    NoRoute,
    /// No such thing.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// capture, container
        what: &'static str,
        /// As it was asked for.
        name: String,
    },
    /// More than one thing has this name.
    #[error("more than one container is called {0:?}: use its id")]
    Ambiguous(String),
    /// The path has other methods.
    #[error("this path does not take this method; the header Allow says which it takes")]
    Method,
    /// No or a wrong token.
    #[error("this needs the header Authorization: Bearer with the token of WEIR_API_TOKEN")]
    Unauthorized,
    /// A Host header that is not ours: DNS rebinding, or a name that was not allowed.
    #[error("this API is not known as {0:?}; allow the name with WEIR_ALLOWED_HOSTS, or set WEIR_API_TOKEN")]
    Host(String),
    /// A web page of another origin.
    #[error("a page of {0:?} may not change anything here")]
    Origin(String),
    /// The SQL is refused before it runs.
    #[error("{0}")]
    Sql(#[from] crate::sql::Refused),
    /// `ClickHouse` refuses or gives up.
    #[error("{}", server_message(.0))]
    Query(weir_store::Error),
    /// The query took too long.
    #[error("the query did not end within {seconds} s: ask for a shorter time, fewer columns or a smaller LIMIT")]
    QueryTime {
        /// What it may take.
        seconds: u64,
    },
    /// An upload without a byte.
    #[error("the upload is empty")]
    EmptyUpload,
    /// The sender went away, or stood still.
    #[error("the upload broke off after {bytes} bytes: {reason}; nothing of it was kept")]
    BrokenUpload {
        /// What had come.
        bytes: u64,
        /// Why it ended.
        reason: String,
    },
    /// Not a format that is read.
    #[error("this is no pcap or pcapng, plain or in gzip, zstd, lz4 or xz: it begins with {0}")]
    NotACapture(String),
    /// The report is not there yet.
    #[error("the capture is {state}: its report is there when it is done")]
    NotReady {
        /// queued, running, failed
        state: &'static str,
    },
    /// Its time is over.
    #[error("the capture has expired: its file, its rows and its report are gone")]
    Expired,
    /// There is nothing to end.
    #[error("the capture is {state}: there is nothing to cancel")]
    HasEnded {
        /// done, failed
        state: &'static str,
    },
    /// It is being analysed.
    #[error("the capture is {state}: wait for its end, or cancel it, before it is analysed again")]
    InHand {
        /// queued, running
        state: &'static str,
    },
    /// The operator has not turned it on.
    #[error(
        "recording packets is off here: the operator turns it on with WEIR_LIVE_CAPTURES=true, and on the host with WEIR_CAPTURE_ON_DEMAND=true"
    )]
    LiveCapturesOff,
    /// Nobody listens on the host's subject.
    #[error("no capture of a host {0:?} takes orders: it is not there, or WEIR_CAPTURE_ON_DEMAND is off on it")]
    NoSuchHost(String),
    /// It takes the question and says nothing.
    #[error("the capture of host {0:?} did not answer in time")]
    HostSilent(String),
    /// One recording at a time.
    #[error("host {0:?} records already: wait for its end, or stop it")]
    HostBusy(String),
    /// The host says no.
    #[error("host {host:?} refuses: {reason}")]
    HostRefused {
        /// Its name.
        host: String,
        /// What it says.
        reason: String,
    },
    /// There is nothing to stop.
    #[error("the capture is not being recorded: there is nothing to stop")]
    NotRecording,
    /// The report has a form that this version does not read.
    #[error("the report was made by another version: have the capture analysed again")]
    ReportVersion,
    /// One client has as much as one may have.
    #[error("{what}: delete some captures, or raise {option}")]
    Quota {
        /// How much there is, and how much there may be.
        what: String,
        /// The variable with the limit.
        option: &'static str,
    },
    /// One client uploads too often.
    #[error("this client may upload {per_hour} captures in an hour (WEIR_UPLOADS_PER_HOUR): try again in {seconds} s")]
    UploadRate {
        /// How many.
        per_hour: u32,
        /// Seconds until it may upload the next one.
        seconds: u64,
    },
    /// No worker answers.
    #[error("no pcap-worker is there to read the capture: try again in a moment")]
    NoWorker,
    /// The worker could not do it.
    #[error("the packets cannot be read: {0}")]
    Carving(String),
    /// The filter means too much.
    #[error("the filter means more than {limit} flows: ask for a narrower one, or for a time range without a filter")]
    TooManyFlows {
        /// How many there may be.
        limit: usize,
    },
    /// No room for more captures.
    #[error("there is no room for another capture: delete some, or raise WEIR_UPLOADS_MAX_BYTES")]
    StoreFull(#[source] weir_bus::Error),
    /// As many as may are at work already.
    #[error("{what} in hand are as many as may be: try again in a moment")]
    Overloaded {
        /// queries, uploads, requests
        what: &'static str,
    },
    /// `ClickHouse` is away.
    #[error("ClickHouse is not reachable: try again in a moment")]
    ClickHouseAway(#[source] weir_store::Error),
    /// NATS is away.
    #[error("NATS is not reachable: try again in a moment")]
    NatsAway(#[source] Option<weir_bus::Error>),
    /// A defect of Weir.
    #[error("something is wrong here, and the log says what")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// An error as RFC 9457 describes it, `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Stable, for programs: `urn:weir:problem:...`
    #[serde(rename = "type")]
    #[schema(example = "urn:weir:problem:not-found")]
    pub kind: String,
    /// What kind of problem it is, for people
    pub title: &'static str,
    /// The HTTP status
    pub status: u16,
    /// What happened this time
    pub detail: String,
    /// The parameter that is wrong
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
    /// Where the filter is wrong: characters before it
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// The exception of `ClickHouse`, for example `UNKNOWN_IDENTIFIER`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
}

/// What an error is in HTTP: the end of its type, its status, its title.
pub(crate) type Description = (&'static str, StatusCode, &'static str);

impl Error {
    /// The one map from errors to HTTP.
    #[must_use]
    pub(crate) fn describe(&self) -> Description {
        use StatusCode as S;
        match self {
            Self::Parameter { .. } => ("invalid-parameter", S::BAD_REQUEST, "a parameter is wrong"),
            Self::Body(_) => ("invalid-body", S::UNPROCESSABLE_ENTITY, "the body is not what this takes"),
            Self::Filter(_) => ("invalid-filter", S::BAD_REQUEST, "the filter cannot be read"),
            Self::MediaType(_) => ("unsupported-media-type", S::UNSUPPORTED_MEDIA_TYPE, "the media type is wrong"),
            Self::TooLarge { .. } => ("too-large", S::PAYLOAD_TOO_LARGE, "too large"),
            Self::NoRoute => ("no-such-path", S::NOT_FOUND, "no such path"),
            Self::NotFound { .. } => ("not-found", S::NOT_FOUND, "not found"),
            Self::Ambiguous(_) => ("ambiguous", S::CONFLICT, "more than one fits"),
            Self::Method => ("method-not-allowed", S::METHOD_NOT_ALLOWED, "no such method here"),
            Self::Unauthorized => ("unauthorized", S::UNAUTHORIZED, "a token is needed"),
            Self::Host(_) => ("unknown-host", S::MISDIRECTED_REQUEST, "not known by this name"),
            Self::Origin(_) => ("cross-origin", S::FORBIDDEN, "a page of another origin"),
            Self::Sql(refused) => refused.describe(),
            Self::Query(error) => describe_query(error),
            Self::QueryTime { .. } => LIMIT,
            Self::EmptyUpload => ("empty-upload", S::BAD_REQUEST, "the upload is empty"),
            Self::BrokenUpload { .. } => ("upload-broken-off", S::BAD_REQUEST, "the upload broke off"),
            Self::NotACapture(_) => ("not-a-capture", S::UNSUPPORTED_MEDIA_TYPE, "not a capture"),
            Self::NotReady { .. } => ("capture-not-ready", S::NOT_FOUND, "not there yet"),
            Self::Expired => ("capture-expired", S::GONE, "kept no longer"),
            Self::HasEnded { .. } => ("capture-has-ended", S::CONFLICT, "nothing to cancel"),
            Self::InHand { .. } => ("capture-in-hand", S::CONFLICT, "not at an end yet"),
            Self::LiveCapturesOff => ("live-captures-off", S::FORBIDDEN, "not turned on"),
            Self::NoSuchHost(_) => ("no-such-host", S::NOT_FOUND, "no such host"),
            Self::HostSilent(_) => ("host-silent", S::GATEWAY_TIMEOUT, "the host does not answer"),
            Self::HostBusy(_) => ("host-busy", S::CONFLICT, "the host records already"),
            Self::HostRefused { .. } => ("host-refused", S::UNPROCESSABLE_ENTITY, "the host refuses"),
            Self::NotRecording => ("not-recording", S::CONFLICT, "nothing to stop"),
            Self::ReportVersion => ("report-version", S::CONFLICT, "a report of another version"),
            Self::Quota { .. } => ("capture-quota", S::INSUFFICIENT_STORAGE, "as much as one client may have"),
            Self::UploadRate { .. } => ("upload-rate", S::TOO_MANY_REQUESTS, "too many uploads"),
            Self::NoWorker => ("no-worker", S::SERVICE_UNAVAILABLE, "nobody can read captures"),
            Self::Carving(_) => ("carving-failed", S::INTERNAL_SERVER_ERROR, "the packets cannot be read"),
            Self::TooManyFlows { .. } => ("too-many-flows", S::UNPROCESSABLE_ENTITY, "the filter means too much"),
            Self::StoreFull(_) => ("no-room", S::INSUFFICIENT_STORAGE, "no room left"),
            Self::Overloaded { .. } => ("overloaded", S::SERVICE_UNAVAILABLE, "too much at one time"),
            Self::ClickHouseAway(_) => ("clickhouse-away", S::SERVICE_UNAVAILABLE, "ClickHouse is away"),
            Self::NatsAway(_) => ("nats-away", S::SERVICE_UNAVAILABLE, "NATS is away"),
            Self::Internal(_) => ("internal", S::INTERNAL_SERVER_ERROR, "a defect"),
        }
    }

    /// The body of the answer.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (kind, status, title) = self.describe();
        Problem {
            kind: format!("urn:weir:problem:{kind}"),
            title,
            status: status.as_u16(),
            detail: self.to_string(),
            parameter: match self {
                Self::Parameter { name, .. } if !name.is_empty() => Some(name.clone()),
                _ => None,
            },
            position: match self {
                Self::Filter(error) => Some(error.position),
                _ => None,
            },
            exception: match self {
                Self::Query(weir_store::Error::Server { name, .. }) if !name.is_empty() => Some(name.clone()),
                _ => None,
            },
        }
    }

    /// A parameter that is wrong.
    pub fn parameter(name: &str, reason: impl Into<String>) -> Self {
        Self::Parameter { name: name.to_owned(), reason: reason.into() }
    }

    /// A defect of Weir.
    pub fn internal(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(source.into())
    }

    /// What an error means where the SQL is ours: it is not the fault of who asks, but for the limits and the patterns in a filter.
    pub(crate) fn of_typed(error: weir_store::Error) -> Self {
        match error.code() {
            // CANNOT_COMPILE_REGEXP
            427 => Self::Filter(weir_filter::Error::at(0, "a regular expression after ~ cannot be read")),
            // UNKNOWN_TABLE: Weir's tables are not there yet.
            60 => Self::ClickHouseAway(error),
            _ => match Self::from(error) {
                Self::Query(error) if describe_query(&error).1.is_client_error() && describe_query(&error) != LIMIT => {
                    Self::internal(error)
                }
                error => error,
            },
        }
    }

    fn retry_after(&self) -> Option<HeaderValue> {
        if let Self::UploadRate { seconds, .. } = self {
            return Some(HeaderValue::from(*seconds));
        }
        match self.describe().1 {
            StatusCode::SERVICE_UNAVAILABLE => Some(HeaderValue::from_static("2")),
            StatusCode::TOO_MANY_REQUESTS => Some(HeaderValue::from_static("30")),
            _ => None,
        }
    }
}

const LIMIT: Description = ("query-limit", StatusCode::UNPROCESSABLE_ENTITY, "the query exceeds a limit");

/// What the exceptions of `ClickHouse` mean for who asked (codes as in `system.errors`).
fn describe_query(error: &weir_store::Error) -> Description {
    use StatusCode as S;
    match error.code() {
        62 | 381 => ("sql-syntax", S::BAD_REQUEST, "the SQL cannot be read"),
        // Tables and columns, settings, table functions, other servers.
        164 | 291 | 392 | 452 | 497 => ("sql-access-denied", S::FORBIDDEN, "the SQL asks for what it may not have"),
        // Arguments out of bounds, sizes of arrays and strings; time, rows, bytes, memory, depth and size of the statement, sets, ...
        69 | 128 | 131 | 158..=162 | 167 | 168 | 173 | 191 | 241 | 290 | 306 | 307 | 396 | 439 => LIMIT,
        201 => ("quota", S::TOO_MANY_REQUESTS, "too many queries"),
        202 => ("overloaded", S::SERVICE_UNAVAILABLE, "too much at one time"),
        _ => ("sql-failed", S::BAD_REQUEST, "the SQL cannot be answered"),
    }
}

fn server_message(error: &weir_store::Error) -> String {
    match error {
        weir_store::Error::Server { message, .. } => {
            let advice = if describe_query(error) == LIMIT {
                ": ask for a shorter time, fewer columns or a smaller LIMIT"
            } else {
                ""
            };
            format!("{}{advice}", message.chars().take(2000).collect::<String>())
        }
        other => other.to_string(),
    }
}

impl From<weir_store::Error> for Error {
    fn from(error: weir_store::Error) -> Self {
        match error {
            // The database is missing; the user does not exist or has another password.
            weir_store::Error::Server { code: 81 | 192 | 193 | 194 | 516, .. }
            | weir_store::Error::Unavailable(_)
            | weir_store::Error::TimedOut { .. } => Self::ClickHouseAway(error),
            weir_store::Error::Server { .. } => Self::Query(error),
            other => Self::internal(other),
        }
    }
}

impl From<weir_bus::Error> for Error {
    fn from(error: weir_bus::Error) -> Self {
        match error {
            weir_bus::Error::Unavailable { .. } | weir_bus::Error::Stopped => Self::NatsAway(Some(error)),
            other => Self::internal(other),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let problem = self.problem();
        let status = self.describe().1;
        if status.is_server_error() {
            tracing::warn!(error = &self as &dyn std::error::Error, problem = problem.kind, "a request failed");
        }
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, seconds);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The media type of RFC 9457.
pub const PROBLEM_JSON: &str = "application/problem+json";
