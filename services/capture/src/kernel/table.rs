//! The flow table, seen from user space: the slots are memory that the kernel's programs add to while this reads.

use std::{
    mem::size_of,
    num::NonZero,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use aya::{
    Pod,
    maps::{HashMap, MapData, MapError, Stack},
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use weir_capture_common::{
    facts::Facts,
    flow::{FlowKey, Side},
    names,
    slot::{self, ENDING, FREE, LIVE, Slot},
};

use super::{Error, rcu};
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
        let (slots, facts) = (Mapped::map(slots, reserved + max_flows)?, Mapped::map(facts, reserved + max_flows)?);
        let mut table = Self { index, free, reserve, reserved, slots, facts };
        // The lowest number comes out first.
        for number in (0..reserved + max_flows).rev() {
            table.put_back(number)?;
        }
        Ok(table)
    }

    /// Lets the next hook that sees a packet count what these interfaces counted: they are gone.
    pub fn disown(&mut self, gone: &[u32]) {
        for number in 0..self.slots.length {
            let Some(slot) = self.slots.pointer(number) else { continue };
            // SAFETY: aligned memory of the mapping, which everybody accesses atomically or as whole words.
            let owners = unsafe {
                [AtomicU32::from_ptr(&raw mut (*slot).from_a.owner), AtomicU32::from_ptr(&raw mut (*slot).from_b.owner)]
            };
            for owner in owners {
                let hook = owner.load(Ordering::Relaxed);
                if hook != 0 && gone.contains(&slot::ifindex(hook)) {
                    // It fails if another hook has taken over in this moment, which is as good.
                    let _taken_over =
                        owner.compare_exchange(hook, hook | slot::RELEASED, Ordering::Relaxed, Ordering::Relaxed);
                }
            }
        }
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
        self.slots.length
    }

    fn read(&self, number: u32) -> Option<Slot> {
        let slot = self.slots.pointer(number)?;
        // SAFETY: aligned memory of the mapping. The kernel fills a slot before it marks it as live.
        let state = unsafe { AtomicU32::from_ptr(&raw mut (*slot).state) }.load(Ordering::Acquire);
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
        let Some(slot) = self.slots.pointer(number) else { return 0 };
        // SAFETY: aligned memory of the mapping, which everybody accesses atomically or as whole words.
        unsafe { AtomicU64::from_ptr(&raw mut (*slot).interval_first) }.swap(0, Ordering::Relaxed)
    }

    fn take_tcp_flags(&mut self, number: u32, side: Side) -> u8 {
        let Some(slot) = self.slots.pointer(number) else { return 0 };
        // SAFETY: as above.
        let flags = unsafe {
            AtomicU64::from_ptr(match side {
                Side::A => &raw mut (*slot).from_a.tcp_flags,
                Side::B => &raw mut (*slot).from_b.tcp_flags,
            })
        };
        flags.swap(0, Ordering::Relaxed) as u8
    }

    fn unlink(&mut self, number: u32, key: &FlowKey) -> Result<(), Error> {
        if let Some(slot) = self.slots.pointer(number) {
            // Those who do not ask the index must not find it either.
            // SAFETY: aligned memory of the mapping, which everybody accesses atomically or as whole words.
            unsafe { AtomicU32::from_ptr(&raw mut (*slot).state) }.store(ENDING, Ordering::Release);
        }
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
        if let Some(slot) = self.slots.pointer(number) {
            // SAFETY: aligned memory of the mapping. Zero is also the state of a free slot.
            unsafe { AtomicU32::from_ptr(&raw mut (*slot).state) }.store(FREE, Ordering::Release);
        }
        self.slots.clear(number);
        self.facts.clear(number);
        self.put_back(number)
    }
}

/// A mapped array of elements that are as large as a slot.
struct Mapped<T> {
    start: NonNull<T>,
    length: u32,
    bytes: NonZero<usize>,
}

// SAFETY: the mapping belongs to this value alone within the process, and is not bound to a thread.
unsafe impl<T> Send for Mapped<T> {}

impl<T> Mapped<T> {
    fn map(fd: BorrowedFd<'_>, length: u32) -> Result<Self, Error> {
        let bytes = NonZero::new(length as usize * size_of::<T>()).ok_or(Error::Missing(names::SLOTS))?;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start =
            unsafe { mmap(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, fd, 0) }
                .map_err(|error| Error::Mmap(error.into()))?;
        Ok(Self { start: start.cast(), length, bytes })
    }

    fn pointer(&self, number: u32) -> Option<*mut T> {
        // SAFETY: within the mapping.
        (number < self.length).then(|| unsafe { self.start.as_ptr().add(number as usize) })
    }

    /// Copies an element, word by word, since the kernel writes meanwhile.
    fn read(&self, number: u32) -> Option<[u64; WORDS]> {
        let element = self.pointer(number)?.cast::<u64>();
        let mut words = [0; WORDS];
        for (index, word) in words.iter_mut().enumerate() {
            // SAFETY: aligned memory of the mapping, within the element.
            *word = unsafe { AtomicU64::from_ptr(element.add(index)) }.load(Ordering::Relaxed);
        }
        Some(words)
    }

    /// Zeroes an element that nobody else uses.
    fn clear(&mut self, number: u32) {
        let Some(element) = self.pointer(number) else { return };
        for index in 0..WORDS {
            // SAFETY: as above. The number is in user space's hands until it is back on the stack, which is a system call.
            unsafe { AtomicU64::from_ptr(element.cast::<u64>().add(index)) }.store(0, Ordering::Relaxed);
        }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made; nobody holds a pointer into it beyond a call.
        if let Err(error) = unsafe { munmap(self.start.cast(), self.bytes.get()) } {
            tracing::warn!(%error, "cannot unmap the flow table");
        }
    }
}
