//! An object of the store, read by the thread that analyses it.

use std::io::{self, Read};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::runtime::Handle;

/// Reads on a blocking thread what comes in on the runtime.
pub(crate) struct BlockingSource<R> {
    reader: R,
    runtime: Handle,
    timeout: Duration,
}

impl<R> BlockingSource<R> {
    /// Must be called on the runtime. A read that takes longer than `timeout` fails: a store that is away must not hold a job for ever.
    #[must_use]
    pub(crate) fn new(reader: R, timeout: Duration) -> Self {
        Self { reader, runtime: Handle::current(), timeout }
    }
}

impl<R: AsyncRead + Unpin> Read for BlockingSource<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { reader, runtime, timeout } = self;
        runtime.block_on(async {
            match tokio::time::timeout(*timeout, reader.read(buffer)).await {
                Ok(result) => result,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the object store does not answer")),
            }
        })
    }
}
