//! The lives of containers: events, rows, identities.

use std::collections::HashMap;

use bollard::models::{EndpointSettings, HostConfig, NetworkConnectRequest, NetworkDisconnectRequest};

use crate::{
    addresses, eventually_identity,
    support::{self, dockerd::Dockerd, watching::Watching},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_life_appears_as_events_as_a_row_and_as_an_identity() {
    let Some(mut engine) = Dockerd::start_or_skip().await else { return };
    let Some(watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    watching.ready().await;
    let network = engine.network("shop").await;
    let labels = HashMap::from([("com.example.tier".to_owned(), "web".to_owned())]);
    let on_network = HostConfig { network_mode: Some("shop".to_owned()), ..HostConfig::default() };
    let id = engine.create_with("web", "while true; do sleep 1000; done", on_network, labels.clone()).await;
    engine.start(&id).await;

    let key = Watching::key(&id);
    let identities = watching.identities().await;
    let life = watching.records("statement", |records| records.lives(&id).first().map(|life| (*life).clone())).await;
    assert_eq!(
        (life.name.as_str(), life.image.as_str(), life.state.as_str()),
        ("web", support::dockerd::IMAGE, "running")
    );
    assert_eq!(life.labels, labels.into_iter().collect());
    assert_eq!((life.host.as_str(), life.runtime.as_str()), (support::watching::HOST, "docker"));
    let inspected = engine.client().inspect_container(&id, None).await.unwrap();
    let endpoint = inspected.network_settings.unwrap().networks.unwrap().remove("shop").unwrap();
    let expected = vec![endpoint.ip_address.unwrap(), endpoint.global_ipv6_address.unwrap()];
    assert_eq!(addresses(&life), expected);
    assert_eq!(life.networks[0].network_id, network);
    assert_eq!(u64::from(life.pid), inspected.state.unwrap().pid.unwrap() as u64);
    let process = std::fs::read_to_string(format!("/proc/{}/cgroup", life.pid)).unwrap();
    if process.lines().any(|line| line.starts_with("0::")) {
        assert!(process.contains(&format!("0::{}", life.cgroup_path)), "{process}");
        assert_ne!(life.cgroup_id, 0);
    }
    let identity = eventually_identity(&identities, &key, |identity| identity.is_some()).await.unwrap();
    assert_eq!(
        (identity.started_at, identity.cgroup_id, addresses(&identity)),
        (life.started_at, life.cgroup_id, expected)
    );

    engine.network("second").await;
    let connect = NetworkConnectRequest { container: id.clone(), endpoint_config: Some(EndpointSettings::default()) };
    engine.client().connect_network("second", connect).await.unwrap();
    eventually_identity(&identities, &key, |identity| identity.is_some_and(|i| i.networks.len() == 4)).await;
    let disconnect = NetworkDisconnectRequest { container: id.clone(), force: None };
    engine.client().disconnect_network("second", disconnect).await.unwrap();
    eventually_identity(&identities, &key, |identity| identity.is_some_and(|i| i.networks.len() == 2)).await;
    let options = bollard::query_parameters::RenameContainerOptionsBuilder::new().name("front").build();
    engine.client().rename_container(&id, options).await.unwrap();
    eventually_identity(&identities, &key, |identity| identity.is_some_and(|i| i.name == "front")).await;

    engine.kill_container(&id).await;
    let ended = watching
        .records("end", |records| {
            records.lives(&id).first().filter(|life| life.exit_code.is_some()).map(|life| (*life).clone())
        })
        .await;
    assert_eq!((ended.exit_code, ended.state.as_str(), ended.started_at), (Some(137), "exited", life.started_at));
    assert_eq!(addresses(&ended), addresses(&life), "a life keeps its addresses");
    engine.remove(&id).await;
    eventually_identity(&identities, &key, |identity| identity.is_none()).await;

    let records = watching.records("removal", |records| records.event(&id, "destroy").map(|_| records.clone())).await;
    let lives = watching.records("last statement", |records| {
        let lives = records.lives(&id);
        lives.iter().all(|life| life.state == "removed").then(|| lives.into_iter().cloned().collect::<Vec<_>>())
    });
    let lives = lives.await;
    assert_eq!(lives.len(), 1, "{lives:?}");
    assert!(ended.finished_at > life.started_at);
    // How often an engine tells that a network was left depends on its version.
    let told: Vec<_> = records.actions(&id).into_iter().filter(|action| !action.starts_with("network_")).collect();
    assert_eq!(told, ["create", "start", "rename", "kill", "die", "destroy"]);
    assert!(records.event(&id, "network_connect").is_some_and(|event| event.attributes["network"] == "shop"));
    let die = records.event(&id, "die").unwrap();
    assert_eq!(
        (die.exit_code, die.name.as_str(), die.labels["com.example.tier"].as_str()),
        (Some(137), "front", "web")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oom_is_told_and_stays_with_the_life() {
    let Some(engine) = Dockerd::start_or_skip().await else { return };
    let Some(watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    watching.ready().await;
    let host = HostConfig { memory: Some(16 << 20), memory_swap: Some(16 << 20), ..HostConfig::default() };
    // The engine hears of it by a file of the cgroup, and not always when that is gone at once: the shell outlives its child.
    let command = "dd if=/dev/zero of=/dev/null bs=100M count=1; code=$?; sleep 2; exit $code";
    let id = engine.run("greedy", command, host).await;
    let life = watching
        .records("end", |records| {
            let life = records.lives(&id).first().map(|life| (*life).clone())?;
            (life.exit_code.is_some() && life.oom_killed && records.event(&id, "die").is_some()).then_some(life)
        })
        .await;
    assert_eq!((life.exit_code, life.state.as_str()), (Some(137), "exited"));
    let records = watching.published();
    let told: Vec<_> = records.actions(&id).into_iter().filter(|action| !action.starts_with("network_")).collect();
    assert_eq!(told, ["create", "start", "oom", "die"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_that_live_for_an_instant_have_their_lives() {
    let Some(engine) = Dockerd::start_or_skip().await else { return };
    let Some(watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    watching.ready().await;
    let mut ids = Vec::new();
    for i in 0..8 {
        let host = HostConfig { auto_remove: Some(true), ..HostConfig::default() };
        ids.push(engine.run(&format!("instant-{i}"), &format!("exit {i}"), host).await);
    }
    for (i, id) in ids.iter().enumerate() {
        let records = watching
            .records("last statement", |records| {
                let gone = records.lives(id).iter().any(|life| life.state == "removed");
                (gone && records.event(id, "destroy").is_some()).then(|| records.clone())
            })
            .await;
        let lives = records.lives(id);
        assert_eq!(lives.len(), 1, "{lives:?}");
        assert_eq!((lives[0].name.clone(), lives[0].exit_code), (format!("instant-{i}"), Some(i as i32)));
        assert!(0 < lives[0].created_at && lives[0].created_at <= lives[0].started_at);
        assert!(lives[0].started_at <= lives[0].finished_at);
    }
    let identities = watching.identities().await;
    for id in &ids {
        eventually_identity(&identities, &Watching::key(id), |identity| identity.is_none()).await;
    }
}
