//! Maps and links that outlive the process: names in a BPF file system (`--pin`).
//!
//! A life that ends in order removes them, and with them everything that is attached. A life that is killed leaves them: the programs go on
//! counting, and the next life takes over what they count and replaces the programs in place. Below the directory is one for each kind of table (version, sizes,
//! network namespace), so that nobody takes over what it cannot read.

use std::{
    fs,
    hash::{DefaultHasher, Hasher as _},
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::{
    maps::{Array, Map, MapData, MapError},
    programs::{
        SchedClassifier,
        links::{FdLink, PinnedLink},
        tc::SchedClassifierLink,
    },
};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use tracing::{info, warn};
use weir_capture_common::{
    ledger::{ALL_LEDGERS, Entry, Outcome},
    names,
};

use super::{Error, table::Sizes};
use crate::metrics::Sums;

/// Words about one slot: what was reported of its flow.
pub const WORDS: usize = 16;
const LIFE: &str = "LIFE";
const LIFE_WORDS: usize = 8;
const SHARES: &str = "SHARES";
/// How large the table is, and whether it is whole: in the middle of a change nobody could go on with it.
const SIZES: &str = "SIZES";
const SIZES_WORDS: usize = 4;
const SHARE_WORDS: usize = 2 * (Outcome::ALL.len() + 1);
/// What is kept; all else begins anew.
const KEPT: [&str; 16] = [
    names::INDEX,
    names::SLOTS,
    names::FACTS,
    names::FREE,
    names::RESERVE,
    names::RECENT,
    names::SPILLED,
    names::FRAGMENTS,
    names::LEDGER,
    names::WAITING,
    names::DROPS,
    names::EXECUTABLES,
    names::OWNERS,
    names::PICKS,
    names::PICK_COUNTS,
    names::CONTINUED,
];

/// What a life hands on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// Part of the ids of flows.
    pub seed: u64,
    /// What became records.
    pub reported: Sums,
}

/// The same for one place of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// What was told as records, by [`Outcome`].
    pub told: [Entry; Outcome::ALL.len()],
    /// What was found out to be duplicates.
    pub duplicates: Entry,
}

/// Where it is handed on.
pub(super) struct HandedOn {
    life: Array<MapData, [u64; LIFE_WORDS]>,
    shares: Array<MapData, [u64; SHARE_WORDS]>,
}

impl HandedOn {
    pub(super) fn keep(&mut self, life: &Life, shares: impl Iterator<Item = (u32, Share)>) -> Result<(), Error> {
        for (place, share) in shares {
            self.shares.set(place, share.words(), 0).map_err(|source| Error::Map { map: SHARES, source })?;
        }
        self.life.set(0, life.words(), 0).map_err(|source| Error::Map { map: LIFE, source })
    }

    /// Those that are not empty.
    pub(super) fn shares(&self) -> Result<Vec<(u32, Share)>, Error> {
        let mut shares = Vec::new();
        for place in 0..ALL_LEDGERS {
            let words = self.shares.get(&place, 0).map_err(|source| Error::Map { map: SHARES, source })?;
            if words.iter().any(|word| *word != 0) {
                shares.push((place, Share::from_words(&words)));
            }
        }
        Ok(shares)
    }
}

/// The directory.
pub(super) struct Pins {
    directory: PathBuf,
    earlier: Option<Life>,
}

impl Pins {
    /// Takes what a life of the same kind has left below `base`, and removes what others have.
    pub(super) fn open(base: &Path, kind: impl std::hash::Hash) -> Result<Self, Error> {
        let refused = |source| Error::Pin { path: base.to_owned(), source };
        fs::create_dir_all(base).map_err(refused)?;
        if statfs(base).map_err(|error| refused(error.into()))?.filesystem_type() != BPF_FS_MAGIC {
            return Err(refused(io::Error::other("it is in no BPF file system: mount -t bpf bpf /sys/fs/bpf")));
        }
        let mut hasher = DefaultHasher::new();
        kind.hash(&mut hasher);
        // No dots: the file system refuses them.
        let directory = base.join(format!("{:016x}", hasher.finish()));
        for entry in fs::read_dir(base).map_err(refused)? {
            let path = entry.map_err(refused)?.path();
            if path != directory && path.is_dir() {
                warn!(path = %path.display(), "removed what a capture of another kind had left: what it had not reported is lost");
                remove(&path).map_err(refused)?;
            }
        }
        let earlier = life(&directory).filter(|_| sizes(&directory).is_some());
        if earlier.is_none() && directory.exists() {
            remove(&directory).map_err(refused)?;
        }
        fs::create_dir_all(&directory).map_err(refused)?;
        if earlier.is_some() {
            info!(directory = %directory.display(), "going on with what a life that was killed had counted");
        }
        Ok(Self { directory, earlier })
    }

    /// What the life before has handed on.
    pub(super) fn earlier(&self) -> Option<Life> {
        self.earlier
    }

    /// Where each map that is kept has its name.
    pub(super) fn maps(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        KEPT.into_iter().map(|name| (name, self.directory.join(name)))
    }

    /// Where the parts of the table have their names.
    pub(super) fn kept(&self) -> Result<Kept, Error> {
        let found = self.earlier.and_then(|_| sizes(&self.directory));
        let sizes = as_array(self.array::<[u64; SIZES_WORDS]>(SIZES, 1, 0)?, SIZES)?;
        Ok(Kept { directory: self.directory.clone(), found, sizes })
    }

    /// Places for recent flows that a life before has left.
    pub(super) fn recent(&self) -> Option<u32> {
        let _earlier = self.earlier?;
        Some(MapData::from_pin(self.directory.join(names::RECENT)).ok()?.info().ok()?.max_entries())
    }

    /// The maps of what this life hands on.
    pub(super) fn handed_on(&self) -> Result<HandedOn, Error> {
        let life = self.array::<[u64; LIFE_WORDS]>(LIFE, 1, 0)?;
        let shares = self.array::<[u64; SHARE_WORDS]>(SHARES, ALL_LEDGERS, 0)?;
        Ok(HandedOn { life: as_array(life, LIFE)?, shares: as_array(shares, SHARES)? })
    }

    fn array<T: aya::Pod>(&self, name: &'static str, length: u32, flags: u32) -> Result<MapData, Error> {
        let path = self.directory.join(name);
        let failed = |source: MapError| Error::Map { map: name, source };
        if let Ok(found) = MapData::from_pin(&path) {
            return Ok(found);
        }
        Array::<MapData, T>::create(length, flags)
            .map_err(failed)?
            .pin(&path)
            .map_err(|error| Error::Pin { path: path.clone(), source: io::Error::other(error) })?;
        MapData::from_pin(&path).map_err(failed)
    }

    /// Puts the program in the place of the one that a killed life has left on this hook; `None` = there is none that lives.
    pub(super) fn replace(&self, hook: &str, classifier: &mut SchedClassifier) -> Option<SchedClassifierLink> {
        let path = self.directory.join(hook);
        let pinned = PinnedLink::from_pin(&path).ok()?;
        let replaced = SchedClassifierLink::try_from(FdLink::from(pinned))
            .map_err(|error| error.to_string())
            .and_then(|link| classifier.attach_to_link(link).map_err(|error| error.to_string()))
            .and_then(|id| classifier.take_link(id).map_err(|error| error.to_string()));
        match replaced {
            Ok(link) => Some(link),
            Err(error) => {
                // Its interface is gone, and its number may be another one's.
                info!(hook, error, "a link that was left behind is dead");
                let _gone = fs::remove_file(&path);
                None
            }
        }
    }

    /// Lets a link outlive the process. A filter of clsact does so without a name.
    pub(super) fn keep(&self, hook: &str, link: SchedClassifierLink) -> Result<SchedClassifierLink, Error> {
        let path = self.directory.join(hook);
        let failed = |source| Error::Pin { path: path.clone(), source };
        if <&FdLink>::try_from(&link).is_err() {
            return Ok(link);
        }
        let link: FdLink =
            link.try_into().map_err(|error: aya::programs::links::LinkError| failed(io::Error::other(error)))?;
        let pinned = link.pin(&path).map_err(|error| failed(io::Error::other(error)))?;
        SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(|error| failed(io::Error::other(error)))
    }

    /// The path of a hook's link.
    pub(super) fn path(&self, hook: &str) -> PathBuf {
        self.directory.join(hook)
    }

    /// Detaches what a killed life has left on hooks that are not among these.
    pub(super) fn forget_others(&self, hooks: &[String]) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(LINK) && !hooks.contains(&name) {
                let _gone = fs::remove_file(entry.path());
            }
        }
    }
}

/// The names of the parts of the table: a part, and its number among those of its kind.
pub(super) struct Kept {
    directory: PathBuf,
    found: Option<Sizes>,
    sizes: Array<MapData, [u64; SIZES_WORDS]>,
}

impl Kept {
    /// What the segments of what was reported are called.
    pub(super) const REPORTED: &str = "REPORTED";

    /// Of the table that a life before has left.
    pub(super) fn sizes(&self) -> Option<Sizes> {
        self.found
    }

    /// Writes down how large the table is, and whether it is whole.
    pub(super) fn keep_sizes(&mut self, sizes: Sizes, whole: bool) -> Result<(), Error> {
        let Sizes { reserved, length, bound } = sizes;
        let words = [u64::from(whole), reserved.into(), length.into(), bound.into()];
        self.sizes.set(0, words, 0).map_err(|source| Error::Map { map: SIZES, source })
    }

    /// Gives parts names, the first one with this number.
    pub(super) fn keep_all(&self, part: &'static str, first: u32, maps: &[OwnedFd]) -> Result<(), Error> {
        for (number, map) in (first..).zip(maps) {
            let path = self.path(part, number);
            let _replaced = fs::remove_file(&path);
            let named = map.try_clone().map_err(|source| Error::Pin { path: path.clone(), source })?;
            let map = MapData::from_fd(named).map_err(|source| Error::Map { map: part, source })?;
            map.pin(&path).map_err(|error| Error::Pin { path, source: io::Error::other(error) })?;
        }
        Ok(())
    }

    /// A part that a life before has left.
    pub(super) fn find(&self, part: &'static str, number: u32) -> Result<OwnedFd, Error> {
        let path = self.path(part, number);
        let map = MapData::from_pin(&path).map_err(|source| Error::Map { map: part, source })?;
        map.fd().as_fd().try_clone_to_owned().map_err(|source| Error::Pin { path, source })
    }

    /// Takes the names of a segment away.
    pub(super) fn forget_segment(&self, number: u32) {
        for part in [names::SLOTS, names::FACTS, Self::REPORTED] {
            let _gone = fs::remove_file(self.path(part, number));
        }
    }

    fn path(&self, part: &str, number: u32) -> PathBuf {
        self.directory.join(format!("{part}-{number}"))
    }
}

fn sizes(directory: &Path) -> Option<Sizes> {
    let sizes: Array<_, [u64; SIZES_WORDS]> = as_array(MapData::from_pin(directory.join(SIZES)).ok()?, SIZES).ok()?;
    let [1, reserved, length, bound] = sizes.get(&0, 0).ok()? else { return None };
    Some(Sizes { reserved: reserved.try_into().ok()?, length: length.try_into().ok()?, bound: bound.try_into().ok()? })
}

/// What the name of a link begins with.
const LINK: &str = "link-";

/// The name of a hook's link.
pub(super) fn hook(index: u32, direction: &str) -> String {
    format!("{LINK}{index}-{direction}")
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.directory) {
            warn!(%error, directory = %self.directory.display(), "cannot remove the names of maps: what is attached stays");
        }
    }
}

impl Life {
    fn words(&self) -> [u64; LIFE_WORDS] {
        let Self { seed, reported } = self;
        [1, *seed, reported.records, reported.packets, reported.bytes, 0, 0, 0]
    }

    fn from_words(words: [u64; LIFE_WORDS]) -> Option<Self> {
        let [1, seed, records, packets, bytes, ..] = words else { return None };
        Some(Self { seed, reported: Sums { records, packets, bytes } })
    }
}

impl Share {
    fn words(&self) -> [u64; SHARE_WORDS] {
        let mut words = [0; SHARE_WORDS];
        for (pair, entry) in words.chunks_exact_mut(2).zip(self.told.iter().chain([&self.duplicates])) {
            pair.copy_from_slice(&[entry.packets, entry.bytes]);
        }
        words
    }

    fn from_words(words: &[u64; SHARE_WORDS]) -> Self {
        let mut share = Self::default();
        let entries = share.told.iter_mut().chain([&mut share.duplicates]);
        for (pair, entry) in words.chunks_exact(2).zip(entries) {
            *entry = Entry { packets: pair[0], bytes: pair[1] };
        }
        share
    }
}

fn life(directory: &Path) -> Option<Life> {
    let life: Array<_, [u64; LIFE_WORDS]> = as_array(MapData::from_pin(directory.join(LIFE)).ok()?, LIFE).ok()?;
    Life::from_words(life.get(&0, 0).ok()?)
}

fn as_array<T: aya::Pod>(data: MapData, name: &'static str) -> Result<Array<MapData, T>, Error> {
    let map = Map::from_map_data(data).map_err(|source| Error::Map { map: name, source })?;
    Array::try_from(map).map_err(|source| Error::Map { map: name, source })
}

/// Removes a directory with its names; there is nothing below.
fn remove(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        fs::remove_file(entry?.path())?;
    }
    fs::remove_dir(directory)
}
