//! The allocator of the services that make and drop many small things: rows, names, flows. It takes about a seventh off the time of an analysis.

use std::ffi::c_long;

use libmimalloc_sys::{mi_option_set, mi_option_t};
#[doc(hidden)]
pub use mimalloc::MiMalloc;

/// What is set: options of `mimalloc.h` that the bindings do not name.
const OPTIONS: [(mi_option_t, c_long); 3] = [(PURGE_DELAY, 500), (ARENA_RESERVE, 0), (EAGER_COMMIT, 0)];
/// Milliseconds before freed memory goes back to the system. With the 10 of the library, what a batch leaves is gone when the next one
/// needs it.
const PURGE_DELAY: mi_option_t = 15;
/// Whether 32 MiB count as used when they are taken from the system, or each part of them when it is needed, as a limit of memory wants it.
const EAGER_COMMIT: mi_option_t = 3;
/// KiB that are taken from the system at once beside that. The gibibyte of the library would be taken, and count, before a limit is set.
const ARENA_RESERVE: mi_option_t = 23;

/// Sets the options. They count from the first allocation on, which is before `main`.
#[doc(hidden)]
pub extern "C" fn set_options() {
    for (option, value) in OPTIONS {
        // SAFETY: it writes a number into a table, whatever else goes on.
        unsafe { mi_option_set(option, value) }
    }
}

/// Makes it the allocator of a program; for its `main.rs`.
#[macro_export]
macro_rules! allocator {
    () => {
        #[global_allocator]
        static ALLOCATOR: $crate::allocator::MiMalloc = $crate::allocator::MiMalloc;

        // SAFETY: the section holds functions of this kind, which the loader calls before `main`; this one needs nothing that is not there yet.
        #[used]
        #[unsafe(link_section = ".init_array")]
        static OPTIONS_OF_THE_ALLOCATOR: extern "C" fn() = $crate::allocator::set_options;
    };
}
