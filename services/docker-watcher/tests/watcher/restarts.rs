//! What stops and comes back: the engine, the watcher, NATS.

use bollard::models::HostConfig;
use weir_proto::Container;

use crate::{
    assert_each_once, eventually_identity,
    support::{dockerd::Dockerd, eventually, watching::Watching},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_engine_loses_no_life_and_repeats_no_event() {
    let Some(mut engine) = Dockerd::start_or_skip().await else { return };
    let Some(watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    watching.ready().await;
    let stays = engine.run("stays", "sleep 1000", HostConfig::default()).await;
    let script = "until test -e /out/end; do sleep 0.05; done; touch /out/ended; exit 7";
    let ends = engine.run("ends", script, HostConfig::default()).await;
    let lives = |id: &str| watching.published().lives(id).into_iter().cloned().collect::<Vec<_>>();
    watching
        .records("both", |records| {
            (!records.lives(&stays).is_empty() && !records.lives(&ends).is_empty()).then_some(())
        })
        .await;

    engine.kill().await;
    eventually("word of the engine's absence", || watching.unmet("docker")).await;
    std::fs::write(engine.shared().join("end"), "").unwrap();
    engine.made("ended").await;
    engine.restart().await;
    eventually("engine", || watching.unmet("docker").is_none().then_some(())).await;

    let ended = watching
        .records("end", |records| records.lives(&ends).into_iter().find(|life| life.finished_at > 0).cloned())
        .await;
    assert_eq!((ended.exit_code, ended.state.as_str()), (Some(7), "exited"));
    assert_eq!(lives(&ends).len(), 1);
    let records = watching.records("its death", |records| records.event(&ends, "die").map(|_| records.clone())).await;
    assert_eq!(records.event(&ends, "die").unwrap().exit_code, Some(7));
    assert_eq!(records.actions(&ends).iter().filter(|action| **action == "die").count(), 1);
    assert_eq!((lives(&stays).len(), lives(&stays)[0].finished_at), (1, 0));
    // The engine is watched again: events and samples.
    let next = engine.run("next", "true", HostConfig::default()).await;
    watching.records("next death", |records| records.event(&next, "die").map(|_| ())).await;
    let before = watching.published().samples(&stays).len();
    watching.records("sample", |records| (records.samples(&stays).len() > before).then_some(())).await;
    assert_each_once(&watching.published());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_watcher_loses_no_life_and_repeats_no_event() {
    let Some(mut engine) = Dockerd::start_or_skip().await else { return };
    let Some(mut watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    watching.ready().await;
    engine.network("here").await;
    let here = || HostConfig { network_mode: Some("here".to_owned()), ..HostConfig::default() };
    let ends = engine.run("ends", "sleep 1000", here()).await;
    let goes = engine.run("goes", "sleep 1000", here()).await;
    let restarts = engine.run("restarts", "sleep 1000", here()).await;
    let identities = watching.identities().await;
    for id in [&ends, &goes, &restarts] {
        let known = |identity: Option<&Container>| identity.is_some_and(|identity| identity.networks.len() == 2);
        eventually_identity(&identities, &Watching::key(id), known).await;
    }
    watching.stop().await;
    engine.kill_container(&ends).await;
    engine.remove(&goes).await;
    let options = bollard::query_parameters::RestartContainerOptionsBuilder::new().t(0).build();
    engine.client().restart_container(&restarts, Some(options)).await.unwrap();
    let host = HostConfig { auto_remove: Some(true), ..HostConfig::default() };
    let unseen = engine.run("unseen", "exit 5", host).await;
    watching.start();
    watching.ready().await;

    let records = watching
        .records("all lives", |records| {
            let ended = |id: &str| records.lives(id).first().is_some_and(|life| life.finished_at > 0);
            let begun = records.lives(&restarts).len() == 2;
            let all = ended(&ends) && ended(&goes) && ended(&restarts) && ended(&unseen) && begun;
            (all && records.event(&unseen, "destroy").is_some()).then(|| records.clone())
        })
        .await;
    assert_eq!((records.lives(&ends).len(), records.lives(&ends)[0].exit_code), (1, Some(137)));
    assert_eq!(records.lives(&ends)[0].networks.len(), 2, "its addresses were known before");
    assert_eq!((records.lives(&goes).len(), records.lives(&goes)[0].state.as_str()), (1, "removed"));
    assert_eq!(records.lives(&restarts)[1].finished_at, 0);
    assert_eq!(records.lives(&unseen)[0].exit_code, Some(5));
    for id in [&ends, &goes, &restarts, &unseen] {
        assert_eq!(records.actions(id).iter().filter(|action| **action == "create").count(), 1);
        assert_eq!(
            records.actions(id).iter().filter(|action| **action == "die").count(),
            1,
            "{:?}",
            records.actions(id)
        );
    }
    assert_each_once(&records);
    eventually_identity(&identities, &Watching::key(&goes), |identity| identity.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_hangs_is_told_and_watched_again_when_it_goes_on() {
    let Some(engine) = Dockerd::start_or_skip().await else { return };
    let Some(watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    watching.ready().await;
    engine.pause();
    let reason = eventually("word of it", || watching.unmet("docker")).await;
    assert!(reason.contains("has not answered"), "{reason}");
    engine.resume();
    eventually("engine", || watching.unmet("docker").is_none().then_some(())).await;
    let id = engine.run("after", "true", HostConfig::default()).await;
    watching.records("death", |records| records.event(&id, "die").map(|_| ())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_while_nats_is_away_is_told_when_it_is_back() {
    let Some(engine) = Dockerd::start_or_skip().await else { return };
    let Some(mut watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    watching.ready().await;
    watching.nats.kill().await;
    eventually("word of it", || watching.unmet("nats")).await;
    assert_eq!(watching.unmet("docker"), None, "the engine is watched all the same");
    let stays = engine.run("stays", "sleep 1000", HostConfig::default()).await;
    let ends = engine.run("ends", "exit 3", HostConfig::default()).await;
    let waits = |directory: std::path::PathBuf| std::fs::read_dir(directory).is_ok_and(|files| files.count() > 0);
    eventually("batch in the spool", || waits(watching.data_dir().join("spool/docker-watcher")).then_some(())).await;
    watching.nats.restart().await.unwrap();
    watching
        .records("both lives", |records| {
            let ended = records.lives(&ends).first().is_some_and(|life| life.exit_code == Some(3));
            (ended && records.event(&ends, "die").is_some() && !records.lives(&stays).is_empty()).then_some(())
        })
        .await;
    let identities = watching.identities().await;
    eventually_identity(&identities, &Watching::key(&stays), |identity| identity.is_some()).await;
    assert_each_once(&watching.published());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_engine_the_service_says_what_to_do_and_waits_for_one() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("docker.sock");
    let Some(watching) = Watching::start_or_skip(&format!("unix://{}", socket.display()), &[]).await else { return };
    let watching = &watching;
    let said =
        |word: &'static str| eventually(word, move || watching.unmet("docker").filter(|reason| reason.contains(word)));
    said("install the runtime").await;
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    said("is the engine running?").await;
    eventually("NATS", || watching.unmet("nats").is_none().then_some(())).await;
    let Some(engine) = Dockerd::start_or_skip().await else { return };
    std::fs::remove_file(&socket).unwrap();
    std::os::unix::fs::symlink(engine.host().trim_start_matches("unix://"), &socket).unwrap();
    watching.ready().await;
}
