//! What `/metrics` says of the ingester.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::block::Block;

/// Says what each metric means.
pub(crate) fn describe() {
    describe_counter!("weir_ingester_messages_total", "Messages that were read, each once a session");
    describe_counter!("weir_ingester_records_total", "Records that became rows, by table");
    describe_counter!("weir_ingester_blocks_total", "Blocks that were inserted and acked");
    describe_counter!(
        "weir_ingester_duplicates_total",
        "Messages that were dropped: kind batch = its batch was taken before, too_old = older than its producer's window, redelivery = the same message again"
    );
    describe_counter!("weir_ingester_dead_letters_total", "Messages that are no batch, by reason");
    describe_counter!(
        "weir_ingester_deleted_records_total",
        "Records whose capture was deleted before they became rows"
    );
    describe_counter!("weir_ingester_altered_values_total", "Values that were brought into the range of their column");
    describe_counter!(
        "weir_ingester_insert_failures_total",
        "Inserts that failed and were tried again, by table and code"
    );
    describe_counter!(
        "weir_ingester_sessions_total",
        "Times that reading began anew: at start and after NATS was away"
    );
    describe_counter!(
        "weir_ingester_forgotten_producers_total",
        "Producers whose window was dropped for the sake of newer ones"
    );
    describe_histogram!("weir_ingester_insert_seconds", Unit::Seconds, "Time of one insert into one table");
    describe_gauge!("weir_ingester_block_rows", "Rows of the last block");
    describe_gauge!(
        "weir_ingester_pending_messages",
        "Messages that wait in the stream behind the last one that was read"
    );
    describe_gauge!("weir_ingester_producers", "Producers whose window is kept");
}

/// A block is done.
pub(crate) fn done(block: &Block) {
    for (table, rows) in block.rows.counts() {
        if rows > 0 && table != "dead_letters" {
            counter!("weir_ingester_records_total", "table" => table).increment(rows as u64);
        }
    }
    let tally = &block.tally;
    for reason in &tally.dead_letters {
        counter!("weir_ingester_dead_letters_total", "reason" => *reason).increment(1);
    }
    counter!("weir_ingester_blocks_total").increment(1);
    counter!("weir_ingester_duplicates_total", "kind" => "batch").increment(tally.duplicate_batches);
    counter!("weir_ingester_duplicates_total", "kind" => "too_old").increment(tally.too_old_batches);
    counter!("weir_ingester_deleted_records_total").increment(tally.deleted_records);
    counter!("weir_ingester_altered_values_total").increment(block.rows.altered);
    counter!("weir_ingester_forgotten_producers_total").increment(tally.forgotten_producers);
    gauge!("weir_ingester_block_rows").set(block.rows.len() as f64);
    gauge!("weir_ingester_producers").set(tally.producers as f64);
}

pub(crate) fn inserted(table: &'static str, took: Duration) {
    histogram!("weir_ingester_insert_seconds", "table" => table).record(took);
}

pub(crate) fn insert_failed(table: &'static str, error: &weir_store::Error) {
    counter!("weir_ingester_insert_failures_total", "table" => table, "code" => error.code().to_string()).increment(1);
}

pub(crate) fn redelivered() {
    counter!("weir_ingester_duplicates_total", "kind" => "redelivery").increment(1);
}

pub(crate) fn read() {
    counter!("weir_ingester_messages_total").increment(1);
}

pub(crate) fn pending(messages: u64) {
    gauge!("weir_ingester_pending_messages").set(messages as f64);
}

pub(crate) fn session() {
    counter!("weir_ingester_sessions_total").increment(1);
}
