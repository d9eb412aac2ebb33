//! The target `frames`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("frames");
