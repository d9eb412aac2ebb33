//! docker-watcher with real runtimes, real containers and a real NATS.

mod cgroups;
mod containerd;
mod cri;
mod events;
mod identity;
mod lives;
mod podman;
mod remote;
mod restarts;
mod samples;
mod strangers;
mod support {
    pub(crate) mod certificates;
    pub(crate) mod containerd;
    pub(crate) mod dockerd;
    pub(crate) mod host;
    pub(crate) mod podman;
    pub(crate) mod scripted;
    pub(crate) mod scripted_cri;
    pub(crate) mod usage;
    pub(crate) mod watching;

    use std::time::Duration;

    /// Waits for a state; panics when it has not come after a minute.
    pub(crate) async fn eventually<T>(what: &str, mut state: impl FnMut() -> Option<T>) -> T {
        let mut poll = tokio::time::interval(Duration::from_millis(20));
        let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
        loop {
            poll.tick().await;
            if let Some(state) = state() {
                return state;
            }
            assert!(tokio::time::Instant::now() < deadline, "there is still no {what}");
        }
    }
}

use std::collections::HashSet;

use support::watching::Records;
use weir_proto::{Container, Ip};

fn addresses(container: &Container) -> Vec<String> {
    container.networks.iter().map(|n| Ip::new(n.ip_high, n.ip_low).canonical().to_string()).collect()
}

async fn eventually_identity(
    identities: &weir_bus::Bucket<Container>,
    key: &str,
    state: impl Fn(Option<&Container>) -> bool,
) -> Option<Container> {
    let mut poll = tokio::time::interval(std::time::Duration::from_millis(20));
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_mins(1);
    loop {
        poll.tick().await;
        let found = identities.get(key).await.unwrap().map(|entry| entry.value);
        if state(found.as_ref()) {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "the identity stays {found:?}");
    }
}

/// Asserts that no event was published twice.
fn assert_each_once(records: &Records) {
    let mut seen = HashSet::new();
    for event in &records.events {
        let network = event.attributes.get("network_id").cloned();
        let name = (event.container_id.clone(), event.action.clone(), event.time, network);
        assert!(seen.insert(name), "{event:?}");
    }
}
