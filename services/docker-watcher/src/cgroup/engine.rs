//! Containers that no runtime tells about, told by their cgroups: a list that is looked at every second.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{Stream, StreamExt as _, stream};
use tokio::sync::watch;
use weir_proto::{Container, ContainerEvent};

use super::{network, process, scan, scan::Found, tree::Tree};
use crate::{
    Error,
    docker::now_ns,
    lives::{Event, Inspected, Kind, RECONSTRUCTED},
};

/// How often the trees are looked at. A container that lives shorter has no life in this tier.
const EVERY: Duration = Duration::from_secs(1);

/// Which runtimes answer for their containers themselves. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Served {
    state: Arc<watch::Sender<State>>,
    sources: usize,
}

#[derive(Debug, Default)]
struct State {
    runtimes: BTreeSet<String>,
    tried: BTreeSet<String>,
}

impl Served {
    /// None yet, of so many sources.
    #[must_use]
    pub fn new(sources: usize) -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())), sources }
    }

    /// A source has been tried; `runtime` = whose containers it tells about from now on, if it answers.
    pub fn tried(&self, source: &str, runtime: Option<&str>) {
        self.state.send_if_modified(|state| {
            let first = state.tried.insert(source.to_owned());
            let new = runtime.is_some_and(|runtime| state.runtimes.insert(runtime.to_owned()));
            first || new
        });
    }

    /// Waits until every source has been tried once.
    async fn settled(&self) {
        let mut state = self.state.subscribe();
        // It cannot fail: the sender is in this very value.
        let _settled = state.wait_for(|state| state.tried.len() >= self.sources).await.is_ok();
    }

    fn is_served(&self, runtime: &str) -> bool {
        self.state.borrow().runtimes.contains(runtime)
    }
}

/// The cgroups of this host.
#[derive(Clone, Debug)]
pub struct Engine {
    served: Served,
    root: PathBuf,
}

type Containers = BTreeMap<String, (Found, u32)>;

impl Engine {
    /// Waits until it is known which runtimes answer for themselves.
    pub async fn connect(served: Served) -> Result<Self, Error> {
        let tree = Tree::shared().cloned().unwrap_or_default();
        // On a hybrid host every container is in both, and only v2 has ids.
        let root = tree.v2.or_else(|| tree.v1.get("memory").cloned());
        let root = root.ok_or_else(|| Error::Unsupported {
            operation: "cgroups",
            message: "no tree of control groups is mounted here".to_owned(),
        })?;
        served.settled().await;
        Ok(Self { served, root })
    }

    /// The ids of all containers that have a process.
    pub async fn list(&self) -> Result<Vec<String>, Error> {
        Ok(self.look().await?.into_keys().collect())
    }

    /// What a cgroup and its first process tell.
    pub async fn inspect(&self, id: &str) -> Result<Inspected, Error> {
        let (found, pid) = self.scan(false).await?.remove(id).ok_or(Error::NotFound)?;
        let root = self.root.clone();
        Ok(Inspected {
            container: describe(&root, &found, pid).ok_or(Error::NotFound)?,
            running: true,
            previous_finished_at: 0,
        })
    }

    /// What changed from one look to the next.
    pub fn events(&self) -> impl Stream<Item = Result<Option<Event>, Error>> + use<> {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        stream::unfold((self.clone(), every, None::<Containers>), |(engine, mut every, before)| async move {
            every.tick().await;
            match engine.look().await {
                Ok(now) => {
                    let events = before.map(|before| engine.changes(&before, &now)).unwrap_or_default();
                    Some((events.into_iter().map(Some).map(Ok).collect::<Vec<_>>(), (engine, every, Some(now))))
                }
                Err(error) => Some((vec![Err(error)], (engine, every, before))),
            }
        })
        .flat_map(stream::iter)
    }

    fn changes(&self, before: &Containers, now: &Containers) -> Vec<Event> {
        let mut events = Vec::new();
        for (id, (found, pid)) in before {
            match now.get(id) {
                Some((_, same)) if same == pid => {}
                _ if self.served.is_served(found.runtime) => {
                    events.push(event(found, Kind::Released, "release", now_ns()));
                }
                Some((_, _)) => events.push(event(found, Kind::Die, "die", now_ns())),
                None => {
                    events.push(event(found, Kind::Die, "die", now_ns()));
                    events.push(event(found, Kind::Destroy, "destroy", now_ns()));
                }
            }
        }
        for (id, (found, pid)) in now {
            if before.get(id).is_none_or(|(_, other)| other != pid)
                && let Some(started_at) = process::started_at(Path::new("/proc"), *pid)
            {
                events.push(event(found, Kind::Start, "start", started_at as i64 * 1000));
            }
        }
        events
    }

    /// The containers that nobody else tells about.
    async fn look(&self) -> Result<Containers, Error> {
        self.scan(true).await
    }

    async fn scan(&self, unserved_only: bool) -> Result<Containers, Error> {
        let (root, served) = (self.root.clone(), self.served.clone());
        let scan = tokio::task::spawn_blocking(move || {
            let found = scan::scan(&root)?;
            let wanted = found.into_iter().filter(|found| !unserved_only || !served.is_served(found.runtime));
            Ok(wanted
                .filter_map(|found| {
                    let pid = scan::first_process(&found.directory)?;
                    if process::is_made_ready(Path::new("/proc"), pid) {
                        return None;
                    }
                    Some((found.id.clone(), (found, pid)))
                })
                .collect())
        });
        let found = scan.await.unwrap_or_else(|_| Ok(Containers::new()));
        found.map_err(|source| Error::Host { path: self.root.clone(), source })
    }
}

fn describe(root: &Path, found: &Found, pid: u32) -> Option<Container> {
    let proc = Path::new("/proc");
    let cgroup = super::find(pid, &found.id).unwrap_or_else(|| super::Cgroup {
        path: format!("/{}", found.directory.strip_prefix(root).unwrap_or(&found.directory).display()),
        id: 0,
    });
    let host_network = network::is_host(proc, pid).unwrap_or_default();
    let started_at = process::started_at(proc, pid)?;
    Some(Container {
        runtime: found.runtime.to_owned(),
        container_id: found.id.clone(),
        state: "running".to_owned(),
        pid,
        networks: if host_network { Vec::new() } else { network::addresses(proc, pid) },
        host_network,
        started_at,
        cgroup_path: cgroup.path,
        cgroup_id: cgroup.id,
        ..Container::default()
    })
}

fn event(found: &Found, kind: Kind, action: &str, time_ns: i64) -> Event {
    let record = ContainerEvent {
        time: (time_ns / 1000) as u64,
        runtime: found.runtime.to_owned(),
        container_id: found.id.clone(),
        action: action.to_owned(),
        attributes: [(RECONSTRUCTED.to_owned(), "true".to_owned())].into(),
        ..ContainerEvent::default()
    };
    Event { time_ns, kind, record }
}
