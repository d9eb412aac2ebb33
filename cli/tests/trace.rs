//! One trace follows an upload from the HTTP request to its rows, and another a batch from the kernel to its rows. The spans are those
//! that the services send to a real OTLP receiver.

#[path = "support/otlp.rs"]
mod otlp;
#[path = "support/services.rs"]
mod services;

use std::time::Duration;

use anyhow::Context as _;
use otlp::{Receiver, Span};
use services::System;

/// Services that an upload passes through, in that order.
const UPLOAD: [&str; 3] = ["weir-query-api", "weir-pcap-worker", "weir-ingester"];

/// The trace and the span that the client of this test claims to be in.
const TRACE_ID: &str = "5ca1ab1e0ddba11c0ffee0fab1ec0de5";
const CLIENT_SPAN_ID: &str = "b0a710adfee1dead";

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_follows_an_upload_from_the_request_to_the_insert() -> anyhow::Result<()> {
    let Some(programs) = programs(UPLOAD) else { return Ok(()) };
    let receiver = Receiver::start().await?;
    let Some(mut system) = System::start_or_skip(receiver.endpoint()).await? else { return Ok(()) };
    let api = format!("127.0.0.1:{}", weir_engines::ports::free_port()?);
    let [query_api, pcap_worker, ingester] = &programs;
    system.run("weir-ingester", ingester, false, &[]).await?;
    system.run("weir-pcap-worker", pcap_worker, false, &[]).await?;
    system.run("weir-query-api", query_api, true, &["--listen", &api]).await?;

    upload(&api).await?;
    let insert = receiver
        .wait_for("span of the insert of the flows, with all that led to it", |spans| {
            let inserts = spans.of_trace(TRACE_ID).filter(|span| is_insert(span));
            inserts.map(|insert| spans.ancestry(insert)).find(|path| leads_through(path, &UPLOAD)).map(owned)
        })
        .await;
    let request = insert.last().context("the path has a first span")?;
    assert_eq!(request.parent, CLIENT_SPAN_ID, "{insert:#?}");
    assert_eq!(request.service, "weir-query-api");

    for service in ["weir-query-api", "weir-pcap-worker"] {
        let log = until_logged(&system, service, TRACE_ID).await?;
        assert!(log["span_id"].is_string(), "{log}");
    }
    system.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_follows_a_batch_from_the_kernel_to_the_insert() -> anyhow::Result<()> {
    let Some([capture, ingester]) = programs(["weir-capture", "weir-ingester"]) else { return Ok(()) };
    let check = tokio::process::Command::new(&capture).arg("--check").output().await?;
    if !check.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&check.stderr).trim());
        return Ok(());
    }
    let receiver = Receiver::start().await?;
    let Some(mut system) = System::start_or_skip(receiver.endpoint()).await? else { return Ok(()) };
    system.run("weir-ingester", &ingester, false, &[]).await?;
    // What the services say to one another is traffic enough.
    system.run("weir-capture", &capture, false, &["--interface", "lo"]).await?;

    let path = receiver
        .wait_for("span of an insert of what capture saw", |spans| {
            let inserts = spans.iter().filter(|span| is_insert(span));
            let path = inserts
                .map(|insert| spans.ancestry(insert))
                .find(|path| leads_through(path, &["weir-capture", "weir-ingester"]));
            path.map(owned)
        })
        .await;
    let first = path.last().context("the path has a first span")?;
    assert_eq!((first.service.as_str(), first.parent.as_str()), ("weir-capture", ""), "{path:#?}");
    system.stop().await
}

/// The programs of services; where one was not built it says `skipped: why` and gives nothing.
fn programs<const N: usize>(names: [&str; N]) -> Option<[std::path::PathBuf; N]> {
    for name in names {
        if services::program(name).is_none() {
            eprintln!("skipped: {name} was not built (cargo build --package {name})");
            return None;
        }
    }
    Some(names.map(|name| services::program(name).expect("it was there a moment ago")))
}

fn is_insert(span: &Span) -> bool {
    span.service == "weir-ingester" && span.name.to_lowercase().contains("insert")
}

/// Whether the path from a span to its first ancestor leads through these services, the first one last.
fn leads_through(path: &[&Span], services: &[&str]) -> bool {
    let mut passed: Vec<_> = path.iter().rev().map(|span| span.service.as_str()).collect();
    passed.dedup();
    passed == services
}

fn owned(path: Vec<&Span>) -> Vec<Span> {
    path.into_iter().cloned().collect()
}

async fn upload(api: &str) -> anyhow::Result<()> {
    let answer = reqwest::Client::new()
        .post(format!("http://{api}/api/v1/captures?name=trace.pcap"))
        .header("traceparent", format!("00-{TRACE_ID}-{CLIENT_SPAN_ID}-01"))
        .header("content-type", "application/vnd.tcpdump.pcap")
        .body(capture())
        .send()
        .await?;
    let (status, body) = (answer.status(), answer.text().await?);
    anyhow::ensure!(status == 202, "{status}: {body}");
    Ok(())
}

/// A pcap file with one UDP packet, 10.0.0.1:1000 to 10.0.0.2:2000.
fn capture() -> Vec<u8> {
    let ethernet = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    let ip = [0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17, 0x66, 0xcb, 10, 0, 0, 1, 10, 0, 0, 2];
    let udp = [0x03, 0xe8, 0x07, 0xd0, 0, 12, 0, 0, b'w', b'e', b'i', b'r'];
    let length = u32::try_from(ethernet.len() + ip.len() + udp.len()).expect("46");
    let header = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 0xffff, 1];
    let packet = [1_767_225_600, 0, length, length];
    let mut file: Vec<u8> = header.into_iter().chain(packet).flat_map(u32::to_le_bytes).collect();
    file.extend(ethernet.iter().chain(&ip).chain(&udp));
    file
}

/// The first line of a service's log that belongs to a trace.
async fn until_logged(system: &System, service: &str, trace_id: &str) -> anyhow::Result<serde_json::Value> {
    let mut poll = tokio::time::interval(Duration::from_millis(50));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        poll.tick().await;
        let log = system.log(service);
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        if let Some(line) = lines.find(|line| line["trace_id"] == trace_id) {
            return Ok(line);
        }
        anyhow::ensure!(
            tokio::time::Instant::now() < deadline,
            "{service} logged nothing in the trace {trace_id}:\n{log}"
        );
    }
}
