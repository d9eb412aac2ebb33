//! The target `capture`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("capture");
