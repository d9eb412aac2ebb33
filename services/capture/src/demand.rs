//! Packets on demand: query-api asks for those of this host's interfaces that a filter accepts, and gets them as pcapng, in pieces, as they
//! pass. Nothing of it touches a disk here.
//!
//! 1. A question comes on the host's own subject ([`weir_bus::names::record`]). One is answered at a time; others are told so.
//! 2. [`recorder`], a thread that may open packet sockets and nothing else, opens one with a [`ring`] on each interface, behind a program
//!    that keeps away most of what nobody wants ([`prefilter`]), and chooses packets ([`frame`]).
//! 3. A packet waits until the records of its flow have told [`who`] its ends are, for some seconds and as long as there is memory, and then
//!    becomes a block of [`pcapng`].
//! 4. The recording ends after its time, when the file is full, when who asked has enough, goes away or is silent, and with the service. What the
//!    kernel had no room for is counted, and stands in the file.

mod frame;
mod pcapng;
mod prefilter;
mod recorder;
mod ring;
mod who;

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use prost::Message as _;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
};
use tracing::{info, warn};
use uuid::Uuid;
use weir_bus::{Bus, Question, Wants, names};
use weir_filter::PacketFilter;
use weir_proto::{Container, RecordPackets};
use weir_service::Shutdown;

pub use recorder::Recorder;
pub use who::Who;

use crate::{
    Config,
    interfaces::{self, Network},
};
use recorder::{MAX_INTERFACES, Order, Place};

/// The longest recording, whoever asks.
const MAX_SECONDS: u32 = 3600;
/// The largest file, whoever asks.
const MAX_BYTES: u64 = 16 << 30;
/// Records come so long after they are due.
const BEHIND: Duration = Duration::from_secs(1);
/// Pieces between the recording thread and the bus; when they wait, the thread waits, and then the kernel drops and counts.
const QUEUE: usize = 4;
/// Pause after a failure of the bus.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a recording waits for the containers that exist.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// A watch that is quiet for so long has said all that exists.
const QUIET: Duration = Duration::from_millis(100);
/// How long the end of the service waits for the last pieces to be taken.
const LAST_PIECES: Duration = Duration::from_secs(5);

/// What answers.
pub struct Demand {
    answering: JoinHandle<()>,
    shutdown: Shutdown,
}

impl Demand {
    /// Ends a recording that goes on; what it has so far is sent.
    pub async fn stop(self) {
        self.shutdown.cancel();
        if self.answering.await.is_err() {
            warn!("answering questions for packets has panicked");
        }
    }
}

#[derive(Clone)]
struct Host {
    bus: Bus,
    recorder: Recorder,
    who: Arc<Who>,
    network: watch::Receiver<Network>,
    name: Arc<str>,
    interfaces: Arc<[String]>,
    patience: Duration,
    shutdown: Shutdown,
}

/// Why nothing is recorded.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("this is no question for packets")]
    Question,
    #[error("the filter cannot be used")]
    Filter(#[from] weir_filter::Unsupported),
    #[error("at most {MAX_SECONDS} s and {MAX_BYTES} bytes can be recorded")]
    Limits,
    #[error("the filter accepts nothing on the interfaces that this host captures on: {0}")]
    Nowhere(String),
    #[error(
        "{0} interfaces are more than the {MAX_INTERFACES} that can be listened on at one time: name some in the filter"
    )]
    Interfaces(usize),
    #[error("another recording goes on")]
    Busy,
    #[error("{0}")]
    Recorder(String),
    #[error("the recording thread has ended")]
    Ended,
    #[error(transparent)]
    Bus(#[from] weir_bus::Error),
}

/// Answers questions until `shutdown`.
pub(crate) fn start(
    bus: Bus,
    recorder: Recorder,
    who: Arc<Who>,
    network: watch::Receiver<Network>,
    config: &Config,
    shutdown: &Shutdown,
) -> Demand {
    describe();
    let shutdown = shutdown.child_token();
    let host = Host {
        bus,
        recorder,
        who,
        network,
        name: config.service.host.as_str().into(),
        interfaces: config.interfaces.clone().into(),
        patience: config.pace().longest.max(config.drain_ended) + BEHIND,
        shutdown: shutdown.clone(),
    };
    Demand { answering: tokio::spawn(answer(host)), shutdown }
}

fn describe() {
    describe_gauge!("weir_capture_recording", "1 = packets are recorded on demand at this moment");
    describe_counter!("weir_capture_recordings_total", "Questions for packets, by outcome: done, busy, failed");
    describe_counter!("weir_capture_recorded_packets_total", "Packets in the files of recordings");
    describe_counter!(
        "weir_capture_recording_lost_packets_total",
        "Packets for which the kernel had no room while they were to be recorded"
    );
}

async fn answer(host: Host) {
    let place = Arc::new(Semaphore::new(1));
    info!(host = %host.name, "packets may be recorded on demand");
    while !host.shutdown.is_cancelled() {
        if let Err(error) = take_questions(&host, &place).await {
            warn!(error = &error as &dyn std::error::Error, "cannot take questions for packets");
        }
        tokio::select! {
            () = host.shutdown.cancelled() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    // Until the one that goes on is at its end.
    if tokio::time::timeout(LAST_PIECES, place.acquire()).await.is_err() {
        warn!("the last pieces of a recording were not taken");
    }
}

async fn take_questions(host: &Host, place: &Arc<Semaphore>) -> Result<(), weir_bus::Error> {
    let mut questions = host.bus.questions(&names::record(&host.name)).await?;
    loop {
        let question = tokio::select! {
            biased;
            () = host.shutdown.cancelled() => return Ok(()),
            question = questions.next() => question,
        };
        let Some(question) = question else { return Ok(()) };
        let Ok(place) = Arc::clone(place).try_acquire_owned() else {
            told("busy");
            question.busy().await?;
            continue;
        };
        let host = host.clone();
        tokio::spawn(async move {
            let _place = place;
            one(&host, question).await;
        });
    }
}

fn told(outcome: &'static str) {
    counter!("weir_capture_recordings_total", "outcome" => outcome).increment(1);
}

/// Answers a question, whatever comes of it.
async fn one(host: &Host, question: Question) {
    gauge!("weir_capture_recording").set(1.0);
    host.who.begin();
    let stop = host.shutdown.child_token();
    let (looked, first_look) = oneshot::channel();
    let containers = tokio::spawn(learn_containers(host.clone(), stop.clone(), looked));
    // Err = it takes longer: packets do not wait for names of containers.
    let _elapsed = tokio::time::timeout(FIRST_LOOK, first_look).await;
    let recorded = record(host, &question, &stop).await;
    stop.cancel();
    if containers.await.is_err() {
        warn!("learning the names of containers has panicked");
    }
    host.who.end();
    gauge!("weir_capture_recording").set(0.0);
    let ended = match recorded {
        Ok(()) => {
            told("done");
            question.end().await
        }
        Err(Refused::Busy) => {
            told("busy");
            question.busy().await
        }
        Err(error) => {
            let reason = format!("{:#}", anyhow::Error::from(error));
            warn!(reason, "packets are not recorded, or not to their end");
            told("failed");
            question.fail(reason).await
        }
    };
    if let Err(error) = ended {
        warn!(error = &error as &dyn std::error::Error, "nobody hears that a recording has ended");
    }
}

async fn record(host: &Host, question: &Question, stop: &Shutdown) -> Result<(), Refused> {
    let wanted = RecordPackets::decode(question.payload.clone()).map_err(|_| Refused::Question)?;
    let capture = Uuid::from_slice(&wanted.capture_id).map_err(|_| Refused::Question)?;
    if !(1..=MAX_SECONDS).contains(&wanted.seconds) || wanted.max_bytes > MAX_BYTES {
        return Err(Refused::Limits);
    }
    let places = host.places(&PacketFilter::read(&wanted.filter)?)?;
    let (sender, mut pieces) = mpsc::channel(QUEUE);
    let filter = &wanted.filter;
    info!(%capture, filter, seconds = wanted.seconds, max_bytes = wanted.max_bytes, interfaces = places.len(), "recording");
    let order = Order {
        places,
        comment: format!(
            "capture {capture} of host {}: {}",
            host.name,
            if filter.is_empty() { "every packet" } else { filter }
        ),
        duration: Duration::from_secs(wanted.seconds.into()),
        max_bytes: wanted.max_bytes,
        snap_length: wanted.snap_length,
        patience: host.patience,
        who: Arc::clone(&host.who),
        pieces: sender,
        stop: stop.clone(),
        shutdown: host.shutdown.clone(),
    };
    // The thread may still look back at the one before, whose asker went away.
    if !host.recorder.order(order) {
        return Err(Refused::Busy);
    }
    let mut last = None;
    while let Some(piece) = pieces.recv().await {
        let piece = piece.map_err(Refused::Recorder)?;
        // Dropping the receiver ends the thread's work at its next piece.
        if question.send(piece.encode_to_vec().into()).await? == Wants::TheEnd {
            stop.cancel();
        }
        last = Some((piece.packets, piece.lost, piece.ended));
    }
    let Some((packets, lost, ended)) = last.filter(|(.., ended)| !ended.is_empty()) else { return Err(Refused::Ended) };
    counter!("weir_capture_recorded_packets_total").increment(packets);
    counter!("weir_capture_recording_lost_packets_total").increment(lost);
    info!(%capture, packets, lost, ended, "recorded");
    Ok(())
}

impl Host {
    /// The interfaces that are captured on, and on which the filter accepts something.
    fn places(&self, filter: &PacketFilter) -> Result<Vec<Place>, Refused> {
        let selection = interfaces::select(&self.interfaces, &self.network.borrow());
        let places: Vec<_> = (selection.present.iter())
            .filter_map(|interface| {
                Some(Place {
                    index: interface.index,
                    name: interface.name.clone(),
                    link: interface.link?,
                    filter: frame::on_interface(filter, &interface.name)?,
                    container: self.who.behind(&interface.name),
                })
            })
            .collect();
        match places.len() {
            0 => {
                let names: Vec<_> = selection.present.iter().map(|interface| interface.name.as_str()).collect();
                Err(Refused::Nowhere(names.join(", ")))
            }
            many if many > MAX_INTERFACES => Err(Refused::Interfaces(many)),
            _ => Ok(places),
        }
    }
}

/// Keeps the containers of this host in mind until `stop`; `looked` is told when those that exist are known.
async fn learn_containers(host: Host, stop: Shutdown, looked: oneshot::Sender<()>) {
    let mut looked = Some(looked);
    let follow = async {
        let keys = format!("{}.>", names::key(&host.name));
        let mut changes = host.bus.bucket::<Container>(names::IDENTITIES).await?.watch(&keys).await?;
        loop {
            let Ok(change) = tokio::time::timeout(QUIET, changes.next()).await else {
                if let Some(looked) = looked.take() {
                    // The one who waited may have gone on.
                    let _gone = looked.send(());
                }
                continue;
            };
            let Some(change) = change else { return Ok(()) };
            match change {
                Ok(change) => host.who.container(change),
                // A value that is no container concerns that container alone.
                Err(weir_bus::Error::Decode { .. }) => {}
                Err(error) => return Err::<(), weir_bus::Error>(error),
            }
        }
    };
    let ended = tokio::select! {
        () = stop.cancelled() => return,
        ended = follow => ended,
    };
    if let Err(error) = ended {
        warn!(error = &error as &dyn std::error::Error, "packets are recorded without names of containers");
    }
}
