//! What the sequence numbers of one direction tell: what was sent again, what came late, and when the receiver had no room.
//!
//! A segment that begins before the highest sequence number seen was sent again, or was overtaken on its way. A sender's own hook sees nothing
//! overtaken. Elsewhere the time decides, as in Wireshark: what comes within [`REORDER_US`] of the segment that overtook it was reordered.

use crate::initiator::{FIN, RST, SYN};

/// How long an overtaken segment may be late.
pub const REORDER_US: u32 = 3000;

/// Set in [`Progress::marks`] when `next` is known.
pub const STARTED: u32 = 1;
/// Set in [`Progress::marks`] while the sender announces no room.
pub const NO_ROOM: u32 = 2;
/// Set in [`Progress::marks`] when this side's SYN waits for its answer to be acknowledged.
pub const CONNECTING: u32 = 4;

/// A TCP segment, or a super-packet of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number of the first byte.
    pub sequence: u32,
    /// What the sender expects next.
    pub acknowledgement: u32,
    /// Bytes behind the TCP header.
    pub payload: u32,
    /// As in the header, not scaled.
    pub window: u16,
    /// The header's 14th byte.
    pub flags: u8,
}

/// What is remembered of a direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Progress {
    /// The sequence number after the highest seen.
    pub next: u32,
    /// When that came, in units of 1024 ns, wrapping.
    pub advanced: u32,
    /// Segments sent again.
    pub retransmits: u32,
    /// Segments that others have overtaken.
    pub out_of_order: u32,
    /// Times that the announced window became 0.
    pub zero_windows: u32,
    /// [`STARTED`], [`NO_ROOM`], [`CONNECTING`].
    pub marks: u32,
}

/// What a segment is to its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It carries nothing that has a sequence number, or only probes.
    Empty,
    /// It is what was expected, or what comes after a gap.
    Next,
    /// It begins with what has been seen already.
    Again,
    /// Another one has overtaken it.
    Late,
}

impl Progress {
    /// Follows a segment that is `packets` on the wire. `now` in units of 1024 ns; `own`: it comes from the sender's own stack.
    ///
    /// Not atomic: two CPUs that handle one direction in one moment may count one segment less.
    #[inline(always)]
    pub fn follow(&mut self, segment: &Segment, packets: u64, now: u32, own: bool) {
        let length = segment.length();
        match self.place(segment, length, now, own) {
            Place::Empty => {}
            Place::Next => self.advance(segment, length, now),
            Place::Again => {
                self.retransmits = self.retransmits.wrapping_add(packets as u32);
                self.extend(segment, length, now);
            }
            Place::Late => {
                self.out_of_order = self.out_of_order.wrapping_add(packets as u32);
                self.extend(segment, length, now);
            }
        }
        self.follow_window(segment);
    }

    /// What a segment is.
    #[inline(always)]
    #[must_use]
    pub fn place(&self, segment: &Segment, length: u32, now: u32, own: bool) -> Place {
        if length == 0 || segment.flags & RST != 0 {
            return Place::Empty;
        }
        let behind = self.next.wrapping_sub(segment.sequence);
        // A new connection of the same ports begins with a SYN anywhere; a repeated SYN is where the first was.
        let anew = segment.flags & SYN != 0 && behind != length;
        if self.marks & STARTED == 0 || behind == 0 || behind > 1 << 31 || anew {
            return Place::Next;
        }
        // Keep-alive (RFC 9293 section 3.8.4): the last byte once more.
        if behind == 1 && length == 1 && segment.payload == 1 {
            return Place::Empty;
        }
        let alone = own || segment.flags & SYN != 0;
        if !alone && now.wrapping_sub(self.advanced) < REORDER_US { Place::Late } else { Place::Again }
    }

    #[inline(always)]
    fn advance(&mut self, segment: &Segment, length: u32, now: u32) {
        self.next = segment.sequence.wrapping_add(length);
        self.advanced = now;
        self.marks |= STARTED;
    }

    /// A segment that repeats may bring something new behind it.
    #[inline(always)]
    fn extend(&mut self, segment: &Segment, length: u32, now: u32) {
        let end = segment.sequence.wrapping_add(length);
        if end.wrapping_sub(self.next).wrapping_sub(1) < 1 << 31 {
            self.advance(segment, length, now);
        }
    }

    #[inline(always)]
    fn follow_window(&mut self, segment: &Segment) {
        if segment.flags & (SYN | RST | FIN) != 0 {
            return;
        }
        let before = self.marks & NO_ROOM != 0;
        if segment.window == 0 && !before {
            self.zero_windows = self.zero_windows.wrapping_add(1);
            self.marks |= NO_ROOM;
        } else if segment.window != 0 && before {
            self.marks &= !NO_ROOM;
        }
    }
}

impl Segment {
    /// How far it moves the sequence: SYN and FIN count as a byte each.
    #[inline(always)]
    #[must_use]
    pub fn length(&self) -> u32 {
        self.payload + u32::from(self.flags & SYN != 0) + u32::from(self.flags & FIN != 0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;
    use crate::initiator::ACK;

    fn data(sequence: u32, payload: u32) -> Segment {
        Segment { sequence, payload, window: 100, flags: ACK, ..Segment::default() }
    }

    fn after(segments: &[(Segment, u32)], own: bool) -> Progress {
        let mut progress = Progress::default();
        for (segment, now) in segments {
            progress.follow(segment, 1, *now, own);
        }
        progress
    }

    #[test]
    fn what_begins_before_the_highest_was_sent_again_or_overtaken() {
        let lost = [(data(0, 100), 0), (data(100, 100), 10), (data(0, 100), 10_000)];
        assert_eq!((after(&lost, false).retransmits, after(&lost, false).out_of_order), (1, 0));
        let overtaken = [(data(0, 100), 0), (data(200, 100), 10), (data(100, 100), 20)];
        assert_eq!((after(&overtaken, false).retransmits, after(&overtaken, false).out_of_order), (0, 1));
        // A sender's own stack does not overtake itself.
        assert_eq!((after(&overtaken, true).retransmits, after(&overtaken, true).out_of_order), (1, 0));
    }

    #[test]
    fn acknowledgements_keep_alives_and_resets_are_nothing() {
        let reset = Segment { flags: RST, ..data(0, 0) };
        let end = after(
            &[(data(0, 100), 0), (data(100, 0), 1), (data(99, 0), 9_000), (data(99, 1), 9_000), (reset, 9_000)],
            false,
        );
        assert_eq!((end.next, end.retransmits, end.out_of_order), (100, 0, 0));
    }

    #[test]
    fn a_syn_that_is_sent_again_counts_and_a_new_connection_does_not() {
        let syn = |sequence| Segment { flags: SYN, ..data(sequence, 0) };
        assert_eq!(after(&[(syn(7), 0), (syn(7), 10)], false).retransmits, 1);
        let anew = after(&[(syn(7), 0), (data(8, 50), 10), (syn(3), 1_000_000)], true);
        assert_eq!((anew.next, anew.retransmits), (4, 0));
    }

    #[test]
    fn a_window_that_closes_counts_once_until_it_opens() {
        let window = |window, now| (Segment { window, ..data(0, 0) }, now);
        let closed = after(&[window(5, 0), window(0, 1), window(0, 2), window(9, 3), window(0, 4)], false);
        assert_eq!(closed.zero_windows, 2);
    }

    proptest! {
        #[test]
        fn a_stream_in_order_has_nothing_late_wherever_it_starts(start: u32, lengths in prop::collection::vec(1u32..70_000, 1..60)) {
            let mut at = start;
            let segments: Vec<_> = lengths.iter().enumerate().map(|(index, &length)| {
                let segment = (data(at, length), index as u32);
                at = at.wrapping_add(length);
                segment
            }).collect();
            let progress = after(&segments, false);
            prop_assert_eq!((progress.next, progress.retransmits, progress.out_of_order), (at, 0, 0));
        }

        #[test]
        fn every_segment_sent_again_later_is_counted(start: u32, lengths in prop::collection::vec(2u32..3000, 1..40), again in any::<prop::sample::Index>()) {
            let mut at = start;
            let mut segments = Vec::new();
            for &length in &lengths {
                segments.push((data(at, length), 0));
                at = at.wrapping_add(length);
            }
            let repeated = segments[again.index(segments.len())].0;
            segments.push((repeated, 1 << 20));
            let progress = after(&segments, false);
            prop_assert_eq!((progress.next, progress.retransmits, progress.out_of_order), (at, 1, 0));
        }
    }
}
