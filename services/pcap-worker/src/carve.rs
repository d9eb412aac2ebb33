//! Carving: the packets of some flows out of a stored capture, as pcapng, to whoever asks, while it is read.
//!
//! The API knows which flows a filter means; this process reads the capture, because it is confined and the API is not.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use bytes::Bytes;
use prost::Message as _;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tracing::{Instrument as _, info, info_span, warn};
use uuid::Uuid;
use weir_bus::{PIECE_BYTES, Question, names};
use weir_proto::CarvePackets;

use crate::capture_file::{CaptureFile, Limits, Progress, Stop};
use crate::job::Worker;
use crate::metrics;
use crate::source::BlockingSource;

mod matcher;
mod writer;

use matcher::Matcher;
use writer::Writer;

/// Questions that are answered at one time; who asks beyond that is told to try again.
const AT_ONCE: usize = 2;
/// Pieces between the reading and the bus; when they wait, the reading waits.
const QUEUE: usize = 2;
/// So often who waits is told that the reading goes on, where nothing is found for long.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// Bytes of a list of flows.
const MAX_LIST: u64 = 64 << 20;
/// Pause after a failure of the bus.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers questions until told to stop.
pub(crate) async fn answer(worker: Worker) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    while !worker.shutdown.is_cancelled() {
        if let Err(error) = take_questions(&worker, &places).await {
            warn!(error = format!("{error:#}"), "cannot take questions for packets");
        }
        tokio::select! {
            () = worker.shutdown.cancelled() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

async fn take_questions(worker: &Worker, places: &Arc<Semaphore>) -> Result<()> {
    let mut questions = worker.bus.questions(names::CARVE).await?;
    loop {
        let question = tokio::select! {
            biased;
            () = worker.shutdown.cancelled() => return Ok(()),
            question = questions.next() => question.context("the connection is closed")?,
        };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            metrics::carved("busy");
            question.busy().await?;
            continue;
        };
        let span = info_span!("carve packets", otel.kind = "server", capture_id = tracing::field::Empty);
        question.continue_trace(&span);
        let worker = worker.clone();
        let answered = async move {
            let _place = place;
            one(&worker, question).await;
        };
        tokio::spawn(answered.instrument(span));
    }
}

/// Answers one question, whatever comes of it.
async fn one(worker: &Worker, question: Question) {
    let carved = tokio::select! {
        carved = pieces(worker, &question) => carved,
        () = worker.shutdown.cancelled() => Err(anyhow!("the worker stops: ask again")),
    };
    let told = match carved {
        Ok(packets) => {
            info!(packets, "carved");
            metrics::carved("done");
            question.end().await
        }
        Err(error) => {
            let reason = format!("{error:#}");
            warn!(reason, "carving ended");
            metrics::carved("failed");
            question.fail(reason).await
        }
    };
    if let Err(error) = told {
        warn!(error = format!("{:#}", anyhow::Error::from(error)), "cannot tell that carving ended");
    }
}

/// Sends the packets; how many there were.
async fn pieces(worker: &Worker, question: &Question) -> Result<u64> {
    let wanted = CarvePackets::decode(question.payload.clone()).context("not a question for packets")?;
    let capture_id = Uuid::from_slice(&wanted.capture_id).context("not a question for packets")?;
    tracing::Span::current().record("capture_id", tracing::field::display(capture_id));
    let wanted = if wanted.list.is_empty() { wanted } else { listed(worker, wanted).await? };
    let object = worker.uploads.chunks(&capture_id.to_string()).await.context("cannot open the capture")?;
    let source = BlockingSource::new(object, worker.config.read_timeout());
    let (sender, mut receiver) = mpsc::channel(QUEUE);
    let limits = worker.config.limits();
    let reading = tokio::task::spawn_blocking(move || carve(source, limits, &wanted, Pieces::new(sender)));
    loop {
        // A piece, the end, or too long nothing: then an empty piece says that somebody is still there.
        let piece = match timeout(SIGN_OF_LIFE, receiver.recv()).await {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(_) => Bytes::new(),
        };
        // Dropping the receiver ends the reading at its next piece.
        question.send(piece).await.context("nobody listens any more")?;
    }
    reading.await.context("carving failed unexpectedly")?
}

/// The flows of a question that was too long to be asked in one message.
async fn listed(worker: &Worker, question: CarvePackets) -> Result<CarvePackets> {
    let object = worker.artifacts.get(&question.list).await.context("cannot open the list of flows")?;
    let mut list = Vec::new();
    object.take(MAX_LIST).read_to_end(&mut list).await.context("cannot read the list of flows")?;
    let CarvePackets { flows, .. } = CarvePackets::decode(&*list).context("not a list of flows")?;
    Ok(CarvePackets { flows, ..question })
}

/// Writes the wanted packets of a capture; how many there were. Where the file is damaged, the packets before that are all there are.
fn carve(source: impl Read + Send + 'static, limits: Limits, wanted: &CarvePackets, output: impl Write) -> Result<u64> {
    let mut matcher = Matcher::new(wanted);
    let mut file = CaptureFile::open(source, limits, &Progress::default())?;
    let mut writer = Writer::new(output, &wanted.comment)?;
    let mut packets = 0;
    loop {
        let found = match file.next_packet() {
            Ok(Some(packet)) => matcher.packet(&packet),
            Ok(None) | Err(Stop::Damage(_)) => break,
            Err(stop) => return Err(stop.into()),
        };
        // They stood before the packet, and may be needed to read it.
        for aside in file.take_asides() {
            writer.aside(&aside)?;
        }
        for found in found {
            writer.packet(&found)?;
            packets += 1;
        }
    }
    for aside in file.take_asides() {
        writer.aside(&aside)?;
    }
    writer.finish()?;
    Ok(packets)
}

/// Collects what is written into pieces for the bus.
struct Pieces {
    sender: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
}

impl Pieces {
    fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self { sender, piece: Vec::with_capacity(PIECE_BYTES) }
    }
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES));
        self.sender.blocking_send(piece.into()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

#[cfg(test)]
mod tests;
