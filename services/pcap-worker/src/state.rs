//! The state of a capture in the key-value bucket, where the API and other workers see it.

use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;
use weir_bus::{Bucket, Error, names};
use weir_proto::{AnalyseCapture, Capture};

/// A job's ids are not UUIDs.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a job without capture or analysis")]
pub(crate) struct Unnamed;

/// Which analysis of which capture.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// Of the capture.
    pub(crate) capture_id: Uuid,
    /// Of the analysis.
    pub(crate) analysis_id: Uuid,
}

impl TryFrom<&AnalyseCapture> for Names {
    type Error = Unnamed;

    fn try_from(job: &AnalyseCapture) -> Result<Self, Unnamed> {
        Ok(Self {
            capture_id: Uuid::from_slice(&job.capture_id).map_err(|_| Unnamed)?,
            analysis_id: Uuid::from_slice(&job.analysis_id).map_err(|_| Unnamed)?,
        })
    }
}

/// The state of one capture.
#[derive(Clone, Debug)]
pub(crate) struct CaptureState {
    bucket: Bucket<Capture>,
    names: Names,
}

impl CaptureState {
    /// Of the capture of a job.
    #[must_use]
    pub(crate) const fn new(bucket: Bucket<Capture>, names: Names) -> Self {
        Self { bucket, names }
    }

    /// Which analysis of which capture it is the state of.
    #[must_use]
    pub(crate) const fn names(&self) -> &Names {
        &self.names
    }

    /// The capture and the revision of its state; none where it was deleted or belongs to another analysis.
    pub(crate) async fn get(&self) -> Result<Option<(Capture, u64)>, Error> {
        let entry = self.bucket.get(&self.key()).await?;
        Ok(entry.map(|entry| (entry.value, entry.revision)).filter(|(capture, _)| self.concerns(capture)))
    }

    /// Changes the state, whoever changes it at the same time; none as in [`Self::get`].
    pub(crate) async fn change(&self, change: impl Fn(&mut Capture)) -> Result<Option<Capture>, Error> {
        loop {
            let Some((mut capture, revision)) = self.get().await? else { return Ok(None) };
            change(&mut capture);
            capture.observed_at = now_us().max(capture.observed_at + 1);
            match self.bucket.update(&self.key(), &capture, revision).await {
                Ok(_) => return Ok(Some(capture)),
                Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn key(&self) -> String {
        names::capture_key(self.names.capture_id)
    }

    fn concerns(&self, capture: &Capture) -> bool {
        let ours = capture.analysis_id.is_empty() || capture.analysis_id == self.names.analysis_id.as_bytes();
        !capture.deleted && ours
    }
}

/// Microseconds since the epoch.
#[must_use]
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
