//! How many different values there were, in fixed memory.

use std::hash::{Hash, Hasher};

/// Bits of a sketch.
const BITS: usize = 1024;

/// Counts different values by the bits that they set (linear counting): small counts are near exact, counts up to 5,000 good to a few
/// percent, and there it ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Distinct {
    bits: [u64; BITS / 64],
}

impl Distinct {
    pub(super) fn add(&mut self, value: &impl Hash) {
        let mut hasher = Fixed::default();
        value.hash(&mut hasher);
        let bit = (hasher.finish() as usize) % BITS;
        self.bits[bit / 64] |= 1 << (bit % 64);
    }

    pub(super) fn count(&self) -> u64 {
        let zeros = self.bits.iter().map(|word| word.count_zeros()).sum::<u32>().max(1);
        let bits = BITS as f64;
        (-bits * (f64::from(zeros) / bits).ln()).round() as u64
    }
}

/// The same for the same bytes in every run, which the hashes of tables are not: FNV-1a by words, and a final mix.
#[derive(Default)]
struct Fixed(u64);

impl Hasher for Fixed {
    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let word = word.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte));
            self.0 = (self.0.rotate_left(5) ^ word ^ bytes.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_near_the_truth_up_to_thousands() {
        let mut sketch = Distinct::default();
        assert_eq!(sketch.count(), 0);
        for n in 0..2000u32 {
            sketch.add(&n);
            sketch.add(&n);
            let (seen, truth) = (sketch.count(), u64::from(n) + 1);
            assert!(seen.abs_diff(truth) <= 2 + truth / 10, "{seen} for {truth}");
        }
    }
}
