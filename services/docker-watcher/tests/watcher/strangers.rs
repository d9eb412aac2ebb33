//! Bad input: from who writes labels, and from engines that answer badly.

use std::collections::HashMap;

use bollard::models::HostConfig;

use crate::{
    assert_each_once,
    support::{
        dockerd::Dockerd,
        scripted::{Answer, Scripted},
        watching::Watching,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_labels_and_a_huge_one_do_not_lose_the_container() {
    let Some(engine) = Dockerd::start_or_skip().await else { return };
    let Some(watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    watching.ready().await;
    let mut labels: HashMap<_, _> = (0..10_000).map(|i| (format!("label-{i:05}"), "v".repeat(50))).collect();
    labels.insert("a-huge-one".to_owned(), "\u{1F433}".repeat(16 << 10));
    let id = engine.create_with("labelled", "sleep 1000", HostConfig::default(), labels).await;
    engine.start(&id).await;
    let records = watching
        .records("life and sample", |records| {
            (!records.lives(&id).is_empty() && !records.samples(&id).is_empty()).then(|| records.clone())
        })
        .await;
    let life = records.lives(&id)[0];
    assert_eq!((life.name.as_str(), life.labels.len(), life.labels["a-huge-one"].len()), ("labelled", 256, 4096));
    assert_eq!(records.samples(&id)[0].labels, life.labels);
    assert!(records.event(&id, "start").unwrap().labels.len() <= 256);
}

/// What a container is for the scripted engine.
fn inspection(id: &str) -> String {
    let mut json: serde_json::Value = serde_json::from_str(include_str!("recorded/inspect.json")).unwrap();
    json["Id"] = id.into();
    json["State"]["Pid"] = 0.into();
    json.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_answers_about_some_containers_do_not_touch_the_others() {
    // The engine answers on one line.
    let stats: serde_json::Value = serde_json::from_str(include_str!("recorded/stats-cgroup-v1.json")).unwrap();
    let list = ["good", "slow", "vanished", "garbled", "torn", "refused"]
        .map(|id| serde_json::json!({"Id": id, "Names": [id]}));
    let event = |id: &str, action: &str, second: i64| {
        serde_json::json!({
            "Type": "container", "Action": action, "scope": "local", "time": second, "timeNano": second * 1_000_000_000,
            "Actor": {"ID": id, "Attributes": {"name": id, "image": "i", "exitCode": "4"}}
        })
        .to_string()
    };
    let events = vec![
        event("garbled", "start", 1_795_301_500),
        event("garbled", "die", 1_795_301_501),
        "{\"Type\": 7}".to_owned(),
    ];
    let engine = Scripted::start(HashMap::from([
        ("/version", Answer::Whole(200, r#"{"ApiVersion":"1.41"}"#.to_owned())),
        ("/info", Answer::Whole(200, r#"{"MemTotal":1000}"#.to_owned())),
        ("/_ping", Answer::Whole(200, "OK".to_owned())),
        ("/containers/json", Answer::Whole(200, serde_json::Value::from(list.to_vec()).to_string())),
        ("/good/json", Answer::Whole(200, inspection("good"))),
        ("/slow/json", Answer::Whole(200, inspection("slow"))),
        ("/garbled/json", Answer::Whole(200, "{\"Id\": 7".to_owned())),
        ("/torn/json", Answer::Half(inspection("torn"))),
        ("/refused/json", Answer::Whole(500, r#"{"message":"broken"}"#.to_owned())),
        ("/good/stats", Answer::Whole(200, stats.to_string())),
        ("/slow/stats", Answer::Silence),
        ("/events", Answer::Lines(events)),
    ]));
    let Some(watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    watching.ready().await;
    let records = watching
        .records("two samples of the good one, and what the events say about the garbled one", |records| {
            let all = records.samples("good").len() >= 2
                && !records.lives("slow").is_empty()
                && records.lives("garbled").iter().any(|life| life.exit_code == Some(4));
            all.then(|| records.clone())
        })
        .await;
    assert_eq!(records.lives("good").len(), 1);
    for id in ["vanished", "torn", "refused"] {
        assert!(records.lives(id).is_empty(), "{id}");
    }
    assert!(records.samples("slow").is_empty());
    assert_each_once(&records);
}
