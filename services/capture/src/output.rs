//! Records for whoever runs `weir-capture` alone: on a terminal, as lines, as JSON, as Parquet.
//!
//! A thread of its own writes, because a terminal or a pipe may stand still. What it cannot take in time is counted as unpublished.

mod columns;
mod lines;
mod live;
mod ndjson;
mod parquet;

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use weir_proto::Flow;
use weir_service::Shutdown;

use crate::config::Output;

pub(crate) use columns::{Cell, object};

/// Batches that may wait for the writer.
const QUEUE: usize = 64;
/// How often what was written becomes visible, and a table is drawn again.
const TICK: Duration = Duration::from_millis(500);

/// Something that records can be written to.
trait Writer: Send {
    fn write(&mut self, flows: &[Flow]) -> io::Result<()>;
    /// Now and then, and before the end.
    fn tick(&mut self) -> io::Result<()>;
    /// After the last record.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// The thread that writes.
pub(crate) struct Printer {
    queue: SyncSender<Vec<Flow>>,
    thread: JoinHandle<io::Result<()>>,
}

impl Printer {
    /// Opens the file, or standard output, and starts. When nobody reads any more it cancels `shutdown`.
    pub(crate) fn start(output: Output, file: Option<&Path>, host: &str, shutdown: Shutdown) -> anyhow::Result<Self> {
        let writer = open(output, file, host)?;
        let (queue, inbox) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("weir-output".into()).spawn(move || {
            let result = run(writer, &inbox);
            shutdown.cancel();
            match result {
                // `weir-capture | head` is a way to end it.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                other => other,
            }
        })?;
        Ok(Self { queue, thread })
    }

    /// Where to put records: false if there is no room, or nobody who writes.
    pub(crate) fn queue(&self) -> impl Fn(Vec<Flow>) -> bool + Send + use<> {
        let queue = self.queue.clone();
        move |flows| match queue.try_send(flows) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }

    /// Writes what waits, and closes. All queues must be gone.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        drop(self.queue);
        let result = self.thread.join().map_err(|_| anyhow::anyhow!("the writer has panicked"))?;
        result.context("cannot write records")
    }
}

fn run(mut writer: Box<dyn Writer>, inbox: &Receiver<Vec<Flow>>) -> io::Result<()> {
    loop {
        match inbox.recv_timeout(TICK) {
            Ok(flows) => writer.write(&flows)?,
            Err(RecvTimeoutError::Timeout) => writer.tick()?,
            Err(RecvTimeoutError::Disconnected) => {
                writer.tick()?;
                return writer.finish();
            }
        }
    }
}

fn open(output: Output, file: Option<&Path>, host: &str) -> anyhow::Result<Box<dyn Writer>> {
    let created = |path: &Path| File::create(path).with_context(|| format!("cannot create --file {}", path.display()));
    let target = || -> anyhow::Result<Box<dyn Write + Send>> {
        Ok(match file {
            Some(path) => Box::new(BufWriter::new(created(path)?)),
            None => Box::new(BufWriter::new(io::stdout())),
        })
    };
    Ok(match output {
        Output::Ndjson => Box::new(ndjson::Ndjson::new(target()?, host)),
        Output::Live => Box::new(live::Live::new(target()?)),
        Output::Parquet => {
            let path = file.context("--output parquet needs --file <FILE>")?;
            Box::new(parquet::Parquet::new(created(path)?, host)?)
        }
        Output::Lines | Output::Nats => Box::new(lines::Lines::new(target()?)),
    })
}
