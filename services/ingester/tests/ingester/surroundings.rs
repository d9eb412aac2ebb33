//! Engines that are away, and an orderly end.

use uuid::Uuid;

use crate::support::{System, batches, eventually, publish};

#[tokio::test]
async fn clickhouse_may_be_away_at_the_start_and_later() {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    system.clickhouse.kill().await;
    let all = batches(Uuid::new_v4(), 20, 10);
    publish(&bus, &all[..10]).await;
    system.ingest(&["--block-wait-ms", "50"]).await;
    let unmet = async |condition: &str, text: &str| {
        eventually("the condition is not met", async || {
            let ready = system.conditions().await.unwrap_or_default();
            ready["ready"] == false
                && ready["conditions"][condition].as_str().is_some_and(|reason| reason.contains(text))
        })
        .await;
    };
    unmet("clickhouse", "does not answer").await;
    unmet("schema", "waits").await;
    system.clickhouse.restart().await.expect("restart");
    system.drained().await;
    eventually("it is ready", async || system.conditions().await.unwrap_or_default()["ready"] == true).await;

    system.clickhouse.kill().await;
    publish(&bus, &all[10..]).await;
    let unmet = eventually("it says that rows wait", async || {
        let ready = system.conditions().await.unwrap_or_default();
        ready["conditions"]["clickhouse"].as_str().is_some_and(|reason| reason.contains("wait"))
    });
    unmet.await;
    system.clickhouse.restart().await.expect("restart");
    system.drained().await;
    system.holds(&all).await;
    assert!(system.metric("weir_ingester_insert_failures_total{table=\"flows\",code=\"0\"}").await >= 1.0);
}

#[tokio::test]
async fn nats_may_go_away_and_come_back() {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    let all = batches(Uuid::new_v4(), 20, 10);
    system.ingest(&["--block-wait-ms", "50"]).await;
    publish(&bus, &all[..10]).await;
    system.drained().await;
    system.nats.kill().await;
    eventually("it says so", async || {
        let ready = system.conditions().await.unwrap_or_default();
        ready["ready"] == false && ready["conditions"]["nats"].is_string()
    })
    .await;
    system.nats.restart().await.expect("restart");
    publish(&bus, &all[10..]).await;
    system.drained().await;
    system.holds(&all).await;
    eventually("it is ready", async || system.conditions().await.unwrap_or_default()["ready"] == true).await;
}

#[tokio::test]
async fn an_orderly_end_finishes_what_is_in_hand_and_does_not_wait_for_engines_that_are_away() {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    let all = batches(Uuid::new_v4(), 20, 10);
    // Blocks that would wait for half a minute.
    system.ingest(&["--block-wait-ms", "30000"]).await;
    eventually("it is ready", async || system.conditions().await.unwrap_or_default()["ready"] == true).await;
    publish(&bus, &all[..10]).await;
    eventually("it has read them", async || system.metric("weir_ingester_pending_messages").await == 0.0).await;
    assert!(system.stop().await);
    system.ingest(&["--block-wait-ms", "50"]).await;
    system.drained().await;
    system.holds(&all[..10]).await;

    eventually("it is ready", async || system.conditions().await.unwrap_or_default()["ready"] == true).await;
    system.clickhouse.kill().await;
    publish(&bus, &all[10..]).await;
    eventually("an insert has failed", async || {
        system.metric("weir_ingester_insert_failures_total{table=\"flows\",code=\"0\"}").await >= 1.0
    })
    .await;
    assert!(system.stop().await);
    system.clickhouse.restart().await.expect("restart");
    system.ingest(&["--block-wait-ms", "50"]).await;
    system.drained().await;
    system.holds(&all).await;
}

#[tokio::test]
async fn a_bad_value_and_a_database_of_the_future_end_it_with_a_reason() {
    let Some(mut system) = System::start().await else { return };
    let mut child = system.spawn(0, &["--block-rows", "0"]).await;
    assert_eq!(child.wait().await.expect("a status").code(), Some(64));
    drop(system.bus().await);
    system.ingest(&[]).await;
    eventually("it is ready", async || system.conditions().await.unwrap_or_default()["ready"] == true).await;
    assert!(system.stop().await);
    let insert = "INSERT INTO weir.schema_migrations (version, name, checksum) VALUES (99, 'future', '')";
    system.clickhouse.write(insert).await.expect("insert");
    system.ingest(&[]).await;
    assert!(!system.ended().await);
}
