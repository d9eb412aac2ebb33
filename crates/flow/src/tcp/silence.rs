//! Long silences of a connection, by what it waited for. Whoever has nothing to say is silent at will; harm is a silence with something
//! under way, or in the middle of something.

use super::marks::Marks;
use super::sequence::after;
use super::{RX, Segment};

/// What a connection waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// Bytes were under way: they were sent again, or acknowledged at last.
    Acknowledgement,
    /// The receiver took nothing.
    Window,
    /// The rest of a message whose length is known.
    Message,
    /// More of a transfer: much came before it, quickly, and it went on unasked.
    Transfer,
    /// The responder was asked, and answered.
    Answer,
    /// Nobody had to say anything, as far as can be seen.
    Nothing,
}

impl Wait {
    /// All, in the order of harm.
    pub const ALL: [Self; 6] =
        [Self::Acknowledgement, Self::Window, Self::Message, Self::Transfer, Self::Answer, Self::Nothing];

    /// As in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acknowledgement => "acknowledgement",
            Self::Window => "window",
            Self::Message => "message",
            Self::Transfer => "transfer",
            Self::Answer => "answer",
            Self::Nothing => "nothing",
        }
    }
}

/// Silences of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Silence {
    /// How many there were.
    pub count: u64,
    /// All together, microseconds.
    pub total_us: u64,
    /// The longest one.
    pub longest_us: u64,
    /// Number of the frame that ended the longest one.
    pub frame: u64,
    /// [`super::TX`] or [`RX`]: whose bytes, window, message or answer the longest one waited for.
    pub of: usize,
}

/// Long silences by what was waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Silences([Silence; Wait::ALL.len()]);

impl Silences {
    /// Those that waited for this.
    #[must_use]
    pub const fn of(&self, wait: Wait) -> &Silence {
        &self.0[wait as usize]
    }

    pub(super) fn add(&mut self, wait: Wait, one: Silence) {
        self.0[wait as usize].merge(&one);
    }

    /// Adds those of another interval or connection.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(all, more)| all.merge(more));
    }
}

impl Silence {
    /// Adds others of the same kind.
    pub const fn merge(&mut self, more: &Self) {
        self.count += more.count;
        self.total_us = self.total_us.saturating_add(more.total_us);
        if more.longest_us > self.longest_us {
            (self.longest_us, self.frame, self.of) = (more.longest_us, more.frame, more.of);
        }
    }
}

/// How a connection stands while it is silent; pairs are of the initiator and of the responder.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stand {
    /// It sent bytes that the other side has not acknowledged.
    pub(super) under_way: [bool; 2],
    /// The last acknowledgement of each.
    pub(super) acks: [u32; 2],
    /// It takes nothing.
    pub(super) closed: [bool; 2],
    /// The last data was its own.
    pub(super) spoke_last: [bool; 2],
    /// The responder was asked, and has not begun to answer.
    pub(super) asked: bool,
    /// It said that it is done.
    pub done: [bool; 2],
    /// It is in the middle of a message.
    pub midway: [bool; 2],
    /// It has been sending much, quickly.
    pub streams: [bool; 2],
}

/// Shortest segment that goes on with a transfer: farewells and signs of life are shorter.
const GOES_ON: u32 = 500;

impl Stand {
    /// What was waited for, and of whom, now that a segment of `from` ends it.
    pub(super) fn waited_for(&self, from: usize, segment: &Segment, marks: Marks) -> (Wait, usize) {
        for side in [from, 1 - from] {
            if self.closed[1 - side] && !self.done[side] {
                return (Wait::Window, 1 - side);
            }
            if self.under_way[side] && !self.done[side] && self.moves(side, from, segment, marks) {
                return (Wait::Acknowledgement, side);
            }
        }
        let old = [Marks::RETRANSMISSION, Marks::KEEP_ALIVE].into_iter().any(|mark| marks.contains(mark));
        if segment.length == 0 || old {
            (Wait::Nothing, from)
        } else if self.midway[from] {
            (Wait::Message, from)
        } else if from == RX && self.asked {
            (Wait::Answer, RX)
        } else if self.streams[from] && self.spoke_last[from] && segment.length >= GOES_ON {
            (Wait::Transfer, from)
        } else {
            (Wait::Nothing, from)
        }
    }

    /// Whether a segment shows that what `side` sent had not arrived, or that this was not known: an acknowledgement that is missing in
    /// the capture alone leads to neither.
    const fn moves(&self, side: usize, from: usize, segment: &Segment, marks: Marks) -> bool {
        if from == side {
            return marks.contains(Marks::RETRANSMISSION);
        }
        // A FIN comes when its sender is done, whatever it acknowledges.
        let says_only_that = segment.length == 0 && segment.is_plain() && segment.has_acknowledgement();
        says_only_that && after(segment.acknowledgement, self.acks[from])
    }
}
