//! What is done with captures after their upload: reports, other analyses, packets, age, limits.

use std::time::Duration;

use prost::Message as _;
use reqwest::{StatusCode, header};
use serde_json::{Value, json};
use uuid::Uuid;
use weir_bus::{Bucket, Bus, names};
use weir_proto::{Capture, CarvePackets, capture::State};

use crate::support::{Weir, problem, until};

async fn states(bus: &Bus) -> Bucket<Capture> {
    bus.bucket(names::CAPTURES).await.unwrap()
}

/// Uploads an empty pcap that differs by `seed`, and gives its id.
async fn upload(weir: &Weir, seed: u8) -> Uuid {
    let response = weir.post("/api/v1/captures?name=a.pcap").body(pcap(seed)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let capture: Value = response.json().await.unwrap();
    capture["capture_id"].as_str().unwrap().parse().unwrap()
}

fn pcap(seed: u8) -> Vec<u8> {
    let mut file = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
    file.extend([seed; 100]);
    file
}

async fn change(bus: &Bus, id: Uuid, change: impl Fn(&mut Capture)) -> Capture {
    let states = states(bus).await;
    let mut capture = states.get(&names::capture_key(id)).await.unwrap().unwrap().value;
    change(&mut capture);
    states.put(&names::capture_key(id), &capture).await.unwrap();
    capture
}

/// What a worker and the ingester do when an analysis is done.
async fn finish(bus: &Bus, id: Uuid, report: &Value) {
    let artifacts = bus.objects(names::ARTIFACTS).await.unwrap();
    artifacts.put(&format!("{id}/report.json"), &mut report.to_string().as_bytes()).await.unwrap();
    change(bus, id, |capture| {
        capture.set_state(State::Done);
        capture.stored = true;
    })
    .await;
}

fn report(name: &str, packets: u64) -> Value {
    json!({
        "version": 2,
        "capture": { "name": name, "size_bytes": 1, "format": "pcap", "compression": "", "interfaces": [] },
        "totals": { "packets": packets, "bytes": 2, "duration_us": 3, "cut_packets": 0, "clock_steps_back": 0, "fragments": 0,
            "first_packet": "2026-06-01T12:00:00Z", "last_packet": null },
        "findings": [{ "kind": "beacon", "severity": "warning", "confidence": 0.5, "time": null, "summary": name, "next": "look",
            "flow_ids": ["1"], "packets": [7], "evidence": { "x": name } }],
        "links": [], "protocols": [], "talkers": [{ "ip": "192.0.2.1", "packets": 1, "bytes": 2 }], "not_analysed": [], "damage": null,
        "flows": { "flows": 1, "records": 1, "evicted": 0, "packets_in_tunnels": 0 },
        "dns": { "queries": 0, "answers": 0, "unanswered": 0, "unasked": 0, "malformed": 0, "unreadable": 0, "rcodes": [],
            "distinct_names": 0, "names": [] },
        "tls": { "client_hellos": 0, "versions": [], "distinct_names": 0, "names": [], "unfollowed_streams": 0 },
    })
}

#[tokio::test]
async fn a_report_has_the_form_that_is_asked_for_and_runs_nothing_of_a_stranger() {
    let Some(weir) = Weir::start().await else { return };
    let bus = weir.bus().await;
    let (first, second) = (upload(&weir, 1).await, upload(&weir, 2).await);
    let path = format!("/api/v1/captures/{first}/report");
    assert_eq!(problem(weir.get(&path).send().await.unwrap()).await, (404, "capture-not-ready".into()));
    let hostile = "<script>alert(1)</script>\"'=1|x";
    let stored = report(hostile, 5);
    finish(&bus, first, &stored).await;
    finish(&bus, second, &report("b", 6)).await;

    assert_eq!(weir.json(&path).await, stored, "as it is stored");
    let page = weir.get(&path).header("accept", "text/html,*/*;q=0.8").send().await.unwrap();
    assert_eq!(page.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().starts_with("default-src 'none'"));
    let page = page.text().await.unwrap();
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script"), "{page}");
    let markdown = weir.get(&format!("{path}?format=markdown")).send().await.unwrap().text().await.unwrap();
    assert!(markdown.starts_with("# Report of \\<script\\>alert(1)"), "{markdown}");
    let csv = weir.get(&format!("{path}?format=csv")).send().await.unwrap().text().await.unwrap();
    assert!(csv.starts_with("severity,kind,confidence") && csv.contains("\r\nwarning,beacon,0.5,"), "{csv}");
    let csv = weir.get(&format!("{path}?format=csv&table=talkers")).send().await.unwrap().text().await.unwrap();
    assert_eq!(csv, "ip,packets,bytes\r\n192.0.2.1,1,2\r\n");
    let refused = weir.get(&format!("{path}?format=pdf")).send().await.unwrap();
    assert_eq!(problem(refused).await, (400, "invalid-parameter".into()));

    let compared = weir.json(&format!("/api/v1/captures/{second}/report?compare={first}")).await;
    let packets =
        compared["differences"].as_array().unwrap().iter().find(|figure| figure["name"] == "Packets").unwrap();
    assert_eq!(
        (&packets["before"], &packets["after"], &packets["change_percent"]),
        (&json!(5.0), &json!(6.0), &json!(20.0))
    );
    let page = weir.get(&format!("/api/v1/captures/{second}/report?compare={first}&format=html")).send().await.unwrap();
    assert!(page.text().await.unwrap().contains("compared with"));
    finish(&bus, second, &json!({ "version": 1 })).await;
    let old = weir.get(&format!("/api/v1/captures/{second}/report?format=html")).send().await.unwrap();
    assert_eq!(problem(old).await, (409, "report-version".into()));
}

#[tokio::test]
async fn an_analysis_is_cancelled_and_done_again_with_other_thresholds() {
    let Some(weir) = Weir::start().await else { return };
    let bus = weir.bus().await;
    let id = upload(&weir, 1).await;
    let path = |what: &str| format!("/api/v1/captures/{id}/{what}");
    let mut jobs = bus.jobs(Duration::from_mins(1)).await.unwrap();
    let first = jobs.next(Duration::from_secs(5)).await.unwrap().expect("a job").job().unwrap();
    let analyse = |body: Value| weir.post(&path("analyse")).json(&body).send();

    assert_eq!(problem(analyse(json!({})).await.unwrap()).await, (409, "capture-in-hand".into()));
    change(&bus, id, |capture| {
        capture.set_state(State::Running);
        "reading".clone_into(&mut capture.phase);
    })
    .await;
    let cancelled = weir.post(&path("cancel")).send().await.unwrap();
    assert_eq!(cancelled.status(), StatusCode::ACCEPTED);
    let cancelled: Value = cancelled.json().await.unwrap();
    assert_eq!((&cancelled["cancelling"], &cancelled["phase"]), (&json!(true), &json!("reading")));

    finish(&bus, id, &report("a", 1)).await;
    assert_eq!(problem(weir.post(&path("cancel")).send().await.unwrap()).await, (409, "capture-has-ended".into()));
    for wrong in
        [json!({ "port_scan_ports": "many" }), json!({ "port_scan_prots": 7 }), json!({ "port_scan_ports": 0 })]
    {
        let wrong = analyse(json!({ "thresholds": wrong })).await.unwrap();
        assert_eq!(problem(wrong).await, (422, "invalid-body".into()));
    }
    let again = analyse(json!({ "thresholds": { "port_scan_ports": 20 } })).await.unwrap();
    assert_eq!(again.status(), StatusCode::ACCEPTED, "{}", again.text().await.unwrap());
    let second = jobs.next(Duration::from_secs(5)).await.unwrap().expect("a job").job().unwrap();
    assert_ne!(second.analysis_id, first.analysis_id);
    let state = states(&bus).await.get(&names::capture_key(id)).await.unwrap().unwrap().value;
    assert_eq!((state.previous_analysis_id, state.analysis_id), (first.analysis_id, second.analysis_id));
    assert_eq!((state.thresholds.as_str(), state.stored), ("{\"port_scan_ports\":20}", false));
    let gone = weir.post(&format!("/api/v1/captures/{}/cancel", Uuid::new_v4())).send().await.unwrap();
    assert_eq!(problem(gone).await, (404, "not-found".into()));
}

#[tokio::test]
async fn an_analysis_that_waits_is_cancelled_at_once_and_its_row_says_so() {
    let Some(weir) = Weir::start().await else { return };
    let bus = weir.bus().await;
    let id = upload(&weir, 1).await;
    let path = |what: &str| format!("/api/v1/captures/{id}{what}");
    // An attempt before may have left rows.
    let waiting = change(&bus, id, |capture| capture.attempts = 1).await;
    let cancelled = weir.post(&path("/cancel")).send().await.unwrap();
    assert_eq!(cancelled.status(), StatusCode::ACCEPTED);
    let cancelled: Value = cancelled.json().await.unwrap();
    assert_eq!((&cancelled["error"], &cancelled["cancelling"]), (&json!("cancelled"), &json!(false)));

    let state = states(&bus).await.get(&names::capture_key(id)).await.unwrap().unwrap().value;
    assert_eq!((state.state(), state.error.as_str(), state.stored), (State::Failed, "cancelled", false));
    let mut records = bus.records().await.unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        told.push(records.next().await.unwrap().batch().unwrap());
    }
    let of = |batch: &weir_proto::Batch| (batch.captures[0].purge, batch.captures[0].state());
    let order: Vec<_> = told.iter().map(of).collect();
    assert_eq!(order, [(false, State::Queued), (true, State::Unspecified), (false, State::Failed)]);
    assert_eq!(told[1].producer, waiting.analysis_id, "what a straggler still sends counts as taken");
    let row = &told[2].captures[0];
    assert_eq!((row.error.as_str(), row.finished_at), ("cancelled", state.finished_at));
    assert!(row.observed_at > waiting.observed_at, "it replaces the row before");

    // As the ingester does when the row is in the table.
    change(&bus, id, |capture| capture.stored = true).await;
    let ended = weir.json(&path("")).await;
    assert_eq!((&ended["state"], &ended["phase"]), (&json!("failed"), &Value::Null));
    assert_eq!(problem(weir.post(&path("/cancel")).send().await.unwrap()).await, (409, "capture-has-ended".into()));
    let again = weir.post(&path("/analyse")).json(&json!({})).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::ACCEPTED, "its file is there");
}

#[tokio::test]
async fn the_packets_of_a_filter_are_asked_for_by_its_flows() {
    let Some(weir) = Weir::start().await else { return };
    let bus = weir.bus().await;
    let id = upload(&weir, 1).await;
    finish(&bus, id, &report("a", 1)).await;
    weir.clickhouse
        .write(&format!(
            "INSERT INTO weir.flows (start_time, end_time, recorded_at, source, capture_id, flow_id, src_ip, dst_ip, src_port, dst_port, \
             protocol, app, dst_name) SELECT toDateTime64(1780000000 + number, 6, 'UTC') AS s, s, s, 'pcap', '{id}', 7 + intDiv(number, 2), \
             toIPv6('::ffff:10.0.0.1'), toIPv6('2001:db8::1'), 40000, if(number < 2, 443, 53), 6, 'tls', 'example.org' FROM numbers(4)"
        ))
        .await
        .unwrap();
    let path = format!("/api/v1/captures/{id}/packets");
    let nobody = weir.get(&format!("{path}?flow_id=7")).send().await.unwrap();
    assert_eq!(problem(nobody).await, (503, "no-worker".into()));
    let backwards =
        weir.get(&format!("{path}?from=2024-01-02T00:00:00Z&to=2024-01-01T00:00:00Z")).send().await.unwrap();
    assert_eq!(problem(backwards).await, (400, "invalid-parameter".into()));

    let mut questions = bus.questions(names::CARVE).await.unwrap();
    let worker = tokio::spawn(async move {
        let mut asked = Vec::new();
        for _ in 0..3 {
            let question = questions.next().await.expect("a question");
            asked.push(CarvePackets::decode(question.payload.clone()).unwrap());
            question.send("some ".into()).await.unwrap();
            question.send("packets".into()).await.unwrap();
            question.end().await.unwrap();
        }
        questions.next().await.expect("a question").fail("it is broken".into()).await.unwrap();
        asked
    });
    let ask = |query: &[(&str, &str)]| weir.get(&path).query(query).send();
    // The subscription may be on its way to the server.
    until("a worker answers", || async {
        let answer = ask(&[("filter", "dst_port = 443")]).await.unwrap();
        answer.status() == StatusCode::OK && answer.text().await.unwrap() == "some packets"
    })
    .await;
    let answer = ask(&[("flow_id", "8"), ("from", "2026-05-28T20:26:40Z")]).await.unwrap();
    assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/x-pcapng");
    assert_eq!(answer.text().await.unwrap(), "some packets");
    let answer = ask(&[("to", "2026-05-28T20:26:41Z")]).await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "some packets");
    assert_eq!(problem(ask(&[("filter", "")]).await.unwrap()).await, (500, "carving-failed".into()));
    assert_eq!(problem(ask(&[("from", "-15m")]).await.unwrap()).await, (400, "invalid-parameter".into()));

    let asked = worker.await.unwrap();
    let flow = &asked[0].flows[0];
    assert_eq!((asked[0].flows.len(), flow.flow_id, flow.dst_port), (1, 7, 443));
    assert_eq!((flow.start_time, flow.end_time), (1_780_000_000_000_000, 1_780_000_001_000_000));
    assert_eq!(flow.comment, "flow 7, tls, to example.org");
    assert_eq!((asked[1].flows.len(), asked[1].flows[0].flow_id, asked[1].from), (1, 8, 1_780_000_000_000_000));
    assert!(asked[2].all && asked[2].until == 1_780_000_001_000_000);
    // Of a time alone the flows have the comments; the other one began later.
    let commented: Vec<_> = asked[2].flows.iter().map(|flow| (flow.flow_id, flow.comment.as_str())).collect();
    assert_eq!((commented, asked[2].comment.as_str()), (vec![(7, "flow 7, tls, to example.org")], ""));
}

#[tokio::test]
async fn flows_that_do_not_fit_into_a_question_are_put_beside_it() {
    let Some(weir) = Weir::start().await else { return };
    let bus = weir.bus().await;
    let id = upload(&weir, 1).await;
    finish(&bus, id, &report("a", 1)).await;
    weir.clickhouse
        .write(&format!(
            "INSERT INTO weir.flows (start_time, end_time, recorded_at, source, capture_id, flow_id, src_ip, dst_ip, src_port, dst_port, \
             protocol) SELECT toDateTime64(1780000000, 6, 'UTC') AS s, s, s, 'pcap', '{id}', 1 + number, toIPv6('::ffff:10.0.0.1'), \
             toIPv6('2001:db8::1'), number, 443, 6 FROM numbers(2500)"
        ))
        .await
        .unwrap();
    let mut questions = bus.questions(names::CARVE).await.unwrap();
    let artifacts = bus.objects(names::ARTIFACTS).await.unwrap();
    let lists = artifacts.clone();
    let worker = tokio::spawn(async move {
        let question = questions.next().await.expect("a question");
        let asked = CarvePackets::decode(question.payload.clone()).unwrap();
        let mut list = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut lists.get(&asked.list).await.unwrap(), &mut list).await.unwrap();
        question.send("packets".into()).await.unwrap();
        question.end().await.unwrap();
        (asked, CarvePackets::decode(&*list).unwrap())
    });
    let path = format!("/api/v1/captures/{id}/packets");
    until("a worker answers", || async {
        let answer = weir.get(&path).query(&[("filter", "dst_port = 443")]).send().await.unwrap();
        answer.status() == StatusCode::OK && answer.text().await.unwrap() == "packets"
    })
    .await;
    let (asked, list) = worker.await.unwrap();
    assert_eq!((asked.flows.len(), list.flows.len()), (0, 2500));
    assert_eq!(list.flows.iter().map(|flow| flow.src_port).max(), Some(2499));
    let gone = artifacts.get(&asked.list).await;
    assert!(matches!(gone, Err(weir_bus::Error::NoObject { .. })), "nothing of it is kept");
}

#[tokio::test]
async fn a_capture_whose_time_has_come_goes_with_all_that_belongs_to_it() {
    let Some(weir) = Weir::start_with(&["--report-ttl=2"]).await else { return };
    let bus = weir.bus().await;
    let id = upload(&weir, 1).await;
    let path = format!("/api/v1/captures/{id}");
    until("it has expired", || async { weir.json(&path).await["state"] == "expired" }).await;
    let key = names::capture_key(id);
    until("all of it is gone", || async { states(&bus).await.get(&key).await.unwrap().unwrap().value.stored }).await;
    for part in ["packets", "packets?from=2020-01-01T00:00:00Z", "report", "report?format=html"] {
        let answer = weir.get(&format!("{path}/{part}")).send().await.unwrap();
        assert_eq!(problem(answer).await, (410, "capture-expired".into()), "{part}");
    }
    for part in ["cancel", "analyse"] {
        let answer = weir.post(&format!("{path}/{part}")).json(&json!({})).send().await.unwrap();
        assert_eq!(problem(answer).await, (410, "capture-expired".into()), "{part}");
    }
    assert_eq!(weir.json("/api/v1/captures").await["items"][0]["state"], "expired");
    let mut records = bus.records().await.unwrap();
    let mut told = Vec::new();
    while told.len() < 3 {
        let batch = records.next().await.unwrap().batch().unwrap();
        told.push((batch.sequence, batch.captures[0].purge, batch.captures[0].state()));
    }
    assert_eq!(told, [(1, false, State::Queued), (u64::MAX, true, State::Unspecified), (1, false, State::Expired)]);
    assert_ne!(upload(&weir, 1).await, id, "the same bytes are a new capture");
}

#[tokio::test]
async fn one_client_has_and_uploads_no_more_than_it_may() {
    let Some(weir) = Weir::start_with(&["--captures-per-client=2", "--uploads-per-hour=4"]).await else { return };
    let first = upload(&weir, 1).await;
    upload(&weir, 2).await;
    let third = weir.post("/api/v1/captures").body(pcap(3)).send().await.unwrap();
    assert_eq!(problem(third).await, (507, "capture-quota".into()));
    assert_eq!(upload(&weir, 1).await, first, "the same bytes are no capture more");
    let fifth = weir.post("/api/v1/captures").body(pcap(1)).send().await.unwrap();
    let wait: u64 = fifth.headers()[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!(
        (600..=900).contains(&wait),
        "one of four in an hour comes back after a quarter of it, less what has passed: {wait}"
    );
    assert_eq!(problem(fifth).await, (429, "upload-rate".into()));
}

#[tokio::test]
async fn uploads_that_come_at_once_are_no_more_than_one_client_may_have() {
    let Some(weir) = Weir::start_with(&["--captures-per-client=2"]).await else { return };
    let upload = async |seed| weir.post("/api/v1/captures").body(pcap(seed)).send().await.unwrap().status().as_u16();
    let mut statuses = futures::future::join_all((1..=8).map(upload)).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 202, 507, 507, 507, 507, 507, 507]);
    assert_eq!(weir.json("/api/v1/captures").await["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn uploads_at_several_services_are_no_more_than_one_client_may_have() {
    let Some(weir) = Weir::start_with(&["--captures-per-client=3"]).await else { return };
    let urls = [weir.url.clone(), weir.beside().await];
    let upload = async |seed: u8| {
        let url = format!("{}/api/v1/captures", urls[usize::from(seed % 2)]);
        weir.client.post(url).body(pcap(seed)).send().await.unwrap().status().as_u16()
    };
    // The first two are there when the race for the third begins.
    assert_eq!((upload(1).await, upload(2).await), (202, 202));
    let mut statuses = futures::future::join_all((3..=10).map(upload)).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 507, 507, 507, 507, 507, 507, 507]);
    assert_eq!(weir.json("/api/v1/captures").await["items"].as_array().unwrap().len(), 3);
}
