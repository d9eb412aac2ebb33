//! What one client may have. A client is its address: there are no users.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use weir_bus::{Error as BusError, names};
use weir_proto::Capture;

use super::{id_of, list};
use crate::{App, Error};

/// Clients that are remembered; beyond that the one that was silent for longest is forgotten.
const MAX_CLIENTS: usize = 10_000;
const HOUR: Duration = Duration::from_hours(1);
/// How often it is counted again when others are admitted in between.
const TRIES: usize = 100;

/// How often each client uploads: a bucket that holds as many uploads as one may have in an hour, and fills up evenly.
#[derive(Debug)]
pub(crate) struct Rates {
    per_hour: u32,
    clients: Mutex<HashMap<String, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    /// So many in an hour; 0 = any number.
    pub(crate) fn new(per_hour: u32) -> Self {
        Self { per_hour, clients: Mutex::default() }
    }

    /// Counts an upload, unless it is one too many.
    pub(crate) fn take(&self, client: &str, now: Instant) -> Result<(), Error> {
        let per_hour = self.per_hour;
        if per_hour == 0 {
            return Ok(());
        }
        let most = f64::from(per_hour);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(client) {
            let silent = clients.iter().min_by_key(|(_, bucket)| bucket.at).map(|(client, _)| client.clone());
            clients.remove(&silent.unwrap_or_default());
        }
        let bucket = clients.entry(client.to_owned()).or_insert(Bucket { left: most, at: now });
        let filled = most * now.saturating_duration_since(bucket.at).as_secs_f64() / HOUR.as_secs_f64();
        bucket.left = (bucket.left + filled).min(most);
        bucket.at = now;
        if bucket.left < 1.0 {
            let wait = (1.0 - bucket.left) * HOUR.as_secs_f64() / most;
            return Err(Error::UploadRate { per_hour, seconds: wait.ceil() as u64 });
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

/// Registers a capture that its client may have. Whoever else does so at the same time, at whichever query-api, finds that the mark of the
/// last admission is another one than when it counted, and counts again.
pub(super) async fn admit(app: &App, new: &Capture) -> Result<(), Error> {
    let captures = app.captures().await?;
    let key = names::capture_key(id_of(new));
    if !has_limits(app) {
        captures.put(&key, new).await?;
        return Ok(());
    }
    // Those of this process need no second try.
    let _turn = app.admission.lock().await;
    let marks = app.hashes().await?;
    let mut is_registered = false;
    for _ in 0..TRIES {
        let mark = marks.get(names::ADMISSION_KEY).await?;
        if let Err(refused) = check(app, new).await {
            if is_registered {
                captures.delete(&key).await?;
            }
            return Err(refused);
        }
        // Before the mark: who finds it has this one in its count.
        captures.put(&key, new).await?;
        is_registered = true;
        let marked = match mark {
            Some(mark) => marks.update(names::ADMISSION_KEY, &new.capture_id, mark.revision).await,
            None => marks.create(names::ADMISSION_KEY, &new.capture_id).await,
        };
        match marked {
            Ok(_) => return Ok(()),
            // Another one was admitted since, so of those that try at one time one is always done.
            Err(BusError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(BusError::Conflict { key: names::ADMISSION_KEY.to_owned() }.into())
}

/// Whether the client that sent a capture may have it too, beside those that are registered.
pub(super) async fn check(app: &App, new: &Capture) -> Result<(), Error> {
    if !has_limits(app) {
        return Ok(());
    }
    let (most, most_bytes) = (app.config.captures_per_client, app.config.capture_bytes_per_client);
    let mut all = list(app).await?;
    all.retain(|capture| capture.capture_id != new.capture_id);
    // The same bytes again are no capture more.
    if !new.sha256.is_empty() && all.iter().any(|capture| capture.sha256 == new.sha256) {
        return Ok(());
    }
    let kept = all.iter().filter(|capture| capture.owner == new.owner && !super::has_expired(capture));
    let (count, bytes) = kept.fold((0u64, 0u64), |(count, bytes), capture| (count + 1, bytes + capture.size_bytes));
    if most > 0 && count >= most {
        let what = format!("this client has {count} captures, and may have {most}");
        return Err(Error::Quota { what, option: "WEIR_CAPTURES_PER_CLIENT" });
    }
    if most_bytes > 0 && bytes + new.size_bytes > most_bytes {
        let what =
            format!("with this capture this client had {} bytes, and it may have {most_bytes}", bytes + new.size_bytes);
        return Err(Error::Quota { what, option: "WEIR_CAPTURE_BYTES_PER_CLIENT" });
    }
    Ok(())
}

fn has_limits(app: &App) -> bool {
    app.config.captures_per_client > 0 || app.config.capture_bytes_per_client > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_waits_may_upload_again() {
        let rates = Rates::new(2);
        let start = Instant::now();
        assert!(rates.take("a", start).is_ok() && rates.take("a", start).is_ok());
        let refused = rates.take("a", start).unwrap_err();
        assert!(
            matches!(refused, Error::UploadRate { seconds: 1800, .. }),
            "one of two in an hour comes back after half of it"
        );
        assert!(rates.take("b", start).is_ok(), "another client is not held back");
        assert!(rates.take("a", start + HOUR / 2).is_ok());
        assert!(rates.take("a", start + HOUR / 2).is_err());
    }
}
