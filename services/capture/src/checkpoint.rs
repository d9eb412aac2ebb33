//! How far a life got, for the next one: when a capture is killed, the kernel forgets its table, and nobody counts until the next one attaches.
//!
//! After each drain a small file says how many packets the interfaces had counted, and how many were in the table and not yet reported. A
//! life that ends in order removes it. One that finds it takes the difference: that many packets were never reported.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

/// Changes with each boot of the host: counters before and after cannot be compared.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Counters of the interfaces of this thread's network namespace.
const COUNTERS: &str = "/proc/thread-self/net/dev";

/// The file, and what the last life left in it.
pub(crate) struct Checkpoint {
    path: PathBuf,
    earlier: Option<Mark>,
    boot_id: String,
    failing: bool,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    boot_id: String,
    /// Packets in the flow table that were not reported yet.
    pending: u64,
    interfaces: BTreeMap<String, Counted>,
}

/// What an interface had counted, both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    index: u32,
    packets: u64,
}

impl Checkpoint {
    /// Reads what a killed life has left.
    pub(crate) fn open(path: PathBuf) -> Self {
        let earlier = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .inspect_err(|error| warn!(%error, path = %path.display(), "the last checkpoint cannot be read"))
                .ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                warn!(%error, path = %path.display(), "the last checkpoint cannot be read");
                None
            }
        };
        // Without it no two checkpoints are of the same boot.
        let boot_id = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        Self { path, earlier, boot_id, failing: false }
    }

    /// The life before has lost nothing.
    pub(crate) fn forget(&mut self) {
        self.earlier = None;
    }

    /// Packets that passed these interfaces, or waited in the table, since the checkpoint of a life that was killed. Each counts once.
    pub(crate) fn look_back(&mut self, attached: &[(String, u32)]) -> u64 {
        let Some(earlier) = &mut self.earlier else { return 0 };
        if earlier.boot_id != self.boot_id {
            warn!(
                "the last capture did not end in order, and the host was started anew since: what it had not reported is lost"
            );
            self.earlier = None;
            return 0;
        }
        let unseen = earlier.take_unseen(&self::counted(attached));
        if unseen > 0 {
            warn!(packets = unseen, "the last capture did not end in order: these packets were not reported");
        }
        unseen
    }

    /// Writes how far this life got.
    pub(crate) fn keep(&mut self, attached: &[(String, u32)], pending: u64) {
        let mark = Mark { boot_id: self.boot_id.clone(), pending, interfaces: counted(attached) };
        match write(&self.path, &mark) {
            Ok(()) => self.failing = false,
            Err(error) if self.failing => debug!(%error, "cannot write the checkpoint"),
            Err(error) => {
                self.failing = true;
                warn!(%error, path = %self.path.display(), "cannot write the checkpoint: after a kill nobody will know what was missed");
            }
        }
    }

    /// This life has reported everything.
    pub(crate) fn remove(self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, path = %self.path.display(), "cannot remove the checkpoint");
        }
    }
}

impl Mark {
    /// What passed since, and what waited; both are taken out, so that they count once.
    fn take_unseen(&mut self, now: &BTreeMap<String, Counted>) -> u64 {
        let mut unseen = std::mem::take(&mut self.pending);
        for (name, counted) in now {
            if let Some(before) = self.interfaces.remove(name)
                && before.index == counted.index
            {
                unseen += counted.packets.saturating_sub(before.packets);
            }
        }
        unseen
    }
}

fn counted(attached: &[(String, u32)]) -> BTreeMap<String, Counted> {
    let text = fs::read_to_string(COUNTERS).unwrap_or_default();
    let packets = packets(&text);
    let found = attached.iter().filter_map(|(name, index)| {
        let packets = *packets.get(name.as_str())?;
        Some((name.clone(), Counted { index: *index, packets }))
    });
    found.collect()
}

/// Packets in both directions by interface, from the text of `/proc/net/dev`.
fn packets(text: &str) -> BTreeMap<&str, u64> {
    let line = |line: &'_ str| -> Option<u64> {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let received = numbers.nth(1)?.ok()?;
        let sent = numbers.nth(7)?.ok()?;
        Some(received + sent)
    };
    text.lines()
        .filter_map(|text| text.split_once(':'))
        .filter_map(|(name, rest)| Some((name.trim(), line(rest)?)))
        .collect()
}

fn write(path: &Path, mark: &Mark) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let part = path.with_extension("part");
    fs::write(&part, serde_json::to_vec(mark)?)?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: &str = "Inter-|   Receive                                                |  Transmit\n \
        face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
        lo: 1000      10    0    0    0     0          0         0     1000      10    0    0    0     0       0          0\n  \
        eth0:5000      40    0    1    0     0          0         3     900      7    0    0    0     0       0          0\n";

    fn mark(boot_id: &str, pending: u64, packets: u64) -> Mark {
        let interfaces = BTreeMap::from([("eth0".to_owned(), Counted { index: 2, packets })]);
        Mark { boot_id: boot_id.to_owned(), pending, interfaces }
    }

    #[test]
    fn both_directions_of_an_interface_are_counted() {
        assert_eq!(packets(DEV), BTreeMap::from([("lo", 20), ("eth0", 47)]));
        assert_eq!(packets("garbage: x y\nmore"), BTreeMap::new());
    }

    #[test]
    fn what_passed_meanwhile_counts_once() {
        let mut earlier = mark("boot", 5, 100);
        let now = mark("boot", 0, 130).interfaces;
        assert_eq!(earlier.take_unseen(&now), 35);
        assert_eq!(earlier.take_unseen(&now), 0);
    }

    #[test]
    fn another_interface_of_the_same_name_says_nothing() {
        let mut earlier = mark("boot", 0, 100);
        let now = BTreeMap::from([("eth0".to_owned(), Counted { index: 3, packets: 500 })]);
        assert_eq!(earlier.take_unseen(&now), 0);
    }

    #[test]
    fn a_life_that_ended_in_order_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/capture.checkpoint");
        let mut checkpoint = Checkpoint::open(path.clone());
        checkpoint.keep(&[], 7);
        let mut killed = Checkpoint::open(path.clone());
        assert_eq!(killed.look_back(&[]), 7);
        assert_eq!(killed.look_back(&[]), 0);
        checkpoint.remove();
        assert_eq!(Checkpoint::open(path).look_back(&[]), 0);
    }

    #[test]
    fn a_damaged_checkpoint_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("capture.checkpoint");
        fs::write(&path, b"{\"boot_id\":").unwrap();
        assert_eq!(Checkpoint::open(path).look_back(&[]), 0);
    }
}
