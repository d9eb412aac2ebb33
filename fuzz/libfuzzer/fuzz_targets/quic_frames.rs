//! The target `quic_frames`, given bytes by libFuzzer.
#![no_main]

weir_libfuzzer::target!("quic_frames");
