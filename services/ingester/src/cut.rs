//! Which messages a block has, and which of them it takes. Pure.

use weir_proto::Cut;

use crate::{error::Error, windows::Windows};

/// The most messages of one block: what it stores about them stays small, and the server hands out twice as many without an ack.
pub(crate) const MAX_MESSAGES: usize = 20_000;

/// A block that was cut, as the stored cut describes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Sequences of the messages whose batches were taken before the block, in order.
    duplicates: Vec<u64>,
}

impl Plan {
    /// Whether the block takes the batch of a message that it has.
    pub(crate) fn takes(&self, stream_sequence: u64) -> bool {
        self.duplicates.binary_search(&stream_sequence).is_err()
    }
}

/// The cut to store for a block.
pub(crate) fn encode(first: u64, last: u64, duplicates: &[u64], windows: &Windows, stream_created: u64) -> Cut {
    Cut { first, last, producers: windows.encode(), duplicates: runs(first, duplicates), stream_created }
}

/// The plan of the stored cut and the windows after it. The plan is void when the stream is another one than then.
pub(crate) fn decode(cut: &Cut, stream_created: u64) -> Result<(Option<Plan>, Windows), Error> {
    let windows = Windows::decode(&cut.producers).ok_or(Error::DamagedCut("a producer's window"))?;
    if cut.stream_created != stream_created {
        return Ok((None, windows));
    }
    let duplicates = sequences(cut).ok_or(Error::DamagedCut("the list of duplicates"))?;
    Ok((Some(Plan { first: cut.first, last: cut.last, duplicates }), windows))
}

/// Sequences as runs: the distance from the end of the run before, and the length.
fn runs(first: u64, sequences: &[u64]) -> Vec<u64> {
    let (mut runs, mut next) = (Vec::new(), first);
    for sequence in sequences {
        match runs.last_mut() {
            Some(length) if *sequence == next => *length += 1,
            _ => runs.extend([sequence - next, 1]),
        }
        next = sequence + 1;
    }
    runs
}

/// The opposite of [`runs`]; None = not within the cut.
fn sequences(cut: &Cut) -> Option<Vec<u64>> {
    let (mut sequences, mut next) = (Vec::new(), cut.first);
    for run in cut.duplicates.chunks(2) {
        let &[distance, length] = run else { return None };
        let start = next.checked_add(distance)?;
        next = start.checked_add(length)?;
        if next.checked_sub(1)? > cut.last || sequences.len() as u64 + length > MAX_MESSAGES as u64 {
            return None;
        }
        sequences.extend(start..next);
    }
    Some(sequences)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn consecutive_duplicates_are_one_run() {
        assert_eq!(runs(10, &[10, 11, 12, 20]), [0, 3, 7, 1]);
        assert_eq!(runs(10, &[12]), [2, 1]);
        assert_eq!(runs(10, &[]), [0; 0]);
    }

    #[test]
    fn a_cut_of_another_stream_keeps_only_the_windows() {
        let mut windows = Windows::default();
        windows.take(Uuid::from_u128(1), 1, 5);
        let cut = encode(5, 9, &[7], &windows, 1);
        let (plan, loaded) = decode(&cut, 1).unwrap();
        let plan = plan.unwrap();
        assert_eq!((plan.first, plan.last, plan.takes(6), plan.takes(7)), (5, 9, true, false));
        assert_eq!(loaded, windows);
        assert!(matches!(decode(&cut, 2), Ok((None, _))));
    }

    #[test]
    fn a_damaged_list_is_refused() {
        let cut = |duplicates| Cut { first: 5, last: 9, duplicates, stream_created: 1, ..Cut::default() };
        for damaged in [vec![1], vec![u64::MAX, 1], vec![0, u64::MAX], vec![0, 6]] {
            assert!(matches!(decode(&cut(damaged), 1), Err(Error::DamagedCut(_))));
        }
        assert!(decode(&cut(vec![0, 5]), 1).is_ok());
    }

    proptest! {
        #[test]
        fn duplicates_survive_the_way(first in 1_u64..1 << 60, offsets in prop::collection::btree_set(0_u64..2000, 0..300)) {
            let duplicates: Vec<_> = offsets.into_iter().map(|offset| first + offset).collect();
            let cut = encode(first, first + 2000, &duplicates, &Windows::default(), 1);
            prop_assert_eq!(sequences(&cut), Some(duplicates));
        }
    }
}
