//! Several packets in one IEEE 802.11 frame: A-MSDU (IEEE 802.11-2020 section 9.3.2.2).

use super::super::{Layer, Unanalysed};
use super::{LinkType, TRUNCATED_LINK, Walk};
use crate::bytes::{after, u16_at, up_to};

/// Addresses and length before each packet.
const HEADER: usize = 14;
/// The largest A-MSDU has 11,454 bytes, and a packet without a byte takes 16 of them.
const MOST: usize = 716;

/// One of several packets in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subframe<'a> {
    /// Begins with IEEE 802.2, as a frame of [`Self::LINK_TYPE`] does.
    pub data: &'a [u8],
    /// Bytes of the frame before `data`.
    pub offset: usize,
    /// Bytes that `data` had on the wire.
    pub length: u32,
}

impl Subframe<'_> {
    /// What its bytes are.
    pub const LINK_TYPE: LinkType = LinkType::ATM_RFC1483;
}

/// The packets of a frame that is [`Unanalysed::Aggregate`], in their order. An error is the last, and says why there are not more.
#[must_use]
pub fn subframes(link_type: LinkType, frame: &[u8], original_length: u32) -> Subframes<'_> {
    let mut walk = Walk::new(frame);
    let is_over = walk.link(link_type) != Err(Unanalysed::Aggregate);
    // A file may claim an original length below what it holds.
    let length = frame.len().max(original_length as usize);
    Subframes { frame, length, offset: walk.offset, count: 0, is_over }
}

/// See [`subframes`].
#[derive(Clone, Debug)]
pub struct Subframes<'a> {
    frame: &'a [u8],
    /// On the wire.
    length: usize,
    /// Of the next one.
    offset: usize,
    count: usize,
    is_over: bool,
}

impl<'a> Iterator for Subframes<'a> {
    type Item = Result<Subframe<'a>, Unanalysed>;

    fn next(&mut self) -> Option<Self::Item> {
        // What is shorter than a header is padding and the check sequence of the frame.
        if self.is_over || (self.count > 0 && self.length <= self.offset + HEADER) {
            return None;
        }
        let found = self.subframe();
        self.is_over = found.is_err();
        Some(found)
    }
}

impl<'a> Subframes<'a> {
    fn subframe(&mut self) -> Result<Subframe<'a>, Unanalysed> {
        if self.count == MOST {
            return Err(Unanalysed::Aggregate);
        }
        let length = u16_at(after(self.frame, self.offset), 12).ok_or(TRUNCATED_LINK)?;
        let offset = self.offset + HEADER;
        let end = offset + usize::from(length);
        if end > self.length {
            return Err(Unanalysed::Malformed(Layer::Link));
        }
        self.count += 1;
        // Padded to a multiple of 4, whatever the frame's own header has.
        self.offset += (end - self.offset).next_multiple_of(4);
        let data = up_to(after(self.frame, offset), usize::from(length));
        Ok(Subframe { data, offset, length: u32::from(length) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::link::network;

    /// A radiotap header, that of a frame with quality of service, and these packets.
    fn frame(parts: &[&[u8]]) -> Vec<u8> {
        let mut frame = [&[0, 0, 8, 0, 0, 0, 0, 0, 0x88, 1][..], &[0; 22], &[0x80, 0]].concat();
        let start = frame.len();
        for part in parts {
            let length = frame.len() - start;
            frame.resize(start + length.next_multiple_of(4), 0);
            frame.extend_from_slice(&[2; 12]);
            frame.extend_from_slice(&(part.len() as u16).to_be_bytes());
            frame.extend_from_slice(part);
        }
        frame
    }

    fn lengths(frame: &[u8], original_length: usize) -> Vec<Result<(u32, usize), Unanalysed>> {
        let all = subframes(LinkType::RADIOTAP, frame, original_length as u32);
        all.map(|found| found.map(|found| (found.length, found.data.len()))).collect()
    }

    #[test]
    fn each_packet_of_a_frame_is_there_with_padding_and_check_sequence_or_without() {
        let parts: [&[u8]; 3] = [&[0xaa; 29], &[0xaa; 8], &[0xaa; 31]];
        let whole = frame(&parts);
        assert_eq!(network(LinkType::RADIOTAP, &whole), Err(Unanalysed::Aggregate));
        let expected = [Ok((29, 29)), Ok((8, 8)), Ok((31, 31))];
        for trailer in [0, 3, 4, 7] {
            let whole = [&whole[..], &vec![0; trailer]].concat();
            assert_eq!(lengths(&whole, whole.len()), expected, "{trailer}");
        }
        let offsets: Vec<_> = subframes(LinkType::RADIOTAP, &whole, 0).map(|found| found.unwrap().offset).collect();
        assert_eq!(offsets, [48, 48 + 30 + 14, 48 + 30 + 14 + 24]);
    }

    #[test]
    fn what_the_snap_length_cut_is_said_once() {
        let whole = frame(&[&[0xaa; 40], &[0xaa; 40], &[0xaa; 40]]);
        // Within the second packet, behind it, and within the header of the third.
        for (kept, of_second) in [(120, 16), (144, 40), (150, 40)] {
            let found = lengths(&whole[..kept], whole.len());
            assert_eq!(found, [Ok((40, 40)), Ok((40, of_second)), Err(TRUNCATED_LINK)], "{kept}");
        }
        assert_eq!(lengths(&whole[..34], whole.len()), [Err(TRUNCATED_LINK)]);
    }

    #[test]
    fn lengths_that_lie_end_a_frame() {
        let mut whole = frame(&[&[0xaa; 40], &[0xaa; 40]]);
        whole[34 + 56 + 12] = 0xff;
        assert_eq!(lengths(&whole, whole.len()), [Ok((40, 40)), Err(Unanalysed::Malformed(Layer::Link))]);
        let many = frame(&vec![&[][..]; 3000]);
        let found = lengths(&many, many.len());
        assert_eq!((found.len(), found.last()), (MOST + 1, Some(&Err(Unanalysed::Aggregate))));
        assert_eq!(lengths(&[], 0), [], "not an aggregate");
    }

    proptest! {
        #[test]
        fn any_bytes_give_packets_that_are_in_their_frame_and_do_not_overlap(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            original_length: u32,
        ) {
            let whole = [&frame(&[])[..], &bytes].concat();
            let mut end = 0;
            for found in subframes(LinkType::RADIOTAP, &whole, original_length).map_while(Result::ok) {
                prop_assert!(found.offset >= end + HEADER && found.data.len() <= found.length as usize);
                end = found.offset + found.length as usize;
                prop_assert!(end <= whole.len().max(original_length as usize));
                prop_assert!(found.data.is_empty() || whole[found.offset..].starts_with(found.data));
            }
        }
    }
}
