//! A real Docker engine of its own: that of docker-watcher's tests.

#[path = "../../../services/docker-watcher/tests/watcher/support/certificates.rs"]
pub(crate) mod certificates;
#[path = "../../../services/docker-watcher/tests/watcher/support/dockerd.rs"]
pub(crate) mod dockerd;
#[path = "../../../services/docker-watcher/tests/watcher/support/host.rs"]
pub(crate) mod host;

use std::time::Duration;

/// Waits for a state; panics when it has not come after a minute.
pub(crate) async fn eventually<T>(what: &str, mut state: impl FnMut() -> Option<T>) -> T {
    let mut poll = tokio::time::interval(Duration::from_millis(50));
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    loop {
        poll.tick().await;
        if let Some(state) = state() {
            return state;
        }
        assert!(tokio::time::Instant::now() < deadline, "there is still no {what}");
    }
}
