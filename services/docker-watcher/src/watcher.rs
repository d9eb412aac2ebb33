//! The session with the engine: events, inspections, comparisons, and beginning anew when the engine goes away.

mod asked;

use std::{pin::Pin, time::Duration};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::BoxStream};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};
use tracing::{debug, info, warn};
use weir_proto::Container;
use weir_service::{Health, Shutdown};

use crate::{
    Error, cgroup, docker,
    filter::{self, Choice, Chooser},
    identities::Identities,
    lives::{Effect, Event, Inspected, Lives, Origin},
    metrics,
    outbox::{Outbox, Record},
    position::{Mark, Position},
    runtime::{Address, Engine},
    sampler::Targets,
};
use asked::Asked;

/// The pause before the second try to reach an engine that is away; it doubles up to [`MAX_BACKOFF`].
const MIN_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// The pause after an event that cannot be read.
const REOPEN: Duration = Duration::from_secs(1);
/// When the list is compared again after an inspection that failed.
const SOON: Duration = Duration::from_secs(5);

/// How to watch.
#[derive(Clone, Debug)]
pub struct Options {
    /// The source's name: the condition that says whether it is watched, and what metrics say.
    pub name: &'static str,
    /// Where the engine is.
    pub address: Address,
    /// Nobody asked for it by name: the service is ready without it.
    pub optional: bool,
    /// After which it counts as hung.
    pub timeout: Duration,
    /// Inspections at one time.
    pub concurrency: usize,
    /// Between two comparisons with its list.
    pub reconcile_interval: Duration,
    /// Which of its containers are watched.
    pub filter: filter::Options,
}

/// Watches one engine.
pub struct Watcher {
    options: Options,
    lives: Lives,
    chooser: Chooser,
    position: Position,
    outputs: Outputs,
    health: Health,
    /// What an earlier process left, as soon as NATS tells.
    earlier: Option<oneshot::Receiver<Vec<Container>>>,
}

/// Where effects go.
pub struct Outputs {
    /// Records.
    pub outbox: Outbox,
    /// Who has which address and cgroup.
    pub identities: Identities,
    /// What the sampler samples.
    pub targets: Targets,
    /// What the sampler asks.
    pub engine: watch::Sender<Option<Engine>>,
    /// Who needs not be told about by cgroups.
    pub served: cgroup::Served,
}

type Answer<T> = Option<BoxFuture<'static, Result<T, Error>>>;

/// What a session waits for.
struct Session {
    engine: Engine,
    asked: Asked,
    /// The request for the engine's list that is on its way.
    list: Answer<Vec<String>>,
    ping: Answer<()>,
    reconcile_every: Interval,
    ping_every: Interval,
    /// Whether the lives are what the engine says.
    reconciled: bool,
}

impl Watcher {
    /// A watcher that knows nothing yet.
    #[must_use]
    pub fn new(
        options: Options,
        host: &str,
        position: Position,
        outputs: Outputs,
        health: Health,
        earlier: oneshot::Receiver<Vec<Container>>,
    ) -> Self {
        let chooser = Chooser::new(options.filter.clone());
        Self { options, lives: Lives::new(host), chooser, position, outputs, health, earlier: Some(earlier) }
    }

    /// Watches until told to stop; an engine that is away is tried again for ever.
    pub async fn run(mut self, shutdown: Shutdown) {
        let (mut failures, mut said) = (0, String::new());
        loop {
            let error = tokio::select! {
                () = shutdown.cancelled() => return,
                error = self.connect_and_watch(&mut failures) => error,
            };
            self.outputs.engine.send_replace(None);
            self.outputs.served.tried(self.options.name, None);
            metrics::session_failure(self.options.name, &error);
            let (source, reason) = (self.options.name, error.chain());
            if !self.options.optional {
                self.health.unmet(source, reason.as_str());
            }
            if said == reason {
                debug!(source, reason, "the engine is still away");
            } else {
                warn!(source, reason, "no engine to watch, trying again");
                said = reason;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(backoff(failures)) => {}
            }
            failures += 1;
        }
    }

    async fn connect_and_watch(&mut self, failures: &mut u32) -> Error {
        let engine = match Engine::connect(&self.options.address, self.options.timeout).await {
            Ok(engine) => engine,
            Err(error) => return error,
        };
        *failures = 0;
        metrics::connected(self.options.name);
        info!(source = self.options.name, address = %self.options.address, "watching");
        self.outputs.served.tried(self.options.name, Some(engine.runtime()));
        self.outputs.engine.send_replace(Some(engine.clone()));
        self.watch(engine).await
    }

    /// One session. It always ends with an error: at the least, the engine closes the stream of events.
    async fn watch(&mut self, engine: Engine) -> Error {
        let since = self.position.since_ns().unwrap_or_else(|| engine.clock_ns());
        let mut events = engine.events(since).boxed();
        let mut session = Session::new(engine, &self.options);
        self.lives.gap_from(u64::try_from(self.position.latest_ns() / 1000).unwrap_or(0));
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(Some(event))) => self.event(event, &mut session).await,
                    Some(Ok(None)) => metrics::event_left_out("no_container"),
                    // Asking again from there would give it again: the list will tell what it was about.
                    Some(Err(error @ Error::Answer { .. })) => {
                        warn!(reason = error.chain(), "an event cannot be read");
                        metrics::event_left_out("unreadable");
                        self.position.skip_to(session.engine.clock_ns());
                        events = later(session.engine.clone(), session.engine.clock_ns());
                        session.reconcile_every.reset_after(SOON);
                    }
                    Some(Err(error)) => return error,
                    None => return Error::Closed,
                },
                (id, origin, answer) = session.asked.next() => self.answer(&id, origin, answer, &mut session).await,
                listed = wait(&mut session.list) => {
                    session.list = None;
                    match listed {
                        Ok(ids) => self.compare(ids, &mut session),
                        Err(error) => return error,
                    }
                }
                _ = session.reconcile_every.tick() => session.ask_for_list(),
                _ = session.ping_every.tick() => session.ask_for_ping(),
                alive = wait(&mut session.ping) => {
                    session.ping = None;
                    if let Err(error) = alive {
                        return error;
                    }
                }
                earlier = wait(&mut self.earlier), if session.reconciled => {
                    self.earlier = None;
                    let effects = self.lives.earlier(earlier.unwrap_or_default(), now());
                    self.apply(effects, &mut session.asked).await;
                }
            }
            if !session.reconciled && session.list.is_none() && session.asked.reconciliations() == 0 {
                session.reconciled = true;
                self.lives.gap_is_closed();
                self.health.met(self.options.name);
            }
        }
    }

    async fn event(&mut self, event: Event, session: &mut Session) {
        let mark = Mark::of(&event);
        if !self.position.see(mark.clone()) {
            metrics::event_left_out("repeated");
            return;
        }
        let id = event.record.container_id.clone();
        let effects = self.lives.event(event, now());
        self.outputs.targets.set(&id, self.watched(&id));
        self.apply(effects, &mut session.asked).await;
        self.outputs.outbox.send(Record::Seen(mark)).await;
    }

    async fn answer(&mut self, id: &str, origin: Origin, answer: Result<Inspected, Error>, session: &mut Session) {
        let effects = match answer {
            Ok(inspected) => self.lives.inspected(inspected, origin, now()),
            Err(Error::NotFound) => self.lives.not_found(id, origin, now()),
            // It may take long to start.
            Err(Error::Timeout { .. }) if origin == Origin::Beginning && self.lives.may_start(id) => {
                vec![Effect::InspectBeginning(id.to_owned())]
            }
            // When it has started it is asked about again.
            Err(_) if origin == Origin::Beginning => Vec::new(),
            Err(error) => {
                metrics::failure("inspect", &error);
                warn!(reason = error.chain(), container = id, "cannot inspect");
                if matches!(error, Error::Answer { .. } | Error::Refused { .. }) {
                    // Asking again would give the same: its events must do.
                    self.lives.not_found(id, Origin::Event, now())
                } else {
                    session.reconcile_every.reset_after(SOON);
                    Vec::new()
                }
            }
        };
        self.outputs.targets.set(id, self.watched(id));
        self.apply(effects, &mut session.asked).await;
    }

    /// Inspects what the engine lists, and what it should list.
    fn compare(&mut self, listed: Vec<String>, session: &mut Session) {
        let mut ids = self.lives.ids();
        ids.extend(listed);
        for id in ids {
            session.asked.ask(id, Origin::Reconciliation);
        }
    }

    /// The newest life of a container, if it is running and watched.
    fn watched(&self, id: &str) -> Option<&Container> {
        self.lives.running(id).filter(|life| self.chooser.accepts(life))
    }

    async fn apply(&mut self, effects: Vec<Effect>, asked: &mut Asked) {
        let Outputs { outbox, identities, .. } = &self.outputs;
        for effect in effects {
            match (self.chooser.choose(&effect), &effect) {
                (Choice::Take, _) => {}
                (Choice::Forget, Effect::Current(container) | Effect::Gone(container)) => {
                    identities.forget(&container.container_id);
                    continue;
                }
                (_, Effect::Event(_)) => {
                    metrics::event_left_out("filter");
                    continue;
                }
                _ => continue,
            }
            match effect {
                Effect::Event(event) => {
                    metrics::event();
                    outbox.send(Record::Event(Box::new(event))).await;
                }
                Effect::Current(container) => {
                    identities.put(container.clone());
                    outbox.send(Record::Container(Box::new(container))).await;
                }
                Effect::Past(container) => outbox.send(Record::Container(Box::new(container))).await,
                Effect::Gone(container) => {
                    identities.forget(&container.container_id);
                    outbox.send(Record::Container(Box::new(container))).await;
                }
                Effect::Inspect(id) => asked.ask(id, Origin::Event),
                Effect::InspectBeginning(id) => asked.ask_beginning(id),
                Effect::LeftOut(reason) => metrics::event_left_out(reason),
            }
        }
    }
}

impl Session {
    fn new(engine: Engine, options: &Options) -> Self {
        let every = |period| {
            let mut interval = interval_at(Instant::now() + period, period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        let mut session = Self {
            asked: Asked::new(engine.clone(), options.concurrency),
            list: None,
            ping: None,
            reconcile_every: every(options.reconcile_interval),
            ping_every: every(options.timeout),
            reconciled: false,
            engine,
        };
        session.ask_for_list();
        session
    }

    /// Unless the comparison before is still on its way.
    fn ask_for_list(&mut self) {
        if self.list.is_none() && self.asked.reconciliations() == 0 {
            let engine = self.engine.clone();
            self.list = Some(async move { engine.list().await }.boxed());
        }
    }

    fn ask_for_ping(&mut self) {
        if self.ping.is_none() {
            let engine = self.engine.clone();
            self.ping = Some(async move { engine.ping().await }.boxed());
        }
    }
}

/// The events from a time on, asked for after a pause.
fn later(engine: Engine, since_ns: i64) -> BoxStream<'static, Result<Option<Event>, Error>> {
    async move {
        tokio::time::sleep(REOPEN).await;
        engine.events(since_ns)
    }
    .flatten_stream()
    .boxed()
}

/// Waits for an answer that may not have been asked for, and then for ever.
async fn wait<F: Future + Unpin>(answer: &mut Option<F>) -> F::Output {
    match answer {
        Some(answer) => Pin::new(answer).await,
        None => std::future::pending().await,
    }
}

fn backoff(failures: u32) -> Duration {
    MIN_BACKOFF.saturating_mul(1 << failures.min(10)).min(MAX_BACKOFF)
}

/// Microseconds since 1970.
fn now() -> u64 {
    (docker::now_ns() / 1000) as u64
}
