//! What is done with captures: keeping, naming, queueing, removing.

use std::fmt::Write as _;

use futures::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use tokio::io::AsyncRead;
use uuid::Uuid;
use weir_bus::{Entry, Error as BusError, names};
use weir_proto::{AnalyseCapture, Batch, Capture, Source, capture::State};

use crate::{
    App, Error, metrics,
    upload::{Progress, Stopped},
};

mod expiry;
mod limits;
mod live;

pub(crate) use expiry::{expire, has_expired, queue_again};
pub(crate) use limits::Rates;
pub(crate) use live::{
    RECORDING, Wanted, begin as record, end_lost as end_lost_recordings, is_recording, recorded, stop,
};

/// How often a change is tried again when somebody else changed the same capture in between.
const TRIES: usize = 10;

/// Stores what `input` gives as a capture and queues its analysis; the same bytes again give the capture that is there.
///
/// Let it run to its end when the client goes away: it then removes what it stored.
pub(crate) async fn upload(
    app: &App,
    (name, owner): (&str, &str),
    mut input: impl AsyncRead + Unpin + Send,
    progress: &Progress,
) -> Result<Capture, Error> {
    let result = store(app, (name, owner), &mut input, progress).await;
    let outcome = match &result {
        Ok((_, true)) => "new",
        Ok((_, false)) => "known",
        Err(Error::BrokenUpload { .. }) => "broken",
        Err(error) if error.describe().1.is_client_error() => "refused",
        Err(_) => "failed",
    };
    metrics::upload(outcome, progress.bytes());
    result.map(|(capture, _)| capture)
}

/// The state of a capture, if there is one that was not deleted.
pub(crate) async fn find(app: &App, id: Uuid) -> Result<Option<Entry<Capture>>, Error> {
    let entry = app.captures().await?.get(&names::capture_key(id)).await?;
    Ok(entry.filter(|entry| !entry.value.deleted))
}

/// The states of a capture from now on, until it is done, failed or expired; `None` = it was deleted. It ends early where NATS goes away.
pub(crate) async fn watch(app: &App, id: Uuid) -> Result<impl Stream<Item = Option<Capture>> + use<>, Error> {
    let changes = app.captures().await?.watch(&names::capture_key(id)).await?;
    let shutdown = app.shutdown.clone().cancelled_owned();
    let states = stream::unfold(Some(changes), async |changes| {
        let mut changes = changes?;
        match changes.next().await? {
            Ok(change) => {
                let capture = change.value.filter(|capture| !capture.deleted);
                let ended = capture.as_ref().is_none_or(is_final);
                Some((capture, (!ended).then_some(changes)))
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "watching a capture ended");
                None
            }
        }
    });
    Ok(states.take_until(shutdown))
}

fn is_final(capture: &Capture) -> bool {
    match capture.state() {
        State::Done | State::Failed => capture.stored,
        State::Expired => true,
        State::Unspecified | State::Queued | State::Running => false,
    }
}

/// All captures that were not deleted, the newest first.
pub(crate) async fn list(app: &App) -> Result<Vec<Capture>, Error> {
    let entries = app.captures().await?.list("id.").await?;
    let mut captures: Vec<_> =
        entries.into_iter().map(|(_, entry)| entry.value).filter(|capture| !capture.deleted).collect();
    captures.sort_by_key(|capture| std::cmp::Reverse(place(capture)));
    Ok(captures)
}

/// Where a capture stands in the list.
pub(crate) fn place(capture: &Capture) -> (u64, Uuid) {
    (capture.uploaded_at, id_of(capture))
}

/// The id of a capture.
pub(crate) fn id_of(capture: &Capture) -> Uuid {
    Uuid::from_slice(&capture.capture_id).unwrap_or_default()
}

/// Removes a capture: its name, its bytes, its report, and by way of the ingester its rows. Returns whether there was one.
///
/// A step that fails leaves the mark `deleted`, and asking again goes on from there.
pub(crate) async fn delete(app: &App, id: Uuid) -> Result<bool, Error> {
    let captures = app.captures().await?;
    let mut tries = 0;
    let (capture, was_there) = loop {
        let Some(entry) = captures.get(&names::capture_key(id)).await? else { return Ok(false) };
        if entry.value.deleted {
            break (entry.value, false);
        }
        let marked = Capture { deleted: true, observed_at: now(), ..entry.value };
        // The mark makes the worker stop.
        match captures.update(&names::capture_key(id), &marked, entry.revision).await {
            Ok(_) => break (marked, true),
            Err(BusError::Conflict { .. }) if tries < TRIES => tries += 1,
            Err(error) => return Err(error.into()),
        }
    };
    remove(app, &capture).await?;
    Ok(was_there)
}

async fn store(
    app: &App,
    (name, owner): (&str, &str),
    input: &mut (impl AsyncRead + Unpin + Send),
    progress: &Progress,
) -> Result<(Capture, bool), Error> {
    let id = Uuid::now_v7();
    let uploads = app.objects(names::UPLOADS).await?;
    let stored = match uploads.put(&id.to_string(), input).await {
        Ok(stored) if stored.size == 0 => {
            uploads.delete(&id.to_string()).await?;
            return Err(Error::EmptyUpload);
        }
        Ok(stored) => stored,
        Err(BusError::Input(_)) => return Err(stopped(app, progress)),
        Err(error @ BusError::Full { .. }) => return Err(Error::StoreFull(error)),
        Err(error) => return Err(error.into()),
    };
    let expires_at = if app.config.report_ttl == 0 { 0 } else { now() + app.config.report_ttl * 1_000_000 };
    let capture = Capture {
        owner: owner.to_owned(),
        expires_at,
        capture_id: id.as_bytes().to_vec(),
        name: name.to_owned(),
        sha256: stored.sha256.to_vec(),
        size_bytes: stored.size,
        state: State::Queued.into(),
        uploaded_at: now(),
        observed_at: now(),
        analysis_id: Uuid::new_v4().as_bytes().to_vec(),
        ..Capture::default()
    };
    match Box::pin(register(app, &capture)).await {
        Ok(None) => Ok((capture, true)),
        Ok(Some(known)) => {
            uploads.delete(&id.to_string()).await?;
            Ok((known, false))
        }
        Err(refused @ Error::Quota { .. }) => {
            uploads.delete(&id.to_string()).await?;
            Err(refused)
        }
        Err(error) => {
            // Best effort: what fails here is what has just failed.
            let marked = Capture { deleted: true, observed_at: now(), ..capture };
            if let Err(failure) = remove(app, &marked).await {
                tracing::warn!(error = &failure as &dyn std::error::Error, capture = %id, "an upload that failed stays in part");
            }
            Err(error)
        }
    }
}

/// Gives the capture its keys, its row and its job. Returns the capture that has the same bytes, if there is one.
async fn register(app: &App, capture: &Capture) -> Result<Option<Capture>, Error> {
    let id = id_of(capture);
    let captures = app.captures().await?;
    // First, so that who finds the hash finds the capture.
    limits::admit(app, capture).await?;
    if let Some(known) = claim_hash(app, capture).await? {
        captures.delete(&names::capture_key(id)).await?;
        if known.state() == State::Queued {
            // Its upload may have been cut off before the job; a job that is done twice counts once.
            send_job(app, &known).await?;
        }
        return Ok(Some(known));
    }
    send_record(app, capture).await?;
    send_job(app, capture).await?;
    Ok(None)
}

/// Makes the hash of the bytes point to this capture, or returns the one that it points to already.
async fn claim_hash(app: &App, capture: &Capture) -> Result<Option<Capture>, Error> {
    let hashes = app.hashes().await?;
    let key = hash_key(&capture.sha256);
    for _ in 0..TRIES {
        let claimed = match hashes.get(&key).await? {
            None => hashes.create(&key, &capture.capture_id).await,
            Some(entry) => {
                let known = Uuid::from_slice(&entry.value).unwrap_or_default();
                match find(app, known).await?.filter(|known| known.value.state() != State::Expired) {
                    Some(known) => return Ok(Some(known.value)),
                    // It was deleted or expired, and its hash not yet.
                    None => hashes.update(&key, &capture.capture_id, entry.revision).await,
                }
            }
        };
        match claimed {
            Ok(_) => return Ok(None),
            Err(BusError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(BusError::Conflict { key }.into())
}

/// Ends the analysis of a capture: at once where it waits for a worker, else its state tells when that has happened.
pub(crate) async fn cancel(app: &App, id: Uuid) -> Result<Option<Capture>, Error> {
    // The mark first: a worker that takes it from now on ends it too, so what is said of a waiting one comes true either way.
    let marked = change(app, id, |capture| match capture.state() {
        State::Queued | State::Running | State::Unspecified => {
            capture.cancel = true;
            Ok(())
        }
        State::Done => Err(Error::HasEnded { state: "done" }),
        State::Failed => Err(Error::HasEnded { state: "failed" }),
        State::Expired => Err(Error::Expired),
    });
    match marked.await? {
        Some(waiting) if waiting.state() == State::Queued => end_waiting(app, &waiting).await,
        other => Ok(other),
    }
}

/// Ends a capture that is marked and waits, unless a worker has it by now. As the worker does: first its rows go, those of an attempt
/// before, then comes the row that says so, then the state.
async fn end_waiting(app: &App, waiting: &Capture) -> Result<Option<Capture>, Error> {
    let id = id_of(waiting);
    let finished_at = now().max(waiting.observed_at + 1);
    let end = |capture: &mut Capture| {
        capture.set_state(State::Failed);
        "cancelled".clone_into(&mut capture.error);
        capture.finished_at = finished_at;
        capture.phase.clear();
        capture.cancel = false;
    };
    app.bus()?.send(names::RECORDS_PCAP, &weir_bus::purge(id, waiting.analysis_id.clone())).await?;
    let mut ended = Capture { observed_at: finished_at, ..waiting.clone() };
    end(&mut ended);
    send_record(app, &ended).await?;
    change(app, id, |capture| {
        if capture.state() == State::Queued && capture.analysis_id == waiting.analysis_id {
            end(capture);
        }
        Ok(())
    })
    .await
}

/// Has a capture analysed again. Its rows are replaced: the worker removes the old ones before it sends the first new one.
pub(crate) async fn analyse_again(app: &App, id: Uuid, thresholds: &str) -> Result<Option<Capture>, Error> {
    let analysis_id = Uuid::new_v4().as_bytes().to_vec();
    let changed = change(app, id, |capture| {
        match capture.state() {
            // Rows that are on their way belong to the analysis that is to be replaced.
            State::Failed if capture.recording.is_some() && capture.size_bytes == 0 => {
                return Err(Error::NotFound { what: "file of capture", name: id.to_string() });
            }
            State::Done | State::Failed if capture.stored => {}
            State::Done | State::Failed | State::Running | State::Unspecified => {
                return Err(Error::InHand { state: "running" });
            }
            State::Queued => return Err(Error::InHand { state: "queued" }),
            State::Expired => return Err(Error::Expired),
        }
        capture.previous_analysis_id = std::mem::replace(&mut capture.analysis_id, analysis_id.clone());
        capture.set_state(State::Queued);
        capture.stored = false;
        capture.error.clear();
        (capture.bytes_read, capture.attempts, capture.finished_at) = (0, 0, 0);
        thresholds.clone_into(&mut capture.thresholds);
        Ok(())
    });
    let Some(capture) = changed.await? else { return Ok(None) };
    send_record(app, &capture).await?;
    // Where this fails the capture is queued without a job; it gets one later (`queue_again`).
    send_job(app, &capture).await?;
    Ok(Some(capture))
}

/// Changes the state of a capture, whoever else does at the same time; none where there is no such capture.
async fn change(
    app: &App,
    id: Uuid,
    change: impl Fn(&mut Capture) -> Result<(), Error>,
) -> Result<Option<Capture>, Error> {
    let captures = app.captures().await?;
    let key = names::capture_key(id);
    for _ in 0..TRIES {
        let Some(Entry { mut value, revision }) = find(app, id).await? else { return Ok(None) };
        change(&mut value)?;
        value.observed_at = now().max(value.observed_at + 1);
        match captures.update(&key, &value, revision).await {
            Ok(_) => return Ok(Some(value)),
            Err(BusError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(BusError::Conflict { key }.into())
}

async fn remove(app: &App, capture: &Capture) -> Result<(), Error> {
    let id = id_of(capture);
    app.captures().await?.put(&names::capture_key(id), capture).await?;
    // What a worker still sends before it has seen the mark counts as taken.
    app.bus()?.send(names::RECORDS_PCAP, &weir_bus::purge(id, capture.analysis_id.clone())).await?;
    forget_hash(app, capture).await?;
    send_record(app, capture).await?;
    app.objects(names::UPLOADS).await?.delete(&id.to_string()).await?;
    app.objects(names::ARTIFACTS).await?.delete(&report_name(id)).await?;
    Ok(())
}

/// Takes the hash of the bytes back, if it points to this capture.
async fn forget_hash(app: &App, capture: &Capture) -> Result<(), Error> {
    // One that was never recorded to its end has none.
    if capture.sha256.is_empty() {
        return Ok(());
    }
    let hashes = app.hashes().await?;
    let key = hash_key(&capture.sha256);
    if hashes.get(&key).await?.is_some_and(|entry| entry.value == capture.capture_id) {
        hashes.delete(&key).await?;
    }
    Ok(())
}

/// A row of `captures`, by way of the ingester.
async fn send_record(app: &App, capture: &Capture) -> Result<(), Error> {
    let batch = Batch {
        producer: Uuid::new_v4().as_bytes().to_vec(),
        sequence: 1,
        host: app.config.service.host.clone(),
        source: Source::Pcap.into(),
        capture_id: capture.capture_id.clone(),
        captures: vec![capture.clone()],
        ..Batch::default()
    };
    Ok(app.bus()?.send(names::RECORDS_CAPTURES, &batch).await?)
}

async fn send_job(app: &App, capture: &Capture) -> Result<(), Error> {
    let job = AnalyseCapture {
        capture_id: capture.capture_id.clone(),
        analysis_id: capture.analysis_id.clone(),
        name: capture.name.clone(),
        size_bytes: capture.size_bytes,
    };
    let analysis = Uuid::from_slice(&capture.analysis_id).unwrap_or_default();
    Ok(app.bus()?.send_job(&job, &format!("analyse-{analysis}")).await?)
}

/// Why reading an upload failed.
fn stopped(app: &App, progress: &Progress) -> Error {
    let bytes = progress.bytes();
    match progress.stopped() {
        Some(Stopped::TooLarge) => Error::TooLarge { what: "a capture", limit: app.config.max_upload_bytes },
        Some(Stopped::NotACapture(head)) => Error::NotACapture(hex(&head)),
        Some(Stopped::Broken(reason)) => Error::BrokenUpload { bytes, reason },
        Some(Stopped::Idle) => {
            let reason = format!("nothing came for {} s", app.config.upload_idle().as_secs());
            Error::BrokenUpload { bytes, reason }
        }
        None => Error::BrokenUpload { bytes, reason: "the body could not be read".into() },
    }
}

/// Name of the object with a capture's report.
pub(crate) fn report_name(id: Uuid) -> String {
    format!("{id}/report.json")
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

fn hash_key(sha256: &[u8]) -> String {
    format!("sha256.{}", hex(sha256))
}

fn now() -> u64 {
    u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(0)
}
