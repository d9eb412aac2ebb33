//! What is known of one side of a connection.

use super::holes::Holes;
use super::samples::Samples;
use super::sequence::{after, distance};
use super::{Marks, Segment};

/// What one side sent, and said that it has received. What is not known yet is zero, and a flag says so.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not follow from each other")]
pub(super) struct Side {
    /// One past the highest byte sent.
    pub(super) next: u32,
    /// Last acknowledgement sent.
    pub(super) ack: u32,
    /// Clock of the sender in the segment that moved `next`.
    timestamp: u32,
    /// A recovery that duplicate acknowledgements began lasts until this is acknowledged.
    recover: u32,
    /// Highest byte that this side reported with SACK to have beyond `ack`.
    sacked: u32,
    /// Round trip to the other side, smoothed.
    pub(super) smoothed_rtt_us: u32,
    /// Most bytes under way in the interval.
    pub(super) max_in_flight: u32,
    /// Last window, as on the wire.
    pub(super) window: u16,
    /// Acknowledgements that repeated the one before them.
    duplicate_acks: u16,
    /// Data of the largest segment that was sent once and acknowledged.
    pub(super) largest_passed: u16,
    /// Shift of windows, if a SYN said.
    pub(super) scale: Option<u8>,
    /// `next` is known.
    pub(super) sends: bool,
    /// `ack` is known.
    pub(super) acks: bool,
    has_window: bool,
    /// The window is that of a SYN, which is never shifted.
    first_window: bool,
    has_timestamp: bool,
    has_sacked: bool,
    recovers: bool,
    pub(super) is_closed: bool,
    /// The last segment was one.
    keep_alive: bool,
    /// The last segment was one.
    probe: bool,
    has_smoothed_rtt: bool,
    pub(super) has_in_flight: bool,
    /// When `next` was moved.
    next_time: u64,
    /// When the last acknowledgement was sent.
    ack_time: u64,
    /// When the last data was sent.
    data_time: u64,
    /// Since when the window is zero; counts while `is_closed`.
    pub(super) closed_since: u64,
    timed: Timed,
    pub(super) rtt: Samples,
    holes: Holes,
    recent: Recent,
}

/// Shortest time after which hosts send again without having been asked (RFC 6298 says a second; Linux waits 200 ms).
const SHORTEST_TIMEOUT_US: u64 = 200_000;
/// Shortest time within which duplicate acknowledgements make a retransmission a fast one.
const FAST_US: u64 = 20_000;
/// Time within which a packet may come late that was not lost, where no round trip is known.
const LATE_US: u64 = 3_000;

/// A segment with its time, between the two sides.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) time: u64,
    pub(super) segment: &'a Segment,
    /// Of the handshake.
    pub(super) first_rtt_us: Option<u32>,
    /// The part of it between the place of capture and the sender of the segment.
    pub(super) sender_rtt_us: Option<u32>,
}

impl Side {
    pub(super) fn held_bytes(&self) -> usize {
        self.holes.held_bytes() + self.rtt.held_bytes()
    }

    /// Whether the capture holds this packet already.
    pub(super) fn is_doubled(&mut self, step: Step<'_>) -> bool {
        self.recent.contains_or_add(step)
    }

    /// What a segment of this side is, as far as windows and acknowledgements go.
    pub(super) fn judge_acknowledgement(&self, other: &Self, segment: &Segment) -> Marks {
        let mut marks = Marks::default();
        let plain = segment.is_plain();
        if segment.length == 1 && self.expects(segment) && other.has_window && other.window == 0 {
            marks.insert(Marks::ZERO_WINDOW_PROBE);
            return marks;
        }
        marks.insert_if(plain && segment.window == 0, Marks::ZERO_WINDOW);
        marks.insert_if(
            plain && segment.length <= 1 && self.sends && segment.sequence == self.next.wrapping_sub(1),
            Marks::KEEP_ALIVE,
        );
        marks.insert_if(plain && segment.length > 0 && other.window_is_filled_by(segment), Marks::WINDOW_FULL);
        if plain && segment.length == 0 && self.expects(segment) && self.acks {
            marks.insert(self.judge_pure_acknowledgement(other, segment));
        }
        marks
    }

    /// A segment that brings no byte and begins where the one before ended.
    fn judge_pure_acknowledgement(&self, other: &Self, segment: &Segment) -> Marks {
        let same_ack = segment.acknowledgement == self.ack;
        let same_window = segment.window == self.window;
        match segment.window {
            0 if same_window && other.probe && (same_ack || segment.acknowledgement == self.ack.wrapping_add(1)) => {
                Marks::ZERO_WINDOW_PROBE_ACK
            }
            0 => Marks::default(),
            _ if !same_ack => Marks::default(),
            _ if !same_window => Marks::WINDOW_UPDATE,
            _ if other.keep_alive => Marks::KEEP_ALIVE_ACK,
            _ => Marks::DUPLICATE_ACK,
        }
    }

    fn expects(&self, segment: &Segment) -> bool {
        self.sends && segment.sequence == self.next
    }

    fn window_is_filled_by(&self, segment: &Segment) -> bool {
        let (Some(window), true) = (self.scaled_window(), self.acks) else { return false };
        segment.sequence.wrapping_add(segment.length) == self.ack.wrapping_add(window)
    }

    fn scaled_window(&self) -> Option<u32> {
        let shift = if self.first_window { 0 } else { self.scale? };
        (self.has_window && self.scale.is_some()).then(|| u32::from(self.window) << shift)
    }

    /// What a segment of this side is, as far as its own bytes go. Fills the holes that it fills.
    pub(super) fn judge_sequence(&mut self, other: &Self, step: Step<'_>, so_far: Marks) -> Marks {
        let segment = step.segment;
        let mut marks = Marks::default();
        if !self.sends {
            return marks;
        }
        let ahead = distance(segment.sequence, self.next);
        marks.insert_if(ahead > 0 && !segment.is_reset(), Marks::GAP);
        if segment.span() == 0 {
            return marks;
        }
        let missing_since = self.holes.fill(segment.sequence, segment.end());
        if ahead < 0 && so_far.contains(Marks::KEEP_ALIVE) {
            return marks;
        }
        // Behind a probe of a window of zero: its one byte, and more.
        let continues_probe = segment.length > 1 && ahead == -1;
        let acknowledged =
            segment.length > 0 && other.acks && distance(segment.sequence.wrapping_add(segment.length), other.ack) <= 0;
        if acknowledged && (ahead < 0 || other.acknowledged_beyond(self.next)) {
            marks.insert(if missing_since.is_some() || ahead >= 0 {
                // The capture has the acknowledgement before the data.
                Marks::OUT_OF_ORDER
            } else {
                spurious()
            });
        } else if ahead < 0 && !continues_probe {
            marks.insert(self.judge_late(other, step, missing_since));
        }
        marks
    }

    fn acknowledged_beyond(&self, sequence: u32) -> bool {
        self.acks && after(self.ack, sequence)
    }

    /// A segment below the highest byte seen, of which not all was acknowledged.
    fn judge_late(&self, other: &Self, step: Step<'_>, missing_since: Option<u64>) -> Marks {
        let segment = step.segment;
        if missing_since.is_some_and(|since| self.was_overtaken(step, since)) {
            return Marks::OUT_OF_ORDER;
        }
        let since_ack = step.time.saturating_sub(other.ack_time);
        let fast_us = FAST_US.max(2 * u64::from(step.first_rtt_us.unwrap_or(0)));
        let asked_for = other.duplicate_acks >= 2 && other.ack == segment.sequence && since_ack < fast_us;
        if asked_for || self.is_recovering(segment, step.time) || self.is_reported_missing(other, step) {
            let mut marks = Marks::RETRANSMISSION;
            marks.insert(Marks::FAST);
            return marks;
        }
        if missing_since.is_some() && self.was_sent_earlier(step) { Marks::OUT_OF_ORDER } else { Marks::RETRANSMISSION }
    }

    /// Whether a segment that was missing since a time cannot be an answer to that, whatever the receiver has said of it: its sender's clock
    /// shows less than in a segment that came before it, or the news has not had the time to get from here to the sender and back.
    fn was_overtaken(&self, step: Step<'_>, missing_since: u64) -> bool {
        match self.ticks_behind(step) {
            Some(0) | None => {
                // Half of it, because the handshake may have been slower than what follows it.
                let soonest = step.sender_rtt_us.unwrap_or(0) / 2;
                step.time.saturating_sub(missing_since) < u64::from(soonest)
            }
            Some(ticks) => ticks < 0,
        }
    }

    /// The sender's clock in a segment, from the one that moved `next` on; none where they do not tell.
    fn ticks_behind(&self, step: Step<'_>) -> Option<i32> {
        let timestamp = step.segment.options.timestamp.filter(|_| self.has_timestamp)?;
        Some(distance(timestamp, self.timestamp))
    }

    /// In a recovery all that is sent again was asked for, until the timer runs out (RFC 6675).
    fn is_recovering(&self, segment: &Segment, time: u64) -> bool {
        self.recovers
            && after(self.recover, segment.sequence)
            && time.saturating_sub(self.data_time) < SHORTEST_TIMEOUT_US
    }

    /// A host that hears with SACK what is missing sends it again before any timer runs out, be it after three reports or after some time
    /// (RFC 6675, RFC 8985).
    fn is_reported_missing(&self, other: &Self, step: Step<'_>) -> bool {
        other.has_sacked
            && after(other.sacked, step.segment.sequence)
            && step.time.saturating_sub(self.data_time) < SHORTEST_TIMEOUT_US
    }

    /// Whether a segment that came late left its sender before the one that moved `next`. The sender's clock tells where its ticks do;
    /// otherwise what comes within a round trip cannot be an answer to a loss.
    fn was_sent_earlier(&self, step: Step<'_>) -> bool {
        if let Some(ticks) = self.ticks_behind(step).filter(|&ticks| ticks != 0) {
            return ticks < 0;
        }
        let late_us = step.first_rtt_us.map_or(LATE_US, u64::from);
        step.time.saturating_sub(self.next_time) < late_us
    }

    /// Takes an acknowledgement of the other side. Gives how many ranges below it are not there, and forgets them; `is_newest` says that
    /// it is not the last one again.
    pub(super) fn take_acknowledgement(&mut self, time: u64, ack: u32, is_newest: bool) -> u32 {
        if !self.sends {
            return 0;
        }
        if self.recovers && !after(self.recover, ack) {
            self.recovers = false;
        }
        if let Some(rtt_us) = self.timed.acknowledged(time, ack, &mut self.largest_passed) {
            self.sample(rtt_us);
        }
        let lost = self.holes.acknowledged(ack);
        let beyond = after(ack, self.next);
        lost + u32::from(beyond && is_newest)
    }

    fn sample(&mut self, rtt_us: u32) {
        self.rtt.add(rtt_us);
        self.smoothed_rtt_us = if self.has_smoothed_rtt {
            ((u64::from(self.smoothed_rtt_us) * 7 + u64::from(rtt_us)) / 8) as u32
        } else {
            rtt_us
        };
        self.has_smoothed_rtt = true;
    }

    pub(super) fn smoothed(&self) -> Option<u32> {
        self.has_smoothed_rtt.then_some(self.smoothed_rtt_us)
    }

    /// Remembers what this side sent.
    pub(super) fn sent(&mut self, other: &Self, step: Step<'_>, marks: Marks) {
        let Step { time, segment, .. } = step;
        let again = marks.contains(Marks::RETRANSMISSION);
        if again {
            self.timed.forget_from(segment.sequence);
            if marks.contains(Marks::FAST) && !self.recovers {
                (self.recovers, self.recover) = (true, self.next);
            }
            if !marks.contains(Marks::FAST) {
                self.recovers = false;
            }
        }
        if segment.length > 0 {
            self.data_time = time;
        }
        self.keep_alive = marks.contains(Marks::KEEP_ALIVE);
        self.probe = marks.contains(Marks::ZERO_WINDOW_PROBE);
        if self.probe || (self.sends && segment.is_reset()) {
            return;
        }
        let end = segment.end();
        if self.sends && !after(end, self.next) {
            return;
        }
        if self.sends && after(segment.sequence, self.next) {
            // What was acknowledged already is counted as lost already.
            let from = if other.acknowledged_beyond(self.next) { other.ack } else { self.next };
            if after(segment.sequence, from) {
                self.holes.add(from, segment.sequence, time);
            }
        }
        if segment.span() > 0 && !again && !marks.contains(Marks::KEEP_ALIVE) {
            self.timed.sent(time, end, segment.length);
        }
        self.sends = true;
        self.next = end;
        self.next_time = time;
        self.has_timestamp = segment.options.timestamp.is_some();
        self.timestamp = segment.options.timestamp.unwrap_or_default();
    }

    /// Remembers what this side acknowledged.
    pub(super) fn acknowledged(&mut self, step: Step<'_>, marks: Marks) {
        let Step { time, segment, .. } = step;
        if segment.is_reset() {
            return;
        }
        if marks.contains(Marks::DUPLICATE_ACK) {
            self.duplicate_acks = self.duplicate_acks.saturating_add(1);
        } else if segment.acknowledgement != self.ack {
            self.duplicate_acks = 0;
        }
        self.window = segment.window;
        self.has_window = true;
        self.first_window = segment.is_synchronising();
        if segment.has_acknowledgement() {
            self.acks = true;
            self.ack = segment.acknowledgement;
            self.ack_time = time;
            self.report(segment);
        }
    }

    fn report(&mut self, segment: &Segment) {
        if self.has_sacked && !after(self.sacked, self.ack) {
            self.has_sacked = false;
        }
        if let Some((_, end)) = segment.options.sack
            && after(end, self.ack)
            && (!self.has_sacked || after(end, self.sacked))
        {
            (self.sacked, self.has_sacked) = (end, true);
        }
    }

    /// The one byte of a probe that was taken.
    pub(super) fn probe_was_taken(&mut self, ack: u32) {
        if self.sends && ack == self.next.wrapping_add(1) {
            self.next = ack;
        }
    }

    /// Bytes under way.
    pub(super) fn note_in_flight(&mut self, other: &Self) {
        if let Some(in_flight) = self.in_flight(other) {
            self.max_in_flight = self.max_in_flight.max(in_flight);
            self.has_in_flight = true;
        }
    }

    fn in_flight(&self, other: &Self) -> Option<u32> {
        if !self.sends || !other.acks {
            return None;
        }
        let in_flight = distance(self.next, other.ack);
        // Beyond what a window can be (RFC 7323 section 2.3) the two sides are not of one connection.
        (0..1 << 30).contains(&in_flight).then(|| in_flight.cast_unsigned())
    }

    /// Whether what it sent is not acknowledged.
    pub(super) fn is_under_way(&self, other: &Self) -> bool {
        self.in_flight(other).is_some_and(|bytes| bytes > 0)
    }

    /// Whether its last data came after that of the other side.
    pub(super) const fn spoke_after(&self, other: &Self) -> bool {
        self.data_time > other.data_time
    }
}

fn spurious() -> Marks {
    let mut marks = Marks::RETRANSMISSION;
    marks.insert(Marks::SPURIOUS);
    marks
}

/// Segments whose acknowledgement is waited for, each sent once only (Karn's algorithm).
#[derive(Debug, Default)]
struct Timed {
    /// End of the segment, and the lower half of its time.
    segments: [(u32, u32); 4],
    /// Their data, as far as a packet of IPv4 can hold it.
    lengths: [u16; 4],
    count: u8,
}

impl Timed {
    fn sent(&mut self, time: u64, end: u32, length: u32) {
        let at = usize::from(self.count);
        if let Some(free) = self.segments.get_mut(at) {
            *free = (end, time as u32);
            self.lengths[at] = u16::try_from(length).unwrap_or(u16::MAX);
            self.count += 1;
        }
    }

    /// What was sent again tells nothing any more, nor does what came after it.
    fn forget_from(&mut self, sequence: u32) {
        self.retain(|end, _| !after(end, sequence));
    }

    /// The round trip of the segment that ends just there. One that ends before waited for the other's sake.
    fn acknowledged(&mut self, time: u64, ack: u32, largest: &mut u16) -> Option<u32> {
        let waiting = &self.segments[..usize::from(self.count)];
        if waiting.is_empty() {
            return None;
        }
        let sample = waiting.iter().find(|(end, _)| *end == ack).map(|(_, sent)| (time as u32).wrapping_sub(*sent));
        self.retain(|end, length| {
            let waits = after(end, ack);
            if !waits {
                *largest = length.max(*largest);
            }
            waits
        });
        // A clock that stepped back.
        sample.filter(|rtt_us| *rtt_us < 1 << 31)
    }

    fn retain(&mut self, mut keep: impl FnMut(u32, u16) -> bool) {
        let mut kept = 0;
        for at in 0..usize::from(self.count) {
            let (segment, length) = (self.segments[at], self.lengths[at]);
            if keep(segment.0, length) {
                (self.segments[kept], self.lengths[kept]) = (segment, length);
                kept += 1;
            }
        }
        self.count = kept as u8;
    }
}

/// The last packets of a side, to know one that the capture holds a second time: a retransmission has another identification.
#[derive(Debug, Default)]
struct Recent {
    packets: [u32; 4],
    at: u8,
    time: u64,
}

impl Recent {
    /// Longest time between the two.
    const APART_US: u64 = 50_000;

    fn contains_or_add(&mut self, step: Step<'_>) -> bool {
        let segment = step.segment;
        // Several hosts send 0 where a packet is never fragmented (RFC 6864), and IPv6 has no identification.
        if segment.id == 0 {
            return false;
        }
        let what = segment.sequence ^ segment.acknowledgement.rotate_left(16) ^ segment.length.rotate_left(8);
        let what = what ^ u32::from(segment.window) ^ u32::from(segment.flags).rotate_left(12);
        let packet = u32::from(segment.id) << 16 | (what ^ (what >> 16)) & 0xffff;
        let apart = step.time.saturating_sub(self.time);
        self.time = step.time;
        if apart < Self::APART_US && self.packets.contains(&packet) {
            return true;
        }
        self.packets[usize::from(self.at)] = packet;
        self.at = (self.at + 1) % 4;
        false
    }
}
