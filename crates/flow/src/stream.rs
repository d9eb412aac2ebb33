//! The bytes of one direction of a TCP connection in their order, within bounds.

/// Bytes that may wait for a gap to close, per direction. A window's worth of a slow start, which is where the protocols that are read
/// here say who they are.
const MAX_HELD_BYTES: usize = 64 << 10;
/// Segments that may wait for a gap to close, per direction.
const MAX_HELD_SEGMENTS: usize = 64;

/// Puts segments in order. The first segment, or the SYN, says where the stream begins.
#[derive(Debug, Default)]
pub struct Reassembler {
    next: Option<u32>,
    /// Not yet in order: sequence number, bytes, and whether the capture kept all of them.
    held: Vec<(u32, Vec<u8>, bool)>,
    held_bytes: usize,
    lost: bool,
}

impl Reassembler {
    /// A stream that begins after a SYN with this sequence number.
    #[must_use]
    pub fn after_syn(sequence: u32) -> Self {
        Self { next: Some(sequence.wrapping_add(1)), ..Self::default() }
    }

    /// Sequence number of the next byte; none before the first segment.
    #[must_use]
    pub const fn next(&self) -> Option<u32> {
        self.next
    }

    /// Bytes that wait for a gap to close.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether the stream cannot be followed any further.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.lost
    }

    /// Takes a segment and hands what is now in order to `sink`. `complete` says that the capture kept all of it.
    pub fn push(&mut self, sequence: u32, bytes: &[u8], complete: bool, sink: &mut impl FnMut(&[u8])) {
        if self.lost || bytes.is_empty() {
            return;
        }
        let next = *self.next.get_or_insert(sequence);
        let ahead = sequence.wrapping_sub(next).cast_signed();
        if ahead > 0 {
            return self.hold(sequence, bytes, complete);
        }
        self.deliver(sequence, bytes, complete, sink);
        while !self.lost
            && let Some(index) = self.ready()
        {
            let (sequence, bytes, complete) = self.held.swap_remove(index);
            self.held_bytes -= bytes.len();
            self.deliver(sequence, &bytes, complete, sink);
        }
    }

    /// The earliest segment that begins at or before the next byte.
    fn ready(&self) -> Option<usize> {
        let next = self.next?;
        let distance = |sequence: u32| sequence.wrapping_sub(next).cast_signed();
        let (index, earliest) = self.held.iter().enumerate().min_by_key(|(_, held)| distance(held.0))?;
        (distance(earliest.0) <= 0).then_some(index)
    }

    fn hold(&mut self, sequence: u32, bytes: &[u8], complete: bool) {
        if self.held.len() >= MAX_HELD_SEGMENTS || self.held_bytes + bytes.len() > MAX_HELD_BYTES {
            self.give_up();
            return;
        }
        if self.held.iter().any(|held| held.0 == sequence && held.1.len() >= bytes.len()) {
            return;
        }
        self.held_bytes += bytes.len();
        self.held.push((sequence, bytes.to_vec(), complete));
    }

    /// Hands on what is new of a segment that begins at or before the next byte.
    fn deliver(&mut self, sequence: u32, bytes: &[u8], complete: bool, sink: &mut impl FnMut(&[u8])) {
        let next = self.next.unwrap_or(sequence);
        let seen = next.wrapping_sub(sequence) as usize;
        let Some(new) = bytes.get(seen..).filter(|new| !new.is_empty()) else { return };
        self.next = Some(next.wrapping_add(new.len() as u32));
        sink(new);
        if !complete {
            self.give_up();
        }
    }

    fn give_up(&mut self) {
        self.lost = true;
        self.held = Vec::new();
        self.held_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gather(stream: &mut Reassembler, segments: &[(u32, &[u8], bool)]) -> Vec<u8> {
        let mut out = Vec::new();
        for &(sequence, bytes, complete) in segments {
            stream.push(sequence, bytes, complete, &mut |new: &[u8]| out.extend_from_slice(new));
        }
        out
    }

    #[test]
    fn a_segment_sent_again_adds_nothing() {
        let segments: [(u32, &[u8], bool); 4] =
            [(1, b"abc", true), (1, b"abc", true), (2, b"bcde", true), (1, b"a", true)];
        assert_eq!(gather(&mut Reassembler::after_syn(0), &segments), b"abcde");
    }

    #[test]
    fn a_cut_segment_ends_the_stream_after_what_was_kept() {
        let mut stream = Reassembler::after_syn(0);
        assert_eq!(gather(&mut stream, &[(1, b"ab", false), (3, b"cd", true)]), b"ab");
        assert!(stream.is_lost());
    }

    proptest! {
        #[test]
        fn any_order_of_segments_gives_the_stream(
            payload in proptest::collection::vec(any::<u8>(), 1..400),
            isn: u32,
            order in Just((0..50usize).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let segments: Vec<(u32, &[u8], bool)> = payload
                .chunks(8)
                .enumerate()
                .map(|(index, bytes)| (isn.wrapping_add(1).wrapping_add(index as u32 * 8), bytes, true))
                .collect();
            let shuffled: Vec<_> = order.into_iter().filter_map(|index| segments.get(index).copied()).collect();
            let mut stream = Reassembler::after_syn(isn);
            prop_assert_eq!(gather(&mut stream, &shuffled), payload);
            prop_assert_eq!(stream.held_bytes(), 0);
        }

        #[test]
        fn hostile_segments_stay_within_the_bounds(
            segments in proptest::collection::vec((any::<u32>(), 0usize..3000, any::<bool>()), 0..200),
        ) {
            let mut stream = Reassembler::default();
            for (sequence, length, complete) in segments {
                stream.push(sequence, &vec![0; length], complete, &mut |_: &[u8]| {});
                prop_assert!(stream.held_bytes() <= MAX_HELD_BYTES && stream.held.len() <= MAX_HELD_SEGMENTS);
            }
        }
    }
}
