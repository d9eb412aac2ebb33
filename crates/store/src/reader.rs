//! Queries: their values travel beside the SQL, their answers are streamed, and who goes away stops them.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use clickhouse::{Client, Compression, query::BytesCursor};
use futures::{Stream, TryStreamExt as _};
use serde::{Serialize, de::DeserializeOwned};

use crate::{DATABASE, Error, Options};

/// How long [`Reader::ping`] waits.
const PING: Duration = Duration::from_secs(5);

/// Asks `ClickHouse`. Cheap to clone; connections are pooled.
///
/// The user should be one that can only read (`readonly = 1`, `GRANT SELECT ON weir.*`) and whose profile has `final = 1`, so that the
/// tables of lives and captures give one row each, and `cancel_http_readonly_queries_on_client_close = 1`, so that a query ends when its
/// answer is dropped.
#[derive(Clone)]
pub struct Reader {
    client: Client,
}

impl Reader {
    /// A reader; connects when it is asked.
    #[must_use]
    pub fn connect(options: &Options) -> Self {
        // The answer is mostly passed on as it comes; compressing it for one hop costs more than it saves.
        Self { client: options.client().with_database(DATABASE).with_compression(Compression::None) }
    }

    /// Whether `ClickHouse` answers and knows the user.
    pub async fn ping(&self) -> Result<(), Error> {
        let ping = self.client.query_raw("SELECT 1").execute();
        tokio::time::timeout(PING, ping).await.map_err(|_| Error::TimedOut { seconds: PING.as_secs() })??;
        Ok(())
    }

    /// A query. Values from outside belong into parameters, never into the text: `WHERE host = {host:String}`.
    pub fn query(&self, sql: &str) -> Query {
        Query { inner: self.client.query_raw(sql) }
    }
}

/// A query that was not yet sent.
#[must_use]
pub struct Query {
    inner: clickhouse::query::Query,
}

impl Query {
    /// The value of `{name:Type}`: numbers, strings, options (none = NULL), `Vec`s of them.
    pub fn param(self, name: &str, value: impl Serialize) -> Self {
        Self { inner: self.inner.param(name, value) }
    }

    /// A setting of this query; the user's profile decides what may be set.
    pub fn setting(self, name: &str, value: &str) -> Self {
        Self { inner: self.inner.with_setting(name, value) }
    }

    /// The name of the query on the server, as `system.processes` shows it.
    pub fn id(self, query_id: &str) -> Self {
        self.setting("query_id", query_id)
    }

    /// Sends it and streams the answer in a format of `ClickHouse` (`JSONEachRow`, `CSVWithNames`, `Parquet`, ...) unless the SQL names one.
    ///
    /// Returns when the first bytes are there, so what fails before is an error here; what fails later is an error in the stream.
    /// Dropping the stream closes the connection.
    pub async fn stream(self, format: &str) -> Result<ResponseStream, Error> {
        let mut cursor = self.inner.fetch_bytes(format)?;
        let first = cursor.next().await?;
        Ok(ResponseStream { ahead: first.into_iter().collect(), cursor: Some(cursor) })
    }

    /// Sends it and decodes each row from a JSON object; 64-bit integers are numbers.
    pub async fn rows<T: DeserializeOwned>(self) -> Result<Vec<T>, Error> {
        let answer = self.setting("output_format_json_quote_64bit_integers", "0").stream("JSONEachRow").await?;
        let answer = answer.try_fold(Vec::new(), |mut all, bytes| async move {
            all.extend_from_slice(&bytes);
            Ok(all)
        });
        // A `String` of ClickHouse holds any bytes, and this format passes them on.
        let answer = answer.await?;
        let text = String::from_utf8_lossy(&answer);
        let rows = serde_json::Deserializer::from_str(&text).into_iter().collect::<Result<_, _>>()?;
        Ok(rows)
    }
}

/// The answer of a query in pieces, as they come. After an error it ends.
pub struct ResponseStream {
    ahead: VecDeque<Bytes>,
    cursor: Option<BytesCursor>,
}

impl Stream for ResponseStream {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(bytes) = self.ahead.pop_front() {
            return Poll::Ready(Some(Ok(bytes)));
        }
        let Some(cursor) = &mut self.cursor else { return Poll::Ready(None) };
        let polled = std::task::ready!(cursor.poll_next(context));
        Poll::Ready(match polled {
            Ok(Some(bytes)) => Some(Ok(bytes)),
            Ok(None) => {
                self.cursor = None;
                None
            }
            Err(error) => {
                self.cursor = None;
                Some(Err(error.into()))
            }
        })
    }
}
