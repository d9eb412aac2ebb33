//! Streams, buckets and stores, created when they are missing. Limits that an operator changed later stay as they are.

use std::time::Duration;

use async_nats::jetstream::{
    self, kv, object_store,
    stream::{self, DiscardPolicy, RetentionPolicy, StorageType},
};

use crate::{Error, Options, error::unavailable, names};

/// NATS's window for `Nats-Msg-Id`. It only saves work; counting once is the ingester's.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(2);
/// Jobs are small; this many captures may wait.
const MAX_JOBS: i64 = 100_000;
/// Reports are a few hundred kilobytes at most.
const ARTIFACTS_MAX_BYTES: i64 = 1 << 30;
/// State of some 100,000 containers or captures.
const BUCKET_MAX_BYTES: i64 = 256 << 20;

pub(crate) async fn ensure(jetstream: &jetstream::Context, options: &Options) -> Result<(), Error> {
    for config in streams(options) {
        let name = config.name.clone();
        jetstream.get_or_create_stream(config).await.map_err(unavailable(format!("cannot create stream {name}")))?;
    }
    for bucket in [names::IDENTITIES, names::CAPTURES, names::INGEST, names::WEBHOOKS] {
        if jetstream.get_key_value(bucket).await.is_err() {
            jetstream
                .create_key_value(key_value(bucket))
                .await
                .map_err(unavailable(format!("cannot create bucket {bucket}")))?;
        }
    }
    let stores = [(names::UPLOADS, saturating(options.uploads_max_bytes)), (names::ARTIFACTS, ARTIFACTS_MAX_BYTES)];
    for (store, max_bytes) in stores {
        if jetstream.get_object_store(store).await.is_err() {
            jetstream
                .create_object_store(objects(store, max_bytes))
                .await
                .map_err(unavailable(format!("cannot create store {store}")))?;
        }
    }
    Ok(())
}

fn streams(options: &Options) -> [stream::Config; 2] {
    // A full queue refuses what is new: nobody has done what is old.
    let queue = stream::Config {
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        storage: StorageType::File,
        duplicate_window: DUPLICATE_WINDOW,
        ..stream::Config::default()
    };
    [
        stream::Config {
            name: names::RECORDS.to_owned(),
            subjects: vec![names::RECORDS_SUBJECTS.to_owned()],
            max_bytes: saturating(options.records_max_bytes),
            ..queue.clone()
        },
        stream::Config {
            name: names::JOBS.to_owned(),
            subjects: vec![names::JOBS_PCAP.to_owned()],
            max_messages: MAX_JOBS,
            ..queue
        },
    ]
}

fn key_value(bucket: &str) -> kv::Config {
    kv::Config {
        bucket: bucket.to_owned(),
        history: 1,
        max_bytes: BUCKET_MAX_BYTES,
        storage: StorageType::File,
        ..kv::Config::default()
    }
}

fn objects(bucket: &str, max_bytes: i64) -> object_store::Config {
    object_store::Config {
        bucket: bucket.to_owned(),
        max_bytes,
        storage: StorageType::File,
        ..object_store::Config::default()
    }
}

fn saturating(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
