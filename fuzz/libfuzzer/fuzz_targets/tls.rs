//! The target `tls`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("tls");
