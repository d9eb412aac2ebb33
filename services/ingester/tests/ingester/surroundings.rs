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
    assert!(system.metric("weir_ingester_insert_failures_total{table=\"flows\",code=\"0\"}").await >= 1);
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
    let stream = system.client().await.get_stream(weir_bus::names::RECORDS).await.expect("the stream");
    eventually("it has read them", async || system.metric("weir_ingester_messages_total").await == 10).await;
    assert!(system.stop().await);
    assert_eq!(stream.get_info().await.expect("its state").state.messages, 0);
    system.holds(&all[..10]).await;

    system.ingest(&["--block-wait-ms", "50"]).await;
    eventually("it is ready", async || system.conditions().await.unwrap_or_default()["ready"] == true).await;
    system.clickhouse.kill().await;
    publish(&bus, &all[10..]).await;
    eventually("an insert has failed", async || {
        system.metric("weir_ingester_insert_failures_total{table=\"flows\",code=\"0\"}").await >= 1
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

#[tokio::test]
async fn rows_that_a_table_refuses_wait_and_say_so_until_somebody_helps() {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    let all = batches(Uuid::new_v4(), 20, 10);
    system.ingest(&["--block-wait-ms", "50"]).await;
    publish(&bus, &all[..10]).await;
    system.drained().await;
    system.clickhouse.write("ALTER TABLE weir.dns DROP COLUMN container").await.expect("drop");
    publish(&bus, &all[10..]).await;
    eventually("it says that rows are refused", async || {
        let ready = system.conditions().await.unwrap_or_default();
        ready["conditions"]["clickhouse"].as_str().is_some_and(|reason| reason.contains("rows of dns are refused"))
    })
    .await;
    system.clickhouse.write("ALTER TABLE weir.dns ADD COLUMN container LowCardinality(String)").await.expect("add");
    system.drained().await;
    system.holds(&all).await;
    // A table that is gone is made again.
    system.clickhouse.write("TRUNCATE TABLE weir.schema_migrations").await.expect("truncate");
    system.clickhouse.write("DROP TABLE weir.flows").await.expect("drop");
    let more = batches(Uuid::new_v4(), 10, 10);
    publish(&bus, &more).await;
    system.drained().await;
    assert_eq!(system.read("SELECT count() FROM weir.flows").await, "100");
}

#[tokio::test]
async fn engines_that_hang_cost_time_and_nothing_else() {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    let all = batches(Uuid::new_v4(), 60, 10);
    system.ingest(&["--block-wait-ms", "50"]).await;
    publish(&bus, &all[..20]).await;
    system.drained().await;
    let unmet = async |system: &System, condition: &str| {
        eventually("the condition is not met", async || {
            system.conditions().await.unwrap_or_default()["conditions"][condition].is_string()
        })
        .await;
    };
    system.clickhouse.pause();
    publish(&bus, &all[20..40]).await;
    unmet(&system, "clickhouse").await;
    system.clickhouse.resume();
    system.drained().await;
    system.holds(&all[..40]).await;

    publish(&bus, &all[40..50]).await;
    system.nats.pause();
    unmet(&system, "nats").await;
    system.nats.resume();
    publish(&bus, &all[50..]).await;
    system.drained().await;
    system.holds(&all).await;
}
