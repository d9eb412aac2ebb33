//! The flow table, seen from user space: the slots are memory that the kernel's programs add to while this reads.

mod parts;
mod resize;

use std::{
    collections::BTreeSet,
    mem::size_of,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use aya::{
    Pod,
    maps::{HashMap, MapData, MapError, Stack},
};
use weir_capture_common::{
    facts::Facts,
    flow::{FlowKey, Side},
    names,
    slot::{self, ENDING, FREE, LIVE, Slot},
};

use super::{
    Error,
    mapped::Mapped,
    nested::{Nested, typed},
    pins::{Kept, WORDS as REPORTED},
    rcu,
};
use crate::drain::Table;
use parts::Parts;

pub use parts::Sizes;
pub use resize::Next;

/// Words of a slot, and of what is known of its flow.
const WORDS: usize = size_of::<Slot>() / size_of::<u64>();
const _: () = assert!(size_of::<Facts>() == size_of::<Slot>());

type Index = HashMap<MapData, Key, u32>;
type Numbers = Stack<MapData, u32>;

/// The kernel's flow table.
pub struct KernelTable {
    places: Places,
    index: Index,
    index_fd: OwnedFd,
    free: Numbers,
    /// Of the lowest slots, which are kept for what finds no room.
    reserve: Numbers,
    reserved: u32,
    /// Numbers below this one are given out; those above were withdrawn when the table became smaller.
    bound: u32,
    slots: Mapped<Slot>,
    facts: Mapped<Facts>,
    /// What was reported of each slot, where that outlives the process.
    reported: Option<Mapped<[u64; REPORTED]>>,
    /// Slots whose key another slot has in the index.
    doubles: BTreeSet<u32>,
    kept: Option<Kept>,
}

/// Where programs look for the parts of the table.
pub(super) struct Places {
    pub(super) index: Nested,
    pub(super) free: Nested,
    pub(super) slots: Nested,
    pub(super) facts: Nested,
}

/// A key as it lies in the map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Key(FlowKey);

// SAFETY: integers only, without padding.
unsafe impl Pod for Key {}

impl KernelTable {
    /// A table of these sizes, or the one that a life before has left under the same names.
    pub(super) fn new(places: Places, reserve: Numbers, sizes: Sizes, kept: Option<Kept>) -> Result<Self, Error> {
        let earlier = kept.as_ref().and_then(Kept::sizes);
        let (sizes, parts) = match (earlier, &kept) {
            (Some(sizes), Some(kept)) => (sizes, Parts::find(kept, sizes)?),
            _ => (sizes, Parts::create(sizes, kept.is_some())?),
        };
        let Parts { index, free, slots, facts, reported } = parts;
        if earlier.is_none() {
            places.fill(&index, &free, &slots, &facts)?;
            if let Some(kept) = &kept {
                kept.keep_all(names::INDEX, 0, std::slice::from_ref(&index))?;
                kept.keep_all(names::FREE, 0, std::slice::from_ref(&free))?;
                kept.keep_all(names::SLOTS, 0, &slots)?;
                kept.keep_all(names::FACTS, 0, &facts)?;
                kept.keep_all(Kept::REPORTED, 0, reported.as_deref().unwrap_or_default())?;
            }
        }
        let mut this = Self {
            places,
            index: typed(&index, names::INDEX, HashMap::try_from)?,
            index_fd: index,
            free: typed(&free, names::FREE, Stack::try_from)?,
            reserve,
            reserved: sizes.reserved,
            bound: sizes.bound,
            slots: Mapped::new(slots, sizes.length).map_err(Error::Mmap)?,
            facts: Mapped::new(facts, sizes.length).map_err(Error::Mmap)?,
            reported: reported.map(|maps| Mapped::new(maps, sizes.length)).transpose().map_err(Error::Mmap)?,
            doubles: BTreeSet::new(),
            kept,
        };
        if earlier.is_none() {
            // The lowest number comes out first.
            (0..sizes.bound).rev().try_for_each(|number| this.put_back(number))?;
            this.keep_sizes(true)?;
        }
        Ok(this)
    }

    /// Lets the next hook that sees a packet count what these interfaces counted: they are gone.
    pub fn disown(&mut self, gone: &[u32]) {
        for number in 0..self.slots.length() {
            let _none = self.slots.with(number, |slot| {
                // SAFETY: aligned memory of the mapping, which everybody accesses atomically or as whole words.
                let owners = unsafe {
                    [
                        AtomicU32::from_ptr(&raw mut (*slot).from_a.owner),
                        AtomicU32::from_ptr(&raw mut (*slot).from_b.owner),
                    ]
                };
                for owner in owners {
                    let hook = owner.load(Ordering::Relaxed);
                    if hook != 0 && gone.contains(&slot::ifindex(hook)) {
                        // It fails if another hook has taken over in this moment, which is as good.
                        let _taken_over =
                            owner.compare_exchange(hook, hook | slot::RELEASED, Ordering::Relaxed, Ordering::Relaxed);
                    }
                }
            });
        }
    }

    fn set_state(&self, number: u32, state: u32) {
        let _none = self.slots.with(number, |slot| {
            // SAFETY: aligned memory of the mapping, which everybody accesses atomically or as whole words.
            unsafe { AtomicU32::from_ptr(&raw mut (*slot).state) }.store(state, Ordering::Release);
        });
    }

    fn state(&self, number: u32) -> u32 {
        // SAFETY: aligned memory of the mapping. The kernel fills a slot before it marks it as live.
        let state = |slot: *mut Slot| unsafe { AtomicU32::from_ptr(&raw mut (*slot).state).load(Ordering::Acquire) };
        self.slots.with(number, state).unwrap_or(FREE)
    }

    fn put_back(&mut self, number: u32) -> Result<(), Error> {
        if number >= self.bound {
            return Ok(());
        }
        let (stack, map) =
            if number < self.reserved { (&mut self.reserve, names::RESERVE) } else { (&mut self.free, names::FREE) };
        stack.push(number, 0).map_err(|source| Error::Map { map, source })
    }
}

impl Table for KernelTable {
    type Error = Error;

    fn capacity(&self) -> u32 {
        self.slots.length()
    }

    fn room(&self) -> u32 {
        self.bound
    }

    fn read(&self, number: u32) -> Option<Slot> {
        let state = self.state(number);
        if state != LIVE && state != ENDING {
            return None;
        }
        // SAFETY: a slot is that many words, and any words are a slot.
        Some(unsafe { std::mem::transmute::<[u64; WORDS], Slot>(self.slots.read(number)?) })
    }

    fn facts(&self, number: u32) -> Facts {
        // SAFETY: facts are that many words, and any words are facts.
        self.facts
            .read(number)
            .map_or_else(Facts::default, |words| unsafe { std::mem::transmute::<[u64; WORDS], Facts>(words) })
    }

    fn take_interval_first(&mut self, number: u32) -> u64 {
        let first = self.slots.with(number, |slot| {
            // SAFETY: aligned memory of the mapping, which everybody accesses atomically or as whole words.
            unsafe { AtomicU64::from_ptr(&raw mut (*slot).interval_first) }.swap(0, Ordering::Relaxed)
        });
        first.unwrap_or(0)
    }

    fn take_tcp_flags(&mut self, number: u32, side: Side) -> u8 {
        let flags = self.slots.with(number, |slot| {
            // SAFETY: as above.
            let flags = unsafe {
                AtomicU64::from_ptr(match side {
                    Side::A => &raw mut (*slot).from_a.tcp_flags,
                    Side::B => &raw mut (*slot).from_b.tcp_flags,
                })
            };
            flags.swap(0, Ordering::Relaxed) as u8
        });
        flags.unwrap_or(0)
    }

    fn unlink(&mut self, number: u32, key: &FlowKey) -> Result<(), Error> {
        // Those who do not ask the index must not find it either.
        self.set_state(number, ENDING);
        if self.doubles.remove(&number) {
            return Ok(());
        }
        match self.index.remove(&Key(*key)) {
            // Nobody else takes keys out; were it gone, that would be all that is wanted.
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(source) => Err(Error::Map { map: names::INDEX, source }),
        }
    }

    fn remembers(&self) -> bool {
        self.reported.is_some()
    }

    fn remember(&mut self, number: u32, words: &[u64; REPORTED]) {
        if let Some(reported) = &self.reported {
            reported.write(number, words);
        }
    }

    fn recall(&self, number: u32) -> [u64; REPORTED] {
        self.reported.as_ref().and_then(|reported| reported.read(number)).unwrap_or([0; REPORTED])
    }

    fn wait_for_writers(&mut self) -> bool {
        rcu::wait_for_readers().is_ok()
    }

    fn free(&mut self, number: u32) -> Result<(), Error> {
        // Zero is also the state of a free slot. The number is in user space's hands until it is back on the stack, which is a system call.
        self.set_state(number, FREE);
        self.slots.write(number, &[0; WORDS]);
        self.facts.write(number, &[0; WORDS]);
        if let Some(reported) = &self.reported {
            reported.write(number, &[0; REPORTED]);
        }
        self.put_back(number)
    }
}
