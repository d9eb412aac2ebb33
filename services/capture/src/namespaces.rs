//! Interfaces in the network namespaces of containers: their loopback, which nobody else sees, and devices that were moved into them.
//!
//! A thread of its own looks every second which processes of containers there are and in which network namespaces, enters each of these for some
//! microseconds, asks what interfaces it has, and attaches to those that no interface here shows ([`choose`]). Nothing is kept open in between: a
//! namespace that its last process leaves goes away at once, and takes what is attached with it.
//!
//! The thread keeps `CAP_SYS_ADMIN` and `CAP_SYS_PTRACE`, which no other has. What it attaches dies with the process.

mod choose;
mod find;
mod known;
mod look;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use metrics::{counter, gauge};
use nix::{
    sched::{CloneFlags, setns},
    time::{ClockId, clock_gettime},
};
use tracing::{debug, error, info, warn};
use weir_capture_common::{
    contained::{CONTAINED, Here, MAX_CONTAINED, Spot},
    dissect::Link,
};

use crate::{
    Error,
    kernel::{self, Contained, network_namespace},
    privileges,
};
use choose::Scope;
use find::Found;
use look::Device;

pub use known::{Inside, Known};

/// Namespaces that are entered, at most.
const MAX_NAMESPACES: usize = 256;
/// Interfaces of one of them that are attached to, at most: no container takes the room of all.
const MAX_IN_ONE: usize = 64;
/// Between two looks.
const BETWEEN: Duration = Duration::from_secs(1);
/// At most one part in so many of a CPU is spent on looking, but it is looked at least so often.
const SHARE: u32 = 50;
const AT_LEAST: Duration = Duration::from_secs(10);
/// Orders that may wait for the thread.
const ORDERS: usize = 8;
const PROC: &str = "/proc";
const OWN: &str = "/proc/thread-self/ns/net";
/// The value of the label `feature` in `/metrics`.
pub(crate) const FEATURE: &str = "container_namespaces";

/// Tells which interfaces are attached to or are about to be, number and name; returns when it is known that they are. `false` = nobody wants to know
/// any more.
pub(crate) type Tell = Box<dyn FnMut(Vec<(u32, String)>) -> bool + Send>;

/// The running thread.
pub(crate) struct Namespaces {
    orders: SyncSender<Order>,
    thread: JoinHandle<()>,
}

enum Order {
    /// These interfaces are captured on here.
    Captured(BTreeSet<u32>),
    Stop,
}

impl Namespaces {
    /// Starts the thread, which keeps its rights while others lose theirs. It does nothing before the first [`Self::captured`].
    pub(crate) fn start(contained: Contained, known: Known, tell: Tell) -> Result<Self, Error> {
        let (orders, inbox) = sync_channel(ORDERS);
        let thread = std::thread::Builder::new()
            .name("weir-namespaces".into())
            .spawn(move || {
                let rights = privileges::keep_for_entering();
                let Ok(Order::Captured(captured)) = inbox.recv() else { return };
                let entered = rights.and_then(|()| Entering::new(contained, known, tell, captured));
                match entered {
                    Ok(entering) => entering.run(&inbox),
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        error!(error, "cannot capture in the network namespaces of containers");
                    }
                }
            })
            .map_err(|source| Error::System { what: "start a thread", source })?;
        Ok(Self { orders, thread })
    }

    /// These interfaces are captured on here; the first time it begins.
    pub(crate) fn captured(&self, indexes: BTreeSet<u32>) {
        // It fails for a thread that has ended, and said so.
        let _ended = self.orders.send(Order::Captured(indexes));
    }

    /// Detaches from everything.
    pub(crate) fn stop(self) {
        let _ended = self.orders.send(Order::Stop);
        if self.thread.join().is_err() {
            error!("the thread that enters network namespaces has panicked");
        }
    }
}

/// Why the thread cannot go on.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the capturing thread has ended")]
    Unwanted,
    #[error("cannot return from the network namespace of a container")]
    Lost(#[source] io::Error),
}

struct Entering {
    contained: Contained,
    known: Known,
    tell: Tell,
    runtime: tokio::runtime::Runtime,
    home: OwnedFd,
    home_inode: u64,
    captured: BTreeSet<u32>,
    attached: BTreeMap<Spot, Attached>,
    masks: BTreeMap<Scope, u64>,
    /// What was said of what cannot be done, so that it is said once.
    said: BTreeMap<Spot, String>,
    /// Namespaces whose interfaces cannot be read: that is said once, too.
    unread: BTreeSet<u64>,
    next: u32,
    beyond: usize,
}

/// An interface that is attached to.
struct Attached {
    wanted: Wanted,
    number: u32,
    inside: kernel::Inside,
}

/// An interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    /// As it is called in records.
    name: String,
    link: Link,
    scope: Scope,
    namespace: u64,
}

/// A namespace as it is at this moment, held open.
struct Visited {
    namespace: OwnedFd,
    /// What its engine calls one of the containers in it.
    container: String,
    wanted: Vec<(Spot, Wanted)>,
}

impl Entering {
    fn new(contained: Contained, known: Known, tell: Tell, captured: BTreeSet<u32>) -> Result<Self, Error> {
        let failed = |what| move |source| Error::System { what, source };
        let home = File::open(OWN).map_err(failed("open the own network namespace"))?;
        let home_inode = home.metadata().map_err(failed("look at the own network namespace"))?.ino();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        info!(feature = FEATURE, hook = "tcx", "available");
        crate::metrics::feature(FEATURE, true);
        Ok(Self {
            contained,
            known,
            tell,
            runtime: runtime.map_err(failed("ask netlink"))?,
            home: home.into(),
            home_inode,
            captured,
            attached: BTreeMap::new(),
            masks: BTreeMap::new(),
            said: BTreeMap::new(),
            unread: BTreeSet::new(),
            // The table may hold flows of a life before, whose numbers must not be another's now.
            next: uuid::Uuid::new_v4().as_u64_pair().0 as u32 >> 4,
            beyond: 0,
        })
    }

    fn run(mut self, inbox: &Receiver<Order>) {
        let mut next = Instant::now();
        loop {
            match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Order::Captured(captured)) => self.captured = captured,
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            let (started, used) = (Instant::now(), cpu_time());
            if let Err(end) = self.look() {
                let error = &end as &dyn std::error::Error;
                error!(error, "no network namespace of a container is captured in any more");
                crate::metrics::feature(FEATURE, false);
                return;
            }
            let used = cpu_time().saturating_sub(used);
            metrics::histogram!("weir_capture_container_namespaces_cpu_seconds").record(used.as_secs_f64());
            next = started + (used * SHARE).clamp(BETWEEN, AT_LEAST);
        }
    }

    /// Looks what there is, and follows.
    fn look(&mut self) -> Result<(), End> {
        let mut found = find::containers(Path::new(PROC), self.home_inode);
        let known: BTreeSet<u64> = self.attached.values().map(|attached| attached.wanted.namespace).collect();
        found.sort_by_key(|found| !known.contains(&found.inode));
        let inodes: BTreeSet<u64> = found.iter().map(|found| found.inode).collect();
        self.unread.retain(|inode| inodes.contains(inode));
        self.note_beyond(found.len().saturating_sub(MAX_NAMESPACES));
        let mut visited = Vec::new();
        for found in found.iter().take(MAX_NAMESPACES) {
            visited.extend(self.visit(found)?);
        }
        let (mut room, mut without) = (MAX_CONTAINED as usize, 0);
        for visited in &mut visited {
            let before = visited.wanted.len();
            visited.wanted.truncate(room.min(MAX_IN_ONE));
            room -= visited.wanted.len();
            without += before - visited.wanted.len();
        }
        gauge!("weir_capture_container_interfaces_beyond").set(without as f64);
        let changed = self.let_go(&visited);
        let attached = self.attach_all(&visited)?;
        if changed && !attached {
            self.tell()?;
        }
        let spots: BTreeSet<Spot> = visited.iter().flat_map(|visited| &visited.wanted).map(|(spot, _)| *spot).collect();
        self.said.retain(|spot, _| spots.contains(spot));
        let scopes: BTreeSet<Scope> = self.attached.values().map(|attached| attached.wanted.scope).collect();
        self.masks.retain(|scope, _| scopes.contains(scope));
        gauge!("weir_capture_container_namespaces").set(visited.len() as f64);
        gauge!("weir_capture_container_interfaces").set(self.attached.len() as f64);
        Ok(())
    }

    fn note_beyond(&mut self, beyond: usize) {
        gauge!("weir_capture_container_namespaces_beyond").set(beyond as f64);
        if beyond > self.beyond {
            warn!(
                namespaces = beyond,
                limit = MAX_NAMESPACES,
                "there are more network namespaces of containers than are entered"
            );
        }
        self.beyond = beyond;
    }

    /// Looks what a namespace has; `None` = it is gone, or cannot be asked.
    fn visit(&mut self, found: &Found) -> Result<Option<Visited>, End> {
        let Ok(namespace) = File::open(format!("{PROC}/{}/ns/net", found.pid)) else { return Ok(None) };
        if namespace.metadata().map(|metadata| metadata.ino()).ok() != Some(found.inode) {
            return Ok(None);
        }
        let namespace = OwnedFd::from(namespace);
        let (runtime, home) = (&self.runtime, &self.home);
        let seen = inside(home, &namespace, || (network_namespace(), runtime.block_on(look::look(home))))?;
        match seen {
            Ok((cookie, Ok(devices))) if cookie != 0 => {
                let wanted = devices.iter().filter_map(|device| self.want(device, cookie, found.inode)).collect();
                Ok(Some(Visited { namespace, container: found.container.clone(), wanted }))
            }
            Ok((_, Err(error))) => {
                counter!("weir_capture_container_namespaces_failures_total").increment(1);
                if self.unread.insert(found.inode) {
                    let error = &error as &dyn std::error::Error;
                    warn!(error, container = found.container, "cannot read the network interfaces of a container");
                }
                Ok(None)
            }
            Ok(_) => Ok(None),
            Err(error) => {
                counter!("weir_capture_container_namespaces_failures_total").increment(1);
                debug!(%error, container = found.container, "cannot enter the network namespace of a container");
                Ok(None)
            }
        }
    }

    fn want(&self, device: &Device, cookie: u64, inode: u64) -> Option<(Spot, Wanted)> {
        let scope = choose::scope(device.below, cookie, &self.captured)?;
        let spot = Spot { netns: cookie, ifindex: device.index, reserved: 0 };
        let name = format!("{}@{inode}", device.name);
        Some((spot, Wanted { name, link: device.link?, scope, namespace: inode }))
    }

    /// Detaches from what is not wanted any more or gone; whether there was something.
    fn let_go(&mut self, visited: &[Visited]) -> bool {
        let wanted: BTreeMap<Spot, &Wanted> =
            visited.iter().flat_map(|visited| &visited.wanted).map(|(spot, wanted)| (*spot, wanted)).collect();
        let before = self.attached.len();
        let contained = &mut self.contained;
        self.attached.retain(|spot, attached| {
            let stays = wanted.get(spot) == Some(&&attached.wanted) && attached.inside.is_alive();
            if !stays {
                info!(interface = attached.wanted.name, "detached");
                if let Err(error) = contained.tell(*spot, None) {
                    debug!(%error, "cannot forget an interface");
                }
            }
            stays
        });
        self.attached.len() != before
    }

    /// Attaches to what is wanted and is not attached to yet; whether there was something.
    fn attach_all(&mut self, visited: &[Visited]) -> Result<bool, End> {
        let mut new = Vec::new();
        for visited in visited {
            for (spot, wanted) in &visited.wanted {
                if self.attached.contains_key(spot) {
                    continue;
                }
                let here = Here { number: self.number(), mask: self.mask(wanted.scope), reserved: 0 };
                self.known.learn(here.number, &wanted.name, Inside { mask: here.mask, namespace: wanted.namespace });
                new.push((visited, *spot, wanted, here));
            }
        }
        if new.is_empty() {
            return Ok(false);
        }
        let announced = new.iter().map(|(_, _, wanted, here)| (here.number, wanted.name.clone()));
        let all = self.current().chain(announced).collect();
        if !(self.tell)(all) {
            return Err(End::Unwanted);
        }
        let mut failed = false;
        for (visited, spot, wanted, here) in new {
            let contained = &mut self.contained;
            let attach = || {
                contained.tell(spot, Some(here.mask))?;
                contained.attach(spot.ifindex, wanted.link, here)
            };
            match inside(&self.home, &visited.namespace, attach)?.flatten() {
                Ok(inside) => {
                    info!(interface = wanted.name, container = visited.container, "attached");
                    self.said.remove(&spot);
                    self.attached.insert(spot, Attached { wanted: wanted.clone(), number: here.number, inside });
                }
                Err(error) => {
                    failed = true;
                    self.refused(spot, wanted, &error);
                }
            }
        }
        if failed {
            self.tell()?;
        }
        Ok(true)
    }

    fn refused(&mut self, spot: Spot, wanted: &Wanted, error: &io::Error) {
        // It was told before it was tried; what is not there cannot be taken back.
        let _gone = self.contained.tell(spot, None);
        counter!("weir_capture_container_namespaces_failures_total").increment(1);
        let reason = error.to_string();
        if self.said.get(&spot) != Some(&reason) {
            warn!(interface = wanted.name, reason, "cannot capture on this interface of a container");
            self.said.insert(spot, reason);
        }
    }

    fn current(&self) -> impl Iterator<Item = (u32, String)> {
        self.attached.values().map(|attached| (attached.number, attached.wanted.name.clone()))
    }

    fn tell(&mut self) -> Result<(), End> {
        let all = self.current().collect();
        if (self.tell)(all) { Ok(()) } else { Err(End::Unwanted) }
    }

    /// A number that no other interface has: they differ in what names a ledger, and come again after half a billion.
    fn number(&mut self) -> u32 {
        let taken: BTreeSet<u32> = self.attached.values().map(|attached| attached.number % MAX_CONTAINED).collect();
        loop {
            self.next = self.next.wrapping_add(1);
            let number = CONTAINED | self.next & (CONTAINED - 1);
            if !taken.contains(&(number % MAX_CONTAINED)) {
                return number;
            }
        }
    }

    /// What keeps the flows of a scope apart: nobody can guess it.
    fn mask(&mut self, scope: Scope) -> u64 {
        if scope == Scope::Home {
            return 0;
        }
        *self.masks.entry(scope).or_insert_with(|| uuid::Uuid::new_v4().as_u64_pair().1.max(1))
    }
}

/// What this thread has used.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// Does something in a network namespace, and returns. `Err(End)` if the way back fails: nothing that this thread does then would be right.
fn inside<R>(home: &OwnedFd, namespace: &OwnedFd, work: impl FnOnce() -> R) -> Result<io::Result<R>, End> {
    if let Err(error) = setns(namespace, CloneFlags::CLONE_NEWNET) {
        return Ok(Err(error.into()));
    }
    let done = work();
    setns(home, CloneFlags::CLONE_NEWNET).map_err(|error| End::Lost(error.into()))?;
    Ok(Ok(done))
}
