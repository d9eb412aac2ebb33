//! What is missing of a direction below the highest byte seen.

use super::sequence::{after, before, distance};

/// Ranges that the capture does not have (yet). A connection without loss has none and needs no memory for them.
#[derive(Debug, Default)]
#[expect(clippy::box_collection, reason = "nearly all connections have none: eight bytes instead of 24")]
pub(super) struct Holes(Option<Box<Vec<(u32, u32)>>>);

/// Ranges beyond which the oldest is forgotten, so that its bytes count as seen.
const MOST: usize = 64;

impl Holes {
    #[cfg(test)]
    const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes on the heap.
    pub(super) fn held_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |holes| 24 + holes.capacity() * 8)
    }

    /// A range above all others is missing.
    pub(super) fn add(&mut self, start: u32, end: u32) {
        let holes = self.0.get_or_insert_default();
        if holes.len() == MOST {
            holes.remove(0);
        }
        holes.push((start, end));
    }

    /// Takes a range out; whether any of it was missing.
    pub(super) fn fill(&mut self, start: u32, end: u32) -> bool {
        let Some(holes) = &mut self.0 else { return false };
        let touches = |&(from, to): &(u32, u32)| before(from, end) && after(to, start);
        let Some(first) = holes.iter().position(touches) else { return false };
        let count = holes[first..].iter().take_while(|hole| touches(hole)).count();
        let (from, to) = (holes[first].0, holes[first + count - 1].1);
        let rest = [(from, start), (end, to)].into_iter().filter(|(from, to)| before(*from, *to));
        holes.splice(first..first + count, rest);
        self.release();
        true
    }

    /// Forgets what is below an acknowledgement; how many ranges of it were never seen.
    pub(super) fn acknowledged(&mut self, ack: u32) -> u32 {
        let Some(holes) = &mut self.0 else { return 0 };
        let below = holes.iter().take_while(|hole| distance(hole.1, ack) <= 0).count();
        holes.drain(..below);
        let mut lost = below as u32;
        if let Some(hole) = holes.first_mut()
            && before(hole.0, ack)
        {
            hole.0 = ack;
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
        holes.add(u32::MAX - 9, 10);
        assert!(holes.fill(u32::MAX - 4, 5));
        assert!(!holes.fill(u32::MAX - 4, 5), "it is there by now");
        assert!(holes.fill(4, 6));
        assert_eq!(holes.acknowledged(8), 2);
        assert!(holes.fill(8, 20));
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
                holes.add(base.wrapping_add(at), base.wrapping_add(at + hole));
                missing[at as usize..(at + hole) as usize].fill(true);
                at += hole + seen;
            }
            for (start, length) in fills {
                let range = start as usize..(start + length) as usize;
                let was_missing = missing[range.clone()].contains(&true);
                missing[range].fill(false);
                let (start, end) = (base.wrapping_add(start), base.wrapping_add(start + length));
                prop_assert_eq!(holes.fill(start, end), was_missing);
            }
            prop_assert_eq!(holes.is_empty(), !missing.contains(&true));
        }
    }
}
