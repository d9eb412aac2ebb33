//! What to report of which flow, and when to end it: decisions about a table that the kernel keeps filling.
//!
//! Counters of a slot only grow while the flow lives. Each report is the difference to the one before, so nothing is lost or counted twice between
//! them, whenever they are read. A flow is ended in the order that [`weir_capture_common::slot`] tells: out of the index, wait until no
//! program knows the slot, report the rest, free it.

mod policy;
mod spilled;
mod story;

use std::time::Duration;

use weir_capture_common::{
    facts::Facts,
    flow::{FlowKey, Side},
    initiator::{FIN, RST, TCP},
    slot::{self, ENDING, Slot},
};
use weir_proto::EndReason;

use crate::kernel::WORDS;

pub use policy::{Idle, Pace, Policy};
pub use spilled::Spilled;
pub use story::{Story, Stream, Tcp};

/// The flow table, as the drain needs it. The kernel's is one, and the tests have another.
pub trait Table {
    /// What can go wrong with a map.
    type Error;

    /// How many slots there are.
    fn capacity(&self) -> u32;
    /// How many of them flows may have.
    fn room(&self) -> u32 {
        self.capacity()
    }
    /// A copy of a live slot.
    fn read(&self, number: u32) -> Option<Slot>;
    /// A copy of what is known of the flow in a slot.
    fn facts(&self, number: u32) -> Facts;
    /// Takes the time of the first packet since this was last called; 0 = there was none.
    fn take_interval_first(&mut self, number: u32) -> u64;
    /// Takes the TCP flags that a side has sent since this was last called.
    fn take_tcp_flags(&mut self, number: u32, side: Side) -> u8;
    /// Takes a slot's key out of the index, so that the next packet opens a new flow.
    fn unlink(&mut self, number: u32, key: &FlowKey) -> Result<(), Self::Error>;
    /// Waits until every program that ran when this was called has ended; false = this kernel cannot tell.
    fn wait_for_writers(&mut self) -> bool;
    /// Whether [`Self::remember`] keeps anything.
    fn remembers(&self) -> bool {
        false
    }
    /// Keeps what was reported of a slot beyond this process; [`Self::free`] forgets it.
    fn remember(&mut self, _number: u32, _words: &[u64; WORDS]) {}
    /// What was kept of a slot; zeroes = nothing.
    fn recall(&self, _number: u32) -> [u64; WORDS] {
        [0; WORDS]
    }
    /// Gives a slot back.
    fn free(&mut self, number: u32) -> Result<(), Self::Error>;
}

/// A part of a flow's life: what is reported as one record. Times are `CLOCK_BOOTTIME` in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Whose.
    pub key: FlowKey,
    /// The end that began.
    pub initiator: Side,
    /// The flow's first packet; with the key it names the flow.
    pub flow_start: u64,
    /// First packet of this part.
    pub start: u64,
    /// Last packet of this part.
    pub end: u64,
    /// From the initiator to the responder.
    pub tx: Traffic,
    /// Back.
    pub rx: Traffic,
    /// Index of the interface that counts what the initiator sends; of the other direction's if it sent nothing.
    pub ifindex: u32,
    /// Why the flow ends here, or that it goes on.
    pub end_reason: EndReason,
    /// What happened, and who it was.
    pub story: Story,
}

/// What went one way in an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field says what it is")]
pub struct Traffic {
    pub packets: u64,
    pub bytes: u64,
    pub tcp_flags: u8,
}

/// No record covers more time than this.
const MAX_INTERVAL_NS: u64 = 60_000_000_000;
/// The table counts as full from this share on, and flows that are quiet make room.
const FULL_PERCENT: u64 = 90;
/// They make room down to this share.
const ROOMY_PERCENT: u64 = 80;
/// What saw a packet within this time is not quiet.
const QUIET_NS: u64 = 1_000_000_000;

/// So many free slots in a row, behind the highest that was ever used, and the rest of the table has never been used: the stack of free
/// slots gives the lowest numbers first, and only as many as there are CPUs can be on their way.
const UNUSED: u32 = 1024;

/// What has been reported of each slot, and the decisions.
pub struct Drain {
    policy: Policy,
    /// Of the slots that were ever used; their number is the table's high-water mark.
    reported: Vec<Reported>,
    /// Unlinked, but a program may still know them.
    ending: Vec<(u32, EndReason)>,
    live: u64,
    /// A flow that goes on waits this long for its next report: what the last round has found to be right.
    wait: Duration,
    /// Reported, and not remembered yet.
    unsettled: Vec<u32>,
}

/// What has been reported of the flow in one slot.
#[derive(Clone, Copy, Default)]
struct Reported {
    from_a: Sum,
    from_b: Sum,
    /// When; 0 = never.
    at: u64,
    /// Last packet of the last report.
    end: u64,
    told: story::Told,
    ending: bool,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    packets: u64,
    bytes: u64,
    tcp_flags: u8,
}

impl Drain {
    /// Starts with an empty table.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let wait = policy.active.longest;
        Self { policy, reported: Vec::new(), ending: Vec::new(), live: 0, wait, unsettled: Vec::new() }
    }

    /// Takes over a table that another life has left; returns the packets in it that are not reported.
    pub fn adopt<T: Table>(&mut self, table: &mut T) -> Result<u64, T::Error> {
        let mut pending = 0;
        for number in 0..table.capacity() {
            let Some(slot) = table.read(number) else { continue };
            let reported = Reported::from_words(&table.recall(number));
            let sums = slot.from_a.packets.wrapping_add(slot.from_b.packets);
            pending += sums.wrapping_sub(reported.from_a.packets).wrapping_sub(reported.from_b.packets);
            *self.reported(number) = reported;
            if slot.state == ENDING {
                // It may be out of the index already.
                self.end(table, number, &slot.key, EndReason::Idle)?;
            }
        }
        Ok(pending)
    }

    /// What was reported is on its way: from now on the next life would go on behind it.
    pub fn settle<T: Table>(&mut self, table: &mut T) {
        for number in std::mem::take(&mut self.unsettled) {
            if let Some(reported) = self.reported.get(number as usize)
                && reported.at != 0
            {
                table.remember(number, &reported.words());
            }
        }
    }

    /// The table has another size than before, when it had so many slots.
    pub fn resized<T: Table>(&mut self, table: &T, before: u32) {
        // Behind the slots that were there new ones are used, whether those were or not.
        let length = before.min(table.capacity()) as usize;
        self.reported.truncate(table.capacity() as usize);
        self.reported.resize(self.reported.len().max(length), Reported::default());
    }

    /// Flows in the table when it was last drained.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.live
    }

    /// Reports what is due at `now` (`CLOCK_BOOTTIME` in nanoseconds), and ends flows that have ended.
    pub fn run<T: Table>(&mut self, table: &mut T, now: u64, report: &mut dyn FnMut(Interval)) -> Result<(), T::Error> {
        // What is here could not be waited for in the last round, and a classifier runs for microseconds.
        self.free_ending(table, now, report)?;
        self.live = 0;
        let mut quiet = Vec::new();
        let (mut unused, mut going_on) = (0, 0);
        for number in 0..table.capacity() {
            let Some(slot) = table.read(number) else {
                unused += u32::from(number as usize >= self.reported.len());
                if unused == UNUSED {
                    break;
                }
                continue;
            };
            unused = 0;
            if self.reported(number).ending {
                continue;
            }
            self.live += 1;
            going_on += u64::from(self.goes_on(number, &slot, now));
            match self.decide(number, &slot, now) {
                // The table was resized, and its packets count in another slot now.
                Decision::Keep | Decision::Report if slot.state == ENDING => {
                    self.end(table, number, &slot.key, EndReason::Evicted)?;
                }
                Decision::End(reason) => self.end(table, number, &slot.key, reason)?,
                Decision::Report => {
                    self.report(table, number, EndReason::Active, now, report);
                }
                Decision::Keep => {}
            }
            if !self.reported[number as usize].ending && now.saturating_sub(slot.last_seen()) > QUIET_NS {
                quiet.push((slot.last_seen(), number));
            }
        }
        self.wait = self.policy.active.among(going_on);
        self.make_room(table, quiet)?;
        if !self.ending.is_empty() && table.wait_for_writers() {
            self.free_ending(table, now, report)?;
        }
        Ok(())
    }

    /// Reports the rest of every flow and frees all slots. Nothing may be attached any more.
    pub fn finish<T: Table>(
        &mut self,
        table: &mut T,
        now: u64,
        report: &mut dyn FnMut(Interval),
    ) -> Result<(), T::Error> {
        for number in 0..table.capacity() {
            if let Some(slot) = table.read(number)
                && !self.reported(number).ending
            {
                let reason = self.ended(number, &slot).unwrap_or(EndReason::Eof);
                self.end(table, number, &slot.key, reason)?;
            }
        }
        let _detached = table.wait_for_writers();
        self.live = 0;
        self.free_ending(table, now, report)
    }

    /// What has been reported of a slot; makes room for one that is used for the first time.
    fn reported(&mut self, number: u32) -> &mut Reported {
        let index = number as usize;
        if index >= self.reported.len() {
            self.reported.resize(index + 1, Reported::default());
        }
        &mut self.reported[index]
    }

    fn decide(&self, number: u32, slot: &Slot, now: u64) -> Decision {
        let quiet_for = Duration::from_nanos(now.saturating_sub(slot.last_seen()));
        let ended = self.ended(number, slot);
        if let Some(reason) = ended
            && quiet_for >= self.policy.linger
        {
            return Decision::End(reason);
        }
        if quiet_for >= self.policy.idle.of(slot.key.protocol()) {
            return Decision::End(EndReason::Idle);
        }
        let reported = &self.reported[number as usize];
        let since = if reported.at == 0 { slot.first_seen } else { reported.at };
        let wait = match (ended, reported.at) {
            // The end is near and will bring the rest, unless the packets do not stop.
            (Some(_), _) => self.policy.active.longest * 2,
            (None, 0) => self.policy.first,
            (None, _) => self.wait,
        };
        let due = Duration::from_nanos(now.saturating_sub(since)) >= wait;
        if due && reported.differs(slot) { Decision::Report } else { Decision::Keep }
    }

    /// Whether a flow may be reported again and again. What is asked is the traffic, not what has been reported of it: so the pace that follows
    /// from the number of such flows does not change that number.
    fn goes_on(&self, number: u32, slot: &Slot, now: u64) -> bool {
        let lasted = Duration::from_nanos(slot.last_seen().saturating_sub(slot.first_seen));
        let quiet_for = Duration::from_nanos(now.saturating_sub(slot.last_seen()));
        // By half of it, those that are about to be reported for the first time count already.
        lasted >= self.policy.first / 2 && quiet_for < self.policy.active.longest && self.ended(number, slot).is_none()
    }

    /// Whether TCP says that the conversation is over.
    fn ended(&self, number: u32, slot: &Slot) -> Option<EndReason> {
        if slot.key.protocol() != TCP {
            return None;
        }
        let reported = &self.reported[number as usize];
        let a = reported.from_a.tcp_flags | slot.from_a.tcp_flags as u8;
        let b = reported.from_b.tcp_flags | slot.from_b.tcp_flags as u8;
        if (a | b) & RST != 0 {
            Some(EndReason::Rst)
        } else if a & b & FIN != 0 {
            Some(EndReason::Fin)
        } else {
            None
        }
    }

    /// When the table is nearly full, ends the flows that have been quiet for the longest time.
    fn make_room<T: Table>(&mut self, table: &mut T, mut quiet: Vec<(u64, u32)>) -> Result<(), T::Error> {
        let capacity = u64::from(table.room());
        let staying = self.live.saturating_sub(self.ending.len() as u64);
        if staying * 100 < capacity * FULL_PERCENT {
            return Ok(());
        }
        let wanted = (staying - capacity * ROOMY_PERCENT / 100) as usize;
        quiet.sort_unstable();
        quiet.truncate(wanted);
        // In the order of the table, of which only a part is at hand at one time.
        quiet.sort_unstable_by_key(|&(_, number)| number);
        for (_, number) in quiet {
            if let Some(slot) = table.read(number) {
                self.end(table, number, &slot.key, EndReason::Evicted)?;
            }
        }
        Ok(())
    }

    fn end<T: Table>(&mut self, table: &mut T, number: u32, key: &FlowKey, reason: EndReason) -> Result<(), T::Error> {
        table.unlink(number, key)?;
        self.reported[number as usize].ending = true;
        self.ending.push((number, reason));
        Ok(())
    }

    fn free_ending<T: Table>(
        &mut self,
        table: &mut T,
        now: u64,
        report: &mut dyn FnMut(Interval),
    ) -> Result<(), T::Error> {
        for (number, reason) in std::mem::take(&mut self.ending) {
            self.report(table, number, reason, now, report);
            self.reported[number as usize] = Reported::default();
            table.free(number)?;
        }
        Ok(())
    }

    /// Reports the difference to what has been reported of a slot.
    fn report<T: Table>(
        &mut self,
        table: &mut T,
        number: u32,
        end_reason: EndReason,
        now: u64,
        report: &mut dyn FnMut(Interval),
    ) {
        // The marks are taken before the counters are read: what comes between is in this report, and marks the next one too early at worst.
        let first = table.take_interval_first(number);
        let flags = [Side::A, Side::B].map(|side| table.take_tcp_flags(number, side));
        let Some(slot) = table.read(number) else { return };
        let facts = table.facts(number);
        let reported = &mut self.reported[number as usize];
        let story = reported.told.advance(&slot, &facts);
        let from_a = reported.from_a.advance(&slot.from_a, flags[0]);
        let from_b = reported.from_b.advance(&slot.from_b, flags[1]);
        let initiator = slot.initiator();
        let (tx, rx) = match initiator {
            Side::A => (from_a, from_b),
            Side::B => (from_b, from_a),
        };
        let (start, end) = reported.span(&slot, first);
        reported.at = now;
        reported.end = end;
        if table.remembers() {
            self.unsettled.push(number);
        }
        report(Interval {
            key: slot.key,
            initiator,
            flow_start: slot.first_seen,
            start,
            end,
            tx,
            rx,
            ifindex: interface_of(&slot, initiator),
            end_reason,
            story,
        });
    }
}

enum Decision {
    Keep,
    Report,
    End(EndReason),
}

impl Reported {
    fn words(&self) -> [u64; WORDS] {
        let (a, b) = (&self.from_a, &self.from_b);
        let mut words = [0; WORDS];
        words[..8].copy_from_slice(&[
            a.packets,
            a.bytes,
            a.tcp_flags.into(),
            b.packets,
            b.bytes,
            b.tcp_flags.into(),
            self.at,
            self.end,
        ]);
        words[8..].copy_from_slice(&self.told.words());
        words
    }

    fn from_words(words: &[u64; WORDS]) -> Self {
        let sum = |at: usize| Sum { packets: words[at], bytes: words[at + 1], tcp_flags: words[at + 2] as u8 };
        let mut told = [0; 8];
        told.copy_from_slice(&words[8..]);
        let told = story::Told::from_words(told);
        Self { from_a: sum(0), from_b: sum(3), at: words[6], end: words[7], told, ending: false }
    }

    fn differs(&self, slot: &Slot) -> bool {
        self.from_a.packets != slot.from_a.packets || self.from_b.packets != slot.from_b.packets
    }

    /// First and last packet of what has not been reported yet.
    fn span(&self, slot: &Slot, interval_first: u64) -> (u64, u64) {
        let end = slot.last_seen().max(slot.first_seen);
        let start = match (self.at, interval_first) {
            (0, _) => slot.first_seen,
            // Nothing came since: the report says only that the flow has ended.
            (_, 0) => end,
            (_, first) => first.max(self.end),
        };
        // Only a drain that was held up for a minute (a suspended host) could cover more.
        (start.clamp(end.saturating_sub(MAX_INTERVAL_NS), end), end)
    }
}

impl Sum {
    fn advance(&mut self, counters: &slot::Counters, tcp_flags: u8) -> Traffic {
        let traffic = Traffic {
            packets: counters.packets.wrapping_sub(self.packets),
            bytes: counters.bytes.wrapping_sub(self.bytes),
            tcp_flags,
        };
        (self.packets, self.bytes) = (counters.packets, counters.bytes);
        self.tcp_flags |= tcp_flags;
        traffic
    }
}

fn interface_of(slot: &Slot, initiator: Side) -> u32 {
    let owner = match slot.from_side(initiator).owner {
        0 => slot.from_side(initiator.other()).owner,
        owner => owner,
    };
    slot::ifindex(owner)
}

#[cfg(test)]
mod tests;
