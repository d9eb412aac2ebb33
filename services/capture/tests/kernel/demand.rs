//! Packets on demand: from a wire to the pieces of a pcapng in a real NATS.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use clap::Parser as _;
use prost::Message as _;
use tokio::task::JoinHandle;
use weir_bus::{Answer, AnswerError, Bus, names};
use weir_capture::{Config, capture::Capture, processes::Processes};
use weir_engines::testing::Nats;
use weir_proto::{Container, ContainerNetwork, Ip, RecordPackets, RecordedPiece};
use weir_service::{Context, Health, Shutdown};

use crate::support::{capturing::DEADLINE, host::Host, skipped};

const HOST: &str = "a host";

/// A running service on the near end of a wire.
struct Recording {
    nats: Nats,
    bus: Bus,
    near: Host,
    interface: String,
    _far: Host,
    shutdown: Shutdown,
    running: JoinHandle<anyhow::Result<()>>,
    _directory: tempfile::TempDir,
}

impl Recording {
    /// `None`, if this machine cannot run the test, and it says so.
    async fn start(name: &str, net: u8) -> Option<Self> {
        if skipped() {
            return None;
        }
        let nats = Nats::start_or_skip().await?;
        let interface = format!("{name}{}a", std::process::id() % 100_000);
        let (near, far) = (Host::here(), Host::new());
        near.wire(&interface, &far, "far");
        near.address(&interface, &format!("10.83.{net}.1/24"));
        far.address("far", &format!("10.83.{net}.2/24"));
        far.up("far");
        near.up(&interface);
        let directory = tempfile::tempdir().unwrap();
        let options = [
            "weir-capture",
            "--interface",
            &interface,
            "--drain-active=200ms",
            "--drain-ended=100ms",
            "--on-demand",
            "--host",
            HOST,
            "--nats-url",
            &nats.url(),
            "--data-dir",
            directory.path().to_str().unwrap(),
        ];
        let config = Config::try_parse_from(options).unwrap();
        let bus = Bus::connect(&config.bus, "test").await.unwrap();
        bus.ready(&Shutdown::new(), |_| ()).await.unwrap();
        let capture = Capture::load(&config, &Processes::read()).unwrap();
        let context = Context { shutdown: Shutdown::new(), health: Health::default() };
        let shutdown = context.shutdown.clone();
        let health = context.health.clone();
        let running = tokio::spawn(weir_capture::run(config, capture, context));
        until(async || health.conditions().get("interfaces") == Some(&None)).await;
        Some(Self { nats, bus, near, interface, _far: far, shutdown, running, _directory: directory })
    }

    /// The answer to a question, from its first piece on, when the host listens.
    async fn ask(&self, filter: &str, seconds: u32, max_bytes: u64) -> Result<(Answer, RecordedPiece), AnswerError> {
        let capture_id = uuid::Uuid::new_v4().as_bytes().to_vec();
        let filter = filter.to_owned();
        let question = RecordPackets { capture_id, filter, seconds, max_bytes, snap_length: 0 }.encode_to_vec();
        let mut every = tokio::time::interval(Duration::from_millis(20));
        loop {
            every.tick().await;
            let mut answer = self.bus.ask(&names::record(HOST), question.clone().into()).await?;
            match answer.next().await {
                // Its interface or its subscription is not there yet.
                Err(AnswerError::Nobody) => {}
                first => {
                    let first = first?.expect("a first piece");
                    return Ok((answer, RecordedPiece::decode(first).unwrap()));
                }
            }
        }
    }

    /// Sends datagrams with these contents to a port of the far end.
    fn send(&self, net: u8, port: u16, contents: &[String]) {
        let contents = contents.to_vec();
        self.near.run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            let far = SocketAddr::new([10, 83, net, 2].into(), port);
            for content in contents {
                socket.send_to(content.as_bytes(), far).unwrap();
            }
        });
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
        self.near.delete(&self.interface);
        drop(self.nats);
    }
}

async fn until(mut reached: impl AsyncFnMut() -> bool) {
    let mut every = tokio::time::interval(Duration::from_millis(10));
    let wait = async {
        while !reached().await {
            every.tick().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.expect("the state comes");
}

/// The rest of an answer: the file and its last piece.
async fn rest(mut answer: Answer, first: RecordedPiece) -> (Vec<u8>, RecordedPiece) {
    let (mut file, mut last) = (first.data.clone(), first);
    while let Some(piece) = tokio::time::timeout(DEADLINE, answer.next()).await.unwrap().unwrap() {
        last = RecordedPiece::decode(piece).unwrap();
        file.extend(&last.data);
    }
    (file, last)
}

/// Type and body of each block.
fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
    let mut blocks = Vec::new();
    while !file.is_empty() {
        let length = number(&file[4..]) as usize;
        assert_eq!(number(&file[length - 4..]) as usize, length);
        blocks.push((number(file), &file[8..length - 4]));
        file = &file[length..];
    }
    blocks
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The contents of the datagrams in a file, in its order.
fn contents(file: &[u8]) -> Vec<String> {
    const HEADERS: usize = 14 + 20 + 8;
    let packets = blocks(file).into_iter().filter(|(kind, _)| *kind == 6);
    packets
        .map(|(_, body)| {
            let captured = u32::from_le_bytes(body[12..16].try_into().unwrap()) as usize;
            text(&body[20 + HEADERS..20 + captured])
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_holds_exactly_the_packets_that_the_filter_names_with_who_sent_them() {
    let Some(recording) = Recording::start("wr", 1).await else { return };
    let identities = recording.bus.bucket::<Container>(names::IDENTITIES).await.unwrap();
    let far = Ip::from(std::net::Ipv4Addr::new(10, 83, 1, 2).to_ipv6_mapped().octets());
    let network = ContainerNetwork { ip_high: far.high, ip_low: far.low, ..ContainerNetwork::default() };
    let container = Container {
        name: "web".into(),
        networks: vec![network],
        interfaces: vec![recording.interface.clone()],
        ..Container::default()
    };
    identities.put(&format!("{}.c0ffee", names::key(HOST)), &container).await.unwrap();

    let (answer, first) = recording.ask("port = 4001 and protocol = udp", 60, 1 << 20).await.unwrap();
    let again = recording.ask("", 1, 1 << 20).await;
    assert!(matches!(again, Err(AnswerError::Busy)), "one at a time");
    let sent: Vec<_> = (0..500).map(|number| format!("wanted {number}")).collect();
    recording.send(1, 4001, &sent);
    recording.send(1, 4002, &["not wanted".to_owned()]);
    let enough = answer.enough();
    enough.say();
    let (file, last) = rest(answer, first).await;

    assert_eq!(contents(&file), sent);
    assert_eq!((last.packets, last.lost, last.ended.as_str()), (500, 0, "stopped"));
    let blocks = blocks(&file);
    let of_kind =
        |wanted: u32| blocks.iter().filter(|(kind, _)| *kind == wanted).map(|(_, body)| *body).collect::<Vec<_>>();
    let interfaces = of_kind(1);
    assert_eq!(interfaces.len(), 1);
    let named = text(interfaces[0]);
    assert!(named.contains(&recording.interface) && named.contains("container=web"), "{named}");
    assert!(text(of_kind(0x0a0d_0d0a)[0]).contains("port = 4001 and protocol = udp"));
    assert_eq!(of_kind(5).len(), 1, "statistics of the interface");
    let comment = format!("process={} pid={} -> container=web", own_name(), std::process::id());
    let commented = of_kind(6).iter().filter(|body| text(body).contains(&comment)).count();
    assert_eq!(commented, 500, "{comment}: {:?}", text(of_kind(6)[0]));
    recording.stop().await;
}

/// As the kernel names the thread that opens the sockets of the test.
fn own_name() -> String {
    // Threads of a host have the name of the thread that started them.
    std::fs::read_to_string("/proc/thread-self/comm").map(|name| name.trim().to_owned()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_ends_where_it_is_full_and_with_its_time_and_with_the_service() {
    let Some(recording) = Recording::start("wl", 2).await else { return };
    let most = 64 << 10;
    let (answer, first) = recording.ask("port = 4001", 60, most).await.unwrap();
    let sent: Vec<_> = (0..500).map(|number| format!("{number:0>1000}")).collect();
    recording.send(2, 4001, &sent);
    let (file, last) = rest(answer, first).await;
    assert_eq!(last.ended, "bytes");
    assert!(file.len() as u64 <= most && file.len() as u64 > most - 2000, "{}", file.len());
    let kept = contents(&file);
    assert_eq!(kept, sent[..kept.len()]);
    assert_eq!(blocks(&file).last().unwrap().0, 5);

    let (answer, first) = until_free(&recording, "port = 4003", 1).await;
    recording.send(2, 4003, &["one".to_owned()]);
    let (file, last) = rest(answer, first).await;
    assert_eq!((contents(&file), last.ended.as_str()), (vec!["one".to_owned()], "time"));

    let (answer, first) = until_free(&recording, "port = 4004", 60).await;
    recording.send(2, 4004, &["two".to_owned()]);
    let reading = tokio::spawn(rest(answer, first));
    recording.stop().await;
    let (file, last) = reading.await.unwrap();
    assert_eq!((contents(&file), last.ended.as_str()), (vec!["two".to_owned()], "shutdown"));
}

/// Asks until the recording before has given its place back.
async fn until_free(recording: &Recording, filter: &str, seconds: u32) -> (Answer, RecordedPiece) {
    let mut begun = None;
    until(async || {
        begun = match recording.ask(filter, seconds, 1 << 20).await {
            Err(AnswerError::Busy) => None,
            other => Some(other.unwrap()),
        };
        begun.is_some()
    })
    .await;
    begun.expect("a recording")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_refused_with_the_reason() {
    let Some(recording) = Recording::start("wf", 3).await else { return };
    for (filter, seconds, bytes, reason) in [
        ("dst_port = 80", 1, 1 << 20, "depends on who began the flow"),
        ("interface = nowhere0", 1, 1 << 20, "accepts nothing on the interfaces"),
        ("", 0, 1 << 20, "at most 3600 s"),
        ("", 3601, 1 << 20, "at most 3600 s"),
        ("", 1, u64::MAX, "at most 3600 s"),
        ("", 1, 100, "may not even hold"),
    ] {
        let mut refused = None;
        until(async || {
            refused = match recording.ask(filter, seconds, bytes).await {
                Err(AnswerError::Busy) => None,
                other => Some(other.map(|_| ()).unwrap_err().to_string()),
            };
            refused.is_some()
        })
        .await;
        let refused = refused.expect("an answer");
        assert!(refused.contains(reason), "{filter} {seconds} {bytes}: {refused}");
    }
    let mut answer = recording.bus.ask(&names::record(HOST), "nonsense".into()).await.unwrap();
    let refused = answer.next().await.unwrap_err();
    assert!(matches!(refused, AnswerError::Failed(_) | AnswerError::Busy), "{refused}");
    recording.stop().await;
}
