//! The target `filter`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("filter");
