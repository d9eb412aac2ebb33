//! The system around the ingester, and known records.

use std::{process::Stdio, time::Duration};

use async_nats::jetstream;
use tokio::process::{Child, Command};
use uuid::Uuid;
use weir_bus::{Bus, names};
use weir_engines::{
    ports, process,
    testing::{ClickHouse, Nats},
};
use weir_proto::{Batch, Dns, Flow, Source};

/// How long a state may take to come: the machine may be building at the same time.
const DEADLINE: Duration = Duration::from_mins(2);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(25);

/// NATS, `ClickHouse`, and the ingester, which can die.
pub(crate) struct System {
    pub(crate) nats: Nats,
    pub(crate) clickhouse: ClickHouse,
    pub(crate) ingester: Option<Child>,
    health_port: u16,
}

impl System {
    /// Starts the engines; None = they are missing here.
    pub(crate) async fn start() -> Option<Self> {
        let nats = Nats::start_or_skip().await?;
        let clickhouse = ClickHouse::start_or_skip().await?;
        Some(Self { nats, clickhouse, ingester: None, health_port: ports::free_port().expect("a port") })
    }

    pub(crate) async fn spawn(&self, health_port: u16, arguments: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir-ingester"));
        command
            .args(arguments)
            .env("WEIR_NATS_URL", self.nats.url())
            .env("WEIR_CLICKHOUSE_URL", self.clickhouse.url())
            .env("WEIR_CLICKHOUSE_USER", self.clickhouse.writer_user())
            .env("WEIR_CLICKHOUSE_PASSWORD", self.clickhouse.writer_password())
            .env("WEIR_HEALTH_LISTEN", format!("127.0.0.1:{health_port}"))
            .stdin(Stdio::null());
        process::spawn(command).await.expect("the ingester starts")
    }

    /// Starts the ingester.
    pub(crate) async fn ingest(&mut self, arguments: &[&str]) {
        self.ingester = Some(self.spawn(self.health_port, arguments).await);
    }

    /// Kills the ingester.
    pub(crate) async fn kill(&mut self) {
        if let Some(mut ingester) = self.ingester.take() {
            ingester.kill().await.expect("killed");
        }
    }

    /// Waits until the ingester has ended by itself; whether it ended well.
    pub(crate) async fn ended(&mut self) -> bool {
        let mut ingester = self.ingester.take().expect("it runs");
        let status = tokio::time::timeout(DEADLINE, ingester.wait()).await.expect("it ends in time").expect("a status");
        status.success()
    }

    /// Asks the ingester to stop and waits; whether it ended well.
    pub(crate) async fn stop(&mut self) -> bool {
        let mut ingester = self.ingester.take().expect("it runs");
        process::terminate(&mut ingester, Duration::from_secs(30)).await.expect("terminated")
    }

    /// A connection with the topology in place.
    pub(crate) async fn bus(&self) -> Bus {
        let bus = Bus::connect(&self.bus_options(), "test").await.expect("connected");
        let shutdown = weir_service::Shutdown::new();
        let ready = bus.ready(&shutdown, |_| {});
        tokio::time::timeout(DEADLINE, ready).await.expect("in time").expect("ready");
        bus
    }

    /// A plain client, for what no service of Weir sends.
    pub(crate) async fn client(&self) -> jetstream::Context {
        let url = self.nats.url();
        let (user, address) = url.trim_start_matches("nats://").split_once('@').expect("user and address");
        let (user, password) = user.split_once(':').expect("user and password");
        let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
        jetstream::new(options.connect(address).await.expect("connected"))
    }

    /// Waits until the stream has no message any more: all are acked.
    pub(crate) async fn drained(&self) {
        let jetstream = self.client().await;
        eventually("the stream is drained", async || {
            let Ok(stream) = jetstream.get_stream(names::RECORDS).await else { return false };
            stream.cached_info().state.messages == 0
        })
        .await;
    }

    /// `/readyz` of the ingester, whatever it says.
    pub(crate) async fn conditions(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&get(self.health_port, "/readyz").await?).ok()
    }

    /// One line of `/metrics`: the value of `metric`, which includes the labels.
    pub(crate) async fn metric(&self, metric: &str) -> u64 {
        let text = get(self.health_port, "/metrics").await.unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
    }

    pub(crate) async fn read(&self, sql: &str) -> String {
        self.clickhouse.read(sql).await.expect(sql).trim_end().to_owned()
    }

    /// The tables hold exactly the records of these batches, each once.
    pub(crate) async fn holds(&self, batches: &[Batch]) {
        let flows: Vec<_> = batches.iter().flat_map(|batch| &batch.flows).collect();
        let expected = format!(
            "{}\t{}\t{}\t{}",
            flows.len(),
            flows.len(),
            flows.iter().map(|flow| u128::from(flow.flow_id)).sum::<u128>(),
            flows.iter().map(|flow| u128::from(flow.tx_bytes)).sum::<u128>(),
        );
        let sql =
            "SELECT count(), uniqExact(flow_id), sum(toUInt128(flow_id)), sum(toUInt128(tx_bytes)) FROM weir.flows";
        assert_eq!(self.read(sql).await, expected, "flows");
        let dns = batches.iter().map(|batch| batch.dns.len()).sum::<usize>();
        let sql = "SELECT count(), uniqExact(flow_id) FROM weir.dns";
        assert_eq!(self.read(sql).await, format!("{dns}\t{dns}"), "dns");
    }
}

/// Waits for a state, never for a time.
pub(crate) async fn eventually(what: &str, mut state: impl AsyncFnMut() -> bool) {
    let mut poll = tokio::time::interval(POLL);
    let waiting = async {
        loop {
            poll.tick().await;
            if state().await {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

async fn get(port: u16, path: &str) -> Option<String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

/// Batches 1 to `count` of a producer, with `flows` flows and one DNS exchange each; flow ids are unique within the producer.
pub(crate) fn batches(producer: Uuid, count: u64, flows: u64) -> Vec<Batch> {
    let start = 1_767_323_045_000_000;
    let flow = |id: u64| Flow {
        flow_id: id,
        start_time: start + id,
        end_time: start + id + 1000,
        src_ip_low: 0xffff_0a00_0000 | (id & 0xffff),
        dst_ip_low: 0xffff_0a01_0001,
        src_port: (id % 60_000) as u32,
        dst_port: 443,
        protocol: 6,
        tx_bytes: id.wrapping_mul(2_654_435_761) % 1_000_003,
        tx_packets: 1,
        ..Flow::default()
    };
    let batch = |sequence: u64| Batch {
        producer: producer.as_bytes().to_vec(),
        sequence,
        host: "host-1".into(),
        source: Source::Ebpf as i32,
        flows: (0..flows).map(|n| flow(sequence * flows + n)).collect(),
        dns: vec![Dns { flow_id: sequence, time: start, qname: "example.com".into(), ..Dns::default() }],
        ..Batch::default()
    };
    (1..=count).map(batch).collect()
}

/// Publishes as a producer of Weir does: a batch is sent until the stream has it.
pub(crate) async fn publish(bus: &Bus, batches: &[Batch]) {
    for batch in batches {
        let mut pause = tokio::time::interval(POLL);
        while bus.send(names::RECORDS_EBPF, batch).await.is_err() {
            pause.tick().await;
        }
    }
}

/// Publishes bytes with headers, as no service of Weir does.
pub(crate) async fn publish_raw(jetstream: &jetstream::Context, headers: &[(&str, &str)], payload: &[u8]) {
    let mut map = async_nats::HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, *value);
    }
    let stored = jetstream.publish_with_headers(names::RECORDS_EBPF, map, payload.to_vec().into()).await.expect("sent");
    stored.await.expect("stored");
}

impl System {
    pub(crate) fn bus_options(&self) -> weir_bus::Options {
        weir_bus::Options {
            nats_url: self.nats.url(),
            nats_credentials: None,
            records_max_bytes: 1 << 30,
            uploads_max_bytes: 1 << 20,
        }
    }
}
