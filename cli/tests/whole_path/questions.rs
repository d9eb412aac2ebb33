//! A question about real containers: what they said before they died.

use std::{io::Read as _, net::TcpListener};

use bollard::models::HostConfig;
use serde_json::{Value, json};

use crate::{
    engine,
    weir::{Weir, eventually},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_flows_before_a_container_died_are_those_that_it_had() {
    const SENT: u64 = 300_000;
    let Some(mut docker) = engine::dockerd::Dockerd::start_or_skip().await else { return };
    let network = docker.network("shop").await;
    let described = docker.client().inspect_network(&network, None).await.expect("the network");
    let gateway = described.ipam.and_then(|ipam| ipam.config?.into_iter().next()?.gateway).expect("a gateway");
    let address = docker.host();
    let environment = [("DOCKER_HOST", address.as_str()), ("WEIR_DOCKER_WATCHER_RUNTIMES", "docker")];
    let Some(weir) = Weir::up_with_or_skip(&format!("br-{}", &network[..12]), &[], &environment) else { return };
    let cannot = || weir.part("capture")["reason"].as_str().is_some_and(|reason| reason.contains("weir-capture"));
    // A slow machine may have it ready only after the rest.
    let is_on = || weir.part("capture")["state"] != "off";
    eventually(|| is_on() || cannot(), || format!("capture is not ready: {}", weir.part("capture")));
    if !is_on() {
        eprintln!("skipped: capture is off here: {}", weir.part("capture")["reason"]);
        return;
    }
    let listener = TcpListener::bind((gateway.as_str(), 0)).expect("listen on the bridge");
    let port = listener.local_addr().expect("address").port();
    let reading = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).expect("read");
        received.len() as u64
    });
    let host = HostConfig {
        network_mode: Some("shop".to_owned()),
        memory: Some(16 << 20),
        memory_swap: Some(16 << 20),
        ..HostConfig::default()
    };
    // The engine hears of an oom by a file of the cgroup, and not always: the shell outlives its children.
    let script = format!(
        "dd if=/dev/zero of=/tmp/sent bs={SENT} count=1; nc {gateway} {port} < /tmp/sent
         for i in 1 2 3; do dd if=/dev/zero of=/dev/null bs=100M count=1; sleep 1; done; exit 7"
    );
    let id = docker.run("doomed", &script, host).await;
    assert_eq!(reading.join().expect("it reads"), SENT);

    let path = "/api/v1/questions/flows-before-death?container=doomed&from=-10m&limit=100";
    let wanted = |action: &str, answer: &Value| {
        let items = answer["items"].as_array().into_iter().flatten();
        let flows = items.filter(|item| item["action"] == action && item["dst_port"] == port);
        flows.map(|item| item["tx_bytes"].as_u64().expect("bytes")).sum::<u64>() > SENT
    };
    let mut last = Value::Null;
    let deadline = tokio::time::Instant::now() + crate::weir::DEADLINE;
    let mut poll = tokio::time::interval(std::time::Duration::from_millis(500));
    while !["oom", "die"].iter().all(|action| wanted(action, &last)) {
        assert!(tokio::time::Instant::now() < deadline, "not before both: {last:#}");
        poll.tick().await;
        last = weir.get(path).await;
    }
    let flow = last["items"]
        .as_array()
        .expect("items")
        .iter()
        .find(|item| item["action"] == "die" && item["dst_port"] == port);
    let flow = flow.expect("it was there");
    assert_eq!(
        (&flow["container_id"], &flow["exit_code"], &flow["src_container"]),
        (&json!(id), &json!(7), &json!("doomed"))
    );
    assert_eq!(flow["dst_ip"], gateway);
    let before = flow["seconds_before"].as_f64().expect("seconds");
    assert!((0.0..60.0).contains(&before), "{before}");
    // The same by SQL.
    let sql =
        format!("SELECT count() > 0 AS found FROM flows_before_death WHERE container_id = '{id}' AND action = 'oom'");
    weir.eventually(&sql, &json!({ "found": 1 }));
}
