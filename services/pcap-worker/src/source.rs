//! An object of the store, read by the thread that analyses it.

use std::io::{self, Read};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use weir_bus::ObjectChunks;

/// Chunks between the store and the thread; when they wait, the reading waits.
const QUEUE: usize = 8;

/// Reads on a blocking thread what a task takes from the store meanwhile: what receiving and checking costs is not the thread's time.
pub(crate) struct BlockingSource {
    /// None = the end.
    chunks: mpsc::Receiver<io::Result<Option<Bytes>>>,
    /// Of the chunk that is read.
    rest: Bytes,
    ended: bool,
    _task: AbortOnDropHandle<()>,
}

impl BlockingSource {
    /// Must be called on the runtime. A chunk that takes longer than `timeout` fails: a store that is away must not hold a job for ever.
    #[must_use]
    pub(crate) fn new(object: ObjectChunks, timeout: Duration) -> Self {
        let (sender, chunks) = mpsc::channel(QUEUE);
        let task = AbortOnDropHandle::new(tokio::spawn(pass_on(object, timeout, sender)));
        Self { chunks, rest: Bytes::new(), ended: false, _task: task }
    }
}

/// Passes on the chunks up to the end, or an error.
async fn pass_on(mut object: ObjectChunks, timeout: Duration, chunks: mpsc::Sender<io::Result<Option<Bytes>>>) {
    loop {
        let chunk = match tokio::time::timeout(timeout, object.next()).await {
            Ok(chunk) => chunk.map_err(io::Error::other),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the object store does not answer")),
        };
        let last = !matches!(chunk, Ok(Some(_)));
        // Nobody reads any more.
        if chunks.send(chunk).await.is_err() || last {
            return;
        }
    }
}

impl Read for BlockingSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Ok(Some(chunk))) => self.rest = chunk,
                Some(Ok(None)) => self.ended = true,
                Some(Err(error)) => return Err(error),
                None => return Err(io::Error::new(io::ErrorKind::BrokenPipe, "reading the object ended unexpectedly")),
            }
        }
        let length = self.rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest[..length]);
        self.rest.advance(length);
        Ok(length)
    }
}
