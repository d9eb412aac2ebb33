//! Real containers, on a bridge and on the host's network: flows have their names.

use std::{fs, io::Read as _, net::TcpListener};

use bollard::{models::HostConfig, query_parameters::InspectContainerOptions};
use serde_json::json;

use crate::{engine::dockerd::Dockerd, weir::Weir};

#[tokio::test(flavor = "multi_thread")]
async fn flows_of_containers_on_a_bridge_and_on_the_hosts_network_have_their_names() {
    let Some(mut engine) = Dockerd::start_or_skip().await else { return };
    let network = engine.network("shop").await;
    let bridge = format!("br-{}", &network[..12]);
    let on = |network: &str| HostConfig { network_mode: Some(network.to_owned()), ..HostConfig::default() };
    // It takes a connection, and then makes one to the host.
    let script = "/bin/nc -l -p 8000 >/out/heard; echo back | /bin/nc $(cat /out/gateway) $(cat /out/port); while true; do sleep 1000; done";
    let bridged = engine.run("bridged", script, on("shop")).await;
    let inspected = engine.client().inspect_container(&bridged, None::<InspectContainerOptions>).await.unwrap();
    let networks = inspected.network_settings.unwrap().networks.unwrap();
    let (address, gateway) = (networks["shop"].ip_address.clone().unwrap(), networks["shop"].gateway.clone().unwrap());
    let veth = fs::read_dir(format!("/sys/class/net/{bridge}/brif")).unwrap().next().unwrap().unwrap();
    let veth = veth.file_name().into_string().unwrap();

    let interfaces = format!("{bridge},{veth}");
    let docker = engine.host();
    let up = tokio::task::spawn_blocking(move || Weir::up_with_or_skip(&interfaces, &[], &[("DOCKER_HOST", &docker)]));
    let Some(weir) = up.await.unwrap() else { return };
    for part in ["capture", "docker-watcher"] {
        if weir.part(part)["state"] == "off" {
            eprintln!("skipped: {part} is off here: {}", weir.part(part)["reason"]);
            return;
        }
    }
    let listener = TcpListener::bind((gateway.as_str(), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    fs::write(engine.shared().join("gateway"), &gateway).unwrap();
    fs::write(engine.shared().join("port"), port.to_string()).unwrap();
    let script = format!("while ! test -f /out/go; do sleep 1; done; echo hello | /bin/nc {address} 8000; sleep 1000");
    let hostly = engine.run("hostly", &script, on("host")).await;
    let known = "SELECT count(DISTINCT name) AS known FROM containers WHERE name IN ('bridged', 'hostly')";
    weir.eventually(known, &json!({"known": 2}));

    fs::write(engine.shared().join("go"), "").unwrap();
    let heard = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        text
    });
    assert_eq!(heard.await.unwrap(), "back\n");
    let inside = |port: u16| {
        format!(
            "SELECT anyLast(src_container) AS src, anyLast(dst_container) AS dst, anyLast(src_container_id) AS src_id, \
             anyLast(dst_container_id) AS dst_id, anyLast(src_process) AS process, anyLast(src_executable) AS executable, \
             uniqExact(flow_id) AS flows, has(arrayConcat([anyLast(toString(interface))], anyLast(interfaces)), '{veth}') AS behind \
             FROM flows_named WHERE protocol = 6 AND dst_port = {port} AND src_process != ''"
        )
    };
    weir.eventually(
        &inside(8000),
        &json!({"src": "hostly", "dst": "bridged", "src_id": hostly, "dst_id": bridged, "process": "nc",
            "executable": "/bin/nc", "flows": 1, "behind": 1}),
    );
    // The other end is this test, which is no container.
    weir.eventually(
        &inside(port),
        &json!({"src": "bridged", "dst": "", "src_id": bridged, "dst_id": "", "process": "nc",
            "executable": "/bin/nc", "flows": 1, "behind": 1}),
    );
}
