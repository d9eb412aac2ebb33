//! The target `fragments`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("fragments");
