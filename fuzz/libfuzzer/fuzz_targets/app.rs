//! The target `app`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("app");
