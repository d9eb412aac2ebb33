//! Inserts that can be repeated: a block of rows counts once, however often it is inserted.
//!
//! The token of a block is the first line: `ClickHouse` remembers the tokens of a table's last inserts and ignores one that it knows. But a
//! server that is killed between the commit of a part and the note of its token forgets one of the two, so whoever repeats an insert
//! ([`Block::repeated`]) also asks the table which messages of the block it has, and inserts only the others.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use clickhouse::{Client, Row, insert_formatted::InsertFormatted};
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    DATABASE, Error, Options,
    native::{Columns, Mismatch, Pieces},
    rows::Table,
};

/// How long an insert may be stuck while rows are sent.
const SEND: Duration = Duration::from_secs(30);
/// How long the server may work on a block. One that takes longer is inserted again; the token keeps it single.
const ANSWER: Duration = Duration::from_mins(2);
/// How long [`Writer::ping`] waits.
const PING: Duration = Duration::from_secs(5);
/// How long the other statements may take.
const STATEMENT: Duration = Duration::from_mins(1);
/// Seconds of a day, which is a partition of the tables.
const DAY: u32 = 86_400;
/// More rows and bytes than a block ever has, so that the server keeps it whole: one insert, one part, all or nothing.
const WHOLE: &str = "1000000000";
/// Rows that are turned into columns at a time. The server joins these pieces again; larger ones cost more memory here than they save there.
const PIECE: usize = 16_384;
/// Bytes of them that are compressed and sent at a time.
const PART: usize = 1 << 20;
/// How often a table is asked again whether it has a block after it said that it took it.
const CHECKS: u32 = 3;

/// Tables with rows of captures.
const CAPTURE_TABLES: [&str; 5] = ["flows", "dns", "tls", "http", "findings"];

/// Writes the tables. Cheap to clone; connections are pooled.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    /// By table, as far as they were asked for.
    columns: Arc<Mutex<HashMap<&'static str, Arc<Columns>>>>,
}

/// What an insert belongs to.
#[derive(Clone, Debug)]
pub struct Block {
    /// Names the block for ever: `<stream>:<first>-<last>`.
    pub token: String,
    /// Whether an earlier attempt may have inserted it, all or in part.
    pub repeated: bool,
}

impl Writer {
    /// A writer; connects when it is used.
    #[must_use]
    pub fn connect(options: &Options) -> Self {
        let settings = [
            ("async_insert", "0"),
            ("insert_deduplicate", "1"),
            ("deduplicate_blocks_in_dependent_materialized_views", "1"),
            ("max_insert_threads", "1"),
            ("max_insert_block_size", WHOLE),
            ("min_insert_block_size_rows", WHOLE),
            ("min_insert_block_size_bytes", "10000000000"),
            ("type_json_skip_duplicated_paths", "1"),
            ("input_format_skip_unknown_fields", "0"),
        ];
        // Plain rows in answers: the schema's checksum says that the tables are those that the rows were written for.
        let client = options.client().with_database(DATABASE).with_validation(false);
        let client = settings.into_iter().fold(client, |client, (name, value)| client.with_setting(name, value));
        Self { client, columns: Arc::default() }
    }

    /// Whether `ClickHouse` answers and knows the user.
    pub async fn ping(&self) -> Result<(), Error> {
        within(PING, self.client.query_raw("SELECT 1").execute()).await
    }

    /// Inserts the rows of a block into their table, unless the table has them.
    ///
    /// Makes one attempt. After an error, whatever it is, it is not known what the table has: say so ([`Block::repeated`]) next time.
    pub async fn insert<'a, T: Table + 'a>(
        &self,
        rows: impl IntoIterator<Item = &'a T> + Send,
        block: &Block,
    ) -> Result<(), Error> {
        for (day, rows) in by_day(rows) {
            let token = format!("{}/{day}", block.token);
            match T::SEQUENCE_COLUMN {
                Some(column) if block.repeated => self.insert_missing(column, &rows, &token).await?,
                // Rows that replace each other may come twice; a token without its part would lose them.
                None if block.repeated => self.send(&rows, None).await?,
                _ => self.send(&rows, Some(&token)).await?,
            }
        }
        Ok(())
    }

    /// Deletes all rows of a capture but that of `captures` itself.
    pub async fn delete_capture(&self, capture_id: Uuid) -> Result<(), Error> {
        for table in CAPTURE_TABLES {
            let sql = format!("DELETE FROM {table} WHERE capture_id = {{id:UUID}}");
            let delete = self.client.query_raw(&sql).param("id", capture_id.to_string()).execute();
            within(STATEMENT, delete).await?;
        }
        Ok(())
    }

    /// Deletes the rows of a capture that came before a message of the stream.
    pub async fn delete_capture_before(&self, capture_id: Uuid, stream_sequence: u64) -> Result<(), Error> {
        for table in CAPTURE_TABLES {
            let sql =
                format!("DELETE FROM {table} WHERE capture_id = {{id:UUID}} AND stream_sequence < {{before:UInt64}}");
            let delete =
                self.client.query_raw(&sql).param("id", capture_id.to_string()).param("before", stream_sequence);
            within(STATEMENT, delete.execute()).await?;
        }
        Ok(())
    }

    /// Inserts those rows whose messages the table does not have, and looks again.
    async fn insert_missing<T: Table>(&self, column: &str, rows: &[&T], token: &str) -> Result<(), Error> {
        for check in 0..=CHECKS {
            let present = self.present(column, rows, token).await?;
            let missing: Vec<_> =
                rows.iter().copied().filter(|row| !present.contains(&row.stream_sequence())).collect();
            if missing.is_empty() {
                return Ok(());
            }
            // Only a token that is noted without its part brings us here a second time.
            let token = if check == 0 { token.to_owned() } else { format!("{token}/{check}") };
            self.send(&missing, Some(&token)).await?;
        }
        Err(Error::Partial { table: T::TABLE, block: token.to_owned(), expected: rows.len() as u64, found: 0 })
    }

    /// The messages whose rows the table has.
    async fn present<T: Table>(&self, column: &str, rows: &[&T], token: &str) -> Result<HashSet<u64>, Error> {
        #[derive(Row, Deserialize)]
        struct Present {
            sequence: u64,
            rows: u64,
        }
        let sequences = || rows.iter().map(|row| row.stream_sequence());
        let times = || rows.iter().map(|row| row.recorded_at());
        let sql = format!(
            "SELECT {column} AS sequence, count() AS rows FROM {table} \
             WHERE {column} BETWEEN {{first:UInt64}} AND {{last:UInt64}} AND recorded_at BETWEEN {{from:UInt32}} AND {{to:UInt32}} \
             GROUP BY sequence",
            table = T::TABLE
        );
        let query = self
            .client
            .query_raw(&sql)
            .param("first", sequences().min().unwrap_or_default())
            .param("last", sequences().max().unwrap_or_default())
            .param("from", times().min().unwrap_or_default())
            .param("to", times().max().unwrap_or_default());
        let present = within(STATEMENT, query.fetch_all::<Present>()).await?;
        let mut expected = HashMap::<u64, u64>::new();
        for sequence in sequences() {
            *expected.entry(sequence).or_default() += 1;
        }
        for &Present { sequence, rows: found } in &present {
            if let Some(&expected) = expected.get(&sequence)
                && expected != found
            {
                return Err(Error::Partial { table: T::TABLE, block: token.to_owned(), expected, found });
            }
        }
        Ok(present.into_iter().map(|present| present.sequence).collect())
    }

    async fn send<T: Table>(&self, rows: &[&T], token: Option<&str>) -> Result<(), Error> {
        let sent = self.send_pieces(rows, token).await;
        if sent.is_err() {
            // Another server may have other tables.
            self.known_columns().remove(T::TABLE);
        }
        sent
    }

    async fn send_pieces<T: Table>(&self, rows: &[&T], token: Option<&str>) -> Result<(), Error> {
        let columns = self.columns::<T>().await?;
        let mut pieces = Pieces::of(&columns);
        let mut insert = None;
        for rows in rows.chunks(PIECE) {
            for row in rows {
                pieces.add(*row).map_err(misfit)?;
            }
            let parts = pieces.take(PART).map_err(misfit)?;
            let insert = insert.get_or_insert_with(|| self.begin(T::TABLE, &pieces, token));
            for part in parts {
                insert.send(part.freeze()).await.map_err(timed_out)?;
            }
        }
        match insert {
            Some(insert) => insert.end().await.map_err(timed_out),
            None => Ok(()),
        }
    }

    /// Begins an insert. It names its columns, so that the server refuses those that the table does not have.
    fn begin(&self, table: &str, pieces: &Pieces<'_>, token: Option<&str>) -> InsertFormatted {
        let names: Vec<_> = pieces.names().map(|name| format!("`{name}`")).collect();
        let sql = format!("INSERT INTO `{table}` ({}) FORMAT Native", names.join(", "));
        let insert = self.client.insert_formatted_with(sql).with_timeouts(Some(SEND), Some(ANSWER));
        match token {
            Some(token) => insert.with_setting("insert_deduplication_token", token),
            None => insert,
        }
    }

    /// The columns of a table.
    async fn columns<T: Table>(&self) -> Result<Arc<Columns>, Error> {
        #[derive(Deserialize)]
        struct Described {
            name: String,
            #[serde(rename = "type")]
            of: String,
        }
        if let Some(columns) = self.known_columns().get(T::TABLE) {
            return Ok(Arc::clone(columns));
        }
        let sql = format!("DESCRIBE TABLE {}", T::TABLE);
        let mut answer = self.client.query_raw(&sql).fetch_bytes("JSONEachRow")?;
        let answer = within(STATEMENT, answer.collect()).await?;
        let lines = answer.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let described = lines.map(serde_json::from_slice).collect::<Result<Vec<Described>, _>>()?;
        let columns = Columns::new(described.into_iter().map(|Described { name, of }| (name, of)));
        let columns = Arc::new(columns.map_err(misfit)?);
        self.known_columns().insert(T::TABLE, Arc::clone(&columns));
        Ok(columns)
    }

    fn known_columns(&self) -> MutexGuard<'_, HashMap<&'static str, Arc<Columns>>> {
        self.columns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rows by day: an insert of one partition is one part, which is there or not.
fn by_day<'a, T: Table>(rows: impl IntoIterator<Item = &'a T>) -> Vec<(u32, Vec<&'a T>)> {
    let mut days: Vec<(u32, Vec<&T>)> = Vec::new();
    for row in rows {
        let day = row.recorded_at() / DAY;
        match days.iter_mut().find(|(known, _)| *known == day) {
            Some((_, rows)) => rows.push(row),
            None => days.push((day, vec![row])),
        }
    }
    days
}

fn misfit(error: Mismatch) -> Error {
    Error::Client(clickhouse::error::Error::InvalidParams(Box::new(error)))
}

fn timed_out(error: clickhouse::error::Error) -> Error {
    match error {
        clickhouse::error::Error::TimedOut => Error::TimedOut { seconds: ANSWER.as_secs() },
        other => other.into(),
    }
}

async fn within<T>(limit: Duration, operation: impl Future<Output = clickhouse::error::Result<T>>) -> Result<T, Error> {
    let result = tokio::time::timeout(limit, operation).await;
    Ok(result.map_err(|_| Error::TimedOut { seconds: limit.as_secs() })??)
}
