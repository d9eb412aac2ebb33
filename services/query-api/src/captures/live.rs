//! Captures that are recorded on demand: asked for at a host, taken over in pieces, and from then on captures like all others.
//!
//! Nothing is recorded before `audit` has it. The state tells how far it is, and who changes it (`cancel`, `deleted`, `recording.stop`) is
//! heard by the service that takes the pieces. One that dies leaves a state that does not go on, which another one ends.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use prost::Message as _;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{Instrument as _, info, info_span, warn};
use uuid::Uuid;
use weir_bus::{Answer, AnswerError, Enough, Error as BusError, names};
use weir_proto::{Audit, Batch, Capture, RecordPackets, RecordedPiece, Recording, Source, capture::State};

use super::{change, find, hash_key, id_of, limits, now, send_job, send_record};
use crate::{App, Error, metrics, upload::Incoming};

/// What a capture's `phase` is meanwhile.
pub(crate) const RECORDING: &str = "recording";
/// How long a host may take to begin.
const BEGIN: Duration = Duration::from_secs(8);
/// How long a host may be silent: it says something twice a second.
const SILENCE: Duration = Duration::from_secs(10);
/// How often the state is told.
const TELL: Duration = Duration::from_secs(1);
/// A state that nobody has told anything of for so long belongs to a service that is gone.
const LOST_AFTER: Duration = Duration::from_secs(30);
/// Pieces between the host and the store.
const QUEUE: usize = 2;

/// What is to be recorded; checked.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) host: String,
    pub(crate) filter: String,
    pub(crate) seconds: u32,
    pub(crate) max_bytes: u64,
    pub(crate) snap_length: u32,
    pub(crate) name: String,
}

/// What came so far.
#[derive(Debug, Default)]
struct Counts {
    packets: u64,
    lost: u64,
    ended: String,
}

/// How the pieces came to an end.
#[derive(Debug)]
enum Ended {
    Whole,
    Cancelled,
    Deleted,
    Broken(String),
}

/// Begins a recording; it goes on when this has returned. Let it run to its end when the client goes away.
pub(crate) async fn begin(app: &Arc<App>, wanted: &Wanted, owner: &str) -> Result<Capture, Error> {
    let place = app.recording_place()?;
    let capture = described(app, wanted, owner);
    limits::check(app, &Capture { size_bytes: wanted.max_bytes, ..capture.clone() }).await?;
    audit(app, &capture, "requested", "", 0).await?;
    let begun = match ask(app, &capture, wanted.snap_length).await {
        Ok((answer, first)) => register(app, &capture).await.map(|()| (answer, first)),
        Err(error) => Err(error),
    };
    let (answer, first) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            metrics::recording("refused", 0);
            if let Err(failure) = audit(app, &capture, "refused", &error.to_string(), 0).await {
                warn!(error = &failure as &dyn std::error::Error, "a refusal is not in the audit");
            }
            return Err(error);
        }
    };
    let span = info_span!("record capture", capture_id = %id_of(&capture), host = wanted.host);
    let task = take(Arc::clone(app), capture.clone(), answer, first, place);
    app.tasks.spawn(task.instrument(span));
    Ok(capture)
}

/// Ends a recording early; what it has is kept.
pub(crate) async fn stop(app: &App, id: Uuid) -> Result<Option<Capture>, Error> {
    change(app, id, |capture| {
        if !is_recording(capture) {
            return Err(Error::NotRecording);
        }
        if let Some(recording) = &mut capture.recording {
            recording.stop = true;
        }
        Ok(())
    })
    .await
}

/// Whether packets of it still come.
pub(crate) fn is_recording(capture: &Capture) -> bool {
    capture.state() == State::Running && capture.phase == RECORDING
}

/// How much of its time has passed, from 0 to 1.
pub(crate) fn recorded(capture: &Capture) -> f64 {
    let seconds = capture.recording.as_ref().map_or(1, |recording| recording.seconds.max(1));
    let passed = Duration::from_micros(now().saturating_sub(capture.uploaded_at));
    (passed.as_secs_f64() / f64::from(seconds)).min(1.0)
}

/// Fails the recordings whose service is gone.
pub(crate) async fn end_lost(app: &App) -> Result<(), Error> {
    let keys = app.hashes().await?;
    for (key, entry) in keys.list(names::RECORDING_KEYS).await? {
        let id = Uuid::from_slice(&entry.value).unwrap_or_default();
        let Some(capture) = find(app, id).await?.map(|entry| entry.value).filter(is_recording) else {
            keys.delete(&key).await?;
            continue;
        };
        if Duration::from_micros(now().saturating_sub(capture.observed_at)) >= LOST_AFTER {
            warn!(capture = %id, "a recording does not go on");
            app.objects(names::UPLOADS).await?.delete(&id.to_string()).await?;
            fail(app, &capture, "failed", "the service that recorded it went away").await?;
        }
    }
    Ok(())
}

fn described(app: &App, wanted: &Wanted, owner: &str) -> Capture {
    Capture {
        capture_id: Uuid::now_v7().as_bytes().to_vec(),
        owner: owner.to_owned(),
        name: wanted.name.clone(),
        state: State::Running.into(),
        phase: RECORDING.to_owned(),
        uploaded_at: now(),
        observed_at: now(),
        expires_at: if app.config.report_ttl == 0 { 0 } else { now() + app.config.report_ttl * 1_000_000 },
        analysis_id: Uuid::new_v4().as_bytes().to_vec(),
        recording: Some(Recording {
            host: wanted.host.clone(),
            filter: wanted.filter.clone(),
            seconds: wanted.seconds,
            max_bytes: wanted.max_bytes,
            ..Recording::default()
        }),
        ..Capture::default()
    }
}

/// The answer of the host, and its first piece: from then on it records.
async fn ask(app: &App, capture: &Capture, snap_length: u32) -> Result<(Answer, Bytes), Error> {
    let Recording { host, filter, seconds, max_bytes, .. } = capture.recording.clone().unwrap_or_default();
    let question = RecordPackets { capture_id: capture.capture_id.clone(), filter, seconds, max_bytes, snap_length };
    let mut answer = app.bus()?.ask(&names::record(&host), question.encode_to_vec().into()).await?;
    match timeout(BEGIN, answer.next()).await {
        Ok(Ok(Some(first))) => Ok((answer, first)),
        Ok(Ok(None) | Err(AnswerError::BrokeOff)) | Err(_) => Err(Error::HostSilent(host)),
        Ok(Err(AnswerError::Nobody)) => Err(Error::NoSuchHost(host)),
        Ok(Err(AnswerError::Busy)) => Err(Error::HostBusy(host)),
        Ok(Err(AnswerError::Failed(reason))) => Err(Error::HostRefused { host, reason }),
        Ok(Err(AnswerError::Bus(error))) => Err(error.into()),
    }
}

/// From now on it is a capture that everybody sees.
async fn register(app: &App, capture: &Capture) -> Result<(), Error> {
    let id = id_of(capture);
    // First, so that whatever happens somebody ends it.
    app.hashes().await?.put(&names::recording_key(id), &capture.capture_id).await?;
    app.captures().await?.put(&names::capture_key(id), capture).await?;
    send_record(app, capture).await
}

/// Takes a recording over, up to the state in which it is queued or failed.
async fn take(app: Arc<App>, capture: Capture, answer: Answer, first: Bytes, place: OwnedSemaphorePermit) {
    let _place = place;
    let (outcome, bytes) = match Box::pin(taken(&app, &capture, answer, first)).await {
        Ok(taken) => taken,
        Err(error) => {
            // Nobody could be told: it is ended as one whose service is gone.
            warn!(error = &error as &dyn std::error::Error, "a recording is not at its end");
            ("failed", 0)
        }
    };
    info!(outcome, bytes, "the recording has ended");
    metrics::recording(outcome, bytes);
}

async fn taken(app: &App, capture: &Capture, answer: Answer, first: Bytes) -> Result<(&'static str, u64), Error> {
    let id = id_of(capture);
    let most = capture.recording.as_ref().map_or(0, |recording| recording.max_bytes);
    let (sender, receiver) = mpsc::channel(QUEUE);
    let (incoming, progress) = Incoming::new(ReceiverStream::new(receiver), most, SILENCE * 2);
    let uploads = app.objects(names::UPLOADS).await?;
    let store = async {
        // Gone when storing fails, so that nobody waits for it to take more.
        let mut incoming = incoming;
        uploads.put(&id.to_string(), &mut incoming).await
    };
    let mut counts = Counts::default();
    let pieces = Pieces { app, capture, sender, progress: &progress };
    let (ended, stored) = tokio::join!(pieces.pass_on(answer, first, &mut counts), store);
    let bytes = progress.bytes();
    let told = |capture: &Capture| Capture {
        size_bytes: bytes,
        packets: counts.packets,
        recording: capture.recording.clone().map(|told| Recording {
            lost: counts.lost,
            ended: counts.ended.clone(),
            ..told
        }),
        ..capture.clone()
    };
    let outcome = match (ended?, stored) {
        (Ended::Whole, Ok(stored)) => {
            return complete(app, &told(capture), stored.sha256).await.map(|()| ("recorded", bytes));
        }
        (Ended::Cancelled, _) => fail(app, &told(capture), "cancelled", "cancelled").await.map(|()| "cancelled"),
        (Ended::Deleted, stored) => {
            if stored.is_ok() {
                uploads.delete(&id.to_string()).await?;
            }
            app.hashes().await?.delete(&names::recording_key(id)).await?;
            audit(app, &told(capture), "deleted", "", bytes).await.map(|()| "deleted")
        }
        (_, Err(error @ BusError::Full { .. })) => {
            fail(app, &told(capture), "failed", &Error::StoreFull(error).to_string()).await.map(|()| "failed")
        }
        (Ended::Broken(reason), _) => fail(app, &told(capture), "failed", &reason).await.map(|()| "failed"),
        (Ended::Whole, Err(error)) => {
            let reason = format!("it cannot be stored: {}", weir_service::chain(&error));
            fail(app, &told(capture), "failed", &reason).await.map(|()| "failed")
        }
    };
    outcome.map(|outcome| (outcome, bytes))
}

/// The way of the pieces from the host to the store.
struct Pieces<'a> {
    app: &'a App,
    capture: &'a Capture,
    sender: mpsc::Sender<Result<Bytes, &'static str>>,
    progress: &'a crate::upload::Progress,
}

impl Pieces<'_> {
    async fn pass_on(self, answer: Answer, first: Bytes, counts: &mut Counts) -> Result<Ended, Error> {
        let ended = self.follow(answer, first, counts).await;
        if !matches!(ended, Ok(Ended::Whole)) {
            // The store removes what it has. Where it is gone it has nothing.
            let _gone = self.sender.send(Err("the recording did not come to its end")).await;
        }
        ended
    }

    async fn follow(&self, answer: Answer, first: Bytes, counts: &mut Counts) -> Result<Ended, Error> {
        let app = self.app;
        let enough = answer.enough();
        // A stream, because a piece that is half read must not be forgotten when something else happens.
        let rest = stream::unfold(Some(answer), async |answer| {
            let mut answer = answer?;
            match timeout(SILENCE, answer.next()).await {
                Ok(Ok(Some(piece))) => Some((Ok(piece), Some(answer))),
                Ok(Ok(None)) => None,
                Ok(Err(error)) => Some((Err(error), None)),
                Err(_) => Some((Err(AnswerError::BrokeOff), None)),
            }
        });
        let pieces = stream::once(async { Ok(first) }).chain(rest);
        let mut pieces = std::pin::pin!(pieces);
        let key = names::capture_key(id_of(self.capture));
        let mut changes = app.captures().await?.watch(&key).await?;
        let mut watching = true;
        let mut stopping = false;
        let mut told = Instant::now();
        loop {
            tokio::select! {
                piece = pieces.next() => match piece {
                    Some(Ok(piece)) => {
                        if let Err(reason) = self.piece(&piece, counts).await {
                            return Ok(Ended::Broken(reason));
                        }
                        if told.elapsed() >= TELL {
                            told = Instant::now();
                            if let Some(ended) = self.tell(counts, &enough).await? {
                                return Ok(ended);
                            }
                        }
                    }
                    Some(Err(error)) => return Ok(Ended::Broken(broken(self.capture, &error))),
                    None if counts.ended.is_empty() => return Ok(Ended::Broken(broken(self.capture, &AnswerError::BrokeOff))),
                    None => return Ok(Ended::Whole),
                },
                change = changes.next(), if watching => match change {
                    Some(Ok(change)) => match change.value {
                        Some(capture) => {
                            if let Some(ended) = wanted(&capture, &enough) {
                                return Ok(ended);
                            }
                        }
                        None => return Ok(Ended::Deleted),
                    },
                    // What is wanted is heard when the state is told, too.
                    lost => {
                        let error = lost.and_then(Result::err);
                        warn!(error = error.map(|error| weir_service::chain(&error)), "changes of a recording are not heard at once");
                        watching = false;
                    }
                },
                () = app.shutdown.cancelled(), if !stopping => {
                    stopping = true;
                    enough.say();
                }
            }
        }
    }

    /// Hands a piece to the store.
    async fn piece(&self, piece: &Bytes, counts: &mut Counts) -> Result<(), String> {
        let piece = RecordedPiece::decode(piece.clone())
            .map_err(|error| format!("the host's answer cannot be read: {error}"))?;
        (counts.packets, counts.lost) = (piece.packets, piece.lost);
        if counts.ended.is_empty() {
            counts.ended = piece.ended.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
        }
        // An empty one too: it tells the store that more may come.
        self.sender.send(Ok(piece.data.into())).await.map_err(|_| "it cannot be stored".to_owned())
    }

    /// Says in the state how far it is; whether somebody has ended it.
    async fn tell(&self, counts: &Counts, enough: &Enough) -> Result<Option<Ended>, Error> {
        let bytes = self.progress.bytes();
        let changed = change_recording(self.app, id_of(self.capture), |capture| {
            capture.size_bytes = bytes;
            capture.packets = counts.packets;
            if let Some(recording) = &mut capture.recording {
                recording.lost = counts.lost;
            }
        });
        match changed.await {
            Ok(Some(capture)) => Ok(wanted(&capture, enough)),
            Ok(None) => Ok(Some(Ended::Deleted)),
            // NATS may be back the next time.
            Err(Error::NatsAway(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether a state says that the recording is to end as if it had not been; where it is to end early, the host is told.
fn wanted(capture: &Capture, enough: &Enough) -> Option<Ended> {
    if capture.deleted || !is_recording(capture) {
        return Some(Ended::Deleted);
    }
    if capture.cancel {
        return Some(Ended::Cancelled);
    }
    if capture.recording.as_ref().is_some_and(|recording| recording.stop) {
        enough.say();
    }
    None
}

fn broken(capture: &Capture, error: &AnswerError) -> String {
    let host = capture.recording.as_ref().map_or("", |recording| recording.host.as_str());
    match error {
        AnswerError::BrokeOff | AnswerError::Nobody | AnswerError::Busy => {
            format!("the recording broke off: the capture of host {host} went away")
        }
        other => format!("the recording broke off: {}", weir_service::chain(other)),
    }
}

/// From here on it is a capture as one that was uploaded.
async fn complete(app: &App, told: &Capture, sha256: [u8; 32]) -> Result<(), Error> {
    let id = id_of(told);
    let queued = change_recording(app, id, |capture| {
        capture.set_state(State::Queued);
        capture.phase.clear();
        capture.sha256 = sha256.to_vec();
        (capture.size_bytes, capture.packets) = (told.size_bytes, 0);
        capture.recording.clone_from(&told.recording);
    });
    match queued.await? {
        Some(capture) => {
            match app.hashes().await?.create(&hash_key(&capture.sha256), &capture.capture_id).await {
                // The file has the capture's id in it: nobody else has uploaded it.
                Ok(_) | Err(BusError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            send_record(app, &capture).await?;
            send_job(app, &capture).await?;
        }
        None => app.objects(names::UPLOADS).await?.delete(&id.to_string()).await?,
    }
    app.hashes().await?.delete(&names::recording_key(id)).await?;
    let ended = told.recording.as_ref().map_or("", |recording| recording.ended.as_str());
    audit(app, told, "recorded", ended, told.size_bytes).await
}

/// Changes the state of a capture that is still being recorded; none where it was deleted, or has expired.
async fn change_recording(app: &App, id: Uuid, apply: impl Fn(&mut Capture)) -> Result<Option<Capture>, Error> {
    let changed = change(app, id, |capture| {
        if !is_recording(capture) {
            return Err(Error::NotRecording);
        }
        apply(capture);
        Ok(())
    });
    match changed.await {
        Err(Error::NotRecording) => Ok(None),
        other => other,
    }
}

/// It comes to nothing, and says why.
async fn fail(app: &App, told: &Capture, outcome: &'static str, reason: &str) -> Result<(), Error> {
    let id = id_of(told);
    let failed = change_recording(app, id, |capture| {
        capture.set_state(State::Failed);
        capture.phase.clear();
        reason.clone_into(&mut capture.error);
        // There is no file and there are no rows.
        (capture.size_bytes, capture.packets) = (0, 0);
        (capture.stored, capture.finished_at) = (true, now());
        capture.recording.clone_from(&told.recording);
    });
    if let Some(capture) = failed.await? {
        send_record(app, &capture).await?;
    }
    app.hashes().await?.delete(&names::recording_key(id)).await?;
    audit(app, told, outcome, reason, told.size_bytes).await
}

/// A row of `audit`.
async fn audit(app: &App, capture: &Capture, outcome: &str, detail: &str, bytes: u64) -> Result<(), Error> {
    let recording = capture.recording.clone().unwrap_or_default();
    let audit = Audit {
        time: now(),
        action: "live_capture".to_owned(),
        outcome: outcome.to_owned(),
        capture_id: capture.capture_id.clone(),
        client: capture.owner.clone(),
        host: recording.host,
        filter: recording.filter,
        seconds: recording.seconds,
        max_bytes: recording.max_bytes,
        packets: capture.packets,
        bytes,
        lost: recording.lost,
        detail: detail.to_owned(),
    };
    let batch = Batch {
        producer: Uuid::new_v4().as_bytes().to_vec(),
        sequence: 1,
        host: app.config.service.host.clone(),
        source: Source::Pcap.into(),
        audits: vec![audit],
        ..Batch::default()
    };
    Ok(app.bus()?.send(names::RECORDS_CAPTURES, &batch).await?)
}
