//! Arrays of the kernel, one behind the other, seen through windows: mapped where they are looked at, so that memory that nobody uses does not count as
//! this process's.

use std::{
    cell::RefCell,
    mem::size_of,
    num::NonZero,
    os::fd::{AsFd as _, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use weir_capture_common::slot::SEGMENT;

/// Windows that are mapped at one time. What is looked at in order needs one.
const WINDOWS: usize = 12;

/// The arrays, of [`SEGMENT`] elements each; elements are whole words.
pub(super) struct Mapped<T> {
    segments: Vec<OwnedFd>,
    /// Elements that are used.
    length: u32,
    /// The most lately mapped last.
    windows: RefCell<Vec<Window<T>>>,
}

struct Window<T> {
    segment: u32,
    start: NonNull<T>,
    bytes: NonZero<usize>,
}

// SAFETY: the mappings belong to this value alone within the process, and are not bound to a thread.
unsafe impl<T> Send for Mapped<T> {}

impl<T> Mapped<T> {
    /// Of these arrays, of which `length` elements are used. The first window is mapped at once, to find out whether that works.
    pub(super) fn new(segments: Vec<OwnedFd>, length: u32) -> std::io::Result<Self> {
        let this = Self { segments, length, windows: RefCell::default() };
        this.window(0)?;
        Ok(this)
    }

    /// How many elements there are.
    pub(super) fn length(&self) -> u32 {
        self.length
    }

    /// The arrays.
    pub(super) fn segments(&self) -> &[OwnedFd] {
        &self.segments
    }

    /// Adds arrays, and uses so many elements from now on.
    pub(super) fn grow(&mut self, more: Vec<OwnedFd>, length: u32) {
        self.segments.extend(more);
        self.length = length;
    }

    /// Uses only so many elements from now on, and forgets the arrays of the others.
    pub(super) fn shorten(&mut self, length: u32) {
        let segments = length.div_ceil(SEGMENT);
        self.segments.truncate(segments as usize);
        self.length = length;
        self.windows.get_mut().retain(|window| window.segment < segments);
    }

    /// Uses an element, which is valid meanwhile; `None` = there is no such element, or it cannot be mapped.
    pub(super) fn with<R>(&self, number: u32, work: impl FnOnce(*mut T) -> R) -> Option<R> {
        if number >= self.length {
            return None;
        }
        match self.window(number / SEGMENT) {
            // SAFETY: within the window, which stays until another element is asked for.
            Ok(start) => Some(work(unsafe { start.as_ptr().add((number % SEGMENT) as usize) })),
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

    fn window(&self, segment: u32) -> std::io::Result<NonNull<T>> {
        let mut windows = self.windows.borrow_mut();
        if let Some(at) = windows.iter().rposition(|window| window.segment == segment) {
            return Ok(windows[at].start);
        }
        if windows.len() == WINDOWS {
            windows.remove(0);
        }
        let fd = self.segments.get(segment as usize).ok_or(std::io::ErrorKind::NotFound)?;
        let window = Window::map(fd, segment)?;
        let start = window.start;
        windows.push(window);
        Ok(start)
    }
}

impl<T> Window<T> {
    fn map(fd: &OwnedFd, segment: u32) -> std::io::Result<Self> {
        let bytes = NonZero::new(SEGMENT as usize * size_of::<T>()).ok_or(std::io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let start = unsafe {
            mmap(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, fd.as_fd(), 0)
        }?;
        Ok(Self { segment, start: start.cast(), bytes })
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
