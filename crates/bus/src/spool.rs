//! Batches that wait for the bus: one file each, in a bounded directory.
//!
//! A batch is written here before it is published and removed when the stream has it, so a producer that is killed publishes the rest at
//! its next start. The files are not synced: a power cut can take the last seconds, as it can from NATS itself.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;

/// Which batch: its name on the bus, and so the name of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) message_id: String,
    pub(crate) bytes: u64,
}

/// The directory, and what waits in it, oldest first.
#[derive(Debug)]
pub(crate) struct Spool {
    directory: PathBuf,
    max_bytes: u64,
    waiting: VecDeque<Waiting>,
    bytes: u64,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the spool is full: {bytes} of {max_bytes} bytes")]
    Full { bytes: u64, max_bytes: u64 },
    #[error("cannot write to the spool")]
    Write(#[from] io::Error),
}

impl Spool {
    /// Opens the directory and finds what an earlier life left in it.
    pub(crate) fn open(directory: &Path, max_bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let metadata = entry.metadata()?;
            if let Some(id) = name.strip_suffix(".batch") {
                found.push((
                    metadata.modified()?,
                    sequence(id),
                    Waiting { message_id: id.to_owned(), bytes: metadata.len() },
                ));
            } else if name.strip_suffix(".part").is_some() {
                // What was being written when the process died was promised to nobody.
                fs::remove_file(entry.path())?;
            }
        }
        found.sort_by_key(|(modified, sequence, _)| (*modified, *sequence));
        let waiting: VecDeque<_> = found.into_iter().map(|(_, _, waiting)| waiting).collect();
        let bytes = waiting.iter().map(|waiting| waiting.bytes).sum();
        Ok(Self { directory: directory.to_owned(), max_bytes, waiting, bytes })
    }

    /// Takes a batch, unless there is no room.
    pub(crate) fn push(&mut self, message_id: String, payload: &[u8]) -> Result<(), Refused> {
        let bytes = payload.len() as u64;
        if self.bytes + bytes > self.max_bytes {
            return Err(Refused::Full { bytes: self.bytes, max_bytes: self.max_bytes });
        }
        let part = self.directory.join(format!("{message_id}.part"));
        let written = fs::write(&part, payload).and_then(|()| fs::rename(&part, self.path(&message_id)));
        if let Err(error) = written {
            // A file that could not be written may not be there at all.
            let _removed = fs::remove_file(&part);
            return Err(error.into());
        }
        self.bytes += bytes;
        self.waiting.push_back(Waiting { message_id, bytes });
        Ok(())
    }

    /// The oldest `count` that wait.
    pub(crate) fn oldest(&self, count: usize) -> Vec<Waiting> {
        self.waiting.iter().take(count).cloned().collect()
    }

    /// The payload of one that waits.
    pub(crate) fn read(&self, message_id: &str) -> io::Result<Bytes> {
        fs::read(self.path(message_id)).map(Bytes::from)
    }

    /// Forgets one that the stream has.
    pub(crate) fn remove(&mut self, message_id: &str) -> io::Result<()> {
        if let Some(index) = self.waiting.iter().position(|waiting| waiting.message_id == message_id)
            && let Some(removed) = self.waiting.remove(index)
        {
            self.bytes -= removed.bytes;
        }
        fs::remove_file(self.path(message_id))
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn path(&self, message_id: &str) -> PathBuf {
        self.directory.join(format!("{message_id}.batch"))
    }
}

/// The sequence at the end of a batch's name orders files of the same time.
fn sequence(message_id: &str) -> u64 {
    message_id.rsplit_once('-').and_then(|(_, sequence)| sequence.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waited_is_found_again_in_order_by_the_next_life() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(directory.path(), 1000).unwrap();
        for sequence in 1..=12 {
            spool.push(format!("p-{sequence}"), &[sequence as u8; 10]).unwrap();
        }
        spool.remove("p-1").unwrap();
        fs::write(directory.path().join("p-99.part"), b"torn").unwrap();

        let spool = Spool::open(directory.path(), 1000).unwrap();
        let ids: Vec<_> = spool.oldest(100).into_iter().map(|waiting| waiting.message_id).collect();
        assert_eq!(ids, (2..=12).map(|sequence| format!("p-{sequence}")).collect::<Vec<_>>());
        assert_eq!(spool.bytes(), 110);
        assert_eq!(spool.read("p-7").unwrap(), vec![7; 10]);
    }

    #[test]
    fn a_full_spool_refuses_and_takes_again_when_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(directory.path(), 25).unwrap();
        spool.push("p-1".into(), &[0; 20]).unwrap();
        assert!(matches!(spool.push("p-2".into(), &[0; 20]), Err(Refused::Full { bytes: 20, max_bytes: 25 })));
        spool.remove("p-1").unwrap();
        spool.push("p-2".into(), &[0; 20]).unwrap();
        assert_eq!(spool.len(), 1);
    }
}
