//! The target `dns`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("dns");
