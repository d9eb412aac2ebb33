//! The target `quic`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("quic");
