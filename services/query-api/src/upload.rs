//! The bytes of an upload on their way into the object store: counted, and stopped where they must be.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use futures::Stream;
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Instant, Sleep},
};

/// How many bytes tell what a file is.
const MAGIC_BYTES: usize = 4;

/// Why an upload was stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// It has more bytes than it may.
    TooLarge,
    /// It is none of the formats; its first bytes.
    NotACapture(Vec<u8>),
    /// The sender went away, or what it sends is no multipart body.
    Broken(String),
    /// Nothing came for too long.
    Idle,
}

/// What is known of an upload so far; shared, because the reader is lent away while it is read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    bytes: u64,
    stopped: Option<Stopped>,
}

impl Progress {
    /// The bytes that came.
    pub(crate) fn bytes(&self) -> u64 {
        self.with(|state| state.bytes)
    }

    /// Why it was stopped, if it was.
    pub(crate) fn stopped(&self) -> Option<Stopped> {
        self.with(|state| state.stopped.clone())
    }

    fn with<T>(&self, read: impl FnOnce(&mut State) -> T) -> T {
        read(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads a body. It fails, for a reason that [`Progress::stopped`] tells, where the upload must not go on.
pub(crate) struct Incoming<S> {
    body: S,
    /// What came and was not read yet.
    rest: Bytes,
    /// The first bytes, until they are enough to tell what the file is.
    head: Vec<u8>,
    known: bool,
    ended: bool,
    limit: u64,
    idle: Duration,
    until: Pin<Box<Sleep>>,
    progress: Progress,
}

impl<S, E> Incoming<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    pub(crate) fn new(body: S, limit: u64, idle: Duration) -> (Self, Progress) {
        let progress = Progress::default();
        let incoming = Self {
            body,
            rest: Bytes::new(),
            head: Vec::new(),
            known: false,
            ended: false,
            limit,
            idle,
            until: Box::pin(tokio::time::sleep(idle)),
            progress: progress.clone(),
        };
        (incoming, progress)
    }

    fn stop(&self, why: Stopped) -> io::Error {
        self.progress.with(|state| state.stopped = Some(why));
        io::Error::other("the upload was stopped")
    }

    /// The next piece of the body; `None` at its end.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        match Pin::new(&mut self.body).poll_next(context) {
            Poll::Ready(Some(Ok(bytes))) => {
                self.until.as_mut().reset(Instant::now() + self.idle);
                Poll::Ready(self.take(&bytes).map(|()| Some(bytes)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(self.stop(Stopped::Broken(error.to_string())))),
            Poll::Ready(None) => Poll::Ready(self.check_head(true).map(|()| None)),
            Poll::Pending => {
                ready!(self.until.as_mut().poll(context));
                Poll::Ready(Err(self.stop(Stopped::Idle)))
            }
        }
    }

    fn take(&mut self, bytes: &Bytes) -> io::Result<()> {
        let total = self.progress.with(|state| {
            state.bytes += bytes.len() as u64;
            state.bytes
        });
        if total > self.limit {
            return Err(self.stop(Stopped::TooLarge));
        }
        if !self.known {
            let missing = MAGIC_BYTES - self.head.len();
            self.head.extend(bytes.iter().take(missing));
        }
        self.check_head(false)
    }

    fn check_head(&mut self, complete: bool) -> io::Result<()> {
        if self.known || (self.head.len() < MAGIC_BYTES && !complete) {
            return Ok(());
        }
        self.known = true;
        // An upload without a byte is told from its size.
        if self.head.is_empty() || is_capture(&self.head) {
            Ok(())
        } else {
            Err(self.stop(Stopped::NotACapture(self.head.clone())))
        }
    }
}

impl<S, E> AsyncRead for Incoming<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
    E: std::fmt::Display,
{
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.rest.is_empty() && !this.ended {
            match ready!(this.poll_body(context))? {
                Some(bytes) => this.rest = bytes,
                None => this.ended = true,
            }
        }
        let length = this.rest.len().min(buffer.remaining());
        buffer.put_slice(&this.rest[..length]);
        this.rest.advance(length);
        if this.rest.is_empty() {
            // What is read next can have its memory.
            this.rest = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether a file that begins so can be a capture: pcap in both byte orders with micro- and nanoseconds, or as Kuznetzov modified it,
/// pcapng, or gzip, zstd, lz4 or xz around one. A file that is damaged further on is pcap-worker's to judge.
fn is_capture(head: &[u8]) -> bool {
    const MAGICS: [[u8; 4]; 10] = [
        [0xd4, 0xc3, 0xb2, 0xa1],
        [0xa1, 0xb2, 0xc3, 0xd4],
        [0x4d, 0x3c, 0xb2, 0xa1],
        [0xa1, 0xb2, 0x3c, 0x4d],
        [0x34, 0xcd, 0xb2, 0xa1],
        [0xa1, 0xb2, 0xcd, 0x34],
        [0x0a, 0x0d, 0x0d, 0x0a],
        [0x28, 0xb5, 0x2f, 0xfd],
        [0x04, 0x22, 0x4d, 0x18],
        [0xfd, 0x37, 0x7a, 0x58],
    ];
    MAGICS.iter().any(|magic| head == magic) || head.starts_with(&[0x1f, 0x8b])
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    const PCAP: [u8; 4] = [0xd4, 0xc3, 0xb2, 0xa1];

    async fn read(pieces: &[&[u8]], limit: u64) -> (io::Result<Vec<u8>>, Progress) {
        let body = stream::iter(pieces.iter().map(|piece| Ok::<_, String>(Bytes::copy_from_slice(piece))));
        let (mut incoming, progress) = Incoming::new(body, limit, Duration::from_mins(1));
        let mut read = Vec::new();
        let result = incoming.read_to_end(&mut read).await.map(|_| read);
        (result, progress)
    }

    #[tokio::test]
    async fn what_is_read_is_counted() {
        let (read, progress) = read(&[&PCAP[..1], &PCAP[1..], b"", b"rest"], 8).await;
        assert_eq!(read.unwrap(), [&PCAP[..], b"rest"].concat());
        assert_eq!(progress.bytes(), 8);
    }

    #[tokio::test]
    async fn a_reason_to_stop_is_kept() {
        let (result, progress) = read(&[&PCAP, b"rest!"], 8).await;
        assert!(result.is_err());
        assert_eq!(progress.stopped(), Some(Stopped::TooLarge));

        for head in [&b"GET /"[..], b"\xd4", b"PK\x03\x04"] {
            let (result, progress) = read(&[head], 8).await;
            assert!(result.is_err());
            assert_eq!(progress.stopped(), Some(Stopped::NotACapture(head[..head.len().min(4)].to_vec())));
        }

        let (result, progress) = read(&[], 8).await;
        assert!(result.unwrap().is_empty());
        assert_eq!((progress.bytes(), progress.stopped()), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_stands_still_is_given_up() {
        let body = stream::pending::<Result<Bytes, String>>();
        let (mut incoming, progress) = Incoming::new(body, 8, Duration::from_mins(1));
        assert!(incoming.read_u8().await.is_err());
        assert_eq!(progress.stopped(), Some(Stopped::Idle));
    }
}
