//! The target `http`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("http");
