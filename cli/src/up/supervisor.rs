//! Brings the parts up in order, keeps account of them, and brings them down in order.

use anyhow::{Context, Result};
use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::log::{Log, Reporter};
use super::part::{self, Event, Orders, Spec, What};
use super::plan::{Plan, Planned, STOP_ORDER};
use crate::instance::{Instance, Part, PartState, Phase, State};

/// Events that wait while the state is written; a part that has more to tell waits too.
const EVENTS: usize = 64;

struct Supervisor<'a> {
    instance: &'a Instance,
    reporter: &'a Reporter,
    started: Instant,
    state: State,
    running: Vec<Running>,
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    force: CancellationToken,
    write_failed: bool,
}

/// A part that has a task.
struct Running {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// The signals that mean: stop. A terminal that closes sends `SIGHUP`.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// Runs the plan until a signal. True = stopped in order.
pub(super) async fn run(plan: Plan, instance: &Instance, reporter: &Reporter) -> Result<bool> {
    let mut signals = Signals::new()?;
    let (sender, events) = mpsc::channel(EVENTS);
    let state = State {
        supervisor_pid: std::process::id(),
        started_at: Timestamp::now(),
        phase: Phase::Starting,
        api: plan.api,
        parts: Vec::new(),
    };
    let mut supervisor = Supervisor {
        instance,
        reporter,
        started: Instant::now(),
        state,
        running: Vec::new(),
        sender,
        events,
        force: CancellationToken::new(),
        write_failed: false,
    };
    supervisor.start(plan.engines)?;
    let result = tokio::select! {
        result = supervisor.bring_up(plan.services) => result,
        () = signals.next() => Ok(()),
    };
    if result.is_ok() && supervisor.state.phase == Phase::Running {
        supervisor.watch(&mut signals).await;
    }
    let in_order = supervisor.stop(&mut signals).await;
    result.map(|()| in_order)
}

impl Supervisor<'_> {
    /// Starts a task for each part that runs, and notes those that do not.
    fn start(&mut self, planned: Vec<Planned>) -> Result<()> {
        for planned in planned {
            match planned {
                Planned::Run(spec) => self.start_part(spec)?,
                Planned::Off { name, reason } => {
                    self.say(name, &format!("off: {reason}"));
                    self.state.parts.push(idle(name, PartState::Off, Some(reason)));
                }
                Planned::External { name } => {
                    self.say(name, "your own server");
                    self.state.parts.push(idle(name, PartState::External, None));
                }
            }
        }
        self.write();
        Ok(())
    }

    fn start_part(&mut self, spec: Spec) -> Result<()> {
        let log = Log::open(self.instance, spec.name)?;
        let number = self.state.parts.len();
        self.state.parts.push(Part {
            health: Some(spec.health.clone()),
            log: Some(log.path().to_owned()),
            ..idle(spec.name, PartState::Starting, None)
        });
        let name = spec.name;
        let stop = CancellationToken::new();
        let orders = Orders { stop: stop.clone(), force: self.force.clone() };
        let task = tokio::task::spawn(part::run(spec, number, log, self.sender.clone(), orders));
        self.running.push(Running { name, stop, task });
        Ok(())
    }

    /// Engines first, then services; returns when all is ready or off.
    async fn bring_up(&mut self, services: Vec<Planned>) -> Result<()> {
        self.settle().await;
        self.start(services)?;
        self.settle().await;
        self.state.phase = Phase::Running;
        self.write();
        self.welcome();
        Ok(())
    }

    /// Waits until every part is ready, off or somebody else's.
    async fn settle(&mut self) {
        while !self
            .state
            .parts
            .iter()
            .all(|part| matches!(part.state, PartState::Ready | PartState::Off | PartState::External))
        {
            self.next_event().await;
        }
    }

    async fn watch(&mut self, signals: &mut Signals) {
        loop {
            tokio::select! {
                () = signals.next() => return,
                () = self.next_event() => {}
            }
        }
    }

    /// Takes one event; cancelling it loses none.
    async fn next_event(&mut self) {
        // The supervisor holds a sender itself, so the channel never closes.
        if let Some(event) = self.events.recv().await {
            self.apply(event);
            self.write();
        }
    }

    fn apply(&mut self, Event { part: number, what }: Event) {
        let starting = self.state.phase == Phase::Starting;
        let part = &mut self.state.parts[number];
        let name = part.name.clone();
        let was = part.state;
        match what {
            What::Started { pid } => {
                part.pid = pid;
                part.state = PartState::Starting;
                part.reason = None;
            }
            What::Ready { after } => {
                part.state = PartState::Ready;
                part.reason = None;
                if starting || was != PartState::Ready {
                    self.say(&name, &format!("ready after {:.1} s", after.as_secs_f64()));
                }
            }
            What::NotReady { reason } => {
                if was == PartState::Ready {
                    part.state = PartState::NotReady;
                    self.reporter.warn(&format!("weir: {name} is not ready any more: {reason}"));
                }
                self.state.parts[number].reason = Some(reason);
            }
            What::Off { reason } => {
                part.state = PartState::Off;
                part.reason = Some(reason.clone());
                self.say(&name, &format!("off: {reason}"));
            }
            What::Ended { how, pause } => {
                part.state = PartState::Restarting;
                part.pid = None;
                part.restarts += 1;
                part.reason = None;
                part.last_exit = Some(how.clone());
                self.reporter.warn(&format!(
                    "weir: {name} ended by itself ({how}); starting it again in {:.1} s",
                    pause.as_secs_f64()
                ));
            }
            What::Stopped { killed } => {
                part.state = PartState::Stopped;
                part.pid = None;
                if killed {
                    part.last_exit = Some("killed: it did not stop in time".to_owned());
                    self.reporter.warn(&format!("weir: {name} did not stop in time and was killed"));
                }
            }
        }
    }

    /// Stops the parts group by group. True = none had to be killed.
    async fn stop(&mut self, signals: &mut Signals) -> bool {
        self.state.phase = Phase::Stopping;
        self.write();
        self.reporter.say("stopping");
        let started = Instant::now();
        for group in STOP_ORDER {
            let mut tasks = Vec::new();
            for running in self.running.extract_if(.., |running| group.contains(&running.name)) {
                running.stop.cancel();
                tasks.push(running.task);
            }
            let mut all = std::pin::pin!(futures::future::join_all(tasks));
            loop {
                tokio::select! {
                    _ = &mut all => break,
                    () = self.next_event() => {}
                    () = signals.next() => self.force.cancel(),
                }
            }
            while let Ok(event) = self.events.try_recv() {
                self.apply(event);
            }
            self.write();
        }
        self.reporter.say(&format!("stopped in {:.1} s", started.elapsed().as_secs_f64()));
        self.state.parts.iter().all(|part| part.last_exit.as_ref().is_none_or(|exit| !exit.starts_with("killed: ")))
    }

    fn say(&self, part: &str, what: &str) {
        self.reporter.say(&format!("  {part:<15} {what}"));
    }

    fn welcome(&self) {
        let api = &self.state.api;
        let seconds = self.started.elapsed().as_secs_f64();
        self.reporter.say(&format!("ready in {seconds:.1} s: {api}  (OpenAPI: {api}/api/v1/openapi.json)"));
        for line in [
            "try   weir flows 'dst_port = 443'",
            "      weir top",
            "      weir upload FILE.pcap --wait",
            "      weir query 'SELECT dst_name, sum(tx_bytes + rx_bytes) AS bytes FROM flows GROUP BY 1 ORDER BY 2 DESC'",
            "stop  Ctrl-C or `weir down`",
        ] {
            self.reporter.say(line);
        }
    }

    fn write(&mut self) {
        match self.instance.write_state(&self.state) {
            Ok(()) => self.write_failed = false,
            // Said once: a full disk must not fill the terminal too.
            Err(error) if !self.write_failed => {
                self.write_failed = true;
                self.reporter.warn(&format!("weir: {error:#}; `weir status` shows an old state until this is mended"));
            }
            Err(_) => {}
        }
    }
}

impl Signals {
    fn new() -> Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        let hangup = signal(SignalKind::hangup()).context("cannot handle SIGHUP")?;
        Ok(Self { terminate, interrupt, hangup })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

fn idle(name: &str, state: PartState, reason: Option<String>) -> Part {
    Part { name: name.to_owned(), state, reason, pid: None, health: None, restarts: 0, last_exit: None, log: None }
}
