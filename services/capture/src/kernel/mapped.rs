//! An array of the kernel, seen through windows: mapped where it is looked at, so that memory that nobody uses does not count as this process's.

use std::{
    cell::RefCell,
    mem::size_of,
    num::NonZero,
    os::fd::{AsFd as _, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::{
    libc::off_t,
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};

/// Elements of a window: whole pages, whatever their size up to 64 KB and that of an element.
const ELEMENTS: u32 = 4096;
/// Windows that are mapped at one time. What is looked at in order needs one.
const WINDOWS: usize = 12;

/// The array; elements are whole words.
pub(super) struct Mapped<T> {
    fd: OwnedFd,
    length: u32,
    /// The most lately mapped last.
    windows: RefCell<Vec<Window<T>>>,
}

struct Window<T> {
    first: u32,
    start: NonNull<T>,
    bytes: NonZero<usize>,
}

// SAFETY: the mappings belong to this value alone within the process, and are not bound to a thread.
unsafe impl<T> Send for Mapped<T> {}

impl<T> Mapped<T> {
    /// Of the map `fd`, of which this keeps a descriptor. The first window is mapped at once, to find out whether that works.
    pub(super) fn new(fd: OwnedFd, length: u32) -> std::io::Result<Self> {
        let this = Self { fd, length, windows: RefCell::default() };
        this.window(0)?;
        Ok(this)
    }

    /// How many elements there are.
    pub(super) fn length(&self) -> u32 {
        self.length
    }

    /// Uses an element, which is valid meanwhile; `None` = there is no such element, or it cannot be mapped.
    pub(super) fn with<R>(&self, number: u32, work: impl FnOnce(*mut T) -> R) -> Option<R> {
        if number >= self.length {
            return None;
        }
        match self.window(number / ELEMENTS) {
            // SAFETY: within the window, which stays until another element is asked for.
            Ok(start) => Some(work(unsafe { start.as_ptr().add((number % ELEMENTS) as usize) })),
            Err(error) => {
                tracing::error!(%error, number, "cannot map the flow table");
                None
            }
        }
    }

    /// Copies an element, word by word, since the kernel writes meanwhile.
    pub(super) fn read<const WORDS: usize>(&self, number: u32) -> Option<[u64; WORDS]> {
        const { assert!(WORDS * size_of::<u64>() == size_of::<T>()) };
        self.with(number, |element| {
            let mut words = [0; WORDS];
            for (index, word) in words.iter_mut().enumerate() {
                // SAFETY: aligned memory of the mapping, within the element.
                *word = unsafe { AtomicU64::from_ptr(element.cast::<u64>().add(index)) }.load(Ordering::Relaxed);
            }
            words
        })
    }

    /// Overwrites an element that nobody else uses.
    pub(super) fn write<const WORDS: usize>(&self, number: u32, words: &[u64; WORDS]) {
        const { assert!(WORDS * size_of::<u64>() == size_of::<T>()) };
        let _there_is_none = self.with(number, |element| {
            for (index, word) in words.iter().enumerate() {
                // SAFETY: as above.
                unsafe { AtomicU64::from_ptr(element.cast::<u64>().add(index)) }.store(*word, Ordering::Relaxed);
            }
        });
    }

    fn window(&self, index: u32) -> std::io::Result<NonNull<T>> {
        let mut windows = self.windows.borrow_mut();
        let first = index * ELEMENTS;
        if let Some(at) = windows.iter().rposition(|window| window.first == first) {
            return Ok(windows[at].start);
        }
        if windows.len() == WINDOWS {
            windows.remove(0);
        }
        let window = Window::map(&self.fd, first, ELEMENTS.min(self.length - first))?;
        let start = window.start;
        windows.push(window);
        Ok(start)
    }
}

impl<T> Window<T> {
    fn map(fd: &OwnedFd, first: u32, length: u32) -> std::io::Result<Self> {
        let bytes = NonZero::new(length as usize * size_of::<T>()).ok_or(std::io::ErrorKind::InvalidInput)?;
        let offset = off_t::try_from(first as usize * size_of::<T>()).map_err(std::io::Error::other)?;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe {
            mmap(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, fd.as_fd(), offset)
        }?;
        Ok(Self { first, start: start.cast(), bytes })
    }
}

impl<T> Drop for Window<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made; nobody holds a pointer into it beyond a call of `with`.
        if let Err(error) = unsafe { munmap(self.start.cast(), self.bytes.get()) } {
            tracing::warn!(%error, "cannot unmap the flow table");
        }
    }
}
