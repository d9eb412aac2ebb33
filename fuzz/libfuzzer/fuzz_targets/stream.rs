//! The target `stream`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("stream");
