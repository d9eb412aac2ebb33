//! One container: its newest life, and what was said about it.

use std::collections::BTreeMap;

use weir_proto::{Container, ContainerEvent};

use super::{Effect, Event, Inspected, Kind, RECONSTRUCTED, REMOVED};

/// A container that exists.
#[derive(Debug)]
pub(super) struct Tracked {
    /// The newest life; `started_at` = 0 before the first.
    pub(super) life: Container,
    pub(super) running: bool,
    /// Whether `started_at` is the engine's, or will not be known better: the life has its name.
    named: bool,
    /// The last statement about this life, without its `observed_at`.
    stated: Option<Container>,
    observed_at: u64,
    /// Found in the engine's list: an earlier process may have known more about it.
    discovered: bool,
    /// When the life before ended.
    previous_finished_at: u64,
    seen: Seen,
    told: Told,
    /// What the engine said of a life whose start was not told yet.
    beginning: Option<Box<Inspected>>,
}

/// Which events told of this life: they come in the order in which things happened, whatever the engine's clock says meanwhile.
#[derive(Debug, Default)]
struct Seen {
    start: bool,
    end: bool,
}

/// Which events were reconstructed: the real ones are left out.
#[derive(Debug, Default)]
struct Told {
    create: bool,
    start: bool,
    die: bool,
    /// Other actions, and until when.
    others: Vec<(&'static str, u64)>,
}

impl Tracked {
    /// A container that an event names first.
    pub(super) fn from_event(record: &ContainerEvent, host: &str) -> Self {
        let life = Container {
            runtime: record.runtime.clone(),
            tier: record.tier.clone(),
            container_id: record.container_id.clone(),
            name: record.name.clone(),
            image: record.image.clone(),
            labels: record.labels.clone(),
            state: "created".to_owned(),
            host: host.to_owned(),
            ..Container::default()
        };
        Self::new(life, false, false)
    }

    /// A container that the engine's list names first.
    pub(super) fn discovered(inspected: Inspected) -> Self {
        let mut tracked = Self::new(inspected.container, inspected.running, true);
        tracked.discovered = true;
        tracked.previous_finished_at = inspected.previous_finished_at;
        tracked
    }

    fn new(life: Container, running: bool, named: bool) -> Self {
        Self {
            life,
            running,
            named,
            stated: None,
            observed_at: 0,
            discovered: false,
            previous_finished_at: 0,
            seen: Seen::default(),
            told: Told::default(),
            beginning: None,
        }
    }

    /// Something happened.
    pub(super) fn event(&mut self, event: Event) -> Vec<Effect> {
        let Event { kind, record, .. } = event;
        let time = record.time;
        if kind == Kind::Create && std::mem::take(&mut self.told.create) {
            return vec![Effect::LeftOut("reconstructed")];
        }
        if self.told.others.iter().any(|(action, until)| *action == record.action && time <= *until) {
            return vec![Effect::LeftOut("reconstructed")];
        }
        if kind == Kind::Create {
            if self.life.created_at == 0 {
                self.life.created_at = time;
            }
            return vec![Effect::Event(record)];
        }
        if kind == Kind::Start {
            return self.started(record);
        }
        if kind == Kind::Die {
            return self.died(record);
        }
        if kind == Kind::Rename && !record.name.is_empty() {
            self.life.name.clone_from(&record.name);
        }
        if time >= self.life.started_at {
            match kind {
                Kind::Oom => self.life.oom_killed = true,
                Kind::Health(health) => self.life.health = health,
                Kind::Pause => "paused".clone_into(&mut self.life.state),
                Kind::Unpause => "running".clone_into(&mut self.life.state),
                Kind::Network | Kind::Rename => {}
                Kind::Create | Kind::Start | Kind::Die | Kind::Destroy | Kind::Released | Kind::Other => {
                    return vec![Effect::Event(self.complete(record))];
                }
            }
        }
        let joins = record.action == "network_connect";
        let mut effects = vec![Effect::Event(self.complete(record))];
        // After the end there is nothing to learn: the engine forgets addresses with it.
        if self.running {
            effects.push(Effect::Inspect(self.life.container_id.clone()));
        } else if joins {
            effects.push(Effect::InspectBeginning(self.life.container_id.clone()));
        }
        effects
    }

    fn started(&mut self, record: ContainerEvent) -> Vec<Effect> {
        let time = record.time;
        let is_next = self.seen.end && !self.running;
        let same_life = self.life.started_at > 0 && (self.running || time <= self.life.finished_at);
        if !is_next && (time < self.life.started_at || same_life) {
            if std::mem::take(&mut self.told.start) {
                return vec![Effect::LeftOut("reconstructed")];
            }
            return vec![Effect::Event(self.complete(record))];
        }
        let mut effects = vec![Effect::Event(self.complete(record))];
        effects.extend(self.last_word_on_unnamed());
        self.begin(Container { started_at: time, state: "running".to_owned(), ..self.timeless() }, true, false);
        self.seen.start = true;
        if let Some(beginning) = self.beginning.take() {
            let started_at = beginning.container.started_at;
            if self.previous_finished_at < started_at && started_at <= time {
                self.life.started_at = started_at;
                self.named = true;
                self.detail(*beginning);
            }
        }
        if self.previous_finished_at >= time {
            // The clock was set back: it no longer says what was before what.
            self.previous_finished_at = 0;
        }
        effects.push(Effect::Inspect(self.life.container_id.clone()));
        effects
    }

    fn died(&mut self, record: ContainerEvent) -> Vec<Effect> {
        let time = record.time;
        let of_earlier_life = time < self.life.started_at && !(self.running && self.seen.start);
        if (of_earlier_life || !self.running) && std::mem::take(&mut self.told.die) {
            return vec![Effect::LeftOut("reconstructed")];
        }
        if of_earlier_life || (!self.running && self.life.finished_at > 0) {
            return vec![Effect::Event(self.complete(record))];
        }
        (self.running, self.seen.end) = (false, true);
        self.life.finished_at = time.max(self.life.started_at);
        self.life.exit_code = record.exit_code;
        "exited".clone_into(&mut self.life.state);
        let inspect = Effect::Inspect(self.life.container_id.clone());
        vec![Effect::Event(self.complete(record)), inspect]
    }

    /// The answer to a question that an event asked.
    pub(super) fn detailed(&mut self, inspected: Inspected) -> Vec<Effect> {
        let started_at = inspected.container.started_at;
        if started_at == 0 {
            if self.life.started_at == 0 {
                self.describe(inspected.container);
            }
        } else if self.named {
            if started_at == self.life.started_at {
                self.detail(inspected);
            }
        } else if self.life.started_at == 0 {
            // Only its end was seen, and this is how it began.
            if self.life.finished_at > 0 && !inspected.running {
                self.begin(inspected.container, false, true);
            }
        } else if self.previous_finished_at < started_at && started_at <= self.life.started_at {
            self.life.started_at = started_at;
            self.named = true;
            self.detail(inspected);
        } else if started_at > self.life.started_at && !self.running {
            // The engine already speaks of the next life.
            self.named = true;
        }
        Vec::new()
    }

    /// The answer to a question that was asked before a start.
    pub(super) fn beginning(&mut self, inspected: Inspected) -> Vec<Effect> {
        if inspected.running && !self.running && inspected.container.started_at > self.life.started_at {
            self.beginning = Some(Box::new(inspected));
            return Vec::new();
        }
        self.detailed(inspected)
    }

    /// The answer to a question that a comparison with the engine's list asked.
    pub(super) fn reconciled(&mut self, inspected: Inspected, now: u64, in_gap: bool) -> Vec<Effect> {
        let started_at = inspected.container.started_at;
        let is_newest = started_at == self.life.started_at && self.named;
        let names_it = !self.named && self.previous_finished_at < started_at && started_at <= self.life.started_at;
        if is_newest || names_it {
            let ended_unseen = self.running && !inspected.running;
            let end = (inspected.container.finished_at, inspected.container.exit_code);
            self.running &= inspected.running;
            let before = self.life.clone();
            let mut effects = self.detailed(inspected);
            if in_gap {
                effects.extend(self.reconstruct_changes(&before, now));
            }
            if ended_unseen {
                self.told.die = true;
                effects.push(Effect::Event(self.reconstruct("die", end.0, end.1)));
            }
            return effects;
        }
        let is_end_of_unknown = self.life.started_at == 0 && self.life.finished_at > 0 && !inspected.running;
        if started_at <= self.life.started_at || is_end_of_unknown {
            return self.detailed(inspected);
        }
        let mut effects = self.end_unseen(&inspected, now);
        let running = inspected.running;
        self.told.start = true;
        self.begin(inspected.container, running, true);
        effects.push(Effect::Event(self.reconstruct("start", started_at, None)));
        if !running {
            self.told.die = true;
            effects.push(Effect::Event(self.reconstruct("die", self.life.finished_at, self.life.exit_code)));
        }
        effects
    }

    /// Ends the newest life because the engine speaks of a later one.
    fn end_unseen(&mut self, later: &Inspected, now: u64) -> Vec<Effect> {
        if !self.running {
            return self.last_word_on_unnamed().into_iter().collect();
        }
        let known = later.previous_finished_at;
        let finished_at = if known > self.life.started_at { known } else { later.container.started_at };
        self.told.die = true;
        let die = self.reconstruct("die", finished_at, None);
        let past = ended_unseen(self.life.clone(), "exited", finished_at, self.next_observed_at(now));
        vec![Effect::Event(die), Effect::Past(past)]
    }

    /// Nobody will know this life better than its events did.
    pub(super) fn give_up_detail(&mut self) {
        self.named = self.life.started_at > 0;
    }

    /// Takes over what an earlier process knew.
    pub(super) fn continue_from(&mut self, earlier: Container, now: u64) -> Vec<Effect> {
        if earlier.started_at == self.life.started_at {
            if !self.running {
                // The engine forgets these with the end of a life.
                self.life.networks.clone_from(&earlier.networks);
                self.life.cgroup_path.clone_from(&earlier.cgroup_path);
                self.life.cgroup_id = earlier.cgroup_id;
                self.life.pid = earlier.pid;
                self.life.interfaces.clone_from(&earlier.interfaces);
                self.life.host_addresses.clone_from(&earlier.host_addresses);
                if self.life.ports.is_empty() {
                    self.life.ports.clone_from(&earlier.ports);
                }
            }
            self.observed_at = self.observed_at.max(earlier.observed_at);
            if self.stated.is_none() {
                self.stated = Some(Container { observed_at: 0, ..earlier });
            }
            return Vec::new();
        }
        if earlier.started_at == 0 || earlier.finished_at > 0 || earlier.started_at > self.life.started_at {
            return Vec::new();
        }
        let known = self.previous_finished_at;
        let finished_at = if known > earlier.started_at { known } else { self.life.started_at };
        vec![Effect::Past(ended_unseen(earlier, "exited", finished_at, now))]
    }

    /// A statement, if there is something new to state.
    pub(super) fn settle(&mut self, now: u64, knows_earlier: bool) -> Option<Effect> {
        // One that ended before this process lived: the process before knew its addresses, and may have said all this.
        let wait = self.discovered && !self.running && !knows_earlier;
        if !self.named || self.life.started_at == 0 || wait || self.stated.as_ref() == Some(&self.life) {
            return None;
        }
        self.stated = Some(self.life.clone());
        let observed_at = self.next_observed_at(now);
        Some(Effect::Current(Container { observed_at, ..self.life.clone() }))
    }

    /// The last statement: the container is gone. `time` = the latest time at which it can have ended.
    pub(super) fn removed(mut self, time: u64, now: u64) -> Container {
        let observed_at = self.next_observed_at(now);
        ended_unseen(self.life, REMOVED, time, observed_at)
    }

    /// Fills in what the engine left out of an event.
    pub(super) fn complete(&self, mut record: ContainerEvent) -> ContainerEvent {
        if record.name.is_empty() {
            record.name.clone_from(&self.life.name);
        }
        if record.image.is_empty() {
            record.image.clone_from(&self.life.image);
        }
        if record.labels.is_empty() {
            record.labels.clone_from(&self.life.labels);
        }
        record
    }

    /// An event that must have been.
    pub(super) fn reconstruct(&self, action: &str, time: u64, exit_code: Option<i32>) -> ContainerEvent {
        self.complete(ContainerEvent {
            time,
            runtime: self.life.runtime.clone(),
            tier: self.life.tier.clone(),
            container_id: self.life.container_id.clone(),
            action: action.to_owned(),
            exit_code,
            attributes: [(RECONSTRUCTED.to_owned(), "true".to_owned())].into(),
            ..ContainerEvent::default()
        })
    }

    /// The events of a container that is new here, as far as they were after a moment.
    pub(super) fn reconstruct_since(&mut self, moment: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.life.created_at > moment {
            self.told.create = true;
            effects.push(Effect::Event(self.reconstruct("create", self.life.created_at, None)));
        }
        if self.life.started_at > moment {
            self.told.start = true;
            effects.push(Effect::Event(self.reconstruct("start", self.life.started_at, None)));
        }
        if self.life.finished_at > moment {
            self.told.die = true;
            effects.push(Effect::Event(self.reconstruct("die", self.life.finished_at, self.life.exit_code)));
        }
        effects
    }

    /// The events within a life that must have been, by what is different now.
    fn reconstruct_changes(&mut self, before: &Container, now: u64) -> Vec<Effect> {
        let after = &self.life;
        let mut found = Vec::new();
        if before.name != after.name && !before.name.is_empty() {
            found.push(("rename", [("oldName".to_owned(), before.name.clone())].into()));
        }
        if before.state != after.state && before.started_at > 0 {
            match (before.state.as_str(), after.state.as_str()) {
                (_, "paused") => found.push(("pause", BTreeMap::new())),
                ("paused", "running") => found.push(("unpause", BTreeMap::new())),
                _ => {}
            }
        }
        if before.health != after.health && !before.health.is_empty() && !after.health.is_empty() {
            found.push(("health_status", [("health".to_owned(), after.health.clone())].into()));
        }
        if after.oom_killed && !before.oom_killed {
            found.push(("oom", BTreeMap::new()));
        }
        // Of an end that was not seen it is known when it was.
        let time = if after.finished_at > 0 { after.finished_at } else { now };
        self.told.others.retain(|(action, _)| found.iter().all(|(other, _)| action != other));
        self.told.others.extend(found.iter().map(|(action, _)| (*action, now)));
        let events = found.into_iter().map(|(action, attributes)| {
            let mut event = self.reconstruct(action, time, None);
            event.attributes.extend(attributes);
            Effect::Event(event)
        });
        events.collect()
    }

    /// A life that ended before the engine could be asked about it has only what its events said.
    fn last_word_on_unnamed(&mut self) -> Option<Effect> {
        if self.named || self.life.started_at == 0 {
            return None;
        }
        let observed_at = self.next_observed_at(0);
        Some(Effect::Past(Container { observed_at, ..self.life.clone() }))
    }

    fn begin(&mut self, life: Container, running: bool, named: bool) {
        self.previous_finished_at = self.life.finished_at;
        self.life = life;
        self.running = running;
        self.named = named;
        self.stated = None;
        self.discovered = false;
        self.seen = Seen::default();
    }

    /// What does not change from life to life.
    fn timeless(&self) -> Container {
        Container {
            runtime: self.life.runtime.clone(),
            tier: self.life.tier.clone(),
            source: self.life.source.clone(),
            container_id: self.life.container_id.clone(),
            name: self.life.name.clone(),
            image: self.life.image.clone(),
            image_id: self.life.image_id.clone(),
            image_digest: self.life.image_digest.clone(),
            cpu_limit: self.life.cpu_limit,
            memory_limit_bytes: self.life.memory_limit_bytes,
            pids_limit: self.life.pids_limit,
            labels: self.life.labels.clone(),
            created_at: self.life.created_at,
            host: self.life.host.clone(),
            host_network: self.life.host_network,
            ..Container::default()
        }
    }

    fn describe(&mut self, from: Container) {
        self.life.name = from.name;
        self.life.image = from.image;
        self.life.image_id = from.image_id;
        self.life.image_digest = from.image_digest;
        self.life.cpu_limit = from.cpu_limit;
        self.life.memory_limit_bytes = from.memory_limit_bytes;
        self.life.pids_limit = from.pids_limit;
        self.life.labels = from.labels;
        self.life.created_at = from.created_at;
        self.life.host_network = from.host_network;
        self.life.source = from.source;
        self.life.restarts = from.restarts;
    }

    /// Adds what the engine says about this very life.
    fn detail(&mut self, inspected: Inspected) {
        let Inspected { container: from, running, .. } = inspected;
        // An answer that was given before the end, and comes after it, is the only one with addresses.
        if running && (self.running || self.life.networks.is_empty()) {
            self.life.pid = from.pid;
            self.life.networks.clone_from(&from.networks);
            self.life.ports.clone_from(&from.ports);
            self.life.interfaces.clone_from(&from.interfaces);
            self.life.host_addresses.clone_from(&from.host_addresses);
            if from.cgroup_id != 0 {
                (self.life.cgroup_id, self.life.cgroup_path) = (from.cgroup_id, from.cgroup_path.clone());
            }
        }
        if running && self.running {
            self.life.state.clone_from(&from.state);
            self.life.health.clone_from(&from.health);
        } else if !running && !self.running {
            if from.finished_at > 0 {
                self.life.finished_at = from.finished_at;
            }
            self.life.exit_code = from.exit_code;
            self.life.state.clone_from(&from.state);
        }
        self.life.oom_killed |= from.oom_killed;
        self.describe(from);
    }

    /// Of two statements about one life the later one holds, so no two may have the same time.
    fn next_observed_at(&mut self, now: u64) -> u64 {
        self.observed_at = now.max(self.observed_at + 1);
        self.observed_at
    }
}

/// A life whose end nobody saw. `time` = the latest time at which it can have ended, which is what stands for the end; there is no exit code.
pub(super) fn ended_unseen(life: Container, state: &str, time: u64, observed_at: u64) -> Container {
    let finished_at = if life.started_at > 0 && life.finished_at == 0 { time } else { life.finished_at };
    Container { state: state.to_owned(), finished_at, observed_at, ..life }
}

/// The last statement about a container of which an earlier process saw the life and this one the end.
pub(super) fn adopted(end: &Container, life: Container, now: u64) -> Container {
    if life.finished_at > 0 {
        return ended_unseen(life, REMOVED, now, now);
    }
    Container {
        finished_at: end.finished_at,
        exit_code: end.exit_code,
        oom_killed: life.oom_killed || end.oom_killed,
        ..ended_unseen(life, REMOVED, now, now)
    }
}
