use std::{io, time::Duration};

use reqwest::{Body, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use uuid::Uuid;
use weir_bus::names;
use weir_proto::{Capture, capture::State};

use crate::support::{Weir, problem, until};

/// A capture without packets, and as many bytes behind its head as asked for.
fn pcap(seed: u8, bytes: usize) -> Vec<u8> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
    file.extend((0..bytes).map(|at| (at % 251) as u8 ^ seed));
    file
}

/// Messages in all streams of NATS that begin with `prefix`, and their bytes.
async fn stored(weir: &Weir, prefix: &str) -> (u64, u64) {
    let url = format!("{}/jsz?streams=true", weir.nats.monitor_url());
    let info: Value = weir.client.get(url).send().await.unwrap().json().await.unwrap();
    let streams = info["account_details"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|account| account["stream_detail"].as_array().unwrap());
    let of = |stream: &Value, what: &str| stream["state"][what].as_u64().unwrap();
    streams
        .filter(|stream| stream["name"].as_str().unwrap().starts_with(prefix))
        .fold((0, 0), |sum, stream| (sum.0 + of(stream, "messages"), sum.1 + of(stream, "bytes")))
}

async fn upload(weir: &Weir, bytes: Vec<u8>) -> Value {
    let response = weir.post("/api/v1/captures?name=a/b.pcap").body(bytes).send().await.unwrap();
    let status = response.status();
    let location = response.headers().get("location").map(|location| location.to_str().unwrap().to_owned());
    let text = response.text().await.unwrap();
    assert_eq!(status, StatusCode::ACCEPTED, "{text}");
    let capture: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(location, Some(format!("/api/v1/captures/{}", capture["capture_id"].as_str().unwrap())));
    capture
}

#[tokio::test]
async fn an_upload_is_kept_named_and_queued() {
    let Some(weir) = Weir::start().await else { return };
    let bus = weir.bus().await;
    let bytes = pcap(1, 3 << 20);
    let capture = upload(&weir, bytes.clone()).await;
    let id: Uuid = capture["capture_id"].as_str().unwrap().parse().unwrap();
    assert_eq!(
        (&capture["state"], &capture["name"], &capture["size_bytes"]),
        (&json!("queued"), &json!("b.pcap"), &json!(bytes.len()))
    );
    assert_eq!(capture["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(weir.json(&format!("/api/v1/captures/{id}")).await, capture);
    assert_eq!(weir.json("/api/v1/captures").await["items"], json!([capture]));

    let packets = weir.get(&format!("/api/v1/captures/{id}/packets")).send().await.unwrap();
    assert_eq!(packets.headers()["content-disposition"], "attachment; filename=\"b.pcap\"");
    assert_eq!(packets.bytes().await.unwrap(), bytes);

    let mut jobs = bus.jobs(Duration::from_mins(1)).await.unwrap();
    let job = jobs.next(Duration::from_secs(5)).await.unwrap().expect("a job").job().unwrap();
    assert_eq!((job.capture_id, job.size_bytes), (id.as_bytes().to_vec(), bytes.len() as u64));
    let mut records = bus.records().await.unwrap();
    let batch = records.next().await.unwrap().batch().unwrap();
    assert_eq!((batch.captures.len(), &batch.captures[0].capture_id), (1, &id.as_bytes().to_vec()));
    assert_ne!(batch.producer, job.analysis_id);

    let report = weir.get(&format!("/api/v1/captures/{id}/report")).send().await.unwrap();
    assert_eq!(problem(report).await, (404, "capture-not-ready".into()));
    let states = bus.bucket::<Capture>(names::CAPTURES).await.unwrap();
    let done = Capture {
        state: State::Done.into(),
        error: "cut after 7".into(),
        stored: false,
        ..states.get(&format!("id.{id}")).await.unwrap().unwrap().value
    };
    states.put(&format!("id.{id}"), &done).await.unwrap();
    let capture = weir.json(&format!("/api/v1/captures/{id}")).await;
    assert_eq!(capture["state"], "running", "its rows are not in the tables yet");
    states.put(&format!("id.{id}"), &Capture { stored: true, ..done }).await.unwrap();
    let artifacts = bus.objects(names::ARTIFACTS).await.unwrap();
    artifacts.put(&format!("{id}/report.json"), &mut &b"{\"packets\":7}"[..]).await.unwrap();
    assert_eq!(weir.json(&format!("/api/v1/captures/{id}/report")).await, json!({ "packets": 7 }));
    let capture = weir.json(&format!("/api/v1/captures/{id}")).await;
    assert_eq!(
        (&capture["state"], &capture["error"], &capture["progress"]),
        (&json!("done"), &json!("cut after 7"), &json!(1.0))
    );
}

#[tokio::test]
async fn the_same_bytes_give_the_same_capture_however_many_come_at_once() {
    let Some(weir) = Weir::start().await else { return };
    let bytes = pcap(2, 500_000);
    let uploads = futures_of(8, || upload(&weir, bytes.clone())).await;
    let first = upload(&weir, bytes.clone()).await;
    for capture in &uploads {
        assert_eq!(capture["capture_id"], first["capture_id"]);
    }
    assert_eq!(weir.json("/api/v1/captures").await["items"].as_array().unwrap().len(), 1);
    let (_, kept) = stored(&weir, "OBJ_weir-uploads").await;
    assert!(kept < 2 * bytes.len() as u64, "{kept} bytes are kept of one file of {}", bytes.len());
    let other = upload(&weir, pcap(3, 500_000)).await;
    assert_ne!(other["capture_id"], first["capture_id"]);
}

/// Runs some futures of one kind side by side.
async fn futures_of<T, F: Future<Output = T>>(count: usize, make: impl Fn() -> F) -> Vec<T> {
    futures::future::join_all((0..count).map(|_| make())).await
}

#[tokio::test]
async fn a_form_is_an_upload_too() {
    let Some(weir) = Weir::start().await else { return };
    let bytes = pcap(4, 300_000);
    let mut form = b"--B\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"from a form.pcap\"\r\nContent-Type: application/octet-stream\r\n\r\n".to_vec();
    form.extend(&bytes);
    form.extend(b"\r\n--B--\r\n");
    let send = |form: Vec<u8>| {
        weir.post("/api/v1/captures").header("content-type", "multipart/form-data; boundary=B").body(form).send()
    };
    let response = send(form.clone()).await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let capture: Value = response.json().await.unwrap();
    assert_eq!((&capture["name"], &capture["size_bytes"]), (&json!("from a form.pcap"), &json!(bytes.len())));
    form.truncate(200_000);
    assert_eq!(problem(send(form).await.unwrap()).await, (400, "upload-broken-off".into()));
    for form in ["", "--B--\r\n", "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--B--\r\n", "garbage"]
    {
        assert_eq!(problem(send(form.into()).await.unwrap()).await, (422, "invalid-body".into()), "{form:?}");
    }
    assert_eq!(weir.json("/api/v1/captures").await["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_upload_that_is_refused_leaves_nothing() {
    let Some(weir) = Weir::start_with(&["--max-upload-bytes=1000000"]).await else { return };
    let before = stored(&weir, "OBJ_weir-uploads").await;
    let stream = |bytes: Vec<u8>| {
        let pieces: Vec<_> = bytes.chunks(10_000).map(|piece| Ok::<_, io::Error>(piece.to_vec())).collect();
        Body::wrap_stream(futures::stream::iter(pieces))
    };
    for (body, expected) in [
        (Body::from(Vec::new()), (400, "empty-upload")),
        (Body::from(vec![b'x'; 5000]), (415, "not-a-capture")),
        (Body::from("{\"not\": \"a capture\"}"), (415, "not-a-capture")),
        (Body::from(vec![0xd4]), (415, "not-a-capture")),
        (stream(pcap(5, 2_000_000)), (413, "too-large")),
        (Body::from(pcap(5, 2_000_000)), (413, "too-large")),
    ] {
        let response = weir.post("/api/v1/captures").body(body).send().await.unwrap();
        assert_eq!(problem(response).await, (expected.0, expected.1.to_owned()));
    }
    until("the refused bytes are gone", || async { stored(&weir, "OBJ_weir-uploads").await.1 < before.1 + 2000 }).await;
    assert_eq!(weir.json("/api/v1/captures").await["items"], json!([]));
    assert_eq!(stored(&weir, "WEIR_").await.0, 0);
    upload(&weir, pcap(5, 900_000)).await;
}

#[tokio::test]
async fn who_sends_to_the_end_before_it_reads_is_told_why_it_is_refused() {
    let Some(weir) = Weir::start_with(&["--max-upload-bytes=1000000", "--api-token=secret"]).await else { return };
    let address = weir.url.strip_prefix("http://").unwrap();
    for (token, expected) in [("secret", "HTTP/1.1 413"), ("wrong", "HTTP/1.1 401")] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST /api/v1/captures HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-length: 30000024\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&pcap(7, 30_000_000)).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(expected), "{answer}");
    }
}

#[tokio::test]
async fn an_upload_that_breaks_off_or_stands_still_leaves_nothing() {
    let Some(weir) = Weir::start_with(&["--upload-idle-seconds=1"]).await else { return };
    let address = weir.url.strip_prefix("http://").unwrap();
    for closes in [true, false] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("POST /api/v1/captures HTTP/1.1\r\nhost: {address}\r\ncontent-length: 9000000\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&pcap(6, 4_000_000)).await.unwrap();
        until("a part of it is stored", || async { stored(&weir, "OBJ_weir-uploads").await.1 > 1_000_000 }).await;
        if closes {
            drop(stream);
        } else {
            let mut answer = String::new();
            // The service closes when it has answered; a reset after the answer is fine.
            let _end = stream.read_to_string(&mut answer).await;
            assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("upload-broken-off"), "{answer}");
        }
        until("nothing of it is stored", || async { stored(&weir, "OBJ_weir-uploads").await.1 < 2000 }).await;
    }
    assert_eq!(weir.json("/api/v1/captures").await["items"], json!([]));
}

#[tokio::test]
async fn what_a_killed_service_leaves_of_an_upload_is_swept_away() {
    let Some(weir) = Weir::start().await else { return };
    let bus = weir.bus().await;
    let whole = upload(&weir, pcap(12, 500_000)).await;
    let before = stored(&weir, "OBJ_weir-uploads").await;
    let uploads = bus.objects(names::UPLOADS).await.unwrap();
    // Dropping the future in its middle is what killing the service does.
    let mut endless = tokio::io::repeat(7);
    tokio::select! {
        ended = uploads.put("cut", &mut endless) => panic!("{ended:?}"),
        () = until("a part is stored", || async { stored(&weir, "OBJ_weir-uploads").await.0 > before.0 + 2 }) => {}
    }
    // Pieces that were on their way are stored now.
    until("no more is stored", || async {
        let (seen, _) = stored(&weir, "OBJ_weir-uploads").await;
        bus.ready(&weir_service::Shutdown::new(), |_| {}).await.unwrap();
        stored(&weir, "OBJ_weir-uploads").await.0 == seen
    })
    .await;
    assert_eq!(uploads.sweep(Duration::from_hours(1)).await.unwrap(), 0, "it may still go on");
    assert_eq!(uploads.sweep(Duration::ZERO).await.unwrap(), 1);
    assert_eq!(stored(&weir, "OBJ_weir-uploads").await, before);
    let path = format!("/api/v1/captures/{}/packets", whole["capture_id"].as_str().unwrap());
    assert_eq!(weir.get(&path).send().await.unwrap().bytes().await.unwrap(), pcap(12, 500_000));
}

#[tokio::test]
async fn a_full_store_is_said_and_keeps_nothing_of_what_did_not_fit() {
    let Some(weir) = Weir::start_with(&["--uploads-max-bytes=2000000"]).await else { return };
    let small = upload(&weir, pcap(7, 500_000)).await;
    let before = stored(&weir, "OBJ_weir-uploads").await;
    let response = weir.post("/api/v1/captures").body(pcap(8, 3_000_000)).send().await.unwrap();
    assert_eq!(problem(response).await, (507, "no-room".into()));
    assert_eq!(stored(&weir, "OBJ_weir-uploads").await, before);
    let id = small["capture_id"].as_str().unwrap();
    assert_eq!(weir.delete(&format!("/api/v1/captures/{id}")).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    upload(&weir, pcap(9, 1_500_000)).await;
}

#[tokio::test]
async fn a_deleted_capture_is_gone_and_can_come_again() {
    let Some(weir) = Weir::start().await else { return };
    let bus = weir.bus().await;
    let first = upload(&weir, pcap(10, 500_000)).await;
    let path = format!("/api/v1/captures/{}", first["capture_id"].as_str().unwrap());
    assert_eq!(weir.delete(&path).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    for suffix in ["", "/report", "/packets"] {
        assert_eq!(
            problem(weir.get(&format!("{path}{suffix}")).send().await.unwrap()).await,
            (404, "not-found".into())
        );
    }
    assert_eq!(problem(weir.delete(&path).send().await.unwrap()).await, (404, "not-found".into()));
    assert_eq!(weir.json("/api/v1/captures").await["items"], json!([]));
    assert!(stored(&weir, "OBJ_weir-uploads").await.1 < 2000);
    let mut records = bus.records().await.unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        let capture = records.next().await.unwrap().batch().unwrap().captures.remove(0);
        told.push((capture.purge, capture.deleted));
    }
    assert_eq!(told, [(false, false), (true, false), (false, true)], "uploaded, its rows end, deleted");
    let again = upload(&weir, pcap(10, 500_000)).await;
    assert_ne!(again["capture_id"], first["capture_id"]);
}

#[tokio::test]
async fn the_course_of_a_capture_is_told_until_its_end() {
    let Some(weir) = Weir::start().await else { return };
    let bus = weir.bus().await;
    let capture = upload(&weir, pcap(11, 1000)).await;
    let id = capture["capture_id"].as_str().unwrap();
    let mut response = weir.get(&format!("/api/v1/captures/{id}/events")).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut told = String::new();
    let states = bus.bucket::<Capture>(names::CAPTURES).await.unwrap();
    let key = format!("id.{id}");
    for (read, state) in [(0, State::Queued), (500, State::Running), (1024, State::Done)] {
        if read > 0 {
            let stored = states.get(&key).await.unwrap().unwrap().value;
            let stored = Capture { stored: state == State::Done, ..stored };
            states.put(&key, &Capture { bytes_read: read, state: state.into(), ..stored }).await.unwrap();
        }
        while !told.contains(&format!("\"bytes_read\":{read},")) {
            told.push_str(std::str::from_utf8(&response.chunk().await.unwrap().expect("goes on")).unwrap());
        }
    }
    assert!(response.chunk().await.unwrap().is_none(), "it ends with the capture");
    assert_eq!(told.matches("event: capture\n").count(), 3);
    let missing = weir.get(&format!("/api/v1/captures/{}/events", Uuid::new_v4())).send().await.unwrap();
    assert_eq!(problem(missing).await, (404, "not-found".into()));
}

#[tokio::test]
async fn captures_are_listed_in_parts_the_latest_first() {
    let Some(weir) = Weir::start().await else { return };
    let mut ids = Vec::new();
    for seed in 0..5 {
        ids.push(upload(&weir, pcap(seed, 1000)).await["capture_id"].clone());
    }
    ids.reverse();
    let mut seen = Vec::new();
    let mut path = "/api/v1/captures?limit=2".to_owned();
    loop {
        let part = weir.json(&path).await;
        seen.extend(part["items"].as_array().unwrap().iter().map(|item| item["capture_id"].clone()));
        let Some(cursor) = part["next_cursor"].as_str() else { break };
        path = format!("/api/v1/captures?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, ids);
}
