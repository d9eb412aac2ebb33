//! Beginnings that say something by themselves, as the answers of DNS do: a capture that was filtered by port has nothing else of a packet
//! in fragments.

use std::collections::VecDeque;

use super::{Datagram, Entry, Fragments};
use crate::key::Belonging;

/// How long the rest is waited for: what comes later than this was lost, and whoever waits for it asks again after about five seconds.
const PATIENCE_US: u64 = 2_000_000;

/// What there is of a packet whose rest did not come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Of its first fragment, microseconds.
    pub time: u64,
    /// The frame of that one.
    pub frame: u64,
    /// Its flow.
    pub belonging: Belonging,
    /// The payload from its first byte on, as far as it goes without a gap.
    pub bytes: Vec<u8>,
}

/// What is to be done with the beginning of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Beginning {
    #[default]
    None,
    /// It is worth reading alone.
    Wanted,
    /// It was given away; when the rest comes it is not given again.
    Read,
}

/// First fragments whose rest is waited for, and those that have waited.
#[derive(Debug, Default)]
pub(super) struct Starts {
    /// In the order of arrival; an entry that is gone or was made anew is known by its generation.
    waiting: VecDeque<(u64, u64, Datagram, u64)>,
    ready: Vec<Start>,
}

impl Starts {
    pub(super) fn are_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) const fn are_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) const fn ready(&self) -> usize {
        self.ready.len()
    }
}

impl Fragments {
    /// Says that the first fragment at hand is worth reading though its rest does not come. To be called once it is named.
    pub fn read_start(&mut self, now: u64, datagram: Datagram) {
        let Some(entry) = self.entries.get_mut(&datagram).filter(|entry| entry.beginning == Beginning::None) else {
            return;
        };
        entry.beginning = Beginning::Wanted;
        self.starts.waiting.push_back((now, self.frame, datagram, entry.generation));
        if self.starts.waiting.len() > self.limits.entries {
            self.release_start();
        }
    }

    /// Takes the beginnings whose rest did not come.
    pub fn take_starts(&mut self) -> Vec<Start> {
        std::mem::take(&mut self.starts.ready)
    }

    pub(super) fn release_starts(&mut self, now: u64) {
        let is_over = |&(time, ..): &(u64, u64, Datagram, u64)| now.saturating_sub(time) >= PATIENCE_US;
        while !self.has_enough() && self.starts.waiting.front().is_some_and(is_over) {
            self.release_start();
        }
    }

    fn release_start(&mut self) {
        let Some((time, frame, datagram, generation)) = self.starts.waiting.pop_front() else { return };
        let entry = self.entries.get_mut(&datagram).filter(|entry| entry.generation == generation);
        if let Some((entry, belonging)) = entry.and_then(|entry| entry.named.map(|named| (entry, named)))
            && let Some(bytes) = entry.take_start()
        {
            self.starts.ready.push(Start { time, frame, belonging, bytes });
        }
    }
}

impl Entry {
    /// What is there from the first byte on, once.
    fn take_start(&mut self) -> Option<Vec<u8>> {
        let &(_, end) = self.ranges.first().filter(|(from, _)| *from == 0)?;
        self.beginning = Beginning::Read;
        self.data.get(..end).map(<[u8]>::to_vec)
    }
}
