//! Every part is killed while records flow.

use crate::{
    known::{PER_BATCH, Producer, holds_exactly},
    weir::Weir,
};

const RECORDS: u64 = 200_000;

#[test]
fn every_part_is_killed_while_records_flow_and_each_record_is_there_once() {
    let Some(weir) = Weir::up_or_skip("lo") else { return };
    let producer = Producer::new(&weir);
    let parts = ["ingester", "nats", "clickhouse", "query-api", "pcap-worker", "docker-watcher", "ingester"];
    let share = RECORDS / (parts.len() as u64 + 1);
    let mut made = 0;
    for part in parts {
        made = producer.publish(made, made + share);
        // More come while it is away.
        weir.kill_and(part, || made = producer.publish(made, made + PER_BATCH));
    }
    producer.publish(made, RECORDS);
    producer.close();

    holds_exactly(&weir, RECORDS);
}
