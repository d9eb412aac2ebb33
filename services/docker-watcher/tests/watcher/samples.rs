//! What containers use, against their own cgroup files.

use bollard::{
    models::{ContainerStatsResponse, HostConfig, RestartPolicy, RestartPolicyNameEnum, ThrottleDevice},
    query_parameters::StatsOptionsBuilder,
};
use futures::TryStreamExt as _;

use crate::support::{
    dockerd::Dockerd,
    usage::{disk_of, usage},
    watching::{Records, Watching},
};

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

/// "17.5MiB", "2.1MB", "0B", as the client writes it.
fn bytes(text: &str) -> f64 {
    const UNITS: [(&str, f64); 7] = [
        ("B", 1.0),
        ("kB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
    ];
    let (number, unit) = text.split_at(text.find(|character: char| character.is_ascii_alphabetic()).unwrap());
    let factor = UNITS.iter().find(|(name, _)| *name == unit).unwrap().1;
    number.parse::<f64>().unwrap() * factor
}

/// The container has done its work and sleeps, so that all who look at it must see the same.
#[tokio::test(flavor = "multi_thread")]
async fn samples_agree_with_docker_stats_and_with_the_engines_own_numbers() {
    let Some(mut engine) = Dockerd::start_or_skip().await else { return };
    let Some(watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    engine.network("stats").await;
    let (peer, received) = sink(&engine, "stats").await;
    let script = format!(
        "dd if=/dev/zero of=/dev/shm/held bs=1M count=16
         nc {} {} < /dev/shm/held
         touch /out/done
         sleep 100000",
        peer.ip(),
        peer.port()
    );
    let network_mode = Some("stats".to_owned());
    let host = HostConfig { network_mode, memory: Some(64 << 20), ..HostConfig::default() };
    let id = engine.run("stats", &script, host).await;
    engine.made("done").await;
    received.await.unwrap();

    let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
    let ask = async || engine.client().stats(&id, Some(options.clone())).try_next().await.unwrap().unwrap();
    let before = ask().await;
    let seen = watching.published().samples(&id).len();
    let sample = watching
        .records("sample of the sleeper", |records| records.samples(&id).get(seen + 1).map(|sample| (*sample).clone()))
        .await;
    let told = tokio::process::Command::new("docker")
        .args(["--host", &engine.host(), "stats", "--no-stream", "--format", "{{json .}}", &id])
        .output()
        .await;
    let after = ask().await;

    let cpu = |stats: &ContainerStatsResponse| stats.cpu_stats.clone().unwrap().cpu_usage.unwrap().total_usage.unwrap();
    let used = sample.cpu_usage_ns.unwrap();
    assert!(cpu(&before) <= used && used <= cpu(&after), "{} {used} {}", cpu(&before), cpu(&after));
    let sums = |stats: &ContainerStatsResponse| {
        let networks = stats.networks.clone().unwrap_or_default();
        let rx = networks.values().filter_map(|network| network.rx_bytes).sum::<u64>();
        (rx, networks.values().filter_map(|network| network.tx_bytes).sum::<u64>())
    };
    let (rx, tx) = (sample.network_rx_bytes.unwrap(), sample.network_tx_bytes.unwrap());
    assert!((sums(&before).0..=sums(&after).0).contains(&rx) && (sums(&before).1..=sums(&after).1).contains(&tx));
    assert!(tx >= 16 << 20);
    assert_eq!(sample.pids, after.pids_stats.clone().unwrap().current);

    let Ok(told) = told else {
        eprintln!("skipped: docker's client is not here; the engine's own numbers agree");
        return;
    };
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    let column = |name: &str| told[name].as_str().unwrap().split(" / ").map(str::to_owned).collect::<Vec<_>>();
    // It rounds to three or four digits.
    let same = |text: &str, value: u64| {
        assert!((bytes(text) - value as f64).abs() <= 0.01 * value as f64 + 1000.0, "{text} {value}: {told}");
    };
    let memory = column("MemUsage");
    same(&memory[0], sample.memory_bytes.unwrap());
    same(&memory[1], sample.memory_limit_bytes.unwrap());
    let network = column("NetIO");
    same(&network[0], rx);
    same(&network[1], tx);
    assert_eq!(column("PIDs")[0], sample.pids.unwrap().to_string());
    let percent: f64 = column("CPUPerc")[0].trim_end_matches('%').parse().unwrap();
    assert!(percent < 1.0 && sample.cpu_percent.unwrap() < 1.0, "both see that it sleeps: {percent} {sample:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_are_those_that_the_engine_made() {
    let Some(engine) = Dockerd::start_or_skip().await else { return };
    let Some(watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    watching.ready().await;
    // It fails twice, and then stays.
    let script = "test -e /data/b && exec sleep 100000; test -e /data/a && touch /data/b; touch /data/a; exit 3";
    let restart_policy =
        Some(RestartPolicy { name: Some(RestartPolicyNameEnum::ON_FAILURE), maximum_retry_count: Some(9) });
    let id = engine.run("failing", script, HostConfig { restart_policy, ..HostConfig::default() }).await;
    let records = watching
        .records("sample of the life that stays", |records| {
            records.samples(&id).iter().any(|sample| sample.restarts == Some(2)).then(|| records.clone())
        })
        .await;
    let inspected = engine.client().inspect_container(&id, None).await.unwrap();
    assert_eq!(inspected.restart_count, Some(2));
    let lives = records.lives(&id);
    let ends: Vec<_> = lives.iter().map(|life| life.exit_code).collect();
    assert_eq!((ends, lives[2].restarts), (vec![Some(3), Some(3), None], Some(2)));
}
