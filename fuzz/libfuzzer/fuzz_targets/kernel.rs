//! The target `kernel`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("kernel");
