//! How many different values there were, in fixed memory.

use std::hash::{Hash, Hasher};

/// Bits of a sketch.
const BITS: usize = 1024;

/// Bits that are kept one by one.
const FEW: usize = 8;

/// Counts different values by the bits that they set (linear counting): small counts are near exact, counts up to 5,000 good to a few
/// percent, and there it ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Distinct {
    /// The numbers of the bits that are set, up to so many.
    few: [u16; FEW],
    count: u8,
    /// All bits, once there are more.
    bits: Option<Box<[u64; BITS / 64]>>,
}

impl Distinct {
    pub(super) fn add(&mut self, value: &impl Hash) {
        let mut hasher = Fixed::default();
        value.hash(&mut hasher);
        let bit = (hasher.finish() as usize) % BITS;
        if let Some(bits) = &mut self.bits {
            set(bits, bit);
        } else if !self.few[..usize::from(self.count)].contains(&(bit as u16)) {
            self.add_to_few(bit);
        }
    }

    fn add_to_few(&mut self, bit: usize) {
        if let Some(free) = self.few.get_mut(usize::from(self.count)) {
            *free = bit as u16;
            self.count += 1;
            return;
        }
        let mut bits = Box::new([0; BITS / 64]);
        self.few.iter().for_each(|few| set(&mut bits, usize::from(*few)));
        set(&mut bits, bit);
        self.bits = Some(bits);
    }

    pub(super) fn count(&self) -> u64 {
        let set = match &self.bits {
            Some(bits) => bits.iter().map(|word| word.count_ones()).sum(),
            None => u32::from(self.count),
        };
        let zeros = (BITS as u32 - set).max(1);
        let bits = BITS as f64;
        (-bits * (f64::from(zeros) / bits).ln()).round() as u64
    }
}

fn set(bits: &mut [u64; BITS / 64], bit: usize) {
    bits[bit / 64] |= 1 << (bit % 64);
}

/// The same for the same bytes in every run, which the hashes of tables are not: FNV-1a by words, and a final mix.
#[derive(Default)]
struct Fixed(u64);

impl Hasher for Fixed {
    fn write(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let word = match word.try_into() {
                Ok(whole) => u64::from_be_bytes(whole),
                Err(_) => word.iter().fold(0, |word, byte| (word << 8) | u64::from(*byte)),
            };
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
