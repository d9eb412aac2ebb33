//! A frame with several packets.

use super::{Analyzer, Frame};
use crate::packet::link::{Subframe, network, subframes};
use crate::tcp::Marks;

impl Analyzer {
    /// Takes the packets of a frame one after the other, each as if it had come alone.
    #[cold]
    pub(super) fn aggregate(&mut self, frame: &Frame<'_>) {
        let mut marks = Marks::default();
        for (before, found) in subframes(frame.link_type, frame.data, frame.original_length).enumerate() {
            self.summary.further_packets += u64::from(before > 0);
            match found {
                Ok(part) => self.part(frame, &part),
                Err(reason) => self.summary.unanalysed(reason),
            }
            marks.insert(std::mem::take(&mut self.marks));
        }
        self.marks = marks;
    }

    fn part(&mut self, frame: &Frame<'_>, part: &Subframe<'_>) {
        let alone = Frame { link_type: Subframe::LINK_TYPE, data: part.data, original_length: part.length, ..*frame };
        match network(alone.link_type, alone.data) {
            Ok(network) => {
                let before = part.offset + network.offset;
                self.outermost(&alone, &network, frame.data.get(..before).unwrap_or_default());
            }
            Err(reason) => self.without_network(&alone, reason),
        }
    }
}
