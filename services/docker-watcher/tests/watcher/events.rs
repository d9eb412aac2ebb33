//! What happens to containers, images and volumes; and what happened while nobody looked.

use std::collections::HashMap;

use bollard::{
    Docker,
    exec::{CreateExecOptions, StartExecOptions},
    models::{HostConfig, VolumeCreateRequest},
    query_parameters::{
        CreateImageOptionsBuilder, EventsOptions, RemoveImageOptions, RemoveVolumeOptions,
        RenameContainerOptionsBuilder,
    },
};
use futures::TryStreamExt as _;

use crate::support::{
    dockerd::Dockerd,
    watching::{Records, Watching},
};

const SCRIPT: &str = "while true; do sleep 1000; done";

fn count(records: &Records, id: &str, action: &str) -> usize {
    records.actions(id).iter().filter(|told| **told == action).count()
}

/// When the engine told an event of a container, until a time, in microseconds.
async fn told_by(client: &Docker, id: &str, action: &str, until: u64) -> Vec<u64> {
    let filters = [("container", id), ("event", action)].map(|(key, value)| (key.to_owned(), vec![value.to_owned()]));
    let soon = until + 1;
    let options = EventsOptions {
        since: Some("0".to_owned()),
        until: Some(format!("{}.{:06}", soon / 1_000_000, soon % 1_000_000)),
        filters: Some(HashMap::from(filters)),
    };
    let events = client.events(Some(options)).try_collect::<Vec<_>>().await.unwrap();
    let times = events.iter().map(|event| u64::try_from(event.time_nano.unwrap()).unwrap() / 1000);
    times.filter(|time| *time <= until).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn execs_pauses_images_and_volumes_are_told() {
    let Some(engine) = Dockerd::start_or_skip().await else { return };
    let Some(watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    watching.ready().await;
    let client = engine.client();
    let id = engine.run("web", SCRIPT, HostConfig::default()).await;
    let exec = CreateExecOptions { cmd: Some(vec!["true"]), ..CreateExecOptions::default() };
    let exec = client.create_exec(&id, exec).await.unwrap().id;
    client.start_exec(&exec, Some(StartExecOptions { detach: true, ..StartExecOptions::default() })).await.unwrap();
    client.pause_container(&id).await.unwrap();
    client.unpause_container(&id).await.unwrap();
    let volume = VolumeCreateRequest { name: Some("data".to_owned()), ..VolumeCreateRequest::default() };
    client.create_volume(volume).await.unwrap();
    client.remove_volume("data", None::<RemoveVolumeOptions>).await.unwrap();
    let empty = vec![0; 1024];
    let options = CreateImageOptionsBuilder::new().from_src("-").repo("weir-empty").tag("1").build();
    let body = bollard::body_full(empty.into());
    client.create_image(Some(options), Some(body), None).try_collect::<Vec<_>>().await.unwrap();
    client.remove_image("weir-empty:1", None::<RemoveImageOptions>, None).await.unwrap();

    // The engine tells a pause again where its runtime's word of it comes after the unpause: what it told is what is recorded, each once.
    let told = |records: &Records| {
        let all =
            ["exec_create", "exec_start", "pause", "unpause"].iter().all(|action| count(records, &id, action) > 0);
        let others = ["volume_create", "volume_destroy", "image_delete"];
        (all && others.iter().all(|action| count(records, "", action) == 1)).then(|| records.clone())
    };
    let records = watching.records("event of each", told).await;
    let last = records.event("", "image_delete").unwrap().time;
    for action in ["pause", "unpause"] {
        let events = records.events.iter().filter(|event| event.container_id == id && event.action == action);
        let recorded = events.map(|event| event.time).filter(|time| *time <= last).collect::<Vec<_>>();
        assert_eq!(recorded, told_by(client, &id, action, last).await, "{action}");
    }
    assert_eq!(records.event(&id, "exec_create").unwrap().attributes["command"].trim(), "true");
    assert_eq!(records.event("", "volume_create").unwrap().attributes["volume"], "data");
    let deleted = records.event("", "image_delete").unwrap();
    assert!(deleted.attributes["image_id"].starts_with("sha256:") && deleted.container_id.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_engine_has_forgotten_is_reconstructed_from_its_list() {
    let Some(engine) = Dockerd::start_or_skip().await else { return };
    let Some(mut watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    watching.ready().await;
    let before = engine.run("before", SCRIPT, HostConfig::default()).await;
    watching.records("start", |records| records.event(&before, "start").map(drop)).await;
    watching.stop().await;

    let made = engine.create_with("made", SCRIPT, HostConfig::default(), HashMap::new()).await;
    engine.start(&made).await;
    engine.kill_container(&before).await;
    // The engine remembers 256 events.
    for turn in 0..260 {
        let options = RenameContainerOptionsBuilder::new().name(&format!("made-{turn}")).build();
        engine.client().rename_container(&made, options).await.unwrap();
    }
    watching.start();
    watching.ready().await;
    let told = |records: &Records| {
        let all = [(&made, "create"), (&made, "start"), (&before, "die")];
        all.iter().all(|(id, action)| records.event(id, action).is_some()).then(|| records.clone())
    };
    let records = watching.records("reconstructed events", told).await;
    for (id, action) in [(&made, "create"), (&made, "start"), (&before, "die"), (&before, "start")] {
        assert_eq!(count(&records, id, action), 1, "{action}");
    }
    for action in ["create", "start"] {
        let event = records.event(&made, action).unwrap();
        assert_eq!((event.attributes["weir.reconstructed"].as_str(), event.name.as_str()), ("true", "made-259"));
    }
}
