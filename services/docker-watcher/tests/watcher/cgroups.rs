//! Containers by their cgroups alone, and the counters of one whose engine does not answer.

use bollard::models::HostConfig;

use crate::support::{
    dockerd::Dockerd,
    usage::usage,
    watching::{Records, Watching},
};

fn is_counted(records: &Records, id: &str) -> Option<Records> {
    let is_known = records.lives(id).iter().any(|life| life.pid > 0);
    (is_known && records.samples(id).len() >= 3).then(|| records.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_api_a_container_is_known_by_its_cgroup() {
    let Some(mut engine) = Dockerd::start_or_skip().await else { return };
    let Some(watching) = Watching::start_or_skip("", &["--runtimes", "cgroup"]).await else { return };
    watching.ready().await;
    engine.network("quiet").await;
    let host = HostConfig { network_mode: Some("quiet".to_owned()), memory: Some(64 << 20), ..HostConfig::default() };
    let id = engine.run("unnamed", "while :; do sleep 0.2; done", host).await;
    let inspected = engine.client().inspect_container(&id, None).await.unwrap();
    let pid = inspected.state.unwrap().pid.unwrap() as u32;
    let before = usage(&id, pid);
    let records = watching.records("life and samples", |records| is_counted(records, &id)).await;
    let after = usage(&id, pid);
    let (life, sample) = (records.lives(&id)[0], records.samples(&id).last().copied().unwrap());
    assert_eq!((life.runtime.as_str(), life.tier.as_str(), life.pid), ("docker", "cgroup", pid));
    assert_eq!((life.name.as_str(), life.image.as_str()), ("", ""), "a cgroup has no name");
    let endpoint = inspected.network_settings.unwrap().networks.unwrap().remove("quiet").unwrap();
    let expected = vec![endpoint.ip_address.unwrap(), endpoint.global_ipv6_address.unwrap()];
    assert_eq!(crate::addresses(life), expected);
    assert_eq!((sample.runtime.as_str(), sample.tier.as_str()), ("docker", "cgroup"));
    let used = sample.cpu_usage_ns.unwrap();
    assert!(before.cpu_ns <= used && used <= after.cpu_ns, "{before:?} {sample:?} {after:?}");
    assert!(sample.cpu_percent.is_some_and(|percent| percent < 100.0), "{sample:?}");
    assert_eq!(sample.memory_limit_bytes, Some(64 << 20));
    let interface = &sample.interfaces[0];
    assert_eq!((interface.name.as_str(), Some(interface.rx_bytes)), ("eth0", sample.network_rx_bytes));
    assert!(sample.network_rx_bytes.unwrap() >= before.rx_bytes);

    engine.remove(&id).await;
    let records = watching
        .records("last statement", |records| {
            records.lives(&id).iter().any(|life| life.state == "removed").then(|| records.clone())
        })
        .await;
    assert_eq!(records.actions(&id), ["start", "die", "destroy"]);
    assert_eq!(records.lives(&id)[0].exit_code, None, "nobody said how it ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_comes_late_takes_over_what_cgroups_told() {
    let Some(engine) = Dockerd::start_or_skip().await else { return };
    let id = engine.run("early", "sleep 1000", HostConfig::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let host = format!("unix://{}", socket.display());
    let Some(watching) = Watching::start_or_skip(&host, &["--runtimes", "docker,cgroup"]).await else { return };
    watching.records("life and samples by the cgroup", |records| is_counted(records, &id)).await;
    std::os::unix::fs::symlink(engine.host().trim_start_matches("unix://"), &socket).unwrap();
    let records = watching
        .records("both rows", |records| {
            let lives = records.lives(&id);
            let released = lives.iter().any(|life| life.tier == "cgroup" && life.state == "released");
            (released && lives.iter().any(|life| life.tier == "api")).then(|| records.clone())
        })
        .await;
    assert!(records.event(&id, "destroy").is_none() && records.event(&id, "die").is_none());
    let identities = watching.identities().await;
    let by_engine = |life: Option<&weir_proto::Container>| life.is_some_and(|life| life.name == "early");
    crate::eventually_identity(&identities, &Watching::key(&id), by_engine).await;
    watching
        .records("samples by the engine", |records| {
            records.samples(&id).last().is_some_and(|sample| sample.tier == "api").then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counters_of_a_container_go_on_while_its_engine_hangs() {
    let Some(engine) = Dockerd::start_or_skip().await else { return };
    let Some(watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    let id = engine.run("goes-on", "sleep 1000", HostConfig::default()).await;
    let tier = |records: &Records| records.samples(&id).last().map(|sample| sample.tier.clone());
    watching.records("sample by the engine", |records| tier(records).filter(|tier| tier == "api")).await;
    engine.pause();
    watching.records("sample by the cgroup", |records| tier(records).filter(|tier| tier == "cgroup")).await;
    let last = watching.published();
    let sample = last.samples(&id).last().copied().unwrap();
    assert!(sample.cpu_percent.is_some(), "the counter is the same one: {sample:?}");
    engine.resume();
    watching.records("sample by the engine again", |records| tier(records).filter(|tier| tier == "api")).await;
}
