//! The target `sql`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("sql");
