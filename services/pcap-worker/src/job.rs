//! One job: from the message to the final state of its capture.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info, info_span, warn};
use uuid::Uuid;
use weir_bus::{Bucket, Bus, Message, Objects, names};
use weir_flow::findings::Thresholds;
use weir_proto::capture::State;
use weir_proto::{AnalyseCapture, Batch, Capture, DeadLetter, Source};

use crate::analysis::{Analysis, Failure};
use crate::config::Config;
use crate::metrics::{self, Outcome};
use crate::report;
use crate::state::{CaptureState, Names, now_us};
use crate::work;

/// What every job needs.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) config: Config,
    pub(crate) bus: Bus,
    pub(crate) captures: Bucket<Capture>,
    pub(crate) uploads: Objects,
    pub(crate) artifacts: Objects,
    pub(crate) shutdown: CancellationToken,
}

/// Why an attempt ended without a result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// It can never succeed.
    #[error("{0:#}")]
    Permanent(anyhow::Error),
    /// It may succeed another time.
    #[error("{0:#}")]
    Transient(anyhow::Error),
    /// Somebody asked to end it.
    #[error("cancelled")]
    Cancelled,
    /// The capture is gone, or another analysis of it was asked for.
    #[error("nobody asks for the analysis any more")]
    Obsolete,
    /// This worker stops.
    #[error("the worker stops")]
    Stopping,
}

impl From<weir_bus::Error> for Ended {
    fn from(error: weir_bus::Error) -> Self {
        Self::Transient(error.into())
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        if failure.is_transient() { Self::Transient(failure.into()) } else { Self::Permanent(failure.into()) }
    }
}

impl Worker {
    /// Does a job and says so to the queue. An error means that the queue could not be told; it will deliver the job again.
    pub(crate) async fn handle(&self, message: &Message) -> Result<Outcome> {
        let span = info_span!("analyse capture", otel.kind = "consumer", capture_id = tracing::field::Empty);
        message.continue_trace(&span);
        let outcome = async {
            let named = message.job().map_err(anyhow::Error::from).and_then(|job| Ok((Names::try_from(&job)?, job)));
            match named {
                Ok((names, job)) => {
                    tracing::Span::current().record("capture_id", tracing::field::display(names.capture_id));
                    self.known(message, &names, &job).await
                }
                Err(error) => {
                    let reason = format!("not a job: {error:#}");
                    warn!(reason, sequence = message.stream_sequence, "a job cannot be read");
                    self.bus.send(names::RECORDS_CAPTURES, &dead_letter(message, reason)).await?;
                    message.terminate().await.context("cannot end a job")?;
                    Ok(Outcome::Poison)
                }
            }
        }
        .instrument(span)
        .await?;
        metrics::job(outcome);
        Ok(outcome)
    }

    async fn known(&self, message: &Message, names: &Names, job: &AnalyseCapture) -> Result<Outcome> {
        let state = CaptureState::new(self.captures.clone(), names.clone());
        let ended = match self.attempt(message, &state, names, job).await {
            Ok(()) => {
                message.ack_confirmed().await.context("cannot end a job")?;
                return Ok(Outcome::Done);
            }
            Err(ended) => ended,
        };
        match ended {
            Ended::Obsolete => {
                info!("nobody asks for this capture any more");
                message.ack_confirmed().await.context("cannot end a job")?;
                Ok(Outcome::Obsolete)
            }
            Ended::Cancelled => {
                self.fail(message, &state, "cancelled").await?;
                Ok(Outcome::Cancelled)
            }
            Ended::Stopping => {
                message.retry_after(Duration::ZERO).await.context("cannot give a job back")?;
                Ok(Outcome::Returned)
            }
            Ended::Transient(error) if message.delivered < self.config.max_attempts => {
                warn!(error = format!("{error:#}"), attempt = message.delivered, "the capture will be tried again");
                let text = format!("attempt {} failed: {error:#}", message.delivered);
                let queued = state.change(|capture| {
                    capture.set_state(State::Queued);
                    capture.error.clone_from(&text);
                });
                if let Err(error) = queued.await {
                    warn!(error = format!("{:#}", anyhow::Error::from(error)), "cannot state that the capture waits");
                }
                message.retry_after(pause(message.delivered)).await.context("cannot give a job back")?;
                Ok(Outcome::Retried)
            }
            Ended::Transient(error) => {
                // The delivery after the last attempt is none.
                let attempts = message.delivered.min(self.config.max_attempts);
                let reason = format!("given up after {attempts} attempts: {error:#}");
                self.bus.send(names::RECORDS_CAPTURES, &dead_letter(message, reason.clone())).await?;
                self.fail(message, &state, &reason).await
            }
            Ended::Permanent(error) => self.fail(message, &state, &format!("{error:#}")).await,
        }
    }

    /// One attempt, up to and with the final state.
    async fn attempt(
        &self,
        message: &Message,
        state: &CaptureState,
        names: &Names,
        job: &AnalyseCapture,
    ) -> Result<(), Ended> {
        let Some((capture, _)) = state.get().await? else { return Err(Ended::Obsolete) };
        if has_ended(&capture) {
            // The worker before this one came to the end and died before it could tell the queue, or it was cancelled while it waited.
            return Ok(());
        }
        if capture.cancel {
            return Err(Ended::Cancelled);
        }
        if message.delivered > self.config.max_attempts {
            return Err(Ended::Transient(anyhow::anyhow!("each time the worker died while it analysed the capture")));
        }
        self.remove_rows(names, &capture.previous_analysis_id).await?;
        let thresholds = thresholds(&capture.thresholds)?;
        let running = state.change(|capture| {
            // Cancelled just now.
            if has_ended(capture) {
                return;
            }
            capture.set_state(State::Running);
            capture.analysis_id = names.analysis_id.as_bytes().to_vec();
            capture.attempts = message.delivered;
            (capture.packets, capture.bytes, capture.bytes_read) = (0, 0, 0);
            capture.error.clear();
            "reading".clone_into(&mut capture.phase);
        });
        if has_ended(&running.await?.ok_or(Ended::Obsolete)?) {
            return Ok(());
        }
        info!(name = job.name, bytes = job.size_bytes, attempt = message.delivered, "analysing");
        let analysis = work::run(self, message, state, names, thresholds).await?;
        let reporting = state.change(|capture| "report".clone_into(&mut capture.phase));
        // Who asked in time is heard, although nothing is left to be read.
        if reporting.await?.ok_or(Ended::Obsolete)?.cancel {
            return Err(Ended::Cancelled);
        }
        let end = end(&analysis);
        let (packets, flows) = (end.packets, analysis.summary.flows);
        self.store_report(analysis, names, job, capture.thresholds).await?;
        self.finish(state, State::Done, |capture| describe(capture, &end)).await?;
        info!(packets, flows, damage = end.error, "analysed");
        Ok(())
    }

    async fn store_report(
        &self,
        analysis: Analysis,
        names: &Names,
        job: &AnalyseCapture,
        thresholds: String,
    ) -> Result<(), Ended> {
        let about = report::About {
            capture_id: Some(names.capture_id),
            name: job.name.clone(),
            size_bytes: job.size_bytes,
            thresholds,
        };
        let json = report::to_json(&report::report(about, analysis)).map_err(|error| Ended::Permanent(error.into()))?;
        let name = format!("{}/report.json", names.capture_id);
        self.artifacts.put(&name, &mut json.as_bytes()).await?;
        Ok(())
    }

    /// States how the capture ended: first as a record for the tables, then where the API looks, so that who sees the end finds the row.
    async fn finish(&self, state: &CaptureState, end: State, describe: impl Fn(&mut Capture)) -> Result<(), Ended> {
        let finished_at = now_us();
        let change = |capture: &mut Capture| {
            describe(capture);
            capture.set_state(end);
            capture.finished_at = finished_at;
            capture.phase.clear();
            capture.cancel = false;
        };
        let Some((mut capture, _)) = state.get().await? else { return Err(Ended::Obsolete) };
        change(&mut capture);
        capture.observed_at = finished_at.max(capture.observed_at + 1);
        self.bus.send(names::RECORDS_CAPTURES, &statement(capture)).await?;
        state.change(change).await?.ok_or(Ended::Obsolete)?;
        Ok(())
    }

    /// Removes what the tables have of an analysis, and keeps out what a straggler still sends of it. Doing it again changes nothing.
    async fn remove_rows(&self, names: &Names, analysis_id: &[u8]) -> Result<(), Ended> {
        if !analysis_id.is_empty() {
            let purge = weir_bus::purge(names.capture_id, analysis_id.to_vec());
            self.bus.send(names::RECORDS_PCAP, &purge).await?;
        }
        Ok(())
    }

    async fn fail(&self, message: &Message, state: &CaptureState, reason: &str) -> Result<Outcome> {
        info!(reason, "the capture is not analysed");
        // What was sent before the end is not an analysis.
        let ended = match self.remove_rows(state.names(), state.names().analysis_id.as_bytes()).await {
            Ok(()) => self.finish(state, State::Failed, |capture| reason.clone_into(&mut capture.error)).await,
            Err(ended) => Err(ended),
        };
        match ended {
            Ok(()) => {}
            Err(Ended::Obsolete) => {
                message.ack_confirmed().await.context("cannot end a job")?;
                return Ok(Outcome::Obsolete);
            }
            Err(ended) => return Err(ended).context("cannot state that a capture failed"),
        }
        message.terminate().await.context("cannot end a job")?;
        Ok(Outcome::Failed)
    }
}

/// Whether it is said already how the analysis ended.
fn has_ended(capture: &Capture) -> bool {
    matches!(capture.state(), State::Done | State::Failed)
}

/// The pause before the next attempt.
fn pause(delivered: u32) -> Duration {
    Duration::from_secs(u64::from(delivered.min(12)) * 5)
}

/// The thresholds that were asked for.
fn thresholds(json: &str) -> Result<Box<Thresholds>, Ended> {
    if json.is_empty() {
        return Ok(Box::default());
    }
    Thresholds::from_json(json.as_bytes()).map(Box::new).map_err(|error| Ended::Permanent(error.into()))
}

/// What a capture is said to be once it is analysed.
fn end(analysis: &Analysis) -> Capture {
    let summary = &analysis.summary;
    Capture {
        packets: summary.frames.packets,
        bytes: summary.frames.bytes,
        first_packet: summary.first_time.unwrap_or(0),
        last_packet: summary.last_time.unwrap_or(0),
        error: analysis.damage.as_ref().map(ToString::to_string).unwrap_or_default(),
        ..Capture::default()
    }
}

fn describe(capture: &mut Capture, end: &Capture) {
    (capture.packets, capture.bytes) = (end.packets, end.bytes);
    (capture.first_packet, capture.last_packet) = (end.first_packet, end.last_packet);
    capture.bytes_read = capture.size_bytes;
    capture.error.clone_from(&end.error);
}

/// Each statement about a capture is a producer of its own: made again, it is another one, with another time.
fn statement(capture: Capture) -> Batch {
    Batch {
        producer: Uuid::new_v4().as_bytes().to_vec(),
        sequence: 1,
        source: Source::Pcap.into(),
        capture_id: capture.capture_id.clone(),
        captures: vec![capture],
        ..Batch::default()
    }
}

/// Tells people of a job that nobody can do.
fn dead_letter(message: &Message, reason: String) -> Batch {
    let letter = DeadLetter {
        stream: names::JOBS.to_owned(),
        subject: message.subject().to_owned(),
        sequence: message.stream_sequence,
        reason,
        payload: message.payload().to_vec(),
    };
    Batch {
        producer: Uuid::new_v4().as_bytes().to_vec(),
        sequence: 1,
        source: Source::Pcap.into(),
        dead_letters: vec![letter],
        ..Batch::default()
    }
}
