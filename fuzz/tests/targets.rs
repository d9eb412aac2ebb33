//! Each target on its seeds, and for a moment on what becomes of them: the same bytes in each run. `./dev fuzz` looks further.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use weir_fuzz::{TARGETS, seeds};

/// What one target gets besides its seeds; a slow machine tries less, and no run depends on it.
const BUDGET: Duration = Duration::from_millis(1500);
/// Tries of one target at most.
const TRIES: u64 = 20_000;

static SEEDS: LazyLock<BTreeMap<&'static str, Vec<Vec<u8>>>> = LazyLock::new(|| seeds::seeds(&seeds::recordings()));

#[test]
fn every_target_has_seeds() {
    for target in TARGETS {
        assert!(SEEDS.get(target.name).is_some_and(|seeds| !seeds.is_empty()), "{}", target.name);
        (target.run)(&[]);
    }
    assert_eq!(SEEDS.len(), TARGETS.len(), "{:?}", SEEDS.keys());
}

/// Of one seed several, by cutting, overwriting, repeating and joining; deterministic.
struct Mutator(u64);

impl Mutator {
    fn below(&mut self, limit: usize) -> usize {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    fn mutated(&mut self, all: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = all[self.below(all.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes.truncate(at),
                1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                2 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                3 => {
                    let end = (at + self.below(40)).min(bytes.len());
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
                4 => {
                    let end = (at + self.below(40)).min(bytes.len());
                    bytes.drain(at..end);
                }
                _ => {
                    let other = &all[self.below(all.len())];
                    let from = self.below(other.len());
                    bytes.truncate(at);
                    bytes.extend_from_slice(&other[from..]);
                }
            }
        }
        bytes
    }
}

fn tried(name: &str) {
    let target = weir_fuzz::target(name).expect("a target");
    let seeds = &SEEDS[target.name];
    for seed in seeds {
        (target.run)(seed);
    }
    let mut mutator = Mutator(0x9e37_79b9_7f4a_7c15);
    let begun = Instant::now();
    for _ in 0..TRIES {
        if begun.elapsed() > BUDGET {
            break;
        }
        (target.run)(&mutator.mutated(seeds));
    }
}

macro_rules! targets {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            tried($name);
        })*

        #[test]
        fn every_target_is_tried() {
            assert_eq!([$($name),*], TARGETS.map(|target| target.name));
        }
    };
}

targets! {
    any_payload_is_some_protocol_or_none: "app",
    any_message_is_a_batch_or_refused: "batch",
    any_capture_is_analysed_and_its_sums_hold: "capture",
    any_file_is_a_capture_or_refused: "capture_file",
    any_dns_message_is_read_within_bounds: "dns",
    any_datagrams_are_dtls_or_not: "dtls",
    any_filter_is_compiled_or_refused: "filter",
    any_fragments_are_counted_once: "fragments",
    any_frames_are_counted_once: "frames",
    any_stream_is_http_or_not: "http",
    any_frame_is_read_in_the_kernel_as_behind_it: "kernel",
    any_frame_has_its_headers_within: "packet",
    any_datagrams_are_quic_or_not: "quic",
    any_frames_of_quic_are_read_within_bounds: "quic_frames",
    any_statement_is_checked_or_refused: "sql",
    any_segments_come_out_in_order: "stream",
    any_stream_is_tls_or_not: "tls",
}
