//! The Container Runtime Interface of runtimes other than containerd.

use crate::support::{scripted_cri::ScriptedCri, watching::Watching};

const SECOND: i64 = 1_000_000_000;
const START: i64 = 1_795_301_500 * SECOND;

/// One life of a container, from its making to its end: each event once, with the runtime's own times, and the life that follows from them.
async fn lives_and_dies(tells: bool) {
    let runtime = ScriptedCri::start(tells);
    let options = ["--runtimes", "cri", "--cri-socket", &runtime.socket()];
    let Some(watching) = Watching::start_or_skip("", &options).await else { return };
    watching.ready().await;
    // Whoever listens or looks knows of this one; then it follows.
    let mut number = 0;
    let known = || {
        number += 1;
        runtime.change(&format!("sentinel-{number}"), 0, |status| status.created_at = START);
        watching.published().events.first().cloned()
    };
    let first = crate::support::eventually("first event", known).await;
    assert!(first.container_id.starts_with("sentinel-"));

    runtime.change("c-1", 0, |status| status.created_at = START);
    watching.records("create", |records| records.event("c-1", "create").cloned()).await;
    runtime.change("c-1", 1, |status| status.started_at = START + SECOND);
    let life = watching
        .records("life", |records| {
            records.lives("c-1").iter().find(|life| life.state == "running").map(|life| (*life).clone())
        })
        .await;
    assert_eq!((life.runtime.as_str(), life.tier.as_str(), life.name.as_str()), ("cri-o", "cri", "till"));
    assert_eq!(life.labels["io.kubernetes.pod.name"], "till-7d9f");
    assert_eq!(life.labels["not-utf-8"], "x\u{fffd}\u{fffd}");
    assert_eq!((life.image_digest.as_str(), life.image_id.as_str()), ("sha256:cafe", "sha256:beef"));
    assert_eq!((life.cpu_limit, life.memory_limit_bytes, life.pids_limit), (Some(1.5), Some(1 << 20), None));
    assert_eq!((life.ports[0].host_port, life.ports[0].container_port, life.ports[0].protocol), (8080, 80, 6));
    assert_eq!(life.started_at as i64, (START + SECOND) / 1000);

    runtime.change("c-1", 2, |status| (status.finished_at, status.exit_code) = (START + 2 * SECOND, 7));
    watching.records("die", |records| records.event("c-1", "die").cloned()).await;
    runtime.remove("c-1");
    let records = watching
        .records("last statement", |records| {
            records.lives("c-1").iter().any(|life| life.state == "removed").then(|| records.clone())
        })
        .await;
    let actions = records.actions("c-1");
    assert_eq!(actions, ["create", "start", "die", "destroy"]);
    let (start, die) = (records.event("c-1", "start").unwrap(), records.event("c-1", "die").unwrap());
    assert_eq!((start.time as i64, die.time as i64), ((START + SECOND) / 1000, (START + 2 * SECOND) / 1000));
    assert_eq!((die.exit_code, records.lives("c-1").last().unwrap().exit_code), (Some(7), Some(7)));
    assert_eq!(die.attributes.contains_key("weir.reconstructed"), !tells);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_the_interface_are_told_at_once() {
    lives_and_dies(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_tells_no_events_is_followed_by_its_list() {
    lives_and_dies(false).await;
}
