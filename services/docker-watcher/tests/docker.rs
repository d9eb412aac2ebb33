//! docker-watcher with a real Docker engine, real containers and a real NATS.

mod support {
    pub(crate) mod dockerd;
    pub(crate) mod scripted;
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

use std::collections::{HashMap, HashSet};

use bollard::models::{EndpointSettings, HostConfig, NetworkConnectRequest, NetworkDisconnectRequest, ThrottleDevice};
use support::{
    dockerd::Dockerd,
    eventually,
    scripted::{Answer, Scripted},
    usage::{disk_of, usage},
    watching::{Records, Watching},
};
use weir_proto::{Container, Ip};

fn addresses(container: &Container) -> Vec<String> {
    container.networks.iter().map(|n| Ip::new(n.ip_high, n.ip_low).canonical().to_string()).collect()
}

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

/// Moves 2 MiB past the page cache and 8 MiB through it, holds 16 MiB, sends 2 MiB to a peer, and then uses as much CPU as it may.
fn known_load(peer: std::net::SocketAddr) -> String {
    format!(
        "dd if=/dev/zero of=/data/direct bs=64k count=32 oflag=direct || exit 1
         dd if=/dev/zero of=/data/cached bs=64k count=128; sync
         dd if=/dev/zero of=/dev/shm/held bs=1M count=16
         nc {} {} < /data/direct || exit 2
         touch /out/loaded
         while :; do :; done",
        peer.ip(),
        peer.port()
    )
}

/// Takes one connection on this host's side of a network. Returns its address, and how many bytes came.
async fn sink(engine: &Dockerd, network: &str) -> (std::net::SocketAddr, tokio::task::JoinHandle<u64>) {
    let network = engine.client().inspect_network(network, None).await.unwrap();
    let gateway = network.ipam.unwrap().config.unwrap()[0].gateway.clone().unwrap();
    let listener = tokio::net::TcpListener::bind((gateway.as_str(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let received = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        tokio::io::copy(&mut connection, &mut tokio::io::sink()).await.unwrap()
    });
    (address, received)
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_agree_with_the_containers_own_cgroup_files() {
    const MIB: u64 = 1 << 20;
    let Some(mut engine) = Dockerd::start_or_skip().await else { return };
    let Some(watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    engine.network("load").await;
    let (peer, received) = sink(&engine, "load").await;
    let disk = disk_of(&engine.shared());
    // Current kernels count block I/O of cgroup v1 only on disks that have a limit.
    let throttle = |path| vec![ThrottleDevice { path: Some(path), rate: Some(1 << 30) }];
    let host = HostConfig {
        nano_cpus: Some(300_000_000),
        memory: Some(64 << 20),
        blkio_device_write_bps: disk.clone().map(throttle),
        network_mode: Some("load".to_owned()),
        ..HostConfig::default()
    };
    let id = engine.run("load", &known_load(peer), host).await;
    engine.made("loaded").await;
    assert_eq!(received.await.unwrap(), 2 * MIB);
    let pid = engine.client().inspect_container(&id, None).await.unwrap().state.unwrap().pid.unwrap() as u32;

    // Reading the files before and after a sample brackets it.
    let samples = |records: &Records| records.samples(&id).len();
    let before = usage(&id, pid);
    let seen = samples(&watching.published());
    watching.records("three samples under load", |records| (samples(records) >= seen + 4).then_some(())).await;
    let after = usage(&id, pid);
    let records = watching.published();
    let under_load: Vec<_> = records.samples(&id).into_iter().skip(seen + 1).take(3).collect();
    for sample in &under_load {
        let within = |value: Option<u64>, low: u64, high: u64| {
            assert!(value.is_some_and(|value| low <= value && value <= high), "{low} {value:?} {high}: {sample:?}");
        };
        within(sample.cpu_usage_ns, before.cpu_ns, after.cpu_ns);
        within(sample.memory_bytes, before.memory.min(after.memory) - MIB, before.memory.max(after.memory) + MIB);
        within(sample.memory_bytes, 16 * MIB, 24 * MIB);
        within(sample.network_rx_bytes, before.rx_bytes, after.rx_bytes);
        within(sample.network_rx_packets, before.rx_packets, after.rx_packets);
        within(sample.network_tx_bytes, before.tx_bytes, after.tx_bytes);
        within(sample.network_tx_packets, before.tx_packets, after.tx_packets);
        within(sample.network_tx_bytes, 2 * MIB, 3 * MIB);
        if disk.is_some() {
            within(sample.block_read_bytes, before.block_read, after.block_read);
            within(sample.block_write_bytes, before.block_written, after.block_written);
            within(sample.block_write_bytes, 2 * MIB, 20 * MIB);
        }
        within(sample.pids, before.pids.min(after.pids), before.pids.max(after.pids));
        assert_eq!(sample.memory_limit_bytes, Some(64 << 20));
        assert_eq!((sample.name.as_str(), sample.runtime.as_str()), ("load", "docker"));
        // A third of a core may be used; how much of that there is depends on who else is at work here.
        let percent = sample.cpu_percent.unwrap();
        assert!(percent > 1.0 && percent < 45.0, "{percent}");
    }
    for pair in under_load.windows(2) {
        let used = pair[1].cpu_usage_ns.unwrap() - pair[0].cpu_usage_ns.unwrap();
        let percent = used as f64 / ((pair[1].time - pair[0].time) as f64 * 1000.0) * 100.0;
        assert!((percent - pair[1].cpu_percent.unwrap()).abs() < 0.01, "{percent} {pair:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_absent_and_says_why() {
    let Some(engine) = Dockerd::start_or_skip().await else { return };
    let Some(watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    let host = HostConfig { network_mode: Some("host".to_owned()), ..HostConfig::default() };
    let id = engine.run("host", "sleep 1000", host).await;
    let samples = watching
        .records("second sample", |records| {
            let samples = records.samples(&id);
            (samples.len() >= 2).then(|| samples.into_iter().cloned().collect::<Vec<_>>())
        })
        .await;
    assert_eq!((samples[0].cpu_percent, samples[0].memory_limit_bytes), (None, None));
    assert!(samples[0].missing["cpu_percent"].contains("first sample"));
    assert!(samples[1].cpu_percent.is_some_and(|percent| percent < 50.0));
    assert_eq!(samples[1].network_rx_bytes, None);
    assert!(samples[1].missing["network_rx_bytes"].contains("host network"), "{:?}", samples[1].missing);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oom_is_told_and_stays_with_the_life() {
    let Some(engine) = Dockerd::start_or_skip().await else { return };
    let Some(watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    watching.ready().await;
    let host = HostConfig { memory: Some(16 << 20), memory_swap: Some(16 << 20), ..HostConfig::default() };
    let id = engine.run("greedy", "dd if=/dev/zero of=/dev/null bs=100M count=1", host).await;
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

/// Asserts that no event was published twice.
fn assert_each_once(records: &Records) {
    let mut seen = HashSet::new();
    for event in &records.events {
        let network = event.attributes.get("network_id").cloned();
        let name = (event.container_id.clone(), event.action.clone(), event.time, network);
        assert!(seen.insert(name), "{event:?}");
    }
}

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
