//! An analysis that is replaced, cancelled or deleted leaves no rows, whenever its batches come.

use uuid::Uuid;
use weir_bus::purge;
use weir_proto::{Batch, Source};

use crate::support::{System, batches, publish};

/// Batches 1 to `count` of an analysis.
fn analysis(capture: Uuid, id: Uuid, count: u64) -> Vec<Batch> {
    let of_capture = |batch| Batch {
        source: Source::Pcap.into(),
        capture_id: capture.as_bytes().to_vec(),
        host: "a-worker".into(),
        ..batch
    };
    batches(id, count, 10).into_iter().map(of_capture).collect()
}

/// What comes of an analysis of three batches of which one comes late, its end, and another analysis of the same capture, where a
/// capture and live traffic stay untouched.
async fn replaced(in_one_block: bool) {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    let (capture, first, second) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let mut kept = batches(Uuid::new_v4(), 1, 10);
    kept.extend(analysis(Uuid::new_v4(), Uuid::new_v4(), 2));
    let old = analysis(capture, first, 3);
    let new = analysis(capture, second, 2);
    if !in_one_block {
        system.ingest(&["--block-wait-ms", "50"]).await;
    }
    publish(&bus, &kept).await;
    publish(&bus, &old[..2]).await;
    if !in_one_block {
        system.drained().await;
        let rows = format!("SELECT count() FROM weir.flows WHERE capture_id = '{capture}'");
        assert_eq!(system.read(&rows).await, "20");
    }
    let end = purge(capture, first.as_bytes().to_vec());
    publish(&bus, std::slice::from_ref(&end)).await;
    publish(&bus, &old[2..]).await;
    publish(&bus, &new).await;
    if in_one_block {
        system.ingest(&["--block-wait-ms", "50"]).await;
    }
    system.drained().await;
    for table in ["flows", "dns"] {
        let of_capture = system.read(&format!("SELECT count() FROM weir.{table} WHERE capture_id = '{capture}'")).await;
        assert_eq!(of_capture, if table == "flows" { "20" } else { "2" }, "{table}");
        let all = system.read(&format!("SELECT count() FROM weir.{table}")).await;
        assert_eq!(all, if table == "flows" { "50" } else { "5" }, "{table}");
    }
    // A worker that does not know whether it said so says it again.
    publish(&bus, &[end]).await;
    system.drained().await;
    assert_eq!(system.read("SELECT count() FROM weir.flows").await, "50");
    assert_eq!(system.read("SELECT count() FROM weir.captures").await, "0");
}

#[tokio::test]
async fn rows_of_a_replaced_analysis_are_deleted_and_its_late_batches_do_not_count() {
    replaced(false).await;
}

#[tokio::test]
async fn an_analysis_that_is_replaced_within_one_block_leaves_only_the_other_one() {
    replaced(true).await;
}
