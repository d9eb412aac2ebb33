//! The target `dtls`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("dtls");
