//! How much of the heap is in use, and was at most; of each thread by itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes in use now, and at most; below zero where a thread frees what another one allocated.
    static USED: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

/// The system's allocator, counted.
#[derive(Debug)]
struct Counted;

#[global_allocator]
static HEAP: Counted = Counted;

// SAFETY: each call is passed on as it is; counting neither touches the memory nor allocates.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps the contract of `alloc`, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the pointer came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn count(bytes: isize) {
    // Nothing is counted any more while a thread ends.
    let _ = USED.try_with(|counts| {
        let (used, most) = counts.get();
        let used = used + bytes;
        counts.set((used, most.max(used)));
    });
}

/// Bytes that were in use at most while this ran, beyond those before it.
pub fn most<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = USED.get().0;
    USED.set((before, before));
    let made = run();
    (made, (USED.get().1 - before).cast_unsigned())
}
