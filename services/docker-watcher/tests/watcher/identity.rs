//! Who a container is, as the engine and the kernel say, and which containers are watched.

use std::{collections::HashMap, net::TcpListener};

use bollard::{
    models::{ContainerCreateBody, HostConfig, PortBinding},
    query_parameters::CreateContainerOptions,
};
use weir_proto::Ip;

use crate::support::{
    dockerd::{Dockerd, IMAGE},
    watching::{Records, Watching},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_life_has_its_published_ports_limits_project_and_the_hosts_end_of_its_veth() {
    let Some(mut engine) = Dockerd::start_or_skip().await else { return };
    let Some(watching) = Watching::start_or_skip(&engine.host(), &[]).await else { return };
    watching.ready().await;
    engine.network("shop").await;
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let binding = |ip: &str| PortBinding { host_ip: Some(ip.to_owned()), host_port: Some(port.to_string()) };
    let host = HostConfig {
        network_mode: Some("shop".to_owned()),
        port_bindings: Some(HashMap::from([("80/tcp".to_owned(), Some(vec![binding("127.0.0.1")]))])),
        nano_cpus: Some(500_000_000),
        memory: Some(32 << 20),
        pids_limit: Some(64),
        ..HostConfig::default()
    };
    let labels = HashMap::from([("com.docker.compose.project".to_owned(), "shop".to_owned())]);
    let body = ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(["sh", "-c", "while true; do sleep 1000; done"].map(str::to_owned).to_vec()),
        labels: Some(labels),
        exposed_ports: Some(vec!["80/tcp".to_owned()]),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    };
    let id = engine.client().create_container(None::<CreateContainerOptions>, body).await.unwrap().id;
    engine.start(&id).await;
    let has_port = |records: &Records| {
        records.lives(&id).first().filter(|life| !life.ports.is_empty()).map(|life| (*life).clone())
    };
    let life = watching.records("life with its port", has_port).await;
    let published = &life.ports[0];
    let address = Ip::new(published.host_ip_high, published.host_ip_low).canonical();
    assert_eq!(
        (address.to_string().as_str(), published.host_port, published.container_port, published.protocol),
        ("127.0.0.1", u32::from(port), 80, 6)
    );
    assert_eq!((life.cpu_limit, life.memory_limit_bytes, life.pids_limit), (Some(0.5), Some(32 << 20), Some(64)));
    assert_eq!(life.image_digest, "", "the image was made here");
    if life.cgroup_id != 0 {
        let [end] = life.interfaces.as_slice() else { panic!("{:?}", life.interfaces) };
        let bridge = std::fs::read_link(format!("/sys/class/net/{end}/master")).unwrap();
        assert!(bridge.file_name().unwrap().to_string_lossy().starts_with("br-"), "{bridge:?}");
        let index = std::fs::read_to_string(format!("/sys/class/net/{end}/iflink")).unwrap();
        let inside = std::fs::read_to_string(format!("/proc/{}/net/dev_mcast", life.pid)).unwrap();
        assert!(inside.lines().any(|line| line.split_whitespace().next() == Some(index.trim())), "{inside}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_containers_that_are_chosen_have_records() {
    let Some(engine) = Dockerd::start_or_skip().await else { return };
    let arguments = ["--exclude", "name=secret*", "--exclude", "label=team=b"];
    let Some(watching) = Watching::start_or_skip(&engine.host(), &arguments).await else { return };
    watching.ready().await;
    let script = "while true; do sleep 1000; done";
    let labelled = |key: &str, value: &str| HashMap::from([(key.to_owned(), value.to_owned())]);
    let mut hidden = Vec::new();
    // More labels than are kept, and all of them before this one.
    let mut many: HashMap<_, _> = (0..1000).map(|i| (format!("a-{i:03}"), "v".to_owned())).collect();
    many.extend(labelled("weir.enable", "false"));
    for (name, labels) in [
        ("secret-1", HashMap::new()),
        ("of-b", labelled("team", "b")),
        ("off", labelled("weir.enable", "false")),
        ("off-among-many", many),
    ] {
        let id = engine.create_with(name, script, HostConfig::default(), labels).await;
        engine.start(&id).await;
        hidden.push(id);
    }
    let id = engine.create_with("web", script, HostConfig::default(), labelled("team", "a")).await;
    engine.start(&id).await;
    for id in &hidden {
        engine.remove(id).await;
    }
    engine.remove(&id).await;
    let ended =
        |records: &Records| records.lives(&id).iter().any(|life| life.state == "removed").then(|| records.clone());
    let records = watching.records("end of the one that is watched", ended).await;
    assert!(records.event(&id, "start").is_some());
    for id in &hidden {
        assert!(records.actions(id).is_empty() && records.lives(id).is_empty() && records.samples(id).is_empty());
        assert!(watching.identities().await.get(&Watching::key(id)).await.unwrap().is_none());
    }
}
