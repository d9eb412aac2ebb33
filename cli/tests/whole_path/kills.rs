//! Every part is killed while records flow.

use tokio_util::sync::CancellationToken;
use weir_bus::{Bus, Publisher, names};
use weir_proto::{Batch, EndReason, Flow, Ip, Source};

use crate::weir::{DEADLINE, Weir};

const RECORDS: u64 = 200_000;
const PER_BATCH: u64 = 500;

#[test]
fn every_part_is_killed_while_records_flow_and_each_record_is_there_once() {
    let Some(weir) = Weir::up_or_skip("lo") else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("runtime");
    let spool = tempfile::tempdir().expect("tempdir");
    let options = weir_bus::Options {
        nats_url: weir.nats_url(),
        nats_credentials: None,
        records_max_bytes: 1 << 30,
        uploads_max_bytes: 1 << 30,
    };
    let publisher = runtime.block_on(async {
        let bus = Bus::connect(&options, "whole-path test").await.expect("connect");
        bus.ready(&CancellationToken::new(), |_| ()).await.expect("ready");
        Publisher::open(bus, names::RECORDS_EBPF, "known", spool.path(), 1 << 30).expect("spool")
    });

    let parts = ["ingester", "nats", "clickhouse", "query-api", "pcap-worker", "docker-watcher", "ingester"];
    let share = RECORDS / (parts.len() as u64 + 1);
    let mut made = 0;
    for part in parts {
        made = publish(&publisher, made, made + share);
        // More come while it is away.
        weir.kill_and(part, || made = publish(&publisher, made, made + PER_BATCH));
    }
    publish(&publisher, made, RECORDS);
    assert_eq!(runtime.block_on(publisher.close(DEADLINE)), 0, "all is published");

    let bytes: u64 = (0..RECORDS).sum();
    weir.eventually(
        "SELECT count() AS records, uniqExact(flow_id) AS different, toString(sum(tx_bytes)) AS bytes FROM flows WHERE host = 'known'",
        &serde_json::json!({"records": RECORDS, "different": RECORDS, "bytes": bytes.to_string()}),
    );
}

/// Publishes the known records `from..to` and returns where it stopped.
fn publish(publisher: &Publisher, from: u64, to: u64) -> u64 {
    let mut next = from;
    while next < to {
        let end = (next + PER_BATCH).min(to);
        let flows = (next..end).map(known).collect();
        assert!(
            publisher.publish(Batch { source: Source::Ebpf.into(), flows, ..Batch::default() }),
            "the spool takes it"
        );
        next = end;
    }
    next
}

fn known(number: u64) -> Flow {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_micros() as u64;
    let (src, dst) = (Ip::from([1; 16]), Ip::from([2; 16]));
    Flow {
        start_time: now,
        end_time: now,
        flow_id: number,
        src_ip_high: src.high,
        src_ip_low: src.low,
        dst_ip_high: dst.high,
        dst_ip_low: dst.low,
        protocol: 6,
        tx_bytes: number,
        tx_packets: 1,
        end_reason: EndReason::Fin.into(),
        ..Flow::default()
    }
}
