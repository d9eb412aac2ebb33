//! The targets of `weir-fuzz` for libFuzzer.

#[doc(hidden)]
pub use libfuzzer_sys;

/// The program of one target.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| {
            static TARGET: std::sync::LazyLock<weir_fuzz::Target> =
                std::sync::LazyLock::new(|| weir_fuzz::target($name).expect("a target of this name"));
            (TARGET.run)(data);
        });
    };
}
