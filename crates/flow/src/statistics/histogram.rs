//! How values are spread, in little memory: counts by size, an eighth of an octave wide.

/// Steps of an octave.
const STEPS: u32 = 8;

/// Counts values; what it gives is right to about six percent, the largest value exactly.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    counts: Vec<u32>,
    count: u64,
    most: u64,
}

impl Histogram {
    /// Counts a value.
    pub fn add(&mut self, value: u32) {
        let place = place(value);
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] = self.counts[place].saturating_add(1);
        self.count += 1;
        self.most = self.most.max(u64::from(value));
    }

    /// The value below which so many of a hundred are; none where there is no value.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> Option<u64> {
        let wanted = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (place, &count) in self.counts.iter().enumerate() {
            seen += u64::from(count);
            if seen >= wanted {
                return Some(middle(place).min(self.most));
            }
        }
        None
    }

    /// How many values there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// The largest value; 0 where there is none.
    #[must_use]
    pub const fn most(&self) -> u64 {
        self.most
    }
}

/// Small values have a place each; from there on an octave has [`STEPS`].
fn place(value: u32) -> usize {
    if value < STEPS {
        return value as usize;
    }
    let octave = value.ilog2() - STEPS.ilog2();
    ((octave + 1) * STEPS + ((value >> octave) - STEPS)) as usize
}

fn middle(place: usize) -> u64 {
    let (place, steps) = (place as u64, u64::from(STEPS));
    if place < steps {
        return place;
    }
    let octave = place / steps - 1;
    let least = (steps + place % steps) << octave;
    least + (1 << octave) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_six_percent() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.percentile(50), histogram.count()), (None, 0));
        for value in 1..=100_000 {
            histogram.add(value);
        }
        for percent in [50, 95, 99] {
            let (found, expected) = (histogram.percentile(percent).unwrap() as f64, percent as f64 * 1000.0);
            assert!((found / expected - 1.0).abs() < 0.065, "{percent} %: {found}");
        }
        assert_eq!(histogram.most(), 100_000);
    }

    #[test]
    fn every_value_has_a_place_whose_middle_is_near() {
        for value in [0, 1, 7, 8, 9, 15, 16, 17, 1000, 1 << 20, u32::MAX] {
            let near = middle(place(value)) as f64;
            assert!((near - f64::from(value)).abs() <= f64::from(value) * 0.0626, "{value}: {near}");
        }
    }
}
