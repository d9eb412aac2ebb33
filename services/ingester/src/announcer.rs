//! Tells whoever waits for a capture that its rows are in the tables.
//!
//! The worker states the end of an analysis as the last record of it. When that record has become a row, all others have, because the
//! stream is taken in order; then the capture's state in the bucket says `stored`, and the API says that the capture is done.

use uuid::Uuid;
use weir_bus::{Bucket, Bus, names};
use weir_proto::{Capture, capture::State};
use weir_store::rows::CaptureRow;

use crate::error::Error;

/// Sets `stored`.
#[derive(Debug, Default)]
pub(crate) struct Announcer {
    bucket: Option<Bucket<Capture>>,
}

impl Announcer {
    /// Begins a session.
    pub(crate) async fn begin(&mut self, bus: &Bus) -> Result<(), Error> {
        self.bucket = Some(bus.bucket(names::CAPTURES).await?);
        Ok(())
    }

    /// Announces those of the inserted rows that say how a capture ended. Saying it again changes nothing.
    pub(crate) async fn announce(&self, inserted: &[CaptureRow]) -> Result<(), Error> {
        let Some(bucket) = &self.bucket else { return Err(Error::Stopped) };
        for row in inserted.iter().filter(|row| is_end(row)) {
            mark(bucket, row.capture_id).await?;
        }
        Ok(())
    }
}

/// Whether a row says how a capture ended.
fn is_end(row: &CaptureRow) -> bool {
    row.deleted == 0 && matches!(State::try_from(i32::from(row.state)), Ok(State::Done | State::Failed))
}

async fn mark(bucket: &Bucket<Capture>, id: Uuid) -> Result<(), Error> {
    let key = names::capture_key(id);
    loop {
        let entry = match bucket.get(&key).await {
            // A value that is no capture must not hold up the records of all others.
            Err(weir_bus::Error::Decode { .. }) => return Ok(()),
            entry => entry?,
        };
        let Some(entry) = entry.filter(|entry| !entry.value.stored) else { return Ok(()) };
        let stored = Capture { stored: true, ..entry.value };
        match bucket.update(&key, &stored, entry.revision).await {
            Ok(_) => return Ok(()),
            // The worker writes its state at the same time.
            Err(weir_bus::Error::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
