//! The target `batch`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("batch");
