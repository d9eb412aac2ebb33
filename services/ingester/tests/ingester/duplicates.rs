//! What comes twice, late, or is no batch.

use async_nats::jetstream;
use uuid::Uuid;
use weir_bus::{encode_batch, names};
use weir_proto::Batch;

use crate::support::{System, batches, eventually, publish, publish_raw};

/// Publishes batches past NATS's own window of duplicates: as minutes later.
pub(crate) async fn publish_again(jetstream: &jetstream::Context, batches: &[Batch], round: &str) {
    for batch in batches {
        let id = format!("{round}-{}-{}", Uuid::from_slice(&batch.producer).expect("a producer"), batch.sequence);
        let headers = [(names::VERSION_HEADER, "1"), (names::ENCODING_HEADER, "zstd"), ("Nats-Msg-Id", id.as_str())];
        publish_raw(jetstream, &headers, &encode_batch(batch)).await;
    }
}

#[tokio::test]
async fn batches_that_are_published_again_change_nothing_however_late() {
    let Some(mut system) = System::start().await else { return };
    let (bus, jetstream) = (system.bus().await, system.client().await);
    let all = batches(Uuid::new_v4(), 50, 20);
    system.ingest(&["--block-wait-ms", "50"]).await;
    publish(&bus, &all).await;
    publish_again(&jetstream, &all[40..], "at once").await;
    system.drained().await;
    system.holds(&all).await;
    publish_again(&jetstream, &all, "later").await;
    system.drained().await;
    system.holds(&all).await;
    assert_eq!(system.metric("weir_ingester_duplicates_total{kind=\"batch\"}").await, 60);
    assert_eq!(system.metric("weir_ingester_records_total{table=\"flows\"}").await, 1000);
    // The windows outlive the process.
    assert!(system.stop().await);
    publish_again(&jetstream, &all, "another life").await;
    system.ingest(&["--block-wait-ms", "50"]).await;
    system.drained().await;
    system.holds(&all).await;
}

#[tokio::test]
async fn what_could_not_be_delivered_can_be_read_as_a_dead_letter() {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    for _ in 0..2 {
        // Twice, as after a crash in the middle of it.
        bus.send_dead_letter("1-2-3", "webhook pager: the receiver answers 404", r#"{"id":"1-2-3"}"#.into())
            .await
            .unwrap();
    }
    system.ingest(&[]).await;
    system.drained().await;
    let sql = "SELECT subject, reason, payload FROM weir.dead_letters";
    let letter = "weir.records.dead\tundeliverable: webhook pager: the receiver answers 404\t{\"id\":\"1-2-3\"}";
    assert_eq!(system.read(sql).await, letter);
}

#[tokio::test]
async fn what_is_no_batch_becomes_a_dead_letter_once_and_the_rest_goes_on() {
    let Some(mut system) = System::start().await else { return };
    let (bus, jetstream) = (system.bus().await, system.client().await);
    let all = batches(Uuid::new_v4(), 4, 5);
    publish(&bus, &all[..2]).await;
    let zstd = (names::ENCODING_HEADER, "zstd");
    publish_raw(&jetstream, &[], b"no header at all").await;
    publish_raw(&jetstream, &[(names::VERSION_HEADER, "1"), zstd], b"\xff\x00garbage").await;
    publish_raw(&jetstream, &[(names::VERSION_HEADER, "999"), zstd], b"from the future").await;
    publish_raw(&jetstream, &[(names::VERSION_HEADER, "1")], b"\xff\xff\xff").await;
    publish_raw(&jetstream, &[(names::VERSION_HEADER, "1"), (names::ENCODING_HEADER, "lz77")], b"").await;
    publish_raw(&jetstream, &[(names::VERSION_HEADER, "1")], b"").await;
    publish(&bus, &all[2..]).await;
    // A crash in the middle counts them once, too.
    system.ingest(&["--fail-after", "inserts"]).await;
    assert!(!system.ended().await);
    system.ingest(&[]).await;
    system.drained().await;
    system.holds(&all).await;
    let sql = "SELECT sequence, splitByChar(':', reason)[1], stream, subject, size_bytes FROM weir.dead_letters ORDER BY sequence";
    let letter = |sequence, reason, size| format!("{sequence}\t{reason}\tWEIR_RECORDS\tweir.records.ebpf\t{size}");
    let expected = [
        letter(3, "no_version", 16),
        letter(4, "bad_zstd", 9),
        letter(5, "newer_version", 15),
        letter(6, "bad_protobuf", 3),
        letter(7, "unknown_encoding", 0),
        letter(8, "unnamed", 0),
    ];
    assert_eq!(system.read(sql).await, expected.join("\n"));
    let payload = "SELECT hex(payload), headers['Weir-Encoding'] FROM weir.dead_letters WHERE sequence = 4";
    assert_eq!(system.read(payload).await, "FF0067617262616765\tzstd");
    assert_eq!(system.metric("weir_ingester_dead_letters_total{reason=\"newer_version\"}").await, 1);
}

#[tokio::test]
async fn a_stream_that_was_made_anew_counts_from_one_again_and_loses_nothing() {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    let first = batches(Uuid::new_v4(), 5, 10);
    system.ingest(&["--block-wait-ms", "50"]).await;
    publish(&bus, &first).await;
    system.drained().await;
    assert!(system.stop().await);
    system.client().await.delete_stream(names::RECORDS).await.expect("deleted");
    let bus = system.bus().await;
    let mut second = batches(Uuid::new_v4(), 5, 10);
    for flow in second.iter_mut().flat_map(|batch| &mut batch.flows) {
        flow.flow_id += 1000;
    }
    for dns in second.iter_mut().flat_map(|batch| &mut batch.dns) {
        dns.flow_id += 1000;
    }
    publish(&bus, &second).await;
    system.ingest(&["--block-wait-ms", "50"]).await;
    system.drained().await;
    system.holds(&[first, second].concat()).await;
}

#[tokio::test]
async fn of_two_ingesters_one_goes_on_and_the_other_stops() {
    let Some(mut system) = System::start().await else { return };
    let bus = system.bus().await;
    let all = batches(Uuid::new_v4(), 300, 10);
    system.ingest(&["--block-wait-ms", "20"]).await;
    publish(&bus, &all[..50]).await;
    system.drained().await;
    let port = weir_engines::ports::free_port().expect("a port");
    let mut second = system.spawn(port, &["--block-wait-ms", "20"]).await;
    let publishing = tokio::spawn({
        let rest = all[50..].to_vec();
        async move { publish(&bus, &rest).await }
    });
    eventually("one of them has stopped", async || {
        let first = system.ingester.as_mut().expect("it was started").try_wait().expect("a status");
        let second = second.try_wait().expect("a status");
        assert!(first.is_none() || second.is_none(), "both stopped");
        [first, second].into_iter().flatten().any(|status| status.code() == Some(1))
    })
    .await;
    publishing.await.expect("published");
    system.drained().await;
    system.holds(&all).await;
}
