//! The bus against a real NATS: what is published arrives, whatever happens to the server.

use std::{collections::BTreeSet, time::Duration};

use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use weir_bus::{Bucket, Bus, Error, Options, Publisher, RecordsReader, names};
use weir_engines::testing::Nats;
use weir_proto::{AnalyseCapture, Batch, Capture, Cut, Flow};

const DEADLINE: Duration = Duration::from_mins(1);

fn options(nats: &Nats) -> Options {
    Options { nats_url: nats.url(), nats_credentials: None, records_max_bytes: 64 << 20, uploads_max_bytes: 64 << 20 }
}

async fn connect(nats: &Nats) -> Bus {
    let bus = Bus::connect(&options(nats), "test").await.unwrap();
    bus.ready(&CancellationToken::new(), |error| {
        eprintln!("not ready: {error}: {:?}", std::error::Error::source(error));
    })
    .await
    .unwrap();
    bus
}

fn batch(flow_id: u64) -> Batch {
    Batch { flows: vec![Flow { flow_id, ..Flow::default() }], ..Batch::default() }
}

/// Reads and acks until `count` different flow ids have come.
async fn take(reader: &mut RecordsReader, count: usize) -> BTreeSet<u64> {
    let mut taken = BTreeSet::new();
    tokio::time::timeout(DEADLINE, async {
        while taken.len() < count {
            let message = reader.next().await.unwrap();
            taken.insert(message.batch().unwrap().flows[0].flow_id);
            message.ack_confirmed().await.unwrap();
        }
    })
    .await
    .expect("the batches come in time");
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_made_while_the_server_is_away_arrive_when_it_is_back() {
    let Some(mut nats) = Nats::start_or_skip().await else { return };
    let bus = connect(&nats).await;
    let spool = tempfile::tempdir().unwrap();
    let publisher = Publisher::open(bus.clone(), names::RECORDS_EBPF, "host", spool.path(), 1 << 20).unwrap();
    for flow_id in 0..50 {
        assert!(publisher.publish(batch(flow_id)));
    }
    nats.kill().await;
    for flow_id in 50..100 {
        assert!(publisher.publish(batch(flow_id)));
    }
    nats.restart().await.unwrap();
    assert_eq!(publisher.close(DEADLINE).await, 0);

    let mut reader = bus.records().await.unwrap();
    assert_eq!(take(&mut reader, 100).await, (0..100).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_life_of_a_producer_sends_what_the_last_one_could_not() {
    let Some(mut nats) = Nats::start_or_skip().await else { return };
    let bus = connect(&nats).await;
    nats.kill().await;
    let spool = tempfile::tempdir().unwrap();
    let first = Publisher::open(bus.clone(), names::RECORDS_EBPF, "host", spool.path(), 1 << 20).unwrap();
    assert!(first.publish(batch(1)) && first.publish(batch(2)));
    assert_eq!(first.close(Duration::ZERO).await, 2);

    nats.restart().await.unwrap();
    let second = Publisher::open(bus.clone(), names::RECORDS_EBPF, "host", spool.path(), 1 << 20).unwrap();
    assert!(second.publish(batch(3)));
    assert_eq!(second.close(DEADLINE).await, 0);
    let mut reader = bus.records().await.unwrap();
    assert_eq!(take(&mut reader, 3).await, (1..=3).collect());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_refuses_and_the_spool_keeps_until_there_is_room() {
    let Some(nats) = Nats::start_or_skip().await else { return };
    let small = Options { records_max_bytes: 64 << 10, ..options(&nats) };
    let bus = Bus::connect(&small, "test").await.unwrap();
    bus.ready(&CancellationToken::new(), |_| ()).await.unwrap();
    let spool = tempfile::tempdir().unwrap();
    let publisher = Publisher::open(bus.clone(), names::RECORDS_EBPF, "host", spool.path(), 8 << 20).unwrap();
    for flow_id in 0..1000 {
        assert!(publisher.publish(batch(flow_id)));
    }
    let mut reader = bus.records().await.unwrap();
    assert_eq!(take(&mut reader, 1000).await, (0..1000).collect());
    assert_eq!(publisher.close(DEADLINE).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_is_full_drops_what_is_new_and_says_so() {
    let Some(mut nats) = Nats::start_or_skip().await else { return };
    let bus = connect(&nats).await;
    nats.kill().await;
    let spool = tempfile::tempdir().unwrap();
    let publisher = Publisher::open(bus, names::RECORDS_EBPF, "host", spool.path(), 300).unwrap();
    let taken = (0..20).filter(|flow_id| publisher.publish(batch(*flow_id))).count();
    assert!(taken > 0 && taken < 20, "{taken} of 20 batches fit");
    assert_eq!(publisher.waiting(), taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_over_gets_what_was_not_acked_in_order() {
    let Some(nats) = Nats::start_or_skip().await else { return };
    let bus = connect(&nats).await;
    for sequence in 1..=10 {
        let named = Batch { producer: vec![1; 16], sequence, ..batch(sequence) };
        bus.send(names::RECORDS_PCAP, &named).await.unwrap();
    }
    let mut first = bus.records().await.unwrap();
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(first.next().await.unwrap());
    }
    held[0].ack_confirmed().await.unwrap();
    held[3].ack_confirmed().await.unwrap();

    let mut second = bus.records().await.unwrap();
    let mut sequences = Vec::new();
    for _ in 0..8 {
        sequences.push(second.next().await.unwrap().stream_sequence);
    }
    assert_eq!(sequences, [2, 3, 5, 6, 7, 8, 9, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_to_one_worker_and_to_another_when_that_one_is_silent() {
    let Some(nats) = Nats::start_or_skip().await else { return };
    let bus = connect(&nats).await;
    let job = AnalyseCapture { capture_id: vec![2; 16], ..AnalyseCapture::default() };
    bus.send_job(&job, "same").await.unwrap();
    bus.send_job(&job, "same").await.unwrap();

    let ack_wait = Duration::from_secs(1);
    let mut first = bus.jobs(ack_wait).await.unwrap();
    let mut second = bus.jobs(ack_wait).await.unwrap();
    let message = first.next(DEADLINE).await.unwrap().expect("a job");
    assert_eq!((message.job().unwrap(), message.delivered), (job, 1));
    let again = second.next(DEADLINE).await.unwrap().expect("the job comes again");
    assert_eq!(again.delivered, 2);
    again.ack_confirmed().await.unwrap();
    assert!(first.next(Duration::from_secs(2)).await.unwrap().is_none(), "a job that was asked for twice is one job");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writers_of_one_revision_one_wins() {
    let Some(nats) = Nats::start_or_skip().await else { return };
    let bus = connect(&nats).await;
    let bucket: Bucket<Cut> = bus.bucket(names::INGEST).await.unwrap();
    assert!(bucket.get(names::RECORDS).await.unwrap().is_none());
    let revision = bucket.create(names::RECORDS, &Cut { first: 1, ..Cut::default() }).await.unwrap();
    let conflict = bucket.create(names::RECORDS, &Cut::default()).await;
    assert!(matches!(conflict, Err(Error::Conflict { .. })), "{conflict:?}");
    bucket.update(names::RECORDS, &Cut { first: 2, ..Cut::default() }, revision).await.unwrap();
    let conflict = bucket.update(names::RECORDS, &Cut { first: 3, ..Cut::default() }, revision).await;
    assert!(matches!(conflict, Err(Error::Conflict { .. })), "{conflict:?}");
    assert_eq!(bucket.get(names::RECORDS).await.unwrap().unwrap().value.first, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_what_is_there_and_what_changes() {
    let Some(nats) = Nats::start_or_skip().await else { return };
    let bus = connect(&nats).await;
    let bucket: Bucket<Capture> = bus.bucket(names::CAPTURES).await.unwrap();
    let named = |name: &str| Capture { name: name.to_owned(), ..Capture::default() };
    bucket.put("id.1", &named("before")).await.unwrap();
    let mut changes = bucket.watch("id.>").await.unwrap();
    bucket.put("id.2", &named("after")).await.unwrap();
    bucket.delete("id.1").await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let change = tokio::time::timeout(DEADLINE, changes.next()).await.unwrap().unwrap().unwrap();
        seen.push((change.key, change.value.map(|capture| capture.name)));
    }
    let expected = [("id.1", Some("before")), ("id.2", Some("after")), ("id.1", None)];
    assert_eq!(seen, expected.map(|(key, name)| (key.to_owned(), name.map(str::to_owned))));
    assert_eq!(bucket.list("id.").await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_comes_back_as_it_was_stored() {
    use tokio::io::AsyncReadExt as _;
    let Some(nats) = Nats::start_or_skip().await else { return };
    let bus = connect(&nats).await;
    let objects = bus.objects(names::UPLOADS).await.unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    let stored = objects.put("a", &mut bytes.as_slice()).await.unwrap();
    assert_eq!((stored.size, stored.sha256), (3_000_000, Sha256::digest(&bytes).into()));
    let mut back = Vec::new();
    objects.get("a").await.unwrap().read_to_end(&mut back).await.unwrap();
    assert!(back == bytes);
    objects.delete("a").await.unwrap();
    objects.delete("a").await.unwrap();
    assert!(matches!(objects.get("a").await, Err(Error::NoObject { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_at_the_start_is_waited_for() {
    let Some(mut nats) = Nats::start_or_skip().await else { return };
    nats.kill().await;
    let bus = Bus::connect(&options(&nats), "test").await.unwrap();
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let waiting = tokio::spawn({
        let bus = bus.clone();
        async move { bus.ready(&CancellationToken::new(), |error| told.send(error.to_string()).unwrap()).await }
    });
    assert!(tokio::time::timeout(DEADLINE, heard.recv()).await.unwrap().is_some(), "it says why it waits");
    nats.restart().await.unwrap();
    tokio::time::timeout(DEADLINE, waiting).await.unwrap().unwrap().unwrap();
    assert!(bus.is_connected());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_said() {
    let Some(nats) = Nats::start_or_skip().await else { return };
    let wrong = Options { nats_url: nats.url().replace("nats://weir:", "nats://weir:x%40"), ..options(&nats) };
    let bus = Bus::connect(&wrong, "test").await.unwrap();
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let shutdown = CancellationToken::new();
    let waiting = tokio::spawn({
        let shutdown = shutdown.clone();
        async move {
            bus.ready(&shutdown, |error| {
                let said = format!("{error}: {}", std::error::Error::source(error).unwrap());
                // The receiver is gone when it has heard enough.
                let _heard = told.send(said);
            })
            .await
        }
    });
    tokio::time::timeout(DEADLINE, async { while !heard.recv().await.unwrap().contains("authorization") {} })
        .await
        .expect("it says that the server refuses the password");
    shutdown.cancel();
    assert!(matches!(waiting.await.unwrap(), Err(Error::Stopped)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_comes_back_in_its_chunks_and_what_is_not_whole_is_an_error() {
    let Some(nats) = Nats::start_or_skip().await else { return };
    let bus = connect(&nats).await;
    let objects = bus.objects(names::UPLOADS).await.unwrap();
    assert!(matches!(objects.chunks("a").await, Err(Error::NoObject { .. })));
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    objects.put("a", &mut bytes.as_slice()).await.unwrap();
    let mut chunks = objects.chunks("a").await.unwrap();
    let mut back = Vec::new();
    while let Some(chunk) = chunks.next().await.unwrap() {
        back.extend_from_slice(&chunk);
    }
    assert!(back == bytes);
    assert_eq!(chunks.next().await.unwrap(), None);
    // Its last piece but one is lost, and then the last.
    let raw = raw(&nats).await;
    let stream = raw.get_stream(format!("OBJ_{}", names::UPLOADS)).await.unwrap();
    let last = stream.get_info().await.unwrap().state.last_sequence - 1;
    for lost in [last - 1, last] {
        stream.delete_message(lost).await.unwrap();
        let mut chunks = objects.chunks("a").await.unwrap();
        let ended = loop {
            match chunks.next().await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        };
        assert!(matches!(ended, Err(Error::Unavailable { .. })), "{ended:?}");
    }
    objects.put("empty", &mut [].as_slice()).await.unwrap();
    assert_eq!(objects.chunks("empty").await.unwrap().next().await.unwrap(), None);
    objects.delete("a").await.unwrap();
    assert!(matches!(objects.chunks("a").await, Err(Error::NoObject { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_of_an_object_that_changed_on_the_disk_does_not_come_and_neither_does_the_end() {
    let Some(mut nats) = Nats::start_or_skip().await else { return };
    let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_be_bytes).collect();
    let objects = connect(&nats).await.objects(names::UPLOADS).await.unwrap();
    objects.put("a", &mut bytes.as_slice()).await.unwrap();
    let mut chunks = objects.chunks("a").await.unwrap();
    let mut pieces = Vec::new();
    while let Some(chunk) = chunks.next().await.unwrap() {
        pieces.push(chunk);
    }
    assert_eq!(pieces.concat(), bytes);
    // So that it believes at its start that all is as it was.
    nats.stop().await;
    let marker = 100_000_u32.to_be_bytes();
    let has_marker = |bytes: &[u8]| bytes.windows(4).position(|four| four == marker);
    for file in files(&nats.data_dir()) {
        let mut stored = std::fs::read(&file).unwrap();
        if let Some(at) = has_marker(&stored) {
            stored[at] ^= 1;
            std::fs::write(file, stored).unwrap();
        }
    }
    nats.restart().await.unwrap();

    let objects = connect(&nats).await.objects(names::UPLOADS).await.unwrap();
    let mut chunks = objects.chunks("a").await.unwrap();
    let others: Vec<_> = pieces.iter().filter(|piece| has_marker(piece).is_none()).collect();
    assert_eq!(others.len() + 1, pieces.len());
    for piece in others {
        let chunk = tokio::time::timeout(DEADLINE, chunks.next()).await.expect("it comes in time");
        assert!(chunk.unwrap().as_ref() == Some(piece));
    }
    let end = tokio::time::timeout(Duration::from_secs(1), chunks.next()).await;
    assert!(!matches!(end, Ok(Ok(_))), "{end:?}");
}

/// All files below a directory.
fn files(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A connection past what Weir makes of it.
async fn raw(nats: &Nats) -> async_nats::jetstream::Context {
    let url = nats.url();
    let (credentials, address) = url.trim_start_matches("nats://").split_once('@').unwrap();
    let (user, password) = credentials.split_once(':').unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
    async_nats::jetstream::new(options.connect(address).await.unwrap())
}
