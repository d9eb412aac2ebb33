//! Records of live flows as they come, for one follower.
//!
//! Each follower asks for itself, because each has a filter of its own, and what does not fit it does not leave the database. A burst is
//! passed on in parts. Who is further behind than that, because the client reads slowly or was away for long, goes on with the present and
//! is told how many records it did not get.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::debug;
use weir_filter::Condition;

use crate::{
    App,
    feed::{self, Place},
    routes::{
        flows::{COLUMNS, FlowRecord},
        typed,
    },
};

/// The table.
pub(super) const TABLE: &str = "flows";
/// How often it is read.
const EVERY: Duration = Duration::from_millis(500);
/// The most records of one reading.
const MOST: usize = 1000;
/// How many seconds a follower may be behind.
const BEHIND: u32 = 10;
/// Records that wait for a slow client.
const WAITING: usize = 256;

/// What a follower is told.
#[derive(Debug)]
pub(super) enum Told {
    /// A record, and where it stands.
    Flow(Place, Box<FlowRecord>),
    /// So many records that it asked for are left out; it goes on from this place.
    Skipped(Place, u64),
}

#[derive(Deserialize)]
struct Row {
    feed_at: u32,
    feed_sequence: u64,
    #[serde(flatten)]
    record: FlowRecord,
}

#[derive(Deserialize)]
struct Count {
    count: u64,
}

/// The records from a place on that fit; ends with the service, or when the receiver is dropped.
pub(super) fn follow(
    app: &Arc<App>,
    place: Place,
    condition: Condition,
    permit: Option<OwnedSemaphorePermit>,
) -> mpsc::Receiver<Told> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let follower = Follower { app: Arc::clone(app), place, condition, sender, _permit: permit };
    let shutdown = app.shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = follower.run() => {}
        }
    });
    receiver
}

struct Follower {
    app: Arc<App>,
    place: Place,
    condition: Condition,
    sender: mpsc::Sender<Told>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Follower {
    async fn run(mut self) {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.sender.is_closed() {
            tokio::select! {
                () = self.sender.closed() => return,
                _ = every.tick() => {}
            }
            loop {
                match self.read().await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        debug!(error = &error as &dyn std::error::Error, "flows are not followed at the moment");
                        break;
                    }
                }
            }
        }
    }

    /// Passes on what came; returns whether there is more.
    async fn read(&mut self) -> Result<bool, crate::Error> {
        let sql = format!(
            "SELECT toUnixTimestamp(recorded_at) AS feed_at, stream_sequence AS feed_sequence, {COLUMNS} FROM {TABLE} WHERE {} \
             ORDER BY recorded_at, stream_sequence, start_time, flow_id, interface, end_time LIMIT {MOST} OFFSET {}",
            self.chosen(),
            self.place.count,
        );
        let rows: Vec<Row> = self.ask(&sql).rows().await.map_err(crate::Error::of_typed)?;
        let is_full = rows.len() == MOST;
        for Row { feed_at, feed_sequence, record } in rows {
            self.place = self.place.next(feed_at, feed_sequence);
            if self.sender.send(Told::Flow(self.place, Box::new(record))).await.is_err() {
                return Ok(false);
            }
        }
        if is_full {
            return self.keep_up().await;
        }
        self.place = self.place.after_batch();
        Ok(false)
    }

    /// Leaves out what is too far behind; returns whether there is something to read at once.
    async fn keep_up(&mut self) -> Result<bool, crate::Error> {
        let end = feed::end(&self.app, TABLE).await?;
        if !end.is_later_by(self.place, BEHIND) {
            return Ok(true);
        }
        let sql = format!(
            "SELECT count() AS count FROM {TABLE} WHERE {} AND (recorded_at, stream_sequence) <= (fromUnixTimestamp({{end_at:UInt32}}), {{end_sequence:UInt64}})",
            self.chosen()
        );
        let (end_at, end_sequence) = end.batch_before();
        let counted: Vec<Count> = self
            .ask(&sql)
            .param("end_at", end_at)
            .param("end_sequence", end_sequence)
            .rows()
            .await
            .map_err(crate::Error::of_typed)?;
        let skipped = counted.first().map_or(0, |row| row.count).saturating_sub(self.place.count.into());
        self.place = end;
        // Err = nobody listens any more.
        let _sent = self.sender.send(Told::Skipped(end, skipped)).await;
        Ok(false)
    }

    /// What fits and is not before the place.
    fn chosen(&self) -> String {
        format!(
            "source = 'ebpf' AND ({}) AND recorded_at >= fromUnixTimestamp({{at:UInt32}}) \
             AND (recorded_at > fromUnixTimestamp({{at:UInt32}}) OR stream_sequence >= {{sequence:UInt64}})",
            self.condition.sql
        )
    }

    fn ask(&self, sql: &str) -> weir_store::Query {
        let query = typed(&self.app, sql).param("at", self.place.at).param("sequence", self.place.sequence);
        self.condition.parameters.iter().fold(query, |query, (name, value)| query.param(name, value))
    }
}
