//! The median of some durations in little memory.

/// Keeps up to [`Samples::MOST`] of the values, evenly spread over all that came.
#[derive(Debug, Default)]
pub(super) struct Samples {
    few: [u32; Self::FEW],
    /// Once there are more than `few`: all that are kept.
    many: Option<Box<[u32; Self::MOST]>>,
    kept: u8,
    /// Every so-many-th value is kept.
    every: u16,
    /// Values since the last one that was kept.
    since: u16,
}

impl Samples {
    const FEW: usize = 3;
    const MOST: usize = 16;

    pub(super) fn held_bytes(&self) -> usize {
        self.many.as_ref().map_or(0, |many| size_of_val(many.as_ref()))
    }

    pub(super) fn add(&mut self, value: u32) {
        self.since = self.since.saturating_add(1);
        if self.since < self.every {
            return;
        }
        self.since = 0;
        if usize::from(self.kept) == Self::MOST {
            self.thin_out();
        }
        let at = usize::from(self.kept);
        if at < Self::FEW {
            self.few[at] = value;
        } else {
            let few = self.few;
            let many = self.many.get_or_insert_with(|| {
                let mut many = Box::new([0; Self::MOST]);
                many[..Self::FEW].copy_from_slice(&few);
                many
            });
            many[at] = value;
        }
        self.kept += 1;
    }

    /// The median, and an end to the interval that it was taken over.
    pub(super) fn take_median(&mut self) -> Option<u32> {
        let Self { mut few, many, kept, .. } = std::mem::take(self);
        let kept = usize::from(kept);
        let mut many = many;
        let values = match &mut many {
            Some(many) => &mut many[..kept],
            None => &mut few[..kept],
        };
        values.sort_unstable();
        values.get(kept.saturating_sub(1) / 2).copied()
    }

    /// Keeps every second value, and from here on half as many as before.
    fn thin_out(&mut self) {
        let Some(many) = &mut self.many else { return };
        for at in 0..Self::MOST / 2 {
            many[at] = many[at * 2];
        }
        self.few.copy_from_slice(&many[..Self::FEW]);
        self.kept = (Self::MOST / 2) as u8;
        self.every = self.every.max(1).saturating_mul(2);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_has_no_median() {
        assert_eq!(Samples::default().take_median(), None);
    }

    proptest! {
        #[test]
        fn the_median_of_a_few_is_exact(values in proptest::collection::vec(any::<u32>(), 1..=16)) {
            let mut samples = Samples::default();
            for value in &values {
                samples.add(*value);
            }
            let mut sorted = values;
            sorted.sort_unstable();
            prop_assert_eq!(samples.take_median(), Some(sorted[(sorted.len() - 1) / 2]));
            prop_assert_eq!(samples.take_median(), None);
        }

        #[test]
        fn the_median_of_many_is_one_of_the_middle(count in 17u32..200_000) {
            let mut samples = Samples::default();
            for value in 0..count {
                samples.add(value);
            }
            let median = samples.take_median().unwrap();
            prop_assert!(median >= count / 4 && median <= count / 4 * 3, "{} of {}", median, count);
        }
    }
}
