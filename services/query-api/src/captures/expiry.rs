//! What happens to captures as time goes by: they expire, and those that were left without a job get one.

use std::time::Duration;

use weir_bus::names;
use weir_proto::{Capture, capture::State};

use super::{change, delete, forget_hash, id_of, list, now, report_name, send_job, send_record};
use crate::{App, Error};

/// A capture that waits for so long may have lost its job with a service that was killed; asking twice counts once.
const LOST_AFTER: Duration = Duration::from_mins(10);

/// Shortest time for which a capture that has expired stays in the list.
const LISTED: Duration = Duration::from_hours(24);

/// Whether a capture was removed because of its age.
pub(crate) fn has_expired(capture: &Capture) -> bool {
    capture.state() == State::Expired
}

/// Whether nothing of an expired capture is to be left, not even its place in the list: it stays there for as long again as it was kept,
/// and at least for a day, so that whoever looks for it finds out what became of it.
fn is_forgotten(capture: &Capture, now: u64) -> bool {
    let kept = capture.expires_at.saturating_sub(capture.uploaded_at).max(LISTED.as_micros() as u64);
    has_expired(capture) && capture.stored && now >= capture.expires_at.saturating_add(kept)
}

/// Expires the captures whose time has come; how many. What fails is done the next time.
pub(crate) async fn expire(app: &App) -> Result<u64, Error> {
    let mut expired = 0;
    for capture in list(app).await? {
        if is_forgotten(&capture, now()) {
            delete(app, id_of(&capture)).await?;
            continue;
        }
        let due = capture.expires_at != 0 && capture.expires_at <= now();
        // One that is expired and not `stored` was begun and not finished.
        if !due || (has_expired(&capture) && capture.stored) {
            continue;
        }
        expire_one(app, &capture).await?;
        expired += 1;
    }
    Ok(expired)
}

async fn expire_one(app: &App, capture: &Capture) -> Result<(), Error> {
    let id = id_of(capture);
    // First the state: a worker that has it in hand stops, and nobody is told of a report that is not there any more.
    let marked = change(app, id, |capture| {
        capture.set_state(State::Expired);
        capture.stored = false;
        capture.phase.clear();
        Ok(())
    });
    let Some(capture) = marked.await? else { return Ok(()) };
    app.bus()?.send(names::RECORDS_PCAP, &weir_bus::purge(id, capture.analysis_id.clone())).await?;
    send_record(app, &capture).await?;
    forget_hash(app, &capture).await?;
    app.objects(names::UPLOADS).await?.delete(&id.to_string()).await?;
    app.objects(names::ARTIFACTS).await?.delete(&report_name(id)).await?;
    change(app, id, |capture| {
        capture.stored = true;
        Ok(())
    })
    .await?;
    Ok(())
}

/// Gives jobs to captures that have waited for long: who queued them may have been killed before the job.
pub(crate) async fn queue_again(app: &App) -> Result<(), Error> {
    for capture in list(app).await? {
        let waited = Duration::from_micros(now().saturating_sub(capture.observed_at));
        if capture.state() == State::Queued && waited >= LOST_AFTER {
            // The change makes the next one wait as long again, at whichever service.
            if let Some(capture) = change(app, id_of(&capture), |_| Ok(())).await? {
                send_job(app, &capture).await?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_capture_is_listed_as_long_again_as_it_was_kept_and_a_day_at_least() {
        const HOUR: u64 = 3_600_000_000;
        let capture = |hours: u64, state: State, stored| Capture {
            uploaded_at: HOUR,
            expires_at: HOUR + hours * HOUR,
            state: state.into(),
            stored,
            ..Capture::default()
        };
        let long = capture(100, State::Expired, true);
        assert!(!is_forgotten(&long, 200 * HOUR) && is_forgotten(&long, 201 * HOUR));
        let short = capture(1, State::Expired, true);
        assert!(!is_forgotten(&short, 25 * HOUR) && is_forgotten(&short, 26 * HOUR));
        assert!(!is_forgotten(&capture(1, State::Done, true), u64::MAX));
        assert!(!is_forgotten(&capture(1, State::Expired, false), u64::MAX), "what is left of it goes first");
    }
}
