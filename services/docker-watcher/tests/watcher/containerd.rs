//! containerd, by its own API and as Kubernetes has it.

use crate::support::{
    containerd::{Containerd, IMAGE},
    watching::Watching,
};

#[tokio::test(flavor = "multi_thread")]
async fn containerds_own_containers_have_lives_events_and_samples() {
    let Some(containerd) = Containerd::start_or_skip().await else { return };
    let name = format!("weir-test-{}", std::process::id());
    let earlier = format!("{name}-earlier");
    containerd.run(&earlier, "sleep 1000");
    let options = ["--runtimes", "containerd", "--containerd-socket", &containerd.socket()];
    let Some(watching) = Watching::start_or_skip("", &options).await else { return };
    watching.ready().await;
    containerd.run(&name, "sleep 1000");
    let (id, earlier) = (format!("default/{name}"), format!("default/{earlier}"));
    let records = watching
        .records("lives and samples", |records| {
            let all = [&id, &earlier]
                .iter()
                .all(|id| records.lives(id).iter().any(|life| life.pid > 0) && records.samples(id).len() >= 2);
            all.then(|| records.clone())
        })
        .await;
    let (life, sample) = (records.lives(&id)[0], records.samples(&id)[1]);
    assert_eq!((life.name.as_str(), life.runtime.as_str(), life.tier.as_str()), (name.as_str(), "containerd", "api"));
    assert_eq!((life.labels["tier"].as_str(), life.image.as_str(), life.state.as_str()), ("web", IMAGE, "running"));
    assert!(life.cgroup_path.contains(&name), "{}", life.cgroup_path);
    assert_eq!((sample.runtime.as_str(), sample.tier.as_str()), ("containerd", "cgroup"));
    assert!(sample.cpu_percent.is_some() && sample.memory_bytes.is_some() && sample.pids == Some(1), "{sample:?}");
    assert!(records.event(&earlier, "start").is_none(), "what was before is not told as if it had just happened");

    containerd.remove(&name).await;
    let records = watching
        .records("last statement", |records| {
            records.lives(&id).iter().any(|life| life.state == "removed").then(|| records.clone())
        })
        .await;
    let lives = records.lives(&id);
    assert_eq!((lives.len(), lives[0].exit_code), (1, Some(137)), "{lives:?}");
    assert!(lives[0].started_at < lives[0].finished_at);
    assert_eq!(records.actions(&id), ["create", "start", "die", "destroy"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pods_containers_have_its_name_and_namespace() {
    let Some(containerd) = Containerd::start_or_skip().await else { return };
    let options = ["--runtimes", "cri,containerd", "--containerd-socket", &containerd.socket()];
    let Some(watching) = Watching::start_or_skip("", &options).await else { return };
    watching.ready().await;
    let id = containerd.pod("till-7d9f", "trap 'exit 5' TERM; while :; do sleep 0.1; done").await;
    let records = watching
        .records("life and samples", |records| {
            let all = records.lives(&id).iter().any(|life| life.pid > 0) && records.samples(&id).len() >= 2;
            all.then(|| records.clone())
        })
        .await;
    let (life, sample) = (records.lives(&id)[0], records.samples(&id)[1]);
    assert_eq!((life.name.as_str(), life.runtime.as_str(), life.tier.as_str()), ("till", "containerd", "cri"));
    let label = |name: &str| life.labels[&format!("io.kubernetes.{name}")].as_str();
    assert_eq!((label("pod.name"), label("pod.namespace"), label("container.name")), ("till-7d9f", "shop", "till"));
    assert_eq!((life.labels["tier"].as_str(), life.image.as_str(), life.restarts), ("web", IMAGE, Some(3)));
    assert!(life.host_network && life.networks.is_empty());
    assert!(life.cgroup_path.contains(&id), "{}", life.cgroup_path);
    assert_eq!((sample.runtime.as_str(), sample.tier.as_str(), sample.restarts), ("containerd", "cri", Some(3)));
    assert!(sample.cpu_percent.is_some() && sample.memory_bytes.is_some() && sample.pids.is_some(), "{sample:?}");
    assert!(sample.missing["network_rx_bytes"].contains("host network"));

    containerd.stop(&id).await;
    let ended = watching.records("end", |records| {
        records.lives(&id).first().filter(|life| life.finished_at > 0).map(|life| (*life).clone())
    });
    let ended = ended.await;
    assert_eq!((ended.started_at, ended.exit_code), (life.started_at, Some(137)), "a stop without patience kills");
    containerd.delete(&id).await;
    let records = watching
        .records("last statement", |records| {
            records.lives(&id).iter().any(|life| life.state == "removed").then(|| records.clone())
        })
        .await;
    assert_eq!(records.actions(&id), ["create", "start", "die", "destroy"]);
    let others: Vec<_> = records.statements.iter().filter(|life| life.container_id != id).collect();
    assert!(others.is_empty(), "the pod itself is no container: {others:?}");
}
