//! The life of one part: started, asked whether it is ready, started again when it ends by itself, stopped when told.

use std::process::Stdio;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weir_engines::process;

use super::log::Log;
use crate::status::Answer;

/// How often a part is asked until it is ready.
const POLL_STARTING: Duration = Duration::from_millis(100);

/// How often a part that is ready is asked.
const POLL_RUNNING: Duration = Duration::from_secs(2);

/// The pause before the first new start; it doubles with every end that comes soon.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause before a new start.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A part that ran this long has not ended soon.
const STEADY: Duration = Duration::from_mins(1);

/// A part that the rest can do without, and that has said for this long why it is not ready, counts as off.
const PATIENCE: Duration = Duration::from_secs(3);

/// The same for one that says nothing.
const PATIENCE_WITH_SILENCE: Duration = Duration::from_secs(15);

/// A part that heals only by a new start, and was ready once, gets one when it was unwell for this long.
const UNWELL: Duration = Duration::from_secs(15);

/// What a part is, and how it is run.
pub(super) struct Spec {
    pub(super) name: &'static str,
    /// Makes the command anew for every start.
    pub(super) command: Box<dyn Fn() -> Command + Send + Sync>,
    /// The address that says whether it is ready.
    pub(super) health: String,
    /// Asks whether it is ready.
    pub(super) probe: Box<dyn Fn() -> BoxFuture<'static, Answer> + Send + Sync>,
    /// The rest can do without it.
    pub(super) optional: bool,
    /// What made it unwell does not go away while it runs: a NATS that could not write to a full disk refuses to write for ever.
    pub(super) heals_by_restart: bool,
    /// How long it may take to stop before it is killed.
    pub(super) stop_within: Duration,
}

/// What happened to a part.
#[derive(Debug)]
pub(super) enum What {
    Started { pid: Option<u32> },
    Ready { after: Duration },
    NotReady { reason: String },
    Off { reason: String },
    Ended { how: String, pause: Duration },
    Stopped { killed: bool },
}

/// Something happened to the part with this number.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) part: usize,
    pub(super) what: What,
}

/// The orders to a part.
#[derive(Debug, Clone)]
pub(super) struct Orders {
    /// Stop in order.
    pub(super) stop: CancellationToken,
    /// Do not wait for it.
    pub(super) force: CancellationToken,
}

/// Tells the supervisor.
struct Teller {
    part: usize,
    events: mpsc::Sender<Event>,
}

/// Why one run of a part came to its end.
enum End {
    ByItself(String),
    Told { killed: bool },
}

/// Runs a part until it is told to stop.
pub(super) async fn run(spec: Spec, part: usize, log: Log, events: mpsc::Sender<Event>, orders: Orders) {
    let teller = Teller { part, events };
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let how = match once(&spec, &log, &teller, &orders).await {
            End::ByItself(how) => how,
            End::Told { killed } => return teller.tell(What::Stopped { killed }).await,
        };
        if started.elapsed() > STEADY {
            pause = FIRST_PAUSE;
        }
        teller.tell(What::Ended { how, pause }).await;
        if tokio::time::timeout(pause, orders.stop.cancelled()).await.is_ok() {
            return teller.tell(What::Stopped { killed: false }).await;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn once(spec: &Spec, log: &Log, teller: &Teller, orders: &Orders) -> End {
    let mut command = (spec.command)();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C in the terminal reaches the supervisor alone, which stops the parts in order.
    command.process_group(0);
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let mut child = match process::spawn(command).await {
        Ok(child) => child,
        Err(error) => return End::ByItself(format!("cannot start {program}: {error}")),
    };
    let pumps = [
        child.stdout.take().map(|out| tokio::spawn(log.clone().copy(out))),
        child.stderr.take().map(|out| tokio::spawn(log.clone().copy(out))),
    ];
    teller.tell(What::Started { pid: child.id() }).await;
    let end = tokio::select! {
        status = child.wait() => End::ByItself(status.map_or_else(|error| error.to_string(), process::describe)),
        () = orders.stop.cancelled() => End::Told { killed: stop(&mut child, spec, orders).await },
        reason = watch(spec, teller) => {
            stop(&mut child, spec, orders).await;
            End::ByItself(format!("stopped after {} s of: {reason}", UNWELL.as_secs()))
        }
    };
    // What it said last is in the pipes; a grandchild that keeps them open is not waited for.
    let _ = tokio::time::timeout(Duration::from_secs(1), futures::future::join_all(pumps.into_iter().flatten())).await;
    match end {
        End::ByItself(how) => End::ByItself(match log.last_line() {
            Some(line) => format!("{how}: {line}"),
            None => how,
        }),
        told @ End::Told { .. } => told,
    }
}

/// Asks whether the part is ready, for as long as it runs, and tells what changes. Returns why only a new start can help.
async fn watch(spec: &Spec, teller: &Teller) -> String {
    let started = Instant::now();
    let mut was_ready = false;
    let mut answers_since = None;
    let mut unwell_since = None;
    let mut told: Option<(Option<String>, bool)> = None;
    loop {
        let (reason, overdue) = match (spec.probe)().await {
            Answer::Ready => (None, false),
            Answer::NotReady(reason) => {
                (Some(reason), answers_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE)
            }
            Answer::Silent(reason) => (Some(reason), started.elapsed() > PATIENCE_WITH_SILENCE),
        };
        // One that was ready once is missed.
        let off = overdue && spec.optional && !was_ready;
        let state = (reason, off);
        if told.as_ref() != Some(&state) {
            teller
                .tell(match state.clone() {
                    (None, _) => What::Ready { after: started.elapsed() },
                    (Some(reason), true) => What::Off { reason },
                    (Some(reason), false) => What::NotReady { reason },
                })
                .await;
            was_ready |= state.0.is_none();
            told = Some(state);
        }
        match told.clone() {
            Some((Some(reason), _)) if was_ready && spec.heals_by_restart => {
                if unwell_since.get_or_insert_with(Instant::now).elapsed() > UNWELL {
                    return reason;
                }
            }
            _ => unwell_since = None,
        }
        let settled = was_ready || started.elapsed() > PATIENCE_WITH_SILENCE;
        tokio::time::sleep(if settled { POLL_RUNNING } else { POLL_STARTING }).await;
    }
}

/// True = it had to be killed.
async fn stop(child: &mut Child, spec: &Spec, orders: &Orders) -> bool {
    let ended = tokio::select! {
        ended = process::terminate(child, spec.stop_within) => ended,
        () = orders.force.cancelled() => child.kill().await.map(|()| false),
    };
    // An error says that there is no child any more.
    !ended.unwrap_or(true)
}

impl Teller {
    async fn tell(&self, what: What) {
        // The supervisor listens until the last part has stopped.
        let _ = self.events.send(Event { part: self.part, what }).await;
    }
}
