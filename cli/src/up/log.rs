//! Logs that cannot fill a disk, and the supervisor's own voice.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::instance::Instance;

/// The size at which a log becomes `PART.log.1`, in place of the one before.
const MAX_BYTES: u64 = 10 << 20;

/// A log file of at most [`MAX_BYTES`], and its predecessor.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    path: PathBuf,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    size: u64,
    max: u64,
}

impl Log {
    /// Opens the log of a part, after what stands in it.
    pub(crate) fn open(instance: &Instance, part: &str) -> Result<Self> {
        Self::at(&instance.logs().join(format!("{part}.log")), MAX_BYTES)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Copies what a child writes until it closes its end. A full disk stops the log, never the child.
    pub(crate) async fn copy(self, mut from: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            self.write(&buffer[..read]);
        }
    }

    pub(crate) fn write(&self, bytes: &[u8]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.size + bytes.len() as u64 > inner.max
            && fs::rename(&self.path, self.path.with_extension("log.1")).is_ok()
            && let Ok(file) = append(&self.path)
        {
            inner.file = file;
            inner.size = 0;
        }
        // Nobody is left to tell but the log itself.
        if inner.file.write_all(bytes).is_ok() {
            inner.size += bytes.len() as u64;
        }
    }

    /// The last line that says something, for a reason in one line.
    pub(crate) fn last_line(&self) -> Option<String> {
        let text = fs::read(&self.path).ok()?;
        let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
        tail.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(|line| line.chars().take(300).collect())
    }

    fn at(path: &Path, max: u64) -> Result<Self> {
        let file = append(path).with_context(|| format!("cannot open {}", path.display()))?;
        let size = file.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
        Ok(Self { path: path.to_owned(), inner: Arc::new(Mutex::new(Inner { file, size, max })) })
    }
}

fn append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Where the supervisor speaks: the terminal, or its log when it was detached.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    log: Option<Log>,
}

impl Reporter {
    pub(crate) fn new(instance: &Instance, detached: bool) -> Result<Self> {
        Ok(Self { log: detached.then(|| Log::open(instance, "weir")).transpose()? })
    }

    /// Progress.
    pub(crate) fn say(&self, line: &str) {
        match &self.log {
            Some(log) => log.write(format!("{line}\n").as_bytes()),
            // A terminal that has gone must not end the system.
            None => drop(writeln!(std::io::stdout().lock(), "{line}")),
        }
    }

    /// What a person should look at.
    pub(crate) fn warn(&self, line: &str) {
        match &self.log {
            Some(log) => log.write(format!("{} {line}\n", jiff::Timestamp::now()).as_bytes()),
            None => drop(writeln!(std::io::stderr().lock(), "{line}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_and_its_predecessor_are_bounded() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("part.log");
        let log = Log::at(&path, 100).expect("open");
        for number in 0..100 {
            log.write(format!("line {number:04}\n").as_bytes());
        }
        let sizes =
            [path.clone(), dir.path().join("part.log.1")].map(|path| fs::metadata(path).expect("metadata").len());
        assert_eq!(sizes, [100, 100]);
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 2);
        assert_eq!(log.last_line().as_deref(), Some("line 0099"));
    }
}
