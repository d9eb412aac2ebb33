//! Another size, while packets come: nothing is lost, and nothing counts twice.
//!
//! Slots never move: a larger table has more segments. The index and the stack of free numbers are replaced:
//!
//! 1. The new index comes to the first place, the old one to the second. Programs that miss a key in the first find it in the second; what they open goes
//!    into the first. The kernel waits until no program knows it otherwise, before the calls that do this return.
//! 2. The new stack, with the new numbers in it, takes the place of the old one.
//! 3. The keys of all flows that live are put into the new index; then the old one goes. The numbers that are left on the old stack are put on the new one.
//!
//! A flow that two programs opened in the moment of the change, one in each index, is two for the rest of its time: the one that is not found any
//! more ends at the next drain.
//!
//! A smaller table does not take numbers from flows that have them: it gives the upper ones to nobody any more, and the segments go when
//! their last flow has ended.

use std::{
    mem,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::maps::{HashMap, MapError, Stack};
use weir_capture_common::{
    facts::Facts,
    names,
    slot::{ENDING, FREE, LIVE, SEGMENT, Slot},
};

use super::{Kept, KernelTable, Key, Numbers, Sizes, parts, typed};
use crate::{
    drain::Table as _,
    kernel::{BPF_NOEXIST, Error},
};

/// Numbers that the stack of a smaller table begins with, so that new flows find room while the rest is sorted out.
const AT_HAND: u32 = 8192;
/// Segments that go at one time: the kernel waits after each.
const GOING: u32 = 4;
/// Steps between two pauses.
const STEPS: u32 = 256;

/// The parts of a table of another size. Nothing has changed yet.
pub struct Next {
    bound: u32,
    free: OwnedFd,
    /// Of a larger one.
    more: Option<More>,
}

struct More {
    index: OwnedFd,
    slots: Vec<OwnedFd>,
    facts: Vec<OwnedFd>,
    reported: Option<Vec<OwnedFd>>,
}

impl KernelTable {
    /// How many flows there is room for.
    #[must_use]
    pub fn max_flows(&self) -> u32 {
        self.bound - self.reserved
    }

    /// Makes the parts of a table for so many flows; fails where there is no memory for it.
    pub fn prepare(&self, max_flows: u32) -> Result<Next, Error> {
        let bound = self.reserved.saturating_add(max_flows);
        let free = parts::free(bound)?;
        if bound <= self.bound {
            return Ok(Next { bound, free, more: None });
        }
        let count = parts::segments(bound).saturating_sub(self.slots.segments().len() as u32);
        parts::allow_descriptors(parts::segments(bound));
        let more = More {
            index: parts::index(max_flows)?,
            slots: parts::arrays::<Slot>(names::SLOTS, count)?,
            facts: parts::arrays::<Facts>(names::FACTS, count)?,
            reported: self.reported.is_some().then(|| parts::reported(count)).transpose()?,
        };
        Ok(Next { bound, free, more: Some(more) })
    }

    /// Puts the parts in place. It takes some tenths of a second for a large table; `pause` is called every now and then.
    pub fn change(&mut self, next: Next, pause: &mut dyn FnMut()) -> Result<(), Error> {
        let Next { bound, free, more } = next;
        let (before, length) = (self.bound, self.slots.length());
        let grows = more.is_some();
        self.keep_sizes(false)?;
        if let Some(more) = more {
            self.put_more(more, bound, pause)?;
        }
        let mut numbers: Numbers = typed(&free, names::FREE, Stack::try_from)?;
        // Free ones that the table had withdrawn are among them, too; those that flows still have come when these end.
        for number in (before..bound).rev() {
            if number % STEPS == 0 {
                pause();
            }
            if number >= length || self.state(number) == FREE {
                push(&mut numbers, number)?;
            }
        }
        if !grows {
            move_numbers(&mut self.free, &mut numbers, bound, AT_HAND, pause)?;
        }
        pause();
        self.places.free.put(0, &[free.as_fd()])?;
        let mut old = mem::replace(&mut self.free, numbers);
        self.bound = bound;
        if grows {
            self.carry_over(length, pause)?;
        }
        move_numbers(&mut old, &mut self.free, bound, u32::MAX, pause)?;
        if let Some(kept) = &self.kept {
            kept.keep_all(names::FREE, 0, std::slice::from_ref(&free))?;
        }
        self.keep_sizes(true)
    }

    /// After the table has become smaller: gives back segments that no flow has any more. Whether there is less now.
    pub fn give_back(&mut self) -> Result<bool, Error> {
        let length = self.slots.length();
        if length == self.bound {
            return Ok(false);
        }
        let used = (self.bound..length).rev().find(|number| self.state(*number) != FREE);
        let have = self.slots.segments().len() as u32;
        let length = used.map_or(self.bound, |number| number + 1).max(have.saturating_sub(GOING) * SEGMENT).min(length);
        let stay = parts::segments(length);
        if stay == have && length != self.bound {
            return Ok(false);
        }
        self.keep_sizes(false)?;
        for segment in stay..have {
            self.places.slots.clear(segment)?;
            self.places.facts.clear(segment)?;
            self.kept.iter().for_each(|kept| kept.forget_segment(segment));
        }
        self.slots.shorten(length);
        self.facts.shorten(length);
        self.reported.iter_mut().for_each(|reported| reported.shorten(length));
        if length == self.bound {
            match parts::index(self.max_flows()) {
                Ok(index) => {
                    self.replace_index(index, &mut || {})?;
                    self.carry_over(length, &mut || {})?;
                }
                // Memory may be short just then. One that is larger than it need be serves as well.
                Err(error) => tracing::warn!(%error, "the index of the flow table stays as large as it was"),
            }
        }
        self.keep_sizes(true)?;
        Ok(true)
    }

    /// Writes down how large the table is, for the next life; `whole` = and that it can be taken over.
    pub(super) fn keep_sizes(&mut self, whole: bool) -> Result<(), Error> {
        let sizes = Sizes { reserved: self.reserved, length: self.slots.length(), bound: self.bound };
        self.kept.as_mut().map_or(Ok(()), |kept| kept.keep_sizes(sizes, whole))
    }

    /// The segments and the index of a larger table.
    fn put_more(&mut self, more: More, bound: u32, pause: &mut dyn FnMut()) -> Result<(), Error> {
        let More { index, slots, facts, reported } = more;
        let first = self.slots.segments().len() as u32;
        self.places.slots.put(first, &parts::borrowed(&slots))?;
        self.places.facts.put(first, &parts::borrowed(&facts))?;
        if let Some(kept) = &self.kept {
            kept.keep_all(names::SLOTS, first, &slots)?;
            kept.keep_all(names::FACTS, first, &facts)?;
            kept.keep_all(Kept::REPORTED, first, reported.as_deref().unwrap_or_default())?;
        }
        let length = bound.max(self.slots.length());
        self.slots.grow(slots, length);
        self.facts.grow(facts, length);
        if let (Some(all), Some(more)) = (&mut self.reported, reported) {
            all.grow(more, length);
        }
        self.replace_index(index, pause)
    }

    /// Programs look into both from now on, the new one first, and put new keys there.
    fn replace_index(&mut self, index: OwnedFd, pause: &mut dyn FnMut()) -> Result<(), Error> {
        pause();
        self.places.index.put(1, &[self.index_fd.as_fd()])?;
        pause();
        self.places.index.put(0, &[index.as_fd()])?;
        pause();
        self.index = typed(&index, names::INDEX, HashMap::try_from)?;
        self.index_fd = index;
        let kept = self.kept.as_ref();
        kept.map_or(Ok(()), |kept| kept.keep_all(names::INDEX, 0, std::slice::from_ref(&self.index_fd)))
    }

    /// Puts the keys of all slots below `length` into the index, and takes the old one away.
    fn carry_over(&mut self, length: u32, pause: &mut dyn FnMut()) -> Result<(), Error> {
        for number in 0..length {
            if number % STEPS == 0 {
                pause();
            }
            if self.state(number) != LIVE {
                continue;
            }
            let Some(slot) = self.read(number) else { continue };
            if let Err(source) = self.index.insert(Key(slot.key), number, BPF_NOEXIST) {
                match self.index.get(&Key(slot.key), 0) {
                    // It was opened since, or ...
                    Ok(found) if found == number => {}
                    // ... twice.
                    Ok(_) => {
                        self.set_state(number, ENDING);
                        self.doubles.insert(number);
                    }
                    Err(_) => return Err(Error::Map { map: names::INDEX, source }),
                }
            }
        }
        self.places.index.clear(1)
    }
}

/// Moves numbers below `bound` to another stack, and drops the others; at most so many.
fn move_numbers(
    from: &mut Numbers,
    to: &mut Numbers,
    bound: u32,
    most: u32,
    pause: &mut dyn FnMut(),
) -> Result<(), Error> {
    for step in 0..most {
        if step % STEPS == 0 {
            pause();
        }
        match from.pop(0) {
            Ok(number) if number < bound => push(to, number)?,
            Ok(_withdrawn) => {}
            Err(MapError::ElementNotFound) => break,
            Err(source) => return Err(Error::Map { map: names::FREE, source }),
        }
    }
    Ok(())
}

fn push(to: &mut Numbers, number: u32) -> Result<(), Error> {
    to.push(number, 0).map_err(|source| Error::Map { map: names::FREE, source })
}
