//! Which batches were taken: per producer a window below its highest sequence. Pure.
//!
//! A producer publishes its batches in order but for those that are on their way at the same time, so what is far below the highest was
//! taken, or will never come.

use std::collections::HashMap;

use uuid::Uuid;
use weir_proto::ProducerWindow;

/// Words of 64 sequences: 1024 sequences, where a publisher has 32 on their way.
const WORDS: usize = 16;
const WIDTH: u64 = 64 * WORDS as u64;

/// How many producers are remembered. With full windows they take 173 bytes each in the stored cut, 708 kB together; a message may have 1 MiB.
pub(crate) const MAX_PRODUCERS: usize = 4096;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is new, and from now on it is not.
    New,
    /// It was taken before.
    Duplicate,
    /// It is older than the window: it counts as taken.
    TooOld,
}

/// The windows of all producers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Windows {
    producers: HashMap<Uuid, Window>,
    /// Producers that had to be forgotten.
    pub(crate) forgotten: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Window {
    highest: u64,
    /// Bit n of word w = `highest - 1 - (64 * w + n)` was taken.
    below: [u64; WORDS],
    last_heard: u64,
}

impl Windows {
    /// Takes a batch that came with the message `stream_sequence`.
    pub(crate) fn take(&mut self, producer: Uuid, sequence: u64, stream_sequence: u64) -> Taken {
        if let Some(window) = self.producers.get_mut(&producer) {
            window.last_heard = stream_sequence;
            return window.take(sequence);
        }
        if self.producers.len() >= MAX_PRODUCERS {
            self.forget_longest_unheard();
        }
        self.producers.insert(producer, Window::new(sequence, stream_sequence));
        Taken::New
    }

    /// How many producers are remembered.
    pub(crate) fn len(&self) -> usize {
        self.producers.len()
    }

    /// As stored: what follows the last sequence that is missing is left out, which is everything where all came.
    pub(crate) fn encode(&self) -> Vec<ProducerWindow> {
        let encode = |(producer, window): (&Uuid, &Window)| ProducerWindow {
            producer: producer.as_bytes().to_vec(),
            highest: window.highest,
            taken_below: window.trimmed().to_vec(),
            last_heard: window.last_heard,
        };
        let mut windows: Vec<_> = self.producers.iter().map(encode).collect();
        windows.sort_by(|a, b| a.producer.cmp(&b.producer));
        windows
    }

    /// From what was stored; None = it is damaged.
    pub(crate) fn decode(stored: &[ProducerWindow]) -> Option<Self> {
        let decode = |window: &ProducerWindow| {
            let mut below = [u64::MAX; WORDS];
            below.get_mut(..window.taken_below.len())?.copy_from_slice(&window.taken_below);
            let producer = Uuid::from_slice(&window.producer).ok()?;
            Some((producer, Window { highest: window.highest, below, last_heard: window.last_heard }))
        };
        Some(Self { producers: stored.iter().map(decode).collect::<Option<_>>()?, forgotten: 0 })
    }

    fn forget_longest_unheard(&mut self) {
        let longest = self.producers.iter().min_by_key(|(_, window)| window.last_heard).map(|(producer, _)| *producer);
        if let Some(producer) = longest {
            self.producers.remove(&producer);
            self.forgotten += 1;
        }
    }
}

impl Window {
    fn new(sequence: u64, stream_sequence: u64) -> Self {
        let mut window = Self { highest: sequence, below: [0; WORDS], last_heard: stream_sequence };
        // There is no batch below the first.
        for offset in sequence.saturating_sub(1)..WIDTH {
            window.set(offset);
        }
        window
    }

    fn take(&mut self, sequence: u64) -> Taken {
        if sequence > self.highest {
            self.shift(sequence - self.highest);
            self.highest = sequence;
            return Taken::New;
        }
        if sequence == self.highest {
            return Taken::Duplicate;
        }
        let offset = self.highest - 1 - sequence;
        if offset >= WIDTH {
            Taken::TooOld
        } else if self.is_set(offset) {
            Taken::Duplicate
        } else {
            self.set(offset);
            Taken::New
        }
    }

    /// Moves the bits `by` away from the highest, which becomes the bit `by - 1`.
    fn shift(&mut self, by: u64) {
        let old = std::mem::replace(&mut self.below, [0; WORDS]);
        if by <= WIDTH {
            let (words, bits) = ((by / 64) as usize, by % 64);
            for (to, word) in (words..WORDS).zip(old) {
                self.below[to] |= word << bits;
                if bits > 0 && to + 1 < WORDS {
                    self.below[to + 1] |= word >> (64 - bits);
                }
            }
            self.set(by - 1);
        }
    }

    fn is_set(&self, offset: u64) -> bool {
        self.below[(offset / 64) as usize] >> (offset % 64) & 1 == 1
    }

    fn set(&mut self, offset: u64) {
        self.below[(offset / 64) as usize] |= 1 << (offset % 64);
    }

    fn trimmed(&self) -> &[u64] {
        let end = self.below.iter().rposition(|word| *word != u64::MAX).map_or(0, |last| last + 1);
        &self.below[..end]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use prost::Message as _;
    use weir_proto::Cut;

    use super::*;

    const A: Uuid = Uuid::from_u128(1);

    #[test]
    fn a_batch_is_new_once_also_when_it_comes_late() {
        let mut windows = Windows::default();
        assert_eq!(windows.take(A, 3, 1), Taken::New);
        assert_eq!(windows.take(A, 1, 2), Taken::New);
        assert_eq!(windows.take(A, 3, 3), Taken::Duplicate);
        assert_eq!(windows.take(A, 2, 4), Taken::New);
        assert_eq!(windows.take(A, 70, 5), Taken::New);
        for sequence in 1..=3 {
            assert_eq!(windows.take(A, sequence, 6), Taken::Duplicate);
        }
        assert_eq!(windows.take(A, 4, 6), Taken::New);
        assert_eq!(windows.take(Uuid::from_u128(2), 1, 7), Taken::New);
    }

    #[test]
    fn what_is_older_than_the_window_counts_as_taken() {
        let mut windows = Windows::default();
        windows.take(A, 1, 1);
        windows.take(A, 5000, 2);
        assert_eq!(windows.take(A, 5000 - WIDTH, 3), Taken::New);
        assert_eq!(windows.take(A, 5000 - WIDTH - 1, 3), Taken::TooOld);
        assert_eq!(windows.take(A, 1, 3), Taken::TooOld);
        windows.take(A, u64::MAX, 4);
        assert_eq!(windows.take(A, 1, 5), Taken::TooOld);
    }

    #[test]
    fn the_longest_unheard_producer_is_forgotten_first() {
        let mut windows = Windows::default();
        for n in 0..MAX_PRODUCERS as u64 {
            windows.take(Uuid::from_u128(u128::from(n)), 1, n);
        }
        // Heard again: number 1 is now the longest unheard.
        windows.take(Uuid::from_u128(0), 1, 9000);
        windows.take(Uuid::from_u128(u128::MAX), 1, 9001);
        assert_eq!((windows.len(), windows.forgotten), (MAX_PRODUCERS, 1));
        assert_eq!(windows.take(Uuid::from_u128(0), 1, 9002), Taken::Duplicate);
        assert_eq!(windows.take(Uuid::from_u128(1), 1, 9003), Taken::New);
    }

    #[test]
    fn a_producer_whose_batches_all_came_takes_few_bytes_and_the_worst_case_fits_into_a_message() {
        let mut windows = Windows::default();
        for sequence in 1..=10_000 {
            windows.take(A, sequence, sequence);
        }
        assert_eq!(windows.encode()[0].taken_below, Vec::<u64>::new());
        assert!(windows.encode()[0].encoded_len() < 30);

        let full = ProducerWindow {
            producer: vec![255; 16],
            highest: u64::MAX,
            taken_below: vec![0; WORDS],
            last_heard: u64::MAX,
        };
        // The worst of duplicates: every other message.
        let cut = Cut {
            first: u64::MAX,
            last: u64::MAX,
            producers: vec![full; MAX_PRODUCERS],
            duplicates: vec![1; crate::cut::MAX_MESSAGES],
            stream_created: u64::MAX,
        };
        assert!(cut.encoded_len() < 1_000_000, "{}", cut.encoded_len());
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let good = ProducerWindow { producer: vec![1; 16], highest: 1, taken_below: vec![0; WORDS], last_heard: 1 };
        assert!(Windows::decode(std::slice::from_ref(&good)).is_some());
        assert!(Windows::decode(&[ProducerWindow { producer: vec![1; 15], ..good.clone() }]).is_none());
        assert!(Windows::decode(&[ProducerWindow { taken_below: vec![0; WORDS + 1], ..good }]).is_none());
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set(jumps in prop::collection::vec((0_u64..90, 0_u64..1200), 1..400)) {
            let mut windows = Windows::default();
            let (mut taken, mut top) = (HashSet::new(), 1);
            for (n, (forward, back)) in jumps.into_iter().enumerate() {
                top += forward;
                let sequence = top.saturating_sub(back).max(1);
                let highest = taken.iter().copied().max().unwrap_or(sequence);
                let expected = if sequence < highest && highest - 1 - sequence >= WIDTH {
                    Taken::TooOld
                } else if taken.insert(sequence) {
                    Taken::New
                } else {
                    Taken::Duplicate
                };
                prop_assert_eq!(windows.take(A, sequence, n as u64), expected);
                // A store and a load in between change nothing.
                let stored = windows.encode();
                let loaded = Windows::decode(&stored);
                prop_assert_eq!(loaded.as_ref(), Some(&windows));
            }
        }
    }
}
