//! What an interval of a connection adds up to.

use super::{Marks, Silences};

/// What one side sent, counted over an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Segments with bytes that were sent before; the SYN too.
    pub retransmits: u32,
    /// Of these: after duplicate acknowledgements.
    pub fast: u32,
    /// Of these: of what had been acknowledged.
    pub spurious: u32,
    /// SYN or SYN+ACK sent again; in `retransmits` too.
    pub syn_retransmits: u32,
    /// Segments that came later than others that were sent after them.
    pub out_of_order: u32,
    /// Gaps that were acknowledged, though the capture does not have them.
    pub lost_segments: u32,
    /// Acknowledgements that say nothing new.
    pub duplicate_acks: u32,
    /// Reports of bytes that came twice.
    pub duplicate_sacks: u32,
    /// Segments that announce a window of zero.
    pub zero_windows: u32,
    /// Segments that fill the window of the other side.
    pub window_full: u32,
    /// Keep-alives.
    pub keep_alives: u32,
    /// Probes of a window of zero.
    pub zero_window_probes: u32,
    /// Packets that the capture holds a second time.
    pub doubled: u32,
    /// Microseconds during which this side took nothing.
    pub zero_window_us: u64,
}

impl Counts {
    pub(super) fn add(&mut self, marks: Marks) {
        let one = |mark| u32::from(marks.contains(mark));
        self.retransmits += one(Marks::RETRANSMISSION);
        self.fast += one(Marks::FAST);
        self.spurious += one(Marks::SPURIOUS);
        self.out_of_order += one(Marks::OUT_OF_ORDER);
        self.duplicate_acks += one(Marks::DUPLICATE_ACK);
        self.duplicate_sacks += one(Marks::DUPLICATE_SACK);
        self.zero_windows += one(Marks::ZERO_WINDOW);
        self.window_full += one(Marks::WINDOW_FULL);
        self.keep_alives += one(Marks::KEEP_ALIVE);
        self.zero_window_probes += one(Marks::ZERO_WINDOW_PROBE);
        self.doubled += one(Marks::DOUBLED);
    }
}

/// Who reset a connection, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// [`super::TX`] or [`super::RX`].
    pub by: usize,
    /// Whether either side had sent data.
    pub after_data: bool,
}

/// An interval of a connection. Counters are of the interval, so that the sums over a connection's intervals are exact; what happens once
/// in a connection stands in the interval in which it happened. Pairs are what the initiator sent, and what the responder did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of each side.
    pub counts: [Counts; 2],
    /// Most bytes under way in the interval, where both what was sent and what was acknowledged are known.
    pub max_in_flight: [Option<u32>; 2],
    /// Median time from a segment of this side to its acknowledgement: the round trip from the place of capture to the other side.
    pub rtt_us: [Option<u32>; 2],
    /// Both smoothed (RFC 6298) and together: the whole path. None where one of them is not known.
    pub smoothed_rtt_us: Option<u32>,
    /// From the last SYN to the first SYN+ACK after it: the path to the responder.
    pub syn_ack_us: Option<u32>,
    /// From that SYN to the acknowledgement of the SYN+ACK; what it is longer than `syn_ack_us` is the path to the initiator.
    pub handshake_us: Option<u32>,
    /// Times between a SYN of the initiator and the one before it: its pattern of waiting. The first few.
    pub syn_waits_us: Vec<u32>,
    /// From the first data of the initiator to the first data of the responder.
    pub first_byte_us: Option<u32>,
    /// Median time from the last data of a request to the first data of the answer.
    pub response_us: Option<u32>,
    /// The first reset.
    pub reset: Option<Reset>,
    /// Data of the largest segment, up to the end of this interval, that was sent once and acknowledged.
    pub largest_passed: [u16; 2],
    /// Whether either side sent data up to the end of this interval.
    pub has_data: bool,
    /// Long silences that ended in the interval; none = there were none.
    pub silences: Option<Box<Silences>>,
}
