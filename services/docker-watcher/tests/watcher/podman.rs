//! Podman's service, which speaks Docker's API.

use bollard::query_parameters::RemoveContainerOptionsBuilder;

use crate::support::{podman::Podman, watching::Watching};

#[tokio::test(flavor = "multi_thread")]
async fn podmans_containers_are_watched_as_podmans() {
    let Some(podman) = Podman::start_or_skip().await else { return };
    let options = ["--runtimes", "podman", "--podman-socket", &podman.socket()];
    let Some(watching) = Watching::start_or_skip("", &options).await else { return };
    watching.ready().await;
    let id = podman.run("till", "sleep 1000");
    let records = watching
        .records("life and samples", |records| {
            let all = records.lives(&id).iter().any(|life| life.pid > 0) && records.samples(&id).len() >= 2;
            all.then(|| records.clone())
        })
        .await;
    let (life, sample) = (records.lives(&id)[0], records.samples(&id)[1]);
    assert_eq!((life.name.as_str(), life.runtime.as_str(), life.tier.as_str()), ("till", "podman", "api"));
    assert_eq!((life.labels["tier"].as_str(), life.image.as_str()), ("web", crate::support::podman::IMAGE));
    assert!(life.cgroup_path.contains(&id), "{}", life.cgroup_path);
    assert_eq!(sample.runtime, "podman");
    assert!(sample.cpu_usage_ns.is_some() && sample.memory_bytes.is_some(), "{sample:?}");

    let remove = RemoveContainerOptionsBuilder::new().force(true).build();
    podman.client().remove_container(&id, Some(remove)).await.unwrap();
    let records = watching
        .records("last statement", |records| {
            let gone = records.lives(&id).iter().any(|life| life.state == "removed");
            (gone && records.event(&id, "die").is_some()).then(|| records.clone())
        })
        .await;
    assert_eq!(records.lives(&id).len(), 1, "{:?}", records.lives(&id));
    assert_eq!(records.event(&id, "start").unwrap().runtime, "podman");
}
