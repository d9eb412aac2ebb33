//! The lives of containers, without I/O: events and inspections come in, effects go out, `now` is a parameter.
//!
//! A life goes from one start of a container to its end. Its name is (container, `started_at`), so a statement about it waits until the
//! engine's own `started_at` is known, or until nobody can know it any more (the container was removed too fast); then the time of the start
//! event stands for it.
//!
//! Who may say what:
//! - an **event** changes the phase: created, running, ended, removed
//! - an inspection that was asked for before a start waits for the start, if it comes before it
//! - an inspection that an event asked for adds detail to the phase that events established, because it may be older or newer than they are
//! - an inspection of a **reconciliation** (after a connect, and every few minutes) changes the phase where events were missed. The events
//!   that must have been are then reconstructed, marked with the attribute [`RECONSTRUCTED`], and the real ones are left out should they
//!   still come.

mod tracked;

use std::collections::{HashMap, HashSet, VecDeque, hash_map::Entry};

use weir_proto::{Container, ContainerEvent};

use tracked::Tracked;

/// The attribute of an event that was not seen: the engine's list says that it must have been.
pub const RECONSTRUCTED: &str = "weir.reconstructed";

/// State of a life whose container is gone.
pub const REMOVED: &str = "removed";

/// State of a life that another source tells about from then on, with a row of its own.
pub const RELEASED: &str = "released";

/// How many containers that are gone are remembered, for answers and events that come late.
const REMEMBERED: usize = 1024;

/// Something that happened to a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When, nanoseconds since 1970, by the engine's clock.
    pub time_ns: i64,
    /// What it means for the life of the container.
    pub kind: Kind,
    /// The record of it.
    pub record: ContainerEvent,
}

/// What an event means for a life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The container exists.
    Create,
    /// A life begins.
    Start,
    /// A life ends; the record has the exit code.
    Die,
    /// The kernel killed one of its processes for memory.
    Oom,
    /// The container is gone.
    Destroy,
    /// The record has the new name.
    Rename,
    /// The health check says something new.
    Health(String),
    /// Its processes are frozen.
    Pause,
    /// They go on.
    Unpause,
    /// It joined or left a network.
    Network,
    /// Another source tells about the container from now on.
    Released,
    /// Nothing.
    Other,
}

/// What the engine knows of a container.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspected {
    /// Its newest life, or none yet (`started_at` = 0).
    pub container: Container,
    /// Whether that life goes on.
    pub running: bool,
    /// When the life before it ended, where the engine still says so; otherwise 0.
    pub previous_finished_at: u64,
}

/// Who asked for an inspection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An event.
    Event,
    /// An event that comes before a start: the engine answers when the container runs, and before it tells of its end.
    Beginning,
    /// A comparison with the engine's list.
    Reconciliation,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Publish an event.
    Event(ContainerEvent),
    /// Publish a statement about a container's newest life, and make it the container's identity.
    Current(Container),
    /// Publish a statement about a life before the newest.
    Past(Container),
    /// Publish the last statement about a container, and drop its identity.
    Gone(Container),
    /// Ask the engine about a container.
    Inspect(String),
    /// Ask about a container that is about to start: after the start of one that lives for an instant it is too late.
    InspectBeginning(String),
    /// Leave out an event, for this reason.
    LeftOut(&'static str),
}

/// All containers of one engine.
#[derive(Debug, Default)]
pub struct Lives {
    host: String,
    tracked: HashMap<String, Tracked>,
    /// Containers that are gone, oldest first, and whether their end was reconstructed.
    gone: VecDeque<(String, bool)>,
    /// Whether [`Lives::earlier`] was called.
    knows_earlier: bool,
    /// When an earlier session saw its last event, while the comparison that closes the gap since then is on its way; otherwise 0.
    gap_from: u64,
    /// Containers that are gone and whose end alone was seen: an earlier process may have seen how they began.
    orphans: HashMap<String, Container>,
}

impl Lives {
    /// None yet.
    #[must_use]
    pub fn new(host: &str) -> Self {
        Self { host: host.to_owned(), ..Self::default() }
    }

    /// A session begins, and what happened after this moment (microseconds since 1970) was not seen: what the next reconciliation finds must
    /// have been, and its events are reconstructed. 0 = there was no session before.
    pub fn gap_from(&mut self, latest: u64) {
        self.gap_from = latest;
    }

    /// The first reconciliation of a session is done.
    pub fn gap_is_closed(&mut self) {
        self.gap_from = 0;
    }

    /// The ids of all containers that are known to exist.
    #[must_use]
    pub fn ids(&self) -> HashSet<String> {
        self.tracked.keys().cloned().collect()
    }

    /// The newest life of a container, if it is running.
    #[must_use]
    pub fn running(&self, id: &str) -> Option<&Container> {
        self.tracked.get(id).filter(|tracked| tracked.running).map(|tracked| &tracked.life)
    }

    /// Whether a container exists and does not run.
    #[must_use]
    pub fn may_start(&self, id: &str) -> bool {
        self.tracked.get(id).is_some_and(|tracked| !tracked.running)
    }

    /// Something happened. `now` is in microseconds since 1970.
    pub fn event(&mut self, event: Event, now: u64) -> Vec<Effect> {
        let id = event.record.container_id.clone();
        match event.kind {
            Kind::Destroy => return self.destroyed(&id, event, now),
            Kind::Released => return self.released(&id, now),
            _ => {}
        }
        if !self.tracked.contains_key(&id) {
            // Others wait for the reconciliation that is on its way: it knows more than an event does.
            let begins = matches!(event.kind, Kind::Create | Kind::Start | Kind::Die);
            if !begins || self.is_gone(&id).is_some() {
                return vec![Effect::Event(event.record)];
            }
            self.tracked.insert(id.clone(), Tracked::from_event(&event.record, &self.host));
        }
        let Some(tracked) = self.tracked.get_mut(&id) else { return Vec::new() };
        let mut effects = tracked.event(event);
        effects.extend(tracked.settle(now, self.knows_earlier));
        effects
    }

    /// The engine's answer about a container.
    pub fn inspected(&mut self, mut inspected: Inspected, origin: Origin, now: u64) -> Vec<Effect> {
        inspected.container.host.clone_from(&self.host);
        let id = inspected.container.container_id.clone();
        let is_gone = self.is_gone(&id).is_some();
        let tracked = match (self.tracked.entry(id), origin) {
            (Entry::Occupied(entry), _) => entry.into_mut(),
            (Entry::Vacant(entry), Origin::Reconciliation) if !is_gone => {
                let tracked = entry.insert(Tracked::discovered(inspected));
                let mut effects = if self.gap_from > 0 { tracked.reconstruct_since(self.gap_from) } else { Vec::new() };
                effects.extend(tracked.settle(now, self.knows_earlier));
                return effects;
            }
            // It was removed while the answer was on its way.
            (Entry::Vacant(_), _) => return Vec::new(),
        };
        let mut effects = match origin {
            Origin::Event => tracked.detailed(inspected),
            Origin::Beginning => tracked.beginning(inspected),
            Origin::Reconciliation => tracked.reconciled(inspected, now, self.gap_from > 0),
        };
        effects.extend(tracked.settle(now, self.knows_earlier));
        effects
    }

    /// The engine knows no such container (any more).
    pub fn not_found(&mut self, id: &str, origin: Origin, now: u64) -> Vec<Effect> {
        match origin {
            // Its destroy event is on its way. Nobody will know its life better than its events did.
            Origin::Event => match self.tracked.get_mut(id) {
                Some(tracked) => {
                    tracked.give_up_detail();
                    tracked.settle(now, self.knows_earlier).into_iter().collect()
                }
                None => Vec::new(),
            },
            // Whoever sees it start asks again.
            Origin::Beginning => Vec::new(),
            Origin::Reconciliation => {
                let Some(tracked) = self.tracked.remove(id) else { return Vec::new() };
                self.remember_gone(id, true);
                let destroy = tracked.reconstruct("destroy", now, None);
                vec![Effect::Event(destroy), Effect::Gone(tracked.removed(now, now))]
            }
        }
    }

    /// The identities that an earlier process left; to be called once, after the first reconciliation.
    pub fn earlier(&mut self, identities: Vec<Container>, now: u64) -> Vec<Effect> {
        self.knows_earlier = true;
        let mut effects = Vec::new();
        for earlier in identities {
            let is_gone = self.is_gone(&earlier.container_id).is_some();
            match self.tracked.get_mut(&earlier.container_id) {
                Some(tracked) => effects.extend(tracked.continue_from(earlier, now)),
                None if is_gone => {
                    if let Some(orphan) = self.orphans.remove(&earlier.container_id) {
                        effects.push(Effect::Gone(tracked::adopted(&orphan, earlier, now)));
                    }
                }
                None => effects.push(Effect::Gone(tracked::ended_unseen(earlier, REMOVED, now, now))),
            }
        }
        effects.extend(self.orphans.drain().map(|(_, orphan)| Effect::Gone(orphan)));
        effects.extend(self.tracked.values_mut().filter_map(|tracked| tracked.settle(now, true)));
        effects
    }

    /// The identity stays: it is the other source's now.
    fn released(&mut self, id: &str, now: u64) -> Vec<Effect> {
        let Some(tracked) = self.tracked.remove(id) else { return Vec::new() };
        vec![Effect::Past(tracked::ended_unseen(tracked.life, RELEASED, now, now))]
    }

    fn destroyed(&mut self, id: &str, event: Event, now: u64) -> Vec<Effect> {
        if self.is_gone(id) == Some(true) {
            return vec![Effect::LeftOut("reconstructed")];
        }
        let Some(tracked) = self.tracked.remove(id) else { return vec![Effect::Event(event.record)] };
        self.remember_gone(id, false);
        let time = event.record.time;
        let told = Effect::Event(tracked.complete(event.record));
        let is_orphan = tracked.life.started_at == 0 && tracked.life.finished_at > 0;
        let last = tracked.removed(time, now);
        if is_orphan && !self.knows_earlier && self.orphans.len() < REMEMBERED {
            self.orphans.insert(id.to_owned(), last);
            return vec![told];
        }
        vec![told, Effect::Gone(last)]
    }

    /// Whether a container is gone, and whether its end was reconstructed.
    fn is_gone(&self, id: &str) -> Option<bool> {
        self.gone.iter().rev().find(|(gone, _)| gone == id).map(|(_, reconstructed)| *reconstructed)
    }

    fn remember_gone(&mut self, id: &str, reconstructed: bool) {
        if self.gone.len() == REMEMBERED {
            self.gone.pop_front();
        }
        self.gone.push_back((id.to_owned(), reconstructed));
    }
}

#[cfg(test)]
mod tests;
