//! Both sides of a connection.

use super::marks::Marks;
use super::options::Options;
use super::report::{Counts, Report, Reset};
use super::samples::Samples;
use super::sequence::distance;
use super::side::{Side, Step};
use super::silence::{Silence, Silences, Stand};
use super::{RX, TX};
use crate::packet::transport::flags;

/// A segment, as far as the analysis needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Bytes of data on the wire.
    pub length: u32,
    /// As on the wire.
    pub window: u16,
    /// Of IPv4; 0 = none.
    pub id: u16,
    /// FIN = 1 ... CWR = 128.
    pub flags: u8,
    /// What was read of its options.
    pub options: Options,
}

impl Segment {
    const fn has(&self, any: u8) -> bool {
        self.flags & any != 0
    }

    /// Asks for a connection.
    #[must_use]
    pub const fn is_syn(&self) -> bool {
        self.flags & (flags::SYN | flags::ACK) == flags::SYN
    }

    /// Grants a connection.
    #[must_use]
    pub const fn is_syn_ack(&self) -> bool {
        self.flags & (flags::SYN | flags::ACK) == flags::SYN | flags::ACK
    }

    pub(super) const fn is_synchronising(&self) -> bool {
        self.has(flags::SYN)
    }

    pub(super) const fn is_reset(&self) -> bool {
        self.has(flags::RST)
    }

    pub(super) const fn has_acknowledgement(&self) -> bool {
        self.has(flags::ACK)
    }

    /// Neither begins nor ends anything.
    pub(super) const fn is_plain(&self) -> bool {
        !self.has(flags::SYN | flags::FIN | flags::RST)
    }

    /// Sequence numbers that it takes: its bytes, SYN and FIN.
    pub(super) const fn span(&self) -> u32 {
        self.length.wrapping_add(self.has(flags::SYN) as u32).wrapping_add(self.has(flags::FIN) as u32)
    }

    /// The sequence number behind it.
    pub(super) const fn end(&self) -> u32 {
        self.sequence.wrapping_add(self.span())
    }
}

/// A connection that is followed.
#[derive(Debug, Default)]
pub struct Connection {
    sides: [Side; 2],
    handshake: Handshake,
    turn: Turn,
    /// What most connections have none of.
    events: Option<Box<Events>>,
    /// Either side sent data.
    has_data: bool,
}

#[derive(Debug, Default)]
struct Events {
    counts: [Counts; 2],
    syn_waits_us: Vec<u32>,
    reset: Option<Reset>,
    /// A reset was reported in this or an earlier interval.
    was_reset: bool,
    silences: Option<Box<Silences>>,
}

/// Waits between SYNs that are kept.
const MOST_SYN_WAITS: usize = 8;

impl Connection {
    /// Bytes on the heap.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let events = self.events.as_ref().map_or(0, |events| {
            let silences = events.silences.as_ref().map_or(0, |silences| size_of_val(silences.as_ref()));
            size_of::<Events>() + events.syn_waits_us.capacity() * 4 + silences
        });
        self.sides.iter().map(Side::held_bytes).sum::<usize>() + self.turn.waits.held_bytes() + events
    }

    /// Takes the next segment; `from` is [`TX`] for the initiator's and [`RX`] for the responder's.
    pub fn segment(&mut self, time: u64, from: usize, segment: &Segment) -> Marks {
        let (first_rtt_us, sender_rtt_us) = (self.handshake.complete_us, self.handshake.rtt_to(from));
        let step = Step { time, segment, first_rtt_us, sender_rtt_us };
        let [tx, rx] = &mut self.sides;
        let (sender, receiver) = if from == TX { (tx, rx) } else { (rx, tx) };
        if sender.is_doubled(step) {
            return self.doubled(from);
        }
        let mut marks = sender.judge_acknowledgement(receiver, segment);
        marks.insert(sender.judge_sequence(receiver, step, marks));
        marks.insert_if(is_duplicate_sack(segment), Marks::DUPLICATE_SACK);
        let mut lost = 0;
        if segment.has_acknowledgement() && !segment.is_reset() {
            let is_newest = !sender.acks || segment.acknowledgement != sender.ack;
            if marks.contains(Marks::ZERO_WINDOW_PROBE_ACK) {
                receiver.probe_was_taken(segment.acknowledgement);
            }
            lost = receiver.take_acknowledgement(time, segment.acknowledgement, is_newest);
            marks.insert_if(lost > 0, Marks::ACKED_UNSEEN);
        }
        sender.sent(receiver, step, marks);
        sender.acknowledged(step, marks);
        sender.note_in_flight(receiver);
        self.windows(from, step);
        self.handshake(from, step, marks);
        if segment.length > 0 {
            self.data(time, from, marks);
        }
        if !marks.is_empty() {
            self.count(from, marks);
        }
        if lost > 0 {
            self.events().counts[1 - from].lost_segments += lost;
        }
        if segment.is_reset() {
            self.reset(from);
        }
        marks
    }

    /// Takes a segment that the capture has already.
    pub fn doubled(&mut self, from: usize) -> Marks {
        self.count(from, Marks::DOUBLED);
        Marks::DOUBLED
    }

    /// Whether an acknowledgement may be one of what a side sent.
    #[must_use]
    pub const fn is_acknowledged_by(&self, from: usize, acknowledgement: u32) -> bool {
        const WITHIN: u32 = 1 << 20;
        let side = &self.sides[from];
        side.sends && distance(acknowledgement, side.next).unsigned_abs() <= WITHIN
    }

    /// What the other side has acknowledged of what this one sent.
    #[must_use]
    pub const fn acknowledged(&self, from: usize) -> Option<u32> {
        let receiver = &self.sides[1 - from];
        if receiver.acks { Some(receiver.ack) } else { None }
    }

    /// How it stands, before the next segment.
    #[must_use]
    pub fn stand(&self) -> Stand {
        let [tx, rx] = &self.sides;
        Stand {
            under_way: [tx.is_under_way(rx), rx.is_under_way(tx)],
            acks: [tx.ack, rx.ack],
            closed: [tx.is_closed, rx.is_closed],
            spoke_last: [tx.spoke_after(rx), rx.spoke_after(tx)],
            asked: self.turn.request.is_some(),
            ..Stand::default()
        }
    }

    /// Takes a silence of `length_us` that the last segment, of `from`, has ended in this frame; `stand` is how it stood before.
    pub fn silence(
        &mut self,
        stand: &Stand,
        (length_us, frame): (u64, u64),
        from: usize,
        segment: &Segment,
        marks: Marks,
    ) {
        let (wait, of) = stand.waited_for(from, segment, marks);
        let one = Silence { count: 1, total_us: length_us, longest_us: length_us, frame, of };
        self.events().silences.get_or_insert_default().add(wait, one);
    }

    /// What was seen since the last call, up to `now`.
    pub fn take_report(&mut self, now: u64) -> Report {
        for from in [TX, RX] {
            if self.sides[from].is_closed {
                self.count_closed(from, now);
            }
        }
        let (counts, syn_waits_us, reset, silences) = match &mut self.events {
            None => Default::default(),
            Some(events) => (
                std::mem::take(&mut events.counts),
                std::mem::take(&mut events.syn_waits_us),
                events.reset.take(),
                events.silences.take(),
            ),
        };
        let max_in_flight = self.sides.each_ref().map(|side| side.has_in_flight.then_some(side.max_in_flight));
        let smoothed = [TX, RX].map(|side| self.sides[side].smoothed());
        let rtt_us = self.sides.each_mut().map(|side| {
            (side.max_in_flight, side.has_in_flight) = (0, false);
            side.rtt.take_median()
        });
        Report {
            counts,
            max_in_flight,
            rtt_us,
            smoothed_rtt_us: match smoothed {
                [Some(tx), Some(rx)] => Some(tx.saturating_add(rx)),
                _ => None,
            },
            syn_ack_us: self.handshake.take_syn_ack(),
            handshake_us: self.handshake.take_handshake(),
            syn_waits_us,
            first_byte_us: self.turn.first_byte_us.take(),
            response_us: self.turn.waits.take_median(),
            reset,
            largest_passed: self.sides.each_ref().map(|side| side.largest_passed),
            has_data: self.has_data,
            silences,
        }
    }

    fn events(&mut self) -> &mut Events {
        self.events.get_or_insert_default()
    }

    fn count(&mut self, from: usize, marks: Marks) {
        self.events().counts[from].add(marks);
    }

    /// Follows how long a window is zero.
    fn windows(&mut self, from: usize, Step { time, segment, .. }: Step<'_>) {
        if !segment.is_plain() || !segment.has_acknowledgement() {
            return;
        }
        let side = &mut self.sides[from];
        match (side.is_closed, segment.window) {
            (false, 0) => (side.is_closed, side.closed_since) = (true, time),
            (true, 1..) => {
                self.count_closed(from, time);
                self.sides[from].is_closed = false;
            }
            (false, _) | (true, 0) => {}
        }
    }

    fn count_closed(&mut self, from: usize, now: u64) {
        let since = std::mem::replace(&mut self.sides[from].closed_since, now);
        self.events().counts[from].zero_window_us += now.saturating_sub(since);
    }

    fn handshake(&mut self, from: usize, step: Step<'_>, marks: Marks) {
        let Step { time, segment, .. } = step;
        if segment.is_synchronising() {
            self.scale(from, segment);
            if marks.contains(Marks::RETRANSMISSION) {
                let wait_us = self.handshake.since_syn(time).filter(|_| segment.is_syn());
                let events = self.events();
                events.counts[from].syn_retransmits += 1;
                events.syn_waits_us.extend(wait_us);
                events.syn_waits_us.truncate(MOST_SYN_WAITS);
            }
        }
        self.handshake.follow(time, from, segment);
    }

    /// Windows are shifted only where both sides said so (RFC 7323 section 2.2).
    fn scale(&mut self, from: usize, segment: &Segment) {
        self.sides[from].scale = Some(segment.options.window_scale.unwrap_or(0));
        if segment.is_syn_ack() && segment.options.window_scale.is_none() && self.sides[1 - from].scale.is_some() {
            self.sides[1 - from].scale = Some(0);
        }
    }

    /// Data that is new to the capture makes turns.
    fn data(&mut self, time: u64, from: usize, marks: Marks) {
        self.has_data = true;
        let old = [Marks::RETRANSMISSION, Marks::OUT_OF_ORDER, Marks::KEEP_ALIVE, Marks::ZERO_WINDOW_PROBE];
        if !old.into_iter().any(|mark| marks.contains(mark)) {
            self.turn.data(time, from);
        }
    }

    fn reset(&mut self, by: usize) {
        let after_data = self.has_data;
        let events = self.events();
        if !events.was_reset {
            events.was_reset = true;
            events.reset = Some(Reset { by, after_data });
        }
    }
}

/// RFC 2883 section 4: the first block lies below the acknowledgement, or within the second block.
fn is_duplicate_sack(segment: &Segment) -> bool {
    use super::sequence::{after, before};
    let Some((start, end)) = segment.options.sack else { return false };
    !after(end, segment.acknowledgement)
        || segment.options.second_sack.is_some_and(|(from, to)| !before(start, from) && !after(end, to))
}

/// SYN, SYN+ACK, ACK: of each the last one before the next step, so that a SYN that was sent again does not count as latency.
#[derive(Debug, Default)]
struct Handshake {
    syn_time: Option<u64>,
    granted_us: Option<u32>,
    complete_us: Option<u32>,
    /// Of the SYN+ACK, the acknowledgement that completes the handshake.
    completed_by: u32,
    syn_from: u8,
    reported: [bool; 2],
}

impl Handshake {
    fn since_syn(&self, time: u64) -> Option<u32> {
        self.syn_time.map(|syn| u32::try_from(time.saturating_sub(syn)).unwrap_or(u32::MAX))
    }

    fn follow(&mut self, time: u64, from: usize, segment: &Segment) {
        if self.complete_us.is_some() {
            return;
        }
        let from = from as u8;
        if segment.is_syn() {
            self.syn_time = Some(time);
            self.syn_from = from;
            self.granted_us = None;
        } else if segment.is_syn_ack() {
            // In a simultaneous open (RFC 9293 section 3.5) both sides send one.
            if self.syn_from != from {
                self.completed_by = segment.sequence.wrapping_add(1);
                self.granted_us = self.granted_us.or(self.since_syn(time));
            }
        } else if self.granted_us.is_some()
            && self.syn_from == from
            && segment.has_acknowledgement()
            && segment.acknowledgement == self.completed_by
        {
            self.complete_us = self.since_syn(time);
        }
    }

    /// The round trip between the place of capture and one side, where the handshake shows it.
    fn rtt_to(&self, side: usize) -> Option<u32> {
        let (granted, complete) = (self.granted_us?, self.complete_us?);
        Some(if usize::from(self.syn_from) == side { complete.saturating_sub(granted) } else { granted })
    }

    fn take_syn_ack(&mut self) -> Option<u32> {
        let said = self.reported[0];
        self.reported[0] |= self.granted_us.is_some();
        self.granted_us.filter(|_| !said)
    }

    fn take_handshake(&mut self) -> Option<u32> {
        let said = self.reported[1];
        self.reported[1] |= self.complete_us.is_some();
        self.complete_us.filter(|_| !said)
    }
}

/// Who is to speak: requests of the initiator and answers of the responder.
#[derive(Debug, Default)]
struct Turn {
    /// Of the first request, until it is answered.
    first_request: Option<u64>,
    /// Last data of a request that has no answer yet.
    request: Option<u64>,
    first_byte_us: Option<u32>,
    answered: bool,
    waits: Samples,
}

impl Turn {
    fn data(&mut self, time: u64, from: usize) {
        let since = |then: u64| u32::try_from(time.saturating_sub(then)).unwrap_or(u32::MAX);
        if from == TX {
            if !self.answered {
                self.first_request.get_or_insert(time);
            }
            self.request = Some(time);
        } else {
            if let Some(request) = self.request.take() {
                self.waits.add(since(request));
            }
            if let Some(first) = self.first_request.take() {
                self.first_byte_us = Some(since(first));
            }
            self.answered = true;
        }
    }
}
