//! Reading from a source with its position known, and telling apart the ways in which reading fails.

use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::Bomb;

/// How far the reading is: bytes of the file as it is stored.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Bytes read so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The source failed, in distinction from what is made of its bytes.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct SourceFailed(io::Error);

/// Counts the bytes of a source and marks its errors.
pub(super) struct Counted<R> {
    inner: R,
    progress: Progress,
}

impl<R: Read> Counted<R> {
    pub(super) const fn new(inner: R, progress: Progress) -> Self {
        Self { inner, progress }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.inner.read(buffer) {
            Ok(count) => {
                self.progress.0.fetch_add(count as u64, Ordering::Relaxed);
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => Err(io::Error::other(SourceFailed(error))),
        }
    }
}

/// The ways in which reading fails.
#[derive(Debug)]
pub(super) enum ReadError {
    /// There is nothing more.
    End,
    /// There is less than was asked for.
    Cut,
    Decompress(io::Error),
    Source(io::Error),
    Bomb(Bomb),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<SourceFailed>() {
            Ok(SourceFailed(source)) => Self::Source(source),
            Err(error) => match error.downcast::<Bomb>() {
                Ok(bomb) => Self::Bomb(bomb),
                Err(error) => Self::Decompress(error),
            },
        }
    }
}

/// A source with a buffer, in which packets are looked at where they are, and its position.
pub(super) struct Input {
    reader: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// What of the buffer was read and not taken yet.
    ahead: Range<usize>,
    offset: u64,
}

impl Input {
    /// Bytes that are read at once: what a core keeps close to it.
    const BUFFER: usize = 256 << 10;

    pub(super) fn new(reader: Box<dyn Read + Send>) -> Self {
        Self { reader, buffer: vec![0; Self::BUFFER], ahead: 0..0, offset: 0 }
    }

    /// Bytes taken so far.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes the next `length` bytes, which the caller has checked against a limit; where they are, until the next ones are taken.
    pub(super) fn take(&mut self, length: usize) -> Result<Range<usize>, ReadError> {
        if self.ahead.len() < length {
            self.fill(length)?;
        }
        let taken = self.ahead.start..self.ahead.start + length;
        self.ahead.start = taken.end;
        self.offset += length as u64;
        Ok(taken)
    }

    /// What was taken last.
    pub(super) fn bytes(&self, taken: Range<usize>) -> &[u8] {
        self.buffer.get(taken).unwrap_or_default()
    }

    /// `N` bytes.
    pub(super) fn read_array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let taken = self.take(N)?;
        Ok(self.bytes(taken).try_into().unwrap_or([0; N]))
    }

    /// Passes over `length` bytes.
    pub(super) fn skip(&mut self, mut length: u64) -> Result<(), ReadError> {
        while length > 0 {
            if self.ahead.is_empty() {
                self.fill(1).map_err(cut)?;
            }
            let count = self.ahead.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            self.take(count)?;
            length -= count as u64;
        }
        Ok(())
    }

    /// Reads until so many bytes lie ahead.
    fn fill(&mut self, length: usize) -> Result<(), ReadError> {
        self.buffer.copy_within(self.ahead.clone(), 0);
        self.ahead = 0..self.ahead.len();
        if self.buffer.len() < length {
            self.buffer.resize(length, 0);
        }
        while self.ahead.end < length {
            match self.reader.read(&mut self.buffer[self.ahead.end..]) {
                Ok(0) if self.ahead.is_empty() => return Err(ReadError::End),
                Ok(0) => return Err(ReadError::Cut),
                Ok(count) => self.ahead.end += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// The end of the file inside of a record.
pub(super) fn cut(error: ReadError) -> ReadError {
    match error {
        ReadError::End => ReadError::Cut,
        other => other,
    }
}
