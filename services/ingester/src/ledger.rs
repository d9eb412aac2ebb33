//! The stored cut: read when a session begins, written before a block is inserted, and never by two.

use weir_bus::{Bucket, Bus, names};
use weir_proto::Cut;

use crate::error::Error;

/// The key of the cut of the stream of records.
const KEY: &str = names::RECORDS;

/// What this process knows of the stored cut, over all of its sessions.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    bucket: Option<Bucket<Cut>>,
    /// The revision that was read or written last; None = not known, 0 = there is none.
    revision: Option<u64>,
    /// What was to be written when the answer got lost.
    attempted: Option<Cut>,
}

impl Ledger {
    /// Reads the cut for a new session, and writes it as it is: whoever had it before finds that another one has it now.
    ///
    /// An error says so if somebody else has written since this process did.
    pub(crate) async fn take(&mut self, bus: &Bus) -> Result<Cut, Error> {
        self.bucket = Some(bus.bucket(names::INGEST).await?);
        let late = self.attempted.clone();
        match self.claim().await {
            // What an aborted write of this process had on its way can arrive in between.
            Err(Error::TakenOver) if late.is_some() => {
                self.attempted = late;
                self.claim().await
            }
            claimed => claimed,
        }
    }

    async fn claim(&mut self) -> Result<Cut, Error> {
        let Some(bucket) = &self.bucket else { return Err(Error::Stopped) };
        let cut = match bucket.get(KEY).await? {
            None => {
                self.revision = Some(0);
                Cut::default()
            }
            Some(entry) => {
                let ours = self.revision.is_none_or(|revision| revision == entry.revision)
                    || self.attempted.as_ref() == Some(&entry.value);
                if !ours {
                    return Err(Error::TakenOver);
                }
                self.revision = Some(entry.revision);
                entry.value
            }
        };
        self.write(cut.clone()).await?;
        Ok(cut)
    }

    /// Writes a cut.
    pub(crate) async fn write(&mut self, cut: Cut) -> Result<(), Error> {
        let (Some(bucket), Some(revision)) = (&self.bucket, self.revision) else { return Err(Error::Stopped) };
        let cut = self.attempted.insert(cut);
        let written = match revision {
            0 => bucket.create(KEY, cut).await,
            revision => bucket.update(KEY, cut, revision).await,
        };
        match written {
            Ok(revision) => {
                self.revision = Some(revision);
                self.attempted = None;
                Ok(())
            }
            Err(weir_bus::Error::Conflict { .. }) => Err(Error::TakenOver),
            Err(error) => Err(error.into()),
        }
    }
}
