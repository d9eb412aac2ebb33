//! SQL.

use std::{collections::BTreeMap, io, pin::Pin, sync::Arc, task::Poll, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use serde::{Deserialize, Serialize};
use tokio::{sync::OwnedSemaphorePermit, time::Sleep};
use utoipa::ToSchema;
use weir_store::ResponseStream;

use crate::{App, Error, extract, metrics, sql};

/// The largest description of a statement that is read.
const MAX_TREE_BYTES: usize = 64 << 20;
/// How long a client may take to read its answer, as a multiple of the time that the query may take.
const READING: u32 = 10;

/// A question.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    /// One statement that reads: `SELECT`, `WITH`, `EXPLAIN`, `DESCRIBE`, `SHOW TABLES`
    #[schema(
        example = "SELECT dst_port, sum(tx_bytes + rx_bytes) AS bytes FROM flows WHERE host = {host:String} GROUP BY dst_port ORDER BY bytes DESC LIMIT 10"
    )]
    sql: String,
    /// Values for `{name:Type}` in the statement: strings, numbers, booleans, null, lists of them
    #[serde(default)]
    #[schema(value_type = Object, example = json!({"host": "server-1"}))]
    params: BTreeMap<String, serde_json::Value>,
    /// The form of the answer
    #[serde(default)]
    format: Format,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Format {
    /// One object with `meta` (names and types), `data` (rows as objects), `rows` and statistics
    #[default]
    Json,
    /// An object a line
    Ndjson,
    /// RFC 4180, the first line holds the names
    Csv,
    /// Apache Parquet
    Parquet,
    /// Apache Arrow IPC stream
    Arrow,
}

impl Format {
    /// The name that `ClickHouse` has for it, and the media type.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Json => ("JSON", "application/json"),
            Self::Ndjson => ("JSONEachRow", "application/x-ndjson"),
            Self::Csv => ("CSVWithNames", "text/csv; charset=utf-8"),
            Self::Parquet => ("Parquet", "application/vnd.apache.parquet"),
            Self::Arrow => ("ArrowStream", "application/vnd.apache.arrow.stream"),
        }
    }
}

/// Ask in SQL
///
/// Reads the tables of Weir as a user that can only read, within limits of time, memory, rows and bytes. Functions that reach files, the
/// network or the server itself are refused. The answer streams; when the query fails in its middle the connection is closed before the
/// end of the body, so that a part is not taken for the whole. A client that goes away ends its query.
#[utoipa::path(
    post, path = "/api/v1/query", tag = "query",
    request_body = Question,
    responses((status = 200, description = "The answer in the form that was asked for", content(
        (serde_json::Value = "application/json"),
        (String = "application/x-ndjson"),
        (String = "text/csv"),
        (Vec<u8> = "application/vnd.apache.parquet"),
        (Vec<u8> = "application/vnd.apache.arrow.stream"),
    )))
)]
pub(super) async fn query(
    State(app): State<Arc<App>>,
    extract::Json(question): extract::Json<Question>,
) -> Result<Response, Error> {
    let statement = sql::prepare(&question.sql).map_err(refused)?;
    check_names(&question.params)?;
    let place = app.query_place()?;
    let time = app.config.query_time();
    // ClickHouse itself stops after this time; where it does not, this does.
    let answer = tokio::time::timeout(time + Duration::from_secs(2), run(&app, statement, &question)).await;
    let answer = answer.map_err(|_| Error::QueryTime { seconds: time.as_secs() })??;
    let (_, media_type) = question.format.names();
    let body = Body::from_stream(Answer::new(answer, place, time * READING));
    Ok(([(header::CONTENT_TYPE, media_type)], body).into_response())
}

async fn run(app: &App, statement: &str, question: &Question) -> Result<ResponseStream, Error> {
    let tree = describe(app, statement, &question.params).await?;
    sql::check(statement, tree.iter().map(|line| line.explain.as_str())).map_err(refused)?;
    let (format, _) = question.format.names();
    let query = with_params(app.reader.query(statement), &question.params)
        .setting("max_execution_time", &app.config.query_seconds.max(1).to_string())
        .setting("date_time_output_format", "iso");
    Ok(query.stream(format).await?)
}

/// One line of `EXPLAIN AST`.
#[derive(Deserialize)]
struct Line {
    explain: String,
}

/// Lets `ClickHouse` parse the statement, and nothing more.
async fn describe(
    app: &App,
    statement: &str,
    params: &BTreeMap<String, serde_json::Value>,
) -> Result<Vec<Line>, Error> {
    let query = with_params(app.reader.query(&format!("EXPLAIN AST {statement}")), params);
    let mut stream = query.stream("JSONEachRow").await?;
    let mut lines = Vec::new();
    while let Some(bytes) = stream.try_next().await? {
        if lines.len() + bytes.len() > MAX_TREE_BYTES {
            return Err(refused(sql::Refused::TooLarge));
        }
        lines.extend_from_slice(&bytes);
    }
    let unreadable = |_| refused(sql::Refused::Unreadable("the engine does not describe it"));
    serde_json::Deserializer::from_slice(&lines).into_iter().collect::<Result<_, _>>().map_err(unreadable)
}

fn refused(refused: sql::Refused) -> Error {
    metrics::refused(refused.describe().0);
    refused.into()
}

fn check_names(params: &BTreeMap<String, serde_json::Value>) -> Result<(), Error> {
    for (name, value) in params {
        let named = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.is_empty();
        if !named || name.starts_with(|c: char| c.is_ascii_digit()) {
            let name: String = name.chars().take(60).collect();
            return Err(Error::Body(format!("params: {name:?} is no name: letters, digits and _")));
        }
        let flat = |value: &serde_json::Value| !value.is_object() && !value.is_array();
        let list = value.as_array().is_some_and(|items| items.iter().all(|item| flat(item) && !item.is_null()));
        if !flat(value) && !list {
            return Err(Error::Body(format!("params: {name} is no string, number, boolean, null or list of them")));
        }
    }
    Ok(())
}

fn with_params(mut query: weir_store::Query, params: &BTreeMap<String, serde_json::Value>) -> weir_store::Query {
    for (name, value) in params {
        query = match value {
            serde_json::Value::Null => query.param(name, None::<u8>),
            value => query.param(name, value),
        };
    }
    query
}

/// What `ClickHouse` puts at the end of an answer that it could not finish.
const EXCEPTION: &[u8] = b"__exception__\r\n";

/// An answer on its way out. It holds the query's place, and ends in an error where the query does, which closes the connection.
struct Answer {
    stream: ResponseStream,
    _place: OwnedSemaphorePermit,
    until: Pin<Box<Sleep>>,
    /// The last bytes, as many as [`EXCEPTION`] has.
    tail: Vec<u8>,
    failed: bool,
}

impl Answer {
    fn new(stream: ResponseStream, place: OwnedSemaphorePermit, time: Duration) -> Self {
        let until = Box::pin(tokio::time::sleep(time));
        Self { stream, _place: place, until, tail: Vec::new(), failed: false }
    }

    fn fail(&mut self, reason: &'static str, error: &(dyn std::error::Error + 'static)) -> io::Result<Bytes> {
        self.failed = true;
        metrics::broken(reason);
        tracing::warn!(error, "an answer was broken off");
        Err(io::Error::other(reason))
    }

    fn remember(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(EXCEPTION.len())..]);
        self.tail.drain(..self.tail.len().saturating_sub(EXCEPTION.len()));
    }
}

impl Stream for Answer {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut std::task::Context<'_>) -> Poll<Option<Self::Item>> {
        if self.failed {
            return Poll::Ready(None);
        }
        if self.until.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(self.fail("client_too_slow", &io::Error::from(io::ErrorKind::TimedOut))));
        }
        Poll::Ready(match std::task::ready!(self.stream.poll_next_unpin(context)) {
            Some(Ok(bytes)) => {
                self.remember(&bytes);
                Some(Ok(bytes))
            }
            Some(Err(error)) => Some(self.fail("query_failed", &error)),
            None if self.tail == EXCEPTION => {
                Some(self.fail("query_failed", &io::Error::other("an exception in the answer")))
            }
            None => None,
        })
    }
}
