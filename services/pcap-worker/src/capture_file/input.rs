//! Reading from a source with its position known, and telling apart the ways in which reading fails.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};
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

/// A buffered source that knows its position.
pub(super) struct Input {
    reader: BufReader<Box<dyn Read + Send>>,
    offset: u64,
}

impl Input {
    pub(super) const fn new(reader: BufReader<Box<dyn Read + Send>>) -> Self {
        Self { reader, offset: 0 }
    }

    /// Bytes taken so far.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    /// Fills the buffer.
    pub(super) fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ReadError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) if filled == 0 => return Err(ReadError::End),
                Ok(0) => return Err(ReadError::Cut),
                Ok(count) => {
                    filled += count;
                    self.offset += count as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// `N` bytes.
    pub(super) fn read_array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Makes the buffer hold the next `length` bytes, which the caller has checked against a limit.
    pub(super) fn read_into(&mut self, buffer: &mut Vec<u8>, length: usize) -> Result<(), ReadError> {
        buffer.resize(length, 0);
        self.read_exact(buffer).map_err(cut)
    }

    /// Passes over `length` bytes.
    pub(super) fn skip(&mut self, mut length: u64) -> Result<(), ReadError> {
        while length > 0 {
            let available = match self.reader.fill_buf() {
                Ok([]) => return Err(ReadError::Cut),
                Ok(buffer) => buffer.len(),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let count = available.min(usize::try_from(length).unwrap_or(usize::MAX));
            self.reader.consume(count);
            self.offset += count as u64;
            length -= count as u64;
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
