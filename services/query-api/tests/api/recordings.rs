//! Captures that are recorded on demand, with a host that does what the test says.

use std::time::Duration;

use prost::Message as _;
use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;
use weir_bus::{Bus, Question, Questions, Wants, names};
use weir_proto::{Audit, Capture, RecordPackets, RecordedPiece, Recording, capture::State};

use crate::support::{Weir, problem, until};

const ON: [&str; 3] = ["--live-captures", "--live-capture-seconds=60", "--live-capture-bytes=1000000"];
/// A section without anything in it.
const PCAPNG: [u8; 28] = [
    0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255,
    28, 0, 0, 0,
];

/// A host that listens.
async fn host(bus: &Bus) -> Questions {
    let questions = bus.questions(&names::record("h")).await.unwrap();
    // What is asked for now the server has seen after the subscription.
    bus.bucket::<Capture>(names::CAPTURES).await.unwrap().get("nothing").await.unwrap();
    questions
}

fn wanted() -> Value {
    json!({ "host": "h", "filter": "port = 53", "duration_seconds": 30, "max_bytes": 100_000, "name": "x.pcapng" })
}

async fn ask(weir: &Weir, body: &Value) -> reqwest::Response {
    weir.post("/api/v1/captures/live").json(body).send().await.unwrap()
}

fn piece(data: &[u8], packets: u64, ended: &str) -> bytes::Bytes {
    RecordedPiece { data: data.to_vec(), packets, lost: 3, ended: ended.to_owned() }.encode_to_vec().into()
}

/// Asks for a recording that the host begins: its id and the question.
async fn begin(weir: &Weir, host: &mut Questions) -> (Uuid, Question) {
    let body = wanted();
    let answering = async {
        let question = host.next().await.unwrap();
        assert_eq!(question.send(piece(&PCAPNG, 0, "")).await.unwrap(), Wants::More);
        question
    };
    let (response, question) = tokio::join!(ask(weir, &body), answering);
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let capture: Value = response.json().await.unwrap();
    assert_eq!((&capture["state"], &capture["phase"]), (&json!("running"), &json!("recording")));
    let id: Uuid = capture["capture_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(location, format!("/api/v1/captures/{id}"));
    (id, question)
}

/// What the audit has of a capture, as far as it has come.
struct Audits {
    reader: weir_bus::RecordsReader,
    seen: Vec<Audit>,
}

impl Audits {
    async fn until(&mut self, outcome: &str) -> &Audit {
        while !self.seen.iter().any(|audit| audit.outcome == outcome) {
            let message =
                tokio::time::timeout(Duration::from_mins(1), self.reader.next()).await.expect(outcome).unwrap();
            self.seen.extend(message.batch().unwrap().audits);
            message.ack().await.unwrap();
        }
        self.seen.iter().find(|audit| audit.outcome == outcome).unwrap()
    }
}

async fn audits(bus: &Bus) -> Audits {
    Audits { reader: bus.records().await.unwrap(), seen: Vec::new() }
}

#[tokio::test]
async fn nobody_records_before_the_operator_allows_it() {
    let Some(weir) = Weir::start().await else { return };
    assert_eq!(problem(ask(&weir, &wanted()).await).await, (403, "live-captures-off".into()));
}

#[tokio::test]
async fn what_cannot_be_recorded_is_refused_before_a_host_is_asked() {
    let Some(weir) = Weir::start_with(&ON).await else { return };
    let bus = weir.bus().await;
    let mut audits = audits(&bus).await;
    for (name, value, kind) in [
        ("filter", json!("port = "), "invalid-filter"),
        ("filter", json!("dst_port = 53"), "invalid-parameter"),
        ("filter", json!("container = web"), "invalid-parameter"),
        ("host", json!(""), "invalid-parameter"),
        ("host", json!("h\r\n"), "invalid-parameter"),
        ("host", json!("h".repeat(300)), "invalid-parameter"),
        ("duration_seconds", json!(0), "invalid-parameter"),
        ("duration_seconds", json!(61), "invalid-parameter"),
        ("max_bytes", json!(1), "invalid-parameter"),
        ("max_bytes", json!(1_000_001), "invalid-parameter"),
    ] {
        let mut body = wanted();
        body[name] = value.clone();
        assert_eq!(problem(ask(&weir, &body).await).await, (400, kind.into()), "{name}: {value}");
    }
    let mut body = wanted();
    body["colour"] = json!("blue");
    assert_eq!(problem(ask(&weir, &body).await).await, (422, "invalid-body".into()));
    // A name that NATS would read as its own is a name as all others.
    for name in ["nowhere", "*", ">", "a.b c"] {
        let mut body = wanted();
        body["host"] = json!(name);
        assert_eq!(problem(ask(&weir, &body).await).await, (404, "no-such-host".into()), "{name}");
    }
    let refused = audits.until("refused").await;
    assert_eq!((refused.host.as_str(), refused.client.as_str()), ("nowhere", "127.0.0.1"));
    assert!(refused.detail.contains("nowhere"), "{refused:?}");
    assert_eq!(weir.json("/api/v1/captures").await["items"], json!([]));
}

#[tokio::test]
async fn a_recording_becomes_a_capture_as_any_other() {
    let Some(weir) = Weir::start_with(&ON).await else { return };
    let bus = weir.bus().await;
    let mut audits = audits(&bus).await;
    let mut host = host(&bus).await;
    let (id, question) = begin(&weir, &mut host).await;
    let asked = RecordPackets::decode(question.payload.clone()).unwrap();
    assert_eq!((asked.filter.as_str(), asked.seconds, asked.max_bytes), ("port = 53", 30, 100_000));
    assert_eq!(asked.capture_id, id.as_bytes());
    let requested = audits.until("requested").await;
    assert_eq!((requested.capture_id.as_slice(), requested.seconds), (&id.as_bytes()[..], 30));

    question.send(piece(&[0; 100], 7, "")).await.unwrap();
    let path = format!("/api/v1/captures/{id}");
    // Somebody has enough: the host hears it with one of its next pieces.
    assert_eq!(weir.post(&format!("{path}/stop")).send().await.unwrap().status(), StatusCode::ACCEPTED);
    until("the host hears that it is enough", || async {
        question.send(piece(&[], 7, "")).await.unwrap() == Wants::TheEnd
    })
    .await;
    question.send(piece(&[1; 50], 8, "stopped")).await.unwrap();
    question.end().await.unwrap();
    until("it is queued", || async { weir.json(&path).await["state"] == "queued" }).await;
    let capture = weir.json(&path).await;
    assert_eq!((&capture["size_bytes"], &capture["name"]), (&json!(178), &json!("x.pcapng")));
    assert_eq!(
        capture["recording"],
        json!({ "host": "h", "filter": "port = 53", "duration_seconds": 30, "max_bytes": 100_000, "lost_packets": 3,
            "ended": "stopped" })
    );
    let file = weir.get(&format!("{path}/packets")).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(file, [&PCAPNG[..], &[0; 100], &[1; 50]].concat());
    let mut jobs = bus.jobs(Duration::from_mins(1)).await.unwrap();
    let job = jobs.next(Duration::from_secs(5)).await.unwrap().expect("a job").job().unwrap();
    assert_eq!((job.capture_id, job.size_bytes), (id.as_bytes().to_vec(), 178));
    let recorded = audits.until("recorded").await;
    assert_eq!((recorded.packets, recorded.bytes, recorded.lost, recorded.detail.as_str()), (8, 178, 3, "stopped"));
    assert_eq!(problem(weir.post(&format!("{path}/stop")).send().await.unwrap()).await, (409, "not-recording".into()));
}

#[tokio::test]
async fn a_recording_that_does_not_come_to_its_end_fails_and_leaves_nothing() {
    let Some(weir) = Weir::start_with(&ON).await else { return };
    let bus = weir.bus().await;
    let mut audits = audits(&bus).await;
    let mut host = host(&bus).await;

    let body = wanted();
    let answering = async { host.next().await.unwrap().busy().await.unwrap() };
    assert_eq!(problem(tokio::join!(ask(&weir, &body), answering).0).await, (409, "host-busy".into()));
    let answering = async { host.next().await.unwrap().fail("no such interface".into()).await.unwrap() };
    assert_eq!(problem(tokio::join!(ask(&weir, &body), answering).0).await, (422, "host-refused".into()));

    let (broken, question) = begin(&weir, &mut host).await;
    question.fail("the disk is gone".into()).await.unwrap();
    let (cancelled, question) = begin(&weir, &mut host).await;
    let cancel = weir.post(&format!("/api/v1/captures/{cancelled}/cancel")).send().await.unwrap();
    assert_eq!(cancel.status(), StatusCode::ACCEPTED);
    until("nobody takes pieces any more", || async { question.send(piece(&[0; 10], 1, "")).await.is_err() }).await;
    let (deleted, question) = begin(&weir, &mut host).await;
    assert_eq!(
        weir.delete(&format!("/api/v1/captures/{deleted}")).send().await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
    until("nobody takes pieces any more", || async { question.send(piece(&[0; 10], 1, "")).await.is_err() }).await;
    // The question is forgotten, as by a host that is killed.
    let (silent, question) = begin(&weir, &mut host).await;
    drop(question);
    let (flood, question) = begin(&weir, &mut host).await;
    let too_much = vec![0; 100_001];
    until("more than was asked for is not taken", || async { question.send(piece(&too_much, 1, "")).await.is_err() })
        .await;

    for (id, reason) in
        [(broken, "the disk is gone"), (cancelled, "cancelled"), (silent, "went away"), (flood, "cannot be stored")]
    {
        let path = format!("/api/v1/captures/{id}");
        until("it has failed", || async { weir.json(&path).await["state"] == "failed" }).await;
        let capture = weir.json(&path).await;
        assert!(capture["error"].as_str().unwrap().contains(reason), "{capture}");
        let file = weir.get(&format!("{path}/packets")).send().await.unwrap();
        assert_eq!(problem(file).await, (404, "not-found".into()));
        let again = weir.post(&format!("{path}/analyse")).json(&json!({})).send().await.unwrap();
        assert_eq!(problem(again).await, (404, "not-found".into()));
    }
    for outcome in ["cancelled", "deleted", "failed"] {
        audits.until(outcome).await;
    }
    let keys = bus.bucket::<Vec<u8>>(names::CAPTURES).await.unwrap();
    until("nothing is recorded any more", || async { keys.list(names::RECORDING_KEYS).await.unwrap().is_empty() })
        .await;
}

#[tokio::test]
async fn a_recording_whose_service_is_gone_does_not_go_on_for_ever() {
    let Some(weir) = Weir::start_with(&ON).await else { return };
    let bus = weir.bus().await;
    let id = Uuid::now_v7();
    let left = Capture {
        capture_id: id.as_bytes().to_vec(),
        state: State::Running.into(),
        phase: "recording".into(),
        uploaded_at: 1,
        observed_at: 1,
        recording: Some(Recording { host: "h".into(), seconds: 1, ..Recording::default() }),
        ..Capture::default()
    };
    bus.bucket::<Capture>(names::CAPTURES).await.unwrap().put(&names::capture_key(id), &left).await.unwrap();
    let keys = bus.bucket::<Vec<u8>>(names::CAPTURES).await.unwrap();
    keys.put(&names::recording_key(id), &left.capture_id).await.unwrap();
    let path = format!("/api/v1/captures/{id}");
    until("it has failed", || async { weir.json(&path).await["state"] == "failed" }).await;
    assert_eq!(weir.json(&path).await["error"], "the service that recorded it went away");
}
