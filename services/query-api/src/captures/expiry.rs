//! What happens to captures as time goes by: they expire, and those that were left without a job get one.

use std::time::Duration;

use weir_bus::names;
use weir_proto::{Capture, capture::State};

use super::{change, forget_hash, id_of, list, now, report_name, send_job, send_record};
use crate::{App, Error};

/// A capture that waits for so long may have lost its job with a service that was killed; asking twice counts once.
const LOST_AFTER: Duration = Duration::from_mins(10);

/// Whether a capture was removed because of its age.
pub(crate) fn has_expired(capture: &Capture) -> bool {
    capture.state() == State::Expired
}

/// Expires the captures whose time has come; how many. What fails is done the next time.
pub(crate) async fn expire(app: &App) -> Result<u64, Error> {
    let mut expired = 0;
    for capture in list(app).await? {
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
