//! What a table is made of, as descriptors.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use weir_capture_common::{
    facts::Facts,
    flow::FlowKey,
    names,
    slot::{SEGMENT, Slot},
};

use super::{Places, REPORTED};
use crate::kernel::{
    Error,
    nested::{Kind, create},
    pins::Kept,
};

/// Entries that the index has beyond the number of slots: a CPU that loses the race to open a flow holds one for a moment.
const INDEX_RESERVE: u32 = 1024;
/// Slots for what finds no room, at most: protocols and ports per hook.
const MAX_RESERVED: u32 = 512;
/// Descriptors that the rest of the process may want.
const OTHER_DESCRIPTORS: u64 = 512;

/// How large a table is, in slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// For what finds no room: the lowest ones.
    pub reserved: u32,
    /// Those that there are.
    pub length: u32,
    /// Those below this one are given to flows.
    pub bound: u32,
}

impl Sizes {
    /// Of a new table.
    #[must_use]
    pub fn of(max_flows: u32) -> Self {
        let reserved = (max_flows / 16).clamp(8, MAX_RESERVED);
        Self { reserved, length: reserved + max_flows, bound: reserved + max_flows }
    }
}

/// The parts.
pub(super) struct Parts {
    pub(super) index: OwnedFd,
    pub(super) free: OwnedFd,
    pub(super) slots: Vec<OwnedFd>,
    pub(super) facts: Vec<OwnedFd>,
    pub(super) reported: Option<Vec<OwnedFd>>,
}

impl Parts {
    /// New ones.
    pub(super) fn create(sizes: Sizes, with_reported: bool) -> Result<Self, Error> {
        let count = segments(sizes.length);
        allow_descriptors(count);
        Ok(Self {
            index: index(sizes.bound - sizes.reserved)?,
            free: free(sizes.bound)?,
            slots: arrays::<Slot>(names::SLOTS, count)?,
            facts: arrays::<Facts>(names::FACTS, count)?,
            reported: with_reported.then(|| reported(count)).transpose()?,
        })
    }

    /// Those of a life before.
    pub(super) fn find(kept: &Kept, sizes: Sizes) -> Result<Self, Error> {
        let count = segments(sizes.length);
        allow_descriptors(count);
        Ok(Self {
            index: kept.find(names::INDEX, 0)?,
            free: kept.find(names::FREE, 0)?,
            slots: (0..count).map(|number| kept.find(names::SLOTS, number)).collect::<Result<_, _>>()?,
            facts: (0..count).map(|number| kept.find(names::FACTS, number)).collect::<Result<_, _>>()?,
            reported: Some((0..count).map(|number| kept.find(Kept::REPORTED, number)).collect::<Result<_, _>>()?),
        })
    }
}

impl Places {
    /// Puts the parts of a new table where the programs look for them.
    pub(super) fn fill(
        &self,
        index: &OwnedFd,
        free: &OwnedFd,
        slots: &[OwnedFd],
        facts: &[OwnedFd],
    ) -> Result<(), Error> {
        self.index.put(0, &[index.as_fd()])?;
        self.free.put(0, &[free.as_fd()])?;
        self.slots.put(0, &borrowed(slots))?;
        self.facts.put(0, &borrowed(facts))
    }
}

/// How many segments so many slots lie in.
pub(super) fn segments(length: u32) -> u32 {
    length.div_ceil(SEGMENT)
}

/// An index for so many flows.
pub(super) fn index(max_flows: u32) -> Result<OwnedFd, Error> {
    create::<FlowKey, u32>(Kind::Hash, max_flows.saturating_add(INDEX_RESERVE), names::INDEX)
}

/// A stack for the numbers below this one.
pub(super) fn free(bound: u32) -> Result<OwnedFd, Error> {
    create::<(), u32>(Kind::Stack, bound, names::FREE)
}

/// So many segments.
pub(super) fn arrays<T>(name: &'static str, count: u32) -> Result<Vec<OwnedFd>, Error> {
    (0..count).map(|_| create::<u32, T>(Kind::Array, SEGMENT, name)).collect()
}

/// Segments of what was reported.
pub(super) fn reported(count: u32) -> Result<Vec<OwnedFd>, Error> {
    arrays::<[u64; REPORTED]>(Kept::REPORTED, count)
}

pub(super) fn borrowed(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
    fds.iter().map(OwnedFd::as_fd).collect()
}

/// Raises this process's own limit as far as it may: each segment takes up to three descriptors.
pub(super) fn allow_descriptors(segments: u32) {
    let wanted = u64::from(segments) * 3 + OTHER_DESCRIPTORS;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft < wanted
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard)
    {
        tracing::debug!(%error, wanted, "cannot raise the limit of descriptors");
    }
}
