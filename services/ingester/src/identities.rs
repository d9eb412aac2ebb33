//! Who had which address: the containers that docker-watcher keeps in the bucket of identities.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use futures::StreamExt as _;
use tracing::debug;
use weir_bus::{Bus, Change, names};
use weir_proto::{Container, Ip};
use weir_service::Shutdown;
use weir_store::rows::{ContainerNames, Containers};

/// Lives that are kept although their container is gone: flows of its last seconds are still on their way.
const MAX_GONE: usize = 4096;
/// Pause before the bucket is watched again after an error.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a start waits for the containers that exist.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// A watch that is quiet for so long has said all that exists.
const QUIET: Duration = Duration::from_millis(100);

/// The containers that are known, kept up to date in the background.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identities {
    known: Arc<RwLock<Known>>,
}

impl Identities {
    /// Starts to watch, and waits a moment for what exists.
    pub(crate) async fn watch(bus: &Bus, shutdown: &Shutdown) -> Self {
        let identities = Self::default();
        let (ready, looked) = tokio::sync::oneshot::channel();
        let watching = identities.clone().keep(bus.clone(), ready);
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = watching => {}
            }
        });
        // Err = it takes longer: records do not wait for names.
        let _elapsed = tokio::time::timeout(FIRST_LOOK, looked).await;
        identities
    }

    /// Lends what is known.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn keep(self, bus: Bus, ready: tokio::sync::oneshot::Sender<()>) {
        let mut ready = Some(ready);
        loop {
            if let Err(error) = self.follow(&bus, &mut ready).await {
                debug!(error = &error as &dyn std::error::Error, "containers are not watched at the moment");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn follow(
        &self,
        bus: &Bus,
        ready: &mut Option<tokio::sync::oneshot::Sender<()>>,
    ) -> Result<(), weir_bus::Error> {
        let mut changes = bus.bucket::<Container>(names::IDENTITIES).await?.watch(">").await?;
        loop {
            let change = if let Ok(change) = tokio::time::timeout(QUIET, changes.next()).await {
                change
            } else {
                if let Some(ready) = ready.take() {
                    // The one who waited may have gone on.
                    let _gone = ready.send(());
                }
                changes.next().await
            };
            match change {
                Some(Ok(change)) => self.known.write().unwrap_or_else(PoisonError::into_inner).apply(change),
                // A value that is no container concerns that container alone.
                Some(Err(weir_bus::Error::Decode { .. })) => {}
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            }
        }
    }
}

/// Lives of containers by what traffic shows of them. Pure.
#[derive(Debug, Default)]
pub(crate) struct Known {
    by_host: HashMap<String, Host>,
    /// The present life of each key of the bucket.
    keys: HashMap<String, Arc<Life>>,
    /// Lives that ended, oldest first.
    gone: VecDeque<Arc<Life>>,
}

#[derive(Debug, Default)]
struct Host {
    by_address: HashMap<Ip, Vec<Arc<Life>>>,
    by_cgroup: HashMap<u64, Vec<Arc<Life>>>,
}

#[derive(Debug)]
struct Life {
    host: String,
    names: ContainerNames,
    addresses: Vec<Ip>,
    cgroup: u64,
    started_at: u64,
    /// 0 = runs.
    finished_at: u64,
}

impl Life {
    fn new(container: Container) -> Self {
        let addresses = if container.host_network {
            // Its addresses are the host's.
            Vec::new()
        } else {
            let addresses = container.networks.iter().map(|network| Ip::new(network.ip_high, network.ip_low));
            addresses.filter(|address| *address != Ip::default()).collect()
        };
        Self {
            host: container.host,
            names: ContainerNames { id: container.container_id, name: container.name, image: container.image },
            addresses,
            cgroup: container.cgroup_id,
            started_at: container.started_at,
            finished_at: container.finished_at,
        }
    }

    fn covers(&self, from: u64, to: u64) -> bool {
        self.started_at != 0 && self.started_at <= to && (self.finished_at == 0 || self.finished_at >= from)
    }
}

impl Known {
    pub(crate) fn apply(&mut self, change: Change<Container>) {
        let Some(container) = change.value else {
            self.retire(&change.key);
            return;
        };
        let life = Arc::new(Life::new(container));
        self.insert(&life);
        let Some(before) = self.keys.insert(change.key, life.clone()) else { return };
        // What is said of a life replaces what was said of it before; an earlier life stays for the flows that are on their way.
        if before.started_at == life.started_at || before.started_at == 0 {
            self.remove(&before);
        } else {
            self.keep_gone(before);
        }
    }

    fn retire(&mut self, key: &str) {
        if let Some(life) = self.keys.remove(key) {
            self.keep_gone(life);
        }
    }

    fn keep_gone(&mut self, life: Arc<Life>) {
        self.gone.push_back(life);
        if self.gone.len() > MAX_GONE
            && let Some(oldest) = self.gone.pop_front()
        {
            self.remove(&oldest);
        }
    }

    fn insert(&mut self, life: &Arc<Life>) {
        let host = self.by_host.entry(life.host.clone()).or_default();
        for address in &life.addresses {
            host.by_address.entry(*address).or_default().push(life.clone());
        }
        if life.cgroup != 0 {
            host.by_cgroup.entry(life.cgroup).or_default().push(life.clone());
        }
    }

    fn remove(&mut self, life: &Arc<Life>) {
        let Some(host) = self.by_host.get_mut(&life.host) else { return };
        for address in &life.addresses {
            remove_from(&mut host.by_address, address, life);
        }
        remove_from(&mut host.by_cgroup, &life.cgroup, life);
        if host.by_address.is_empty() && host.by_cgroup.is_empty() {
            self.by_host.remove(&life.host);
        }
    }
}

fn remove_from<K: std::hash::Hash + Eq>(lives: &mut HashMap<K, Vec<Arc<Life>>>, key: &K, life: &Arc<Life>) {
    if let Some(of_key) = lives.get_mut(key) {
        of_key.retain(|known| !Arc::ptr_eq(known, life));
        if of_key.is_empty() {
            lives.remove(key);
        }
    }
}

impl Containers for Known {
    fn find(&self, host: &str, address: Ip, cgroup: u64, from: u64, to: u64) -> Option<&ContainerNames> {
        let host = self.by_host.get(host)?;
        // The cgroup knows who it was also where containers share an address.
        let by_cgroup = host.by_cgroup.get(&cgroup).and_then(|lives| latest(lives, from, to));
        by_cgroup.or_else(|| latest(host.by_address.get(&address)?, from, to)).map(|life| &life.names)
    }
}

/// Of the lives that cover an interval, the one that began last.
fn latest(lives: &[Arc<Life>], from: u64, to: u64) -> Option<&Life> {
    lives.iter().filter(|life| life.covers(from, to)).max_by_key(|life| life.started_at).map(Arc::as_ref)
}

#[cfg(test)]
mod tests {
    use weir_proto::ContainerNetwork;

    use super::*;

    fn ip(last: u8) -> Ip {
        Ip::from(std::net::IpAddr::from([10, 0, 0, last]))
    }

    fn container(name: &str, address: u8, started_at: u64, finished_at: u64) -> Container {
        let Ip { high, low } = ip(address);
        Container {
            host: "h".into(),
            container_id: name.into(),
            name: name.into(),
            networks: vec![ContainerNetwork { ip_high: high, ip_low: low, ..ContainerNetwork::default() }],
            started_at,
            finished_at,
            cgroup_id: u64::from(address) + 100,
            ..Container::default()
        }
    }

    fn set(known: &mut Known, container: Container) {
        let key = container.container_id.clone();
        known.apply(Change { key, value: Some(container), revision: 1 });
    }

    fn name(known: &Known, address: u8, from: u64, to: u64) -> Option<&str> {
        known.find("h", ip(address), 0, from, to).map(|names| names.name.as_str())
    }

    #[test]
    fn an_address_belongs_to_the_container_that_ran_at_the_time() {
        let mut known = Known::default();
        set(&mut known, container("old", 1, 100, 200));
        set(&mut known, container("new", 1, 300, 0));
        assert_eq!(name(&known, 1, 50, 90), None);
        assert_eq!(name(&known, 1, 90, 110), Some("old"));
        assert_eq!(name(&known, 1, 210, 290), None);
        assert_eq!(name(&known, 1, 150, 350), Some("new"));
        assert_eq!(name(&known, 1, 400, 500), Some("new"));
        assert_eq!(name(&known, 2, 400, 500), None);
        assert!(known.find("other", ip(1), 0, 400, 500).is_none());
    }

    #[test]
    fn a_container_that_was_never_started_or_has_the_hosts_network_owns_no_address() {
        let mut known = Known::default();
        set(&mut known, container("created", 1, 0, 0));
        set(&mut known, Container { host_network: true, ..container("host", 2, 100, 0) });
        assert_eq!(name(&known, 1, 400, 500), None);
        assert_eq!(name(&known, 2, 400, 500), None);
        assert_eq!(known.find("h", ip(2), 102, 400, 500).map(|names| names.name.as_str()), Some("host"));
    }

    #[test]
    fn a_removed_container_is_known_for_the_flows_that_are_on_their_way() {
        let mut known = Known::default();
        set(&mut known, container("web", 1, 100, 0));
        set(&mut known, container("web", 1, 100, 200));
        known.apply(Change { key: "web".into(), value: None, revision: 2 });
        assert_eq!(name(&known, 1, 150, 160), Some("web"));
        assert_eq!(name(&known, 1, 210, 220), None);
        for n in 0..MAX_GONE {
            set(&mut known, container(&format!("c{n}"), 2, 100, 200));
            known.apply(Change { key: format!("c{n}"), value: None, revision: 3 });
        }
        assert_eq!(name(&known, 1, 150, 160), None);
        assert_eq!(known.gone.len(), MAX_GONE);
        assert!(known.keys.is_empty());
    }

    #[test]
    fn a_restart_is_another_life_and_a_change_of_address_is_the_same() {
        let mut known = Known::default();
        set(&mut known, container("web", 1, 100, 0));
        set(&mut known, container("web", 2, 100, 0));
        assert_eq!((name(&known, 1, 150, 160), name(&known, 2, 150, 160)), (None, Some("web")));
        set(&mut known, container("web", 2, 100, 200));
        set(&mut known, container("web", 3, 300, 0));
        assert_eq!((name(&known, 2, 150, 160), name(&known, 3, 350, 360)), (Some("web"), Some("web")));
    }
}
