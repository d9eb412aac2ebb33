//! What the rows say beyond their counts.

use uuid::Uuid;
use weir_bus::names;
use weir_proto::{Batch, Capture, Container, ContainerNetwork, Dns, Flow, Ip, Source, capture::State};

use crate::support::{System, publish};

fn ip(text: &str) -> Ip {
    text.parse::<std::net::IpAddr>().expect("an address").into()
}

fn flow(src: &str, dst: &str, time: u64) -> Flow {
    let (src, dst) = (ip(src), ip(dst));
    Flow {
        start_time: time,
        end_time: time + 10,
        src_ip_high: src.high,
        src_ip_low: src.low,
        dst_ip_high: dst.high,
        dst_ip_low: dst.low,
        ..Flow::default()
    }
}

fn batch(sequence: u64, source: Source, flows: Vec<Flow>) -> Batch {
    Batch { producer: vec![1; 16], sequence, host: "host-1".into(), source: source as i32, flows, ..Batch::default() }
}

#[tokio::test]
async fn flows_and_exchanges_carry_the_names_of_the_containers_that_ran_at_the_time() {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    let Ip { high, low } = ip("172.17.0.2");
    let web = Container {
        host: "host-1".into(),
        container_id: "c0ffee".into(),
        name: "web".into(),
        image: "nginx:1".into(),
        networks: vec![ContainerNetwork { ip_high: high, ip_low: low, ..ContainerNetwork::default() }],
        started_at: 1_000_000,
        finished_at: 2_000_000,
        ..Container::default()
    };
    let identities = bus.bucket::<Container>(names::IDENTITIES).await.expect("bucket");
    identities.put("host-1.c0ffee", &web).await.expect("put");
    system.ingest(&["--block-wait-ms", "50"]).await;
    let mut live = batch(
        1,
        Source::Ebpf,
        vec![flow("10.0.0.1", "172.17.0.2", 1_500_000), flow("172.17.0.2", "10.0.0.1", 2_500_000)],
    );
    live.dns.push(Dns { time: 1_500_000, src_ip_high: high, src_ip_low: low, ..Dns::default() });
    let uploaded = batch(2, Source::Pcap, vec![flow("172.17.0.2", "10.0.0.1", 1_500_000)]);
    publish(&bus, &[live, uploaded]).await;
    system.drained().await;
    let sql = "SELECT source, toUnixTimestamp64Micro(start_time), src_container, dst_container, dst_container_id, dst_image \
               FROM weir.flows ORDER BY source, start_time";
    let expected = "ebpf\t1500000\t\tweb\tc0ffee\tnginx:1\nebpf\t2500000\t\t\t\t\npcap\t1500000\tweb\t\t\t";
    assert_eq!(system.clickhouse.read(sql).await.expect("rows").trim_end_matches('\n'), expected);
    assert_eq!(system.read("SELECT container FROM weir.dns").await, "web");
}

#[tokio::test]
async fn a_capture_that_is_deleted_takes_its_rows_with_it() {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    let ids = [Uuid::from_u128(1), Uuid::from_u128(2)];
    let mut all = Vec::new();
    for id in ids {
        let mut batch = batch(all.len() as u64 + 1, Source::Pcap, vec![Flow::default(); 3]);
        batch.capture_id = id.as_bytes().to_vec();
        batch.captures.push(Capture {
            capture_id: id.as_bytes().to_vec(),
            state: State::Done as i32,
            observed_at: 1,
            ..Capture::default()
        });
        all.push(batch);
    }
    system.ingest(&["--block-wait-ms", "50"]).await;
    publish(&bus, &all).await;
    system.drained().await;
    assert_eq!(system.read("SELECT count() FROM weir.flows").await, "6");
    // Records of the capture that come in the same block are gone, too.
    let mut last = batch(3, Source::Pcap, vec![Flow::default(); 2]);
    last.capture_id = ids[0].as_bytes().to_vec();
    last.captures.push(Capture {
        capture_id: ids[0].as_bytes().to_vec(),
        deleted: true,
        observed_at: 2,
        ..Capture::default()
    });
    publish(&bus, &[last]).await;
    system.drained().await;
    assert_eq!(system.read("SELECT capture_id, count() FROM weir.flows GROUP BY 1").await, format!("{}\t3", ids[1]));
    assert_eq!(system.read("SELECT capture_id, state FROM weir.captures").await, format!("{}\tdone", ids[1]));
    assert_eq!(system.metric("weir_ingester_deleted_records_total").await, 2);
}
