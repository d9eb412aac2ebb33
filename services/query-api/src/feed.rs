//! Rows as they come: one reader of a table for all who follow it.
//!
//! The reader asks `ClickHouse` twice a second for what came after the last row, as long as somebody follows. A follower that is new, was away
//! or is slow reads the table by itself from its own place on, so nobody misses a row and a slow one holds up nobody. A place names a row for
//! ever: when the stream stored its batch, the batch, and the how manieth row of it.

use std::{
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tracing::debug;

use crate::{App, Error};

/// How often the table is read.
const EVERY: Duration = Duration::from_millis(500);
/// The most rows of one reading; when there are more, followers read for themselves.
const MOST: usize = 10_000;
/// Readings that a follower may be behind before it reads for itself.
const BEHIND: usize = 32;
/// Rows that wait for a slow client.
const WAITING: usize = 256;

/// The place of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Seconds since 1970.
    pub(crate) at: u32,
    /// Of the batch in the stream.
    pub(crate) sequence: u64,
    /// Rows of the batch up to this one, among those that are followed.
    pub(crate) count: u32,
}

impl Place {
    /// The place of the row that follows, by its batch.
    pub(crate) fn next(self, at: u32, sequence: u64) -> Self {
        let same = (at, sequence) == (self.at, self.sequence);
        Self { at, sequence, count: if same { self.count + 1 } else { 1 } }
    }

    /// Behind the batch of the last row, of which there is no more.
    pub(crate) fn after_batch(self) -> Self {
        if self.count == 0 { self } else { Self { sequence: self.sequence + 1, count: 0, ..self } }
    }

    /// The batch behind which this is, of a place that is behind a batch.
    pub(crate) fn batch_before(self) -> (u32, u64) {
        (self.at, self.sequence.saturating_sub(1))
    }

    /// Whether it is more than so many seconds behind another.
    pub(crate) fn is_later_by(self, other: Self, seconds: u32) -> bool {
        self.at.saturating_sub(other.at) > seconds
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.at, self.sequence, self.count)
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::parameter("Last-Event-ID", "this is no id of an event of this stream");
        let mut parts = text.trim().splitn(3, '-');
        let mut part = || parts.next().ok_or_else(wrong);
        let (at, sequence, count) = (part()?, part()?, part()?);
        Ok(Self {
            at: at.parse().map_err(|_| wrong())?,
            sequence: sequence.parse().map_err(|_| wrong())?,
            count: count.parse().map_err(|_| wrong())?,
        })
    }
}

/// A row with where it stands.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Row {
    feed_at: u32,
    feed_sequence: u64,
    /// Whose it is.
    pub(crate) host: String,
    /// Whose it is; empty = of no container.
    pub(crate) container_id: String,
    /// The other columns.
    #[serde(flatten)]
    pub(crate) columns: Map<String, Value>,
}

/// What is followed: a container by host and id, or all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    pub(crate) container: Option<(String, String)>,
}

impl Scope {
    fn has(&self, row: &Row) -> bool {
        self.container.as_ref().is_none_or(|(host, id)| row.host == *host && row.container_id == *id)
    }
}

/// A table that can be followed.
#[derive(Debug)]
pub(crate) struct Feed {
    table: &'static str,
    columns: &'static str,
    /// What else orders rows of a batch.
    then: &'static str,
    readings: broadcast::Sender<Reading>,
    runs: Mutex<bool>,
    places: Arc<Semaphore>,
}

#[derive(Debug, Clone)]
enum Reading {
    Rows(Arc<Vec<Row>>),
    /// There are more than one reading takes.
    Gap,
}

impl Feed {
    /// `columns` besides host and id of the container; time, container and `then` order the rows of a batch.
    pub(crate) fn new(table: &'static str, columns: &'static str, then: &'static str, places: Arc<Semaphore>) -> Self {
        Self { table, columns, then, readings: broadcast::Sender::new(BEHIND), runs: Mutex::default(), places }
    }

    /// A place among the followers, or the answer that there are too many.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| Error::Overloaded { what: "followers" })
    }

    fn runs(&self) -> MutexGuard<'_, bool> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the table ends now: what comes after is new.
    pub(crate) async fn end(&self, app: &App) -> Result<Place, Error> {
        end(app, self.table).await
    }

    /// Up to [`MOST`] rows from a place on, and whether there may be more.
    async fn read(&self, app: &App, from: Place, scope: &Scope) -> Result<(Vec<Row>, bool), weir_store::Error> {
        let of = if scope.container.is_some() { "host = {host:String} AND container_id = {id:String} AND" } else { "" };
        let sql = format!(
            "SELECT toUnixTimestamp(recorded_at) AS feed_at, stream_sequence AS feed_sequence, host, container_id, {columns} \
             FROM {table} WHERE {of} recorded_at >= fromUnixTimestamp({{at:UInt32}}) \
             AND (recorded_at > fromUnixTimestamp({{at:UInt32}}) OR stream_sequence >= {{sequence:UInt64}}) \
             ORDER BY recorded_at, stream_sequence, time, container_id{then} LIMIT {MOST} OFFSET {count}",
            columns = self.columns,
            table = self.table,
            then = self.then,
            count = from.count,
        );
        let mut query = super::routes::typed(app, &sql).param("at", from.at).param("sequence", from.sequence);
        if let Some((host, id)) = &scope.container {
            query = query.param("host", host).param("id", id);
        }
        let rows = query.rows::<Row>().await?;
        let more = rows.len() == MOST;
        Ok((rows, more))
    }
}

/// Where a table ends now: what comes after is new.
pub(crate) async fn end(app: &App, table: &str) -> Result<Place, Error> {
    #[derive(Deserialize)]
    struct Newest {
        at: u32,
        sequence: u64,
    }
    let sql = format!(
        "SELECT toUnixTimestamp(newest.1) AS at, newest.2 AS sequence \
         FROM (SELECT max((recorded_at, stream_sequence)) AS newest FROM {table} WHERE recorded_at >= \
         (SELECT max(recorded_at) FROM {table}))"
    );
    let rows = app.reader.query(&sql).rows::<Newest>().await.map_err(Error::of_typed)?;
    let newest = rows.first().map_or((0, 0), |newest| (newest.at, newest.sequence));
    Ok(Place { at: newest.0, sequence: newest.1 + 1, count: 0 })
}

/// The rows of a feed from a place on, as they come; ends with the service, or when the receiver is dropped.
pub(crate) fn follow(
    app: &Arc<App>,
    feed: fn(&App) -> &Feed,
    from: Place,
    scope: Scope,
    permit: OwnedSemaphorePermit,
) -> mpsc::Receiver<(Place, Row)> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let readings = feed(app).readings.subscribe();
    let mut runs = feed(app).runs();
    if !*runs {
        *runs = true;
        tokio::spawn(read_for_all(Arc::clone(app), feed));
    }
    drop(runs);
    let follower = Follower { app: Arc::clone(app), feed, place: from, scope, sender, _permit: permit };
    let shutdown = app.shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = follower.run(readings) => {}
        }
    });
    receiver
}

/// Reads for all followers until there is none.
async fn read_for_all(app: Arc<App>, feed: fn(&App) -> &Feed) {
    let this = feed(&app);
    let mut place = None;
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            _ = every.tick() => {}
        }
        {
            let mut runs = this.runs();
            if this.readings.receiver_count() == 0 {
                *runs = false;
                return;
            }
        }
        place = read_once(&app, this, place).await;
    }
}

/// One reading; gives the place after it. `None` = where the table ends is not known (any more).
async fn read_once(app: &App, feed: &Feed, place: Option<Place>) -> Option<Place> {
    let Some(place) = place else {
        let end = feed.end(app).await.inspect_err(|error| debug!(%error, "the end of a feed is not known")).ok()?;
        // What came before the end was known is read by each follower itself.
        let _nobody = feed.readings.send(Reading::Gap);
        return Some(end);
    };
    match feed.read(app, place, &Scope::default()).await {
        Ok((_, true)) => None,
        Ok((rows, false)) => {
            let next = rows.last().map(|row| Place { at: row.feed_at, sequence: row.feed_sequence + 1, count: 0 });
            if !rows.is_empty() {
                let _nobody = feed.readings.send(Reading::Rows(Arc::new(rows)));
            }
            Some(next.unwrap_or(place))
        }
        Err(error) => {
            debug!(%error, "a feed is not read at the moment");
            Some(place)
        }
    }
}

struct Follower {
    app: Arc<App>,
    feed: fn(&App) -> &Feed,
    place: Place,
    scope: Scope,
    sender: mpsc::Sender<(Place, Row)>,
    _permit: OwnedSemaphorePermit,
}

impl Follower {
    async fn run(mut self, mut readings: broadcast::Receiver<Reading>) {
        let mut behind = true;
        loop {
            if behind {
                if self.catch_up().await.is_none() {
                    return;
                }
                behind = false;
            }
            let reading = tokio::select! {
                () = self.sender.closed() => return,
                reading = readings.recv() => reading,
            };
            match reading {
                Ok(Reading::Rows(rows)) => {
                    for row in rows.iter() {
                        // A batch comes whole: of one that was seen all was.
                        let is_new = (row.feed_at, row.feed_sequence) >= (self.place.at, self.place.sequence);
                        if is_new && self.scope.has(row) && self.pass(row.clone()).await.is_none() {
                            return;
                        }
                    }
                    if let Some(last) = rows.last() {
                        self.place =
                            self.place.max(Place { at: last.feed_at, sequence: last.feed_sequence + 1, count: 0 });
                    }
                }
                Ok(Reading::Gap) | Err(broadcast::error::RecvError::Lagged(_)) => behind = true,
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }

    /// Reads the table from the own place to its end. `None` = nobody listens any more.
    async fn catch_up(&mut self) -> Option<()> {
        loop {
            let app = Arc::clone(&self.app);
            match (self.feed)(&app).read(&app, self.place, &self.scope).await {
                Ok((rows, more)) => {
                    for row in rows {
                        self.pass(row).await?;
                    }
                    if !more {
                        // The batch of the last row is there as a whole.
                        self.place = self.place.after_batch();
                        return Some(());
                    }
                }
                Err(error) => debug!(%error, "a follower cannot read at the moment"),
            }
            tokio::select! {
                () = self.sender.closed() => return None,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    async fn pass(&mut self, row: Row) -> Option<()> {
        self.place = self.place.next(row.feed_at, row.feed_sequence);
        self.sender.send((self.place, row)).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_the_way_and_anything_else_is_refused() {
        let place = Place { at: 1_780_000_000, sequence: u64::MAX, count: 7 };
        assert_eq!(place.to_string().parse::<Place>().unwrap(), place);
        for text in ["", "1", "1-2", "1-2-x", "-1-2-3"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
