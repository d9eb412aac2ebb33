//! Kills at every point.

use std::time::Instant;

use uuid::Uuid;
use weir_proto::Capture;

use crate::support::{System, batches, eventually, publish};

/// Crashes once after `step`, with a block that has flows, DNS exchanges and a deleted capture; then goes on.
async fn crash_after(step: &str) {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    let mut all = batches(Uuid::new_v4(), 40, 50);
    let deleted = Capture { capture_id: vec![7; 16], deleted: true, ..Capture::default() };
    all[3].captures.push(deleted);
    publish(&bus, &all[..30]).await;
    // A block has at least ten batches of these, so each step has something before and after it.
    let arguments = ["--block-rows", "500", "--block-wait-ms", "100"];
    for _ in 0..3 {
        system.ingest(&[arguments.as_slice(), &["--fail-after", step]].concat()).await;
        if step == "deletes" {
            // Only one block has what this step needs; the others are done without a crash.
            let ended = eventually("a crash, or an end", async || {
                let ingester = system.ingester.as_mut().expect("it was started");
                ingester.try_wait().expect("a status").is_some()
            });
            ended.await;
        }
        assert!(!system.ended().await, "{step}");
    }
    system.ingest(&arguments).await;
    publish(&bus, &all[30..]).await;
    system.drained().await;
    system.holds(&all).await;
    // What is acked is done: another start finds nothing to do.
    assert!(system.stop().await);
    system.ingest(&arguments).await;
    let more = batches(Uuid::new_v4(), 1, 1);
    publish(&bus, &more).await;
    system.drained().await;
    assert_eq!(system.read("SELECT count() FROM weir.flows").await, "2001");
    assert_eq!(system.read("SELECT count() FROM weir.captures FINAL").await, "0");
}

#[tokio::test]
async fn a_crash_after_the_cut_changes_no_count() {
    crash_after("cut").await;
}

#[tokio::test]
async fn a_crash_after_the_insert_into_the_first_table_changes_no_count() {
    crash_after("insert").await;
}

#[tokio::test]
async fn a_crash_after_the_inserts_into_all_tables_changes_no_count() {
    crash_after("inserts").await;
}

#[tokio::test]
async fn a_crash_after_the_deletes_changes_no_count() {
    crash_after("deletes").await;
}

#[tokio::test]
async fn a_crash_after_the_first_ack_changes_no_count() {
    crash_after("ack").await;
}

#[tokio::test]
async fn a_crash_after_the_last_ack_changes_no_count() {
    crash_after("acks").await;
}

/// A block that was cut has the same messages again, and its duplicates stay duplicates, also where some of them are acked and gone.
#[tokio::test]
async fn a_block_that_is_half_acked_keeps_its_memory() {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    let jetstream = system.client().await;
    let all = batches(Uuid::new_v4(), 10, 20);
    publish(&bus, &all).await;
    crate::duplicates::publish_again(&jetstream, &all, "a").await;
    system.ingest(&["--fail-after", "ack", "--block-wait-ms", "300"]).await;
    assert!(!system.ended().await);
    // The first message is gone; its batch comes once more, and so do the others.
    crate::duplicates::publish_again(&jetstream, &all, "b").await;
    system.ingest(&[]).await;
    system.drained().await;
    system.holds(&all).await;
}

/// 200,000 flows flow while the ingester, NATS and `ClickHouse` are killed in turn at moments that differ from run to run.
#[tokio::test]
async fn kills_of_all_parts_in_turn_change_no_count() {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    let all = batches(Uuid::new_v4(), 400, 500);
    let arguments = ["--block-rows", "10000", "--block-wait-ms", "200"];
    system.ingest(&arguments).await;
    let publishing = tokio::spawn({
        let all = all.clone();
        async move { publish(&bus, &all).await }
    });
    let mut seed = u64::from(std::process::id()) ^ 0x9e37_79b9_7f4a_7c15;
    let started = Instant::now();
    for round in 0..9 {
        // Kill when so many more rows are there, wherever the ingester is at that moment.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let target = round * 20_000 + seed % 10_000;
        eventually("more rows", async || {
            let count = system.clickhouse.read("SELECT count() FROM weir.flows").await.unwrap_or_default();
            count.trim().parse::<u64>().is_ok_and(|count| count >= target)
        })
        .await;
        match round % 3 {
            0 => {
                system.kill().await;
                system.ingest(&arguments).await;
            }
            1 => {
                system.nats.kill().await;
                system.nats.restart().await.expect("NATS starts again");
            }
            _ => {
                system.clickhouse.kill().await;
                system.clickhouse.restart().await.expect("ClickHouse starts again");
            }
        }
    }
    publishing.await.expect("published");
    system.drained().await;
    system.holds(&all).await;
    eprintln!("200000 flows, 9 kills, {:?}", started.elapsed());
}
