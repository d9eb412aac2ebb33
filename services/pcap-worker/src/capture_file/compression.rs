//! gzip, zstd, lz4 and xz around a capture, and the limits on what comes out of them.

use std::io::{self, Cursor, Read};

use liblzma::read::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use super::error::{Bomb, OpenError};
use super::input::{Counted, Progress, ReadError};

/// Limits on what a file may decompress to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Decompressed bytes.
    pub bytes: u64,
    /// Decompressed bytes for each compressed one.
    pub ratio: u64,
    /// Decompressed bytes up to which the ratio is not looked at: a small file of zeros is no harm.
    pub ratio_from: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 30, ratio: 500, ratio_from: 256 << 20 }
    }
}

/// What a file is packed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    None,
    /// RFC 1952, one or several members.
    Gzip,
    /// RFC 8878, one or several frames.
    Zstd,
    /// The frame format of LZ4, one or several frames.
    Lz4,
    /// The xz format, one or several streams.
    Xz,
}

impl Compression {
    /// The name that people use; empty for none.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Xz => "xz",
        }
    }

    /// By the first bytes of a file.
    pub(super) fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or one to be skipped before it.
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Lz4,
            [0xfd, b'7', b'z', b'X', ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Takes the compression off a file.
pub(super) fn decompressed(
    source: impl Read + Send + 'static,
    limits: Limits,
    progress: &Progress,
) -> Result<(Box<dyn Read + Send>, Compression), OpenError> {
    /// Memory that one frame may ask for, as a power of two: what `zstd -d` accepts without being asked.
    const MAX_WINDOW_LOG: u32 = 27;
    /// Memory that an xz stream may ask for: `xz -9` asks for 65 MiB.
    const MAX_XZ_MEMORY: u64 = 128 << 20;
    let mut source = Counted::new(source, progress.clone());
    let start = first_bytes(&mut source).map_err(|error| OpenError::from_read(ReadError::from(error)))?;
    let compression = Compression::of(&start);
    let whole = Filling { source: Cursor::new(start).chain(source), error: None };
    let guarded = |inner: Box<dyn Read + Send>| -> Box<dyn Read + Send> {
        Box::new(Guard { inner, limits, produced: 0, progress: progress.clone() })
    };
    let reader = match compression {
        Compression::None => Box::new(whole),
        Compression::Gzip => guarded(Box::new(flate2::read::MultiGzDecoder::new(whole))),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(whole).map_err(OpenError::Decompress)?;
            decoder.window_log_max(MAX_WINDOW_LOG).map_err(OpenError::Decompress)?;
            guarded(Box::new(decoder))
        }
        Compression::Lz4 => guarded(Box::new(Frames(lz4_flex::frame::FrameDecoder::new(whole)))),
        Compression::Xz => {
            let stream = Stream::new_stream_decoder(MAX_XZ_MEMORY, CONCATENATED);
            let stream = stream.map_err(|error| OpenError::Decompress(error.into()))?;
            guarded(Box::new(XzDecoder::new_stream(whole, stream)))
        }
    };
    Ok((reader, compression))
}

/// Fills what it is given up to the end of the source. How much of a damaged file a decompressor gives before it says so depends on the
/// pieces in which it gets the file, and an analysis that is done again has to see the same packets.
struct Filling<R: Read> {
    source: R,
    /// Of the source, after bytes that go first.
    error: Option<io::Error>,
}

impl<R: Read> Read for Filling<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let mut filled = 0;
        while filled < buffer.len() {
            match self.source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if filled == 0 => return Err(error),
                Err(error) => {
                    self.error = Some(error);
                    break;
                }
            }
        }
        Ok(filled)
    }
}

/// All frames of an LZ4 file: the decoder ends at each, and goes on with the next where it is asked again.
struct Frames<R: Read>(lz4_flex::frame::FrameDecoder<R>);

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => self.0.read(buffer),
            count => Ok(count),
        }
    }
}

/// Up to four bytes.
fn first_bytes(source: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(4);
    source.take(4).read_to_end(&mut start)?;
    Ok(start)
}

/// Stops a reader that gives more than it may.
struct Guard {
    inner: Box<dyn Read + Send>,
    limits: Limits,
    produced: u64,
    progress: Progress,
}

impl Read for Guard {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.produced += count as u64;
        if self.produced > self.limits.bytes {
            return Err(io::Error::other(Bomb::Size(self.limits.bytes)));
        }
        let allowed = self.progress.bytes_read().saturating_mul(self.limits.ratio);
        if self.produced > self.limits.ratio_from && self.produced > allowed {
            return Err(io::Error::other(Bomb::Ratio(self.limits.ratio)));
        }
        Ok(count)
    }
}
