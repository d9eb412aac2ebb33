//! The target `capture_file`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("capture_file");
