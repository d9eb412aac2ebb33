//! The service as a whole: from packets on a wire to batches in a real NATS.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use clap::Parser as _;
use weir_bus::Bus;
use weir_capture::{Config, capture::Capture, processes::Processes};
use weir_engines::testing::Nats;
use weir_proto::{Flow, Source};
use weir_service::{Context, Health, Shutdown};

use crate::support::{capturing::DEADLINE, host::Host, skipped, traffic};

fn config(nats: &Nats, interface: &str, directory: &std::path::Path) -> Config {
    let directory = directory.to_str().unwrap();
    Config::try_parse_from([
        "weir-capture",
        "--interface",
        interface,
        "--drain-active",
        "200ms",
        "--drain-ended",
        "100ms",
        "--data-dir",
        directory,
        "--host",
        "this-host",
        "--nats-url",
        &nats.url(),
    ])
    .unwrap()
}

/// The other end of the bus: what has come, each batch once.
struct Reading {
    bus: Bus,
    batches: BTreeSet<(Vec<u8>, u64)>,
    flows: Vec<Flow>,
}

impl Reading {
    /// Reads until what came satisfies.
    async fn until(&mut self, satisfied: impl Fn(&[Flow]) -> bool) {
        let mut retry = tokio::time::interval(Duration::from_millis(50));
        let read = async {
            while !satisfied(&self.flows) {
                // NATS may be on its way back.
                if self.read(&satisfied).await.is_err() {
                    retry.tick().await;
                }
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, read).await;
        assert!(in_time.is_ok(), "records do not come: {:#?}", self.flows);
    }

    async fn read(&mut self, satisfied: impl Fn(&[Flow]) -> bool) -> Result<(), weir_bus::Error> {
        let mut reader = self.bus.records().await?;
        while !satisfied(&self.flows) {
            let message = reader.next().await?;
            let batch = message.batch().expect("capture publishes batches");
            assert_eq!((batch.source(), batch.host.as_str()), (Source::Ebpf, "this-host"));
            if self.batches.insert((batch.producer, batch.sequence)) {
                self.flows.extend(batch.flows);
            }
            message.ack_confirmed().await?;
        }
        Ok(())
    }
}

fn datagrams(flows: &[Flow], port: u16) -> u64 {
    flows.iter().filter(|flow| flow.dst_port == u32::from(port)).map(|flow| flow.tx_packets).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_while_nats_is_away_arrives_when_it_is_back() {
    if skipped() {
        return;
    }
    let Some(mut nats) = Nats::start_or_skip().await else { return };
    // This end is in the test's own namespace, where NATS listens.
    let interface = format!("wc{}a", std::process::id());
    let other = Host::new();
    let peer = format!("wc{}b", std::process::id());
    let here = Host::here();
    here.wire(&interface, &other, &peer);
    here.address(&interface, "10.81.77.1/24");
    other.address(&peer, "10.81.77.2/24");
    other.up(&peer);
    here.up(&interface);

    let directory = tempfile::tempdir().unwrap();
    let config = config(&nats, &interface, directory.path());
    let capture = Capture::load(&config, &Processes::read()).unwrap();
    let context = Context { shutdown: Shutdown::new(), health: Health::default() };
    let running = tokio::spawn(weir_capture::run(config.clone(), capture, context.clone()));
    wait_until(&context.health, "interfaces").await;
    wait_until(&context.health, "nats").await;

    let send = |port: u16, count: usize| {
        traffic::udp_to_nowhere(&here, SocketAddr::new("10.81.77.2".parse().unwrap(), port), count);
    };
    let bus = Bus::connect(&config.bus, "test").await.unwrap();
    let mut reading = Reading { bus, batches: BTreeSet::new(), flows: Vec::new() };
    send(4001, 30);
    reading.until(|flows| datagrams(flows, 4001) == 30).await;
    nats.kill().await;
    send(4002, 40);
    nats.restart().await.unwrap();
    reading.until(|flows| datagrams(flows, 4002) == 40).await;
    send(4003, 50);
    context.shutdown.cancel();
    running.await.unwrap().unwrap();
    reading.until(|flows| datagrams(flows, 4003) == 50).await;
    here.delete(&interface);
    let flows = reading.flows;
    // The kernel may give one socket the port of an earlier one.
    let last = || flows.iter().filter(|flow| flow.dst_port == 4003);
    let ports: BTreeSet<_> = last().map(|flow| flow.src_port).collect();
    let ids: BTreeSet<_> = last().map(|flow| flow.flow_id).collect();
    assert_eq!(ids.len(), ports.len(), "each source port is a flow");
    assert_eq!((datagrams(&flows, 4001), datagrams(&flows, 4002)), (30, 40));
}

async fn wait_until(health: &Health, condition: &str) {
    let mut every = tokio::time::interval(Duration::from_millis(10));
    let met = async {
        while health.conditions().get(condition) != Some(&None) {
            every.tick().await;
        }
    };
    tokio::time::timeout(DEADLINE, met).await.unwrap_or_else(|_| panic!("{:?}", health.conditions()));
}
