//! The flow table, seen from user space: the slots are memory that the kernel's programs add to while this reads.

use std::{
    mem::size_of,
    os::fd::BorrowedFd,
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

use super::{Error, mapped::Mapped, rcu};
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
}

/// A key as it lies in the map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Key(FlowKey);

// SAFETY: integers only, without padding.
unsafe impl Pod for Key {}

impl KernelTable {
    /// Maps the slots and the facts, and puts all their numbers on the stack of free ones.
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
        let mut table = Self { index, free, reserve, reserved, slots, facts };
        // The lowest number comes out first.
        for number in (0..reserved + max_flows).rev() {
            table.put_back(number)?;
        }
        Ok(table)
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

    fn wait_for_writers(&mut self) -> bool {
        rcu::wait_for_readers().is_ok()
    }

    fn free(&mut self, number: u32) -> Result<(), Error> {
        // Zero is also the state of a free slot. The number is in user space's hands until it is back on the stack, which is a system call.
        self.set_state(number, FREE);
        self.slots.write(number, &[0; WORDS]);
        self.facts.write(number, &[0; WORDS]);
        self.put_back(number)
    }
}
