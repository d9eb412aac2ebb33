//! The options of a segment that say something about its connection.

use crate::bytes::u32_at;

/// What was read of them. Options that are cut off, or contradict their length, end the reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Shift of later windows (RFC 7323); at most 14. In a SYN only.
    pub window_scale: Option<u8>,
    /// Largest segment that the sender takes. In a SYN only.
    pub max_segment: Option<u16>,
    /// Clock of the sender when it sent this (RFC 7323).
    pub timestamp: Option<u32>,
    /// First block of SACK (RFC 2018): beginning, end.
    pub sack: Option<(u32, u32)>,
    /// Second block.
    pub second_sack: Option<(u32, u32)>,
}

impl Options {
    /// Reads the options of a header.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        match bytes {
            [] => Self::default(),
            // Nearly all segments of today's hosts: two of padding, then the timestamps.
            [1, 1, 8, 10, a, b, c, d, _, _, _, _] => {
                Self { timestamp: Some(u32::from_be_bytes([*a, *b, *c, *d])), ..Self::default() }
            }
            _ => Self::walk(bytes),
        }
    }

    fn walk(mut bytes: &[u8]) -> Self {
        const END: u8 = 0;
        const NOTHING: u8 = 1;
        let mut options = Self::default();
        loop {
            let (kind, length) = match *bytes {
                [] | [END, ..] => return options,
                [NOTHING, ..] => {
                    bytes = &bytes[1..];
                    continue;
                }
                [kind, length, ..] if length >= 2 => (kind, usize::from(length)),
                [_, ..] => return options,
            };
            let Some((option, rest)) = bytes.split_at_checked(length) else { return options };
            options.take(kind, &option[2..]);
            bytes = rest;
        }
    }

    fn take(&mut self, kind: u8, value: &[u8]) {
        match (kind, value) {
            (2, &[a, b]) => self.max_segment = Some(u16::from_be_bytes([a, b])),
            (3, &[shift]) => self.window_scale = Some(shift.min(14)),
            (5, blocks) => {
                let block = |at| Some((u32_at(blocks, at)?, u32_at(blocks, at + 4)?));
                (self.sack, self.second_sack) = (block(0), block(8));
            }
            (8, value) if value.len() == 8 => self.timestamp = u32_at(value, 0),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_options_of_a_syn_are_read() {
        let syn = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 1, 2, 0, 0, 0, 0, 1, 3, 3, 7];
        let options = Options::parse(&syn);
        assert_eq!((options.max_segment, options.window_scale, options.timestamp), (Some(1460), Some(7), Some(258)));
    }

    #[test]
    fn blocks_of_sack_are_read_behind_timestamps() {
        let ack = [1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 1, 5, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4];
        let options = Options::parse(&ack);
        assert_eq!((options.timestamp, options.sack, options.second_sack), (Some(9), Some((1, 2)), Some((3, 4))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let options = Options::parse(&bytes);
            prop_assert!(options.window_scale.is_none_or(|shift| shift <= 14));
        }
    }
}
