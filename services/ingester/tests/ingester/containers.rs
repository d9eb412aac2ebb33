//! Flows get the names of the containers at their ends.

use uuid::Uuid;
use weir_bus::{Bus, names};
use weir_proto::{Batch, Container, ContainerNetwork, Dns, Flow, Http, Ip, Source, Tls};

use crate::support::{System, eventually};

const SECOND: u64 = 1_000_000;
/// 2026-01-02T03:04:05Z
const START: u64 = 1_767_323_045 * SECOND;

fn ip(text: &str) -> Ip {
    text.parse::<std::net::IpAddr>().expect("an address").into()
}

/// A life from one second to another, counted from [`START`]; 0 = it runs.
fn life(name: &str, address: &str, started: u64, finished: u64) -> Container {
    let Ip { high, low } = ip(address);
    Container {
        host: "host-1".into(),
        container_id: format!("id-{name}"),
        name: name.into(),
        image: format!("image-of-{name}"),
        networks: vec![ContainerNetwork { ip_high: high, ip_low: low, ..ContainerNetwork::default() }],
        started_at: START + started * SECOND,
        finished_at: if finished == 0 { 0 } else { START + finished * SECOND },
        observed_at: START + started * SECOND,
        ..Container::default()
    }
}

async fn identify(bus: &Bus, container: &Container) {
    let bucket = bus.bucket::<Container>(names::IDENTITIES).await.expect("the bucket");
    let key = format!("{}.{}", names::key(&container.host), names::key(&container.container_id));
    bucket.put(&key, container).await.expect("put");
}

/// A flow of a second from one address to another.
fn flow(id: u64, src: &str, dst: &str, second: u64) -> Flow {
    let (src, dst) = (ip(src), ip(dst));
    Flow {
        flow_id: id,
        start_time: START + second * SECOND,
        end_time: START + (second + 1) * SECOND,
        interface: "br0".into(),
        src_ip_high: src.high,
        src_ip_low: src.low,
        dst_ip_high: dst.high,
        dst_ip_low: dst.low,
        dst_port: 443,
        protocol: 6,
        tx_bytes: 100,
        tx_packets: 1,
        ..Flow::default()
    }
}

async fn publish(bus: &Bus, source: Source, flows: Vec<Flow>, containers: Vec<Container>) {
    let (subject, host, capture_id) = match source {
        Source::Pcap => (names::RECORDS_PCAP, "a-worker", Uuid::new_v4().as_bytes().to_vec()),
        _ => (names::RECORDS_EBPF, "host-1", Vec::new()),
    };
    let batch = Batch {
        producer: Uuid::new_v4().as_bytes().to_vec(),
        sequence: 1,
        host: host.into(),
        source: source.into(),
        capture_id,
        flows,
        containers,
        ..Batch::default()
    };
    bus.send(subject, &batch).await.expect("sent");
}

#[tokio::test]
async fn two_containers_that_had_one_address_have_their_own_flows() {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    identify(&bus, &life("old", "172.17.0.2", 0, 100)).await;
    identify(&bus, &life("new", "172.17.0.2", 200, 0)).await;
    let on_host = Container { host_network: true, cgroup_id: 77, ..life("on-host", "192.0.2.1", 0, 0) };
    identify(&bus, &on_host).await;
    system.ingest(&["--block-wait-ms", "50"]).await;
    eventually("it is ready", async || system.conditions().await.unwrap_or_default()["ready"] == true).await;
    let seconds = [(1, 50), (2, 150), (3, 250)];
    let mut flows: Vec<_> = seconds.iter().map(|(id, at)| flow(*id, "172.17.0.2", "192.0.2.1", *at)).collect();
    flows.push(Flow { dst_cgroup: 77, ..flow(4, "198.51.100.1", "192.0.2.1", 250) });
    // Behind the address of the host.
    let behind = ip("172.17.0.2");
    let outside = |id, second| Flow { interface: "eth0".into(), ..flow(id, "192.0.2.8", "198.51.100.1", second) };
    flows.extend([(6, 50), (7, 250)].map(|(id, second)| Flow {
        src_nat_ip_high: behind.high,
        src_nat_ip_low: behind.low,
        src_nat_port: 5,
        ..outside(id, second)
    }));
    publish(&bus, Source::Ebpf, flows, Vec::new()).await;
    // The capture was made while the old one had the address; nobody says on which host.
    publish(&bus, Source::Pcap, vec![flow(5, "172.17.0.2", "192.0.2.1", 60)], Vec::new()).await;
    system.drained().await;
    let sql = "SELECT concatWithSeparator(',', flow_id, src_container, src_container_id, src_image, dst_container) FROM weir.flows ORDER BY flow_id";
    let expected = [
        "1,old,id-old,image-of-old,",
        "2,,,,",
        "3,new,id-new,image-of-new,",
        "4,,,,on-host",
        "5,old,id-old,image-of-old,",
        "6,old,id-old,image-of-old,",
        "7,new,id-new,image-of-new,",
    ];
    assert_eq!(system.read(sql).await, expected.join("\n"));
    let sql = "SELECT concatWithSeparator(',', src_nat_ip, src_nat_port) FROM weir.flows WHERE flow_id = 6";
    assert_eq!(system.read(sql).await, "::ffff:172.17.0.2,5");
}

#[tokio::test]
async fn an_identity_that_comes_late_is_found_when_flows_are_asked_for() {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    system.ingest(&["--block-wait-ms", "50"]).await;
    let flows = |id| vec![flow(id, "172.17.0.2", "172.17.0.3", 50), flow(id + 1, "172.17.0.2", "172.17.0.3", 250)];
    let behind = ip("172.17.0.3");
    let translated =
        Flow { dst_nat_ip_high: behind.high, dst_nat_ip_low: behind.low, ..flow(5, "198.51.100.1", "192.0.2.8", 50) };
    publish(&bus, Source::Ebpf, [flows(1), vec![translated]].concat(), Vec::new()).await;
    publish(&bus, Source::Pcap, flows(3), Vec::new()).await;
    let lives = vec![
        life("old", "172.17.0.2", 0, 100),
        life("new", "172.17.0.2", 200, 0),
        life("db", "172.17.0.3", 0, 0),
        // On another host at the same time as `new`: a capture can be of either.
        Container { host: "host-2".into(), ..life("other", "172.17.0.2", 240, 0) },
    ];
    publish(&bus, Source::Ebpf, Vec::new(), lives).await;
    system.drained().await;
    let columns = "concatWithSeparator(',', flow_id, src_container, dst_container, src_container_id, src_image)";
    let rows = system.read(&format!("SELECT {columns} FROM weir.flows ORDER BY flow_id")).await;
    assert_eq!(rows, "1,,,,\n2,,,,\n3,,,,\n4,,,,\n5,,,,");
    let rows = system.read(&format!("SELECT {columns} FROM weir.flows_named ORDER BY flow_id")).await;
    let expected = [
        "1,old,db,id-old,image-of-old",
        "2,new,db,id-new,image-of-new",
        "3,old,db,id-old,image-of-old",
        "4,,db,,",
        "5,,db,,",
    ];
    assert_eq!(rows, expected.join("\n"));
}

#[tokio::test]
async fn exchanges_have_the_container_that_is_behind_a_translated_address() {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    identify(&bus, &life("old", "172.17.0.2", 0, 100)).await;
    identify(&bus, &life("new", "172.17.0.2", 200, 0)).await;
    system.ingest(&["--block-wait-ms", "50"]).await;
    eventually("it is ready", async || system.conditions().await.unwrap_or_default()["ready"] == true).await;
    let (host, behind, server) = (ip("192.0.2.8"), ip("172.17.0.2"), ip("198.51.100.1"));
    let at = |second: u64| flow(0, "192.0.2.8", "198.51.100.1", second).start_time;
    // A query of the host itself, one of each life, and one that comes from outside to a port that leads there.
    let dns = [(50, None), (50, Some(true)), (250, Some(true)), (250, Some(false))].map(|(second, behind_src)| Dns {
        time: at(second),
        src_ip_high: host.high,
        src_ip_low: host.low,
        dst_ip_high: server.high,
        dst_ip_low: server.low,
        protocol: 17,
        src_nat_ip_high: if behind_src == Some(true) { behind.high } else { 0 },
        src_nat_ip_low: if behind_src == Some(true) { behind.low } else { 0 },
        dst_nat_ip_high: if behind_src == Some(false) { behind.high } else { 0 },
        dst_nat_ip_low: if behind_src == Some(false) { behind.low } else { 0 },
        ..Dns::default()
    });
    let tls = Tls { time: at(50), src_nat_ip_low: behind.low, src_nat_ip_high: behind.high, ..Tls::default() };
    let http = Http { time: at(250), src_nat_ip_low: behind.low, src_nat_ip_high: behind.high, ..Http::default() };
    let batch = Batch {
        producer: Uuid::new_v4().as_bytes().to_vec(),
        sequence: 1,
        host: "host-1".into(),
        source: Source::Ebpf.into(),
        dns: dns.into(),
        tls: vec![tls],
        http: vec![http],
        ..Batch::default()
    };
    bus.send(names::RECORDS_EBPF, &batch).await.expect("sent");
    system.drained().await;
    let sql = "SELECT concatWithSeparator(',', container, src_nat_ip, dst_nat_ip) FROM weir.dns ORDER BY time, src_nat_ip, dst_nat_ip";
    let expected = [",::,::", "old,::ffff:172.17.0.2,::", "new,::,::ffff:172.17.0.2", "new,::ffff:172.17.0.2,::"];
    assert_eq!(system.read(sql).await, expected.join("\n"));
    assert_eq!(system.read("SELECT container FROM weir.tls").await, "old");
    assert_eq!(system.read("SELECT container FROM weir.http").await, "new");
}
