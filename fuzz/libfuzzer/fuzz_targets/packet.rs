//! The target `packet`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("packet");
