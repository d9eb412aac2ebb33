//! What is missing of a direction below the highest byte seen.

use super::sequence::{after, before, distance};

/// A range that is missing, and since when.
#[derive(Clone, Copy, Debug)]
struct Hole {
    start: u32,
    end: u32,
    since: u64,
}

/// Ranges that the capture does not have (yet). A connection without loss has none and needs no memory for them.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "nearly all connections have none: eight bytes instead of 24")]
pub(super) struct Holes(Option<Box<Vec<Hole>>>);

/// Ranges beyond which the oldest is forgotten, so that its bytes count as seen.
const MOST: usize = 64;

impl Holes {
    #[cfg(test)]
    const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes on the heap.
    pub(super) fn held_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |holes| 24 + holes.capacity() * size_of::<Hole>())
    }

    /// A range above all others is missing.
    pub(super) fn add(&mut self, start: u32, end: u32, since: u64) {
        let holes = self.0.get_or_insert_default();
        if holes.len() == MOST {
            holes.remove(0);
        }
        holes.push(Hole { start, end, since });
    }

    /// Takes a range out; since when the first of it was missing, if any was.
    pub(super) fn fill(&mut self, start: u32, end: u32) -> Option<u64> {
        let holes = self.0.as_mut()?;
        let touches = |hole: &Hole| before(hole.start, end) && after(hole.end, start);
        let first = holes.iter().position(touches)?;
        let count = holes[first..].iter().take_while(|hole| touches(hole)).count();
        let (lowest, highest) = (holes[first], holes[first + count - 1]);
        let rest = [Hole { end: start, ..lowest }, Hole { start: end, ..highest }];
        holes.splice(first..first + count, rest.into_iter().filter(|hole| before(hole.start, hole.end)));
        self.release();
        Some(lowest.since)
    }

    /// Forgets what is below an acknowledgement; how many ranges of it were never seen.
    pub(super) fn acknowledged(&mut self, ack: u32) -> u32 {
        let Some(holes) = &mut self.0 else { return 0 };
        let below = holes.iter().take_while(|hole| distance(hole.end, ack) <= 0).count();
        holes.drain(..below);
        let mut lost = below as u32;
        if let Some(hole) = holes.first_mut()
            && before(hole.start, ack)
        {
            hole.start = ack;
            lost += 1;
        }
        self.release();
        lost
    }

    fn release(&mut self) {
        if self.0.as_ref().is_some_and(|holes| holes.is_empty()) {
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_in_the_middle_leaves_both_ends() {
        let mut holes = Holes::default();
        holes.add(u32::MAX - 9, 10, 7);
        assert_eq!(holes.fill(u32::MAX - 4, 5), Some(7));
        assert_eq!(holes.fill(u32::MAX - 4, 5), None, "it is there by now");
        assert_eq!(holes.fill(4, 6), Some(7));
        assert_eq!(holes.acknowledged(8), 2);
        assert_eq!(holes.fill(8, 20), Some(7));
        assert!(holes.is_empty());
    }

    proptest! {
        #[test]
        fn holes_are_what_no_segment_filled(
            base: u32,
            gaps in proptest::collection::vec((1u32..50, 1u32..50), 1..20),
            fills in proptest::collection::vec((0u32..1500, 1u32..100), 0..60),
        ) {
            let mut holes = Holes::default();
            let mut missing = [false; 4000];
            let mut at = 0;
            for (hole, seen) in gaps {
                holes.add(base.wrapping_add(at), base.wrapping_add(at + hole), 0);
                missing[at as usize..(at + hole) as usize].fill(true);
                at += hole + seen;
            }
            for (start, length) in fills {
                let range = start as usize..(start + length) as usize;
                let was_missing = missing[range.clone()].contains(&true);
                missing[range].fill(false);
                let (start, end) = (base.wrapping_add(start), base.wrapping_add(start + length));
                prop_assert_eq!(holes.fill(start, end).is_some(), was_missing);
            }
            prop_assert_eq!(holes.is_empty(), !missing.contains(&true));
        }
    }
}
