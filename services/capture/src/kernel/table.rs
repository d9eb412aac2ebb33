//! The flow table, seen from user space: the slots are memory that the kernel's programs add to while this reads.

use std::{
    mem::size_of,
    os::fd::{AsFd as _, BorrowedFd},
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

use super::{Error, mapped::Mapped, pins::WORDS as REPORTED, rcu};
use crate::drain::Table;

/// Words of a slot, and of what is known of its flow.
const WORDS: usize = size_of::<Slot>() / size_of::<u64>();
const _: () = assert!(size_of::<Facts>() == size_of::<Slot>());

/// The kernel's flow table.
pub struct KernelTable {
    index: HashMap<MapData, Key, u32>,
    free: Stack<MapData, u32>,
    /// Of the lowest slots, which are kept for what finds no room.
    reserve: Stack<MapData, u32>,
    reserved: u32,
    slots: Mapped<Slot>,
    facts: Mapped<Facts>,
    /// What was reported of each slot, where that outlives the process.
    reported: Option<Mapped<[u64; REPORTED]>>,
}

/// A key as it lies in the map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Key(FlowKey);

// SAFETY: integers only, without padding.
unsafe impl Pod for Key {}

impl KernelTable {
    /// Maps the slots and the facts.
    pub(super) fn new(
        index: HashMap<MapData, Key, u32>,
        [free, reserve]: [Stack<MapData, u32>; 2],
        [slots, facts]: [BorrowedFd<'_>; 2],
        reserved: u32,
        max_flows: u32,
    ) -> Result<Self, Error> {
        let length = reserved + max_flows;
        let slots = slots.try_clone_to_owned().and_then(|fd| Mapped::new(fd, length)).map_err(Error::Mmap)?;
        let facts = facts.try_clone_to_owned().and_then(|fd| Mapped::new(fd, length)).map_err(Error::Mmap)?;
        Ok(Self { index, free, reserve, reserved, slots, facts, reported: None })
    }

    /// Puts the numbers of all slots of a new table on the stack of free ones.
    pub(super) fn fill(&mut self) -> Result<(), Error> {
        // The lowest number comes out first.
        (0..self.slots.length()).rev().try_for_each(|number| self.put_back(number))
    }

    /// Keeps what was reported in this array from now on.
    pub(super) fn keep_reported(&mut self, array: &MapData) -> Result<(), Error> {
        let fd = array.fd().as_fd().try_clone_to_owned();
        self.reported = Some(fd.and_then(|fd| Mapped::new(fd, self.slots.length())).map_err(Error::Mmap)?);
        Ok(())
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

    fn put_back(&mut self, number: u32) -> Result<(), Error> {
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

    fn read(&self, number: u32) -> Option<Slot> {
        // SAFETY: aligned memory of the mapping. The kernel fills a slot before it marks it as live.
        let state = self
            .slots
            .with(number, |slot| unsafe { AtomicU32::from_ptr(&raw mut (*slot).state).load(Ordering::Acquire) })?;
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
