//! When to look at a flow next: a wheel of seconds.

use std::collections::VecDeque;

const SECOND: u64 = 1_000_000;
/// Seconds ahead that have a place of their own; what is due later is looked at then, and put where it belongs.
const PLACES: usize = 512;
/// Flows whose places a bucket keeps when it is empty.
const KEPT: usize = 64;

/// A place in the wheel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadline {
    /// Microseconds.
    pub(super) time: u64,
    pub(super) slot: u32,
    /// Tells a deadline that another one replaced.
    pub(super) token: u32,
}

/// Deadlines in the order of their seconds, and of their coming within one. Putting one in and taking the first out takes the same time
/// however many there are.
#[derive(Debug)]
pub(super) struct Deadlines {
    buckets: Vec<VecDeque<Deadline>>,
    /// The second of the first bucket that may hold something.
    second: u64,
    /// What a leap of the clock went past.
    overdue: VecDeque<Deadline>,
    count: usize,
}

impl Deadlines {
    pub(super) fn new() -> Self {
        Self { buckets: vec![VecDeque::new(); PLACES], second: 0, overdue: VecDeque::new(), count: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    pub(super) fn insert(&mut self, deadline: Deadline) {
        let ahead = (deadline.time / SECOND).saturating_sub(self.second).min(PLACES as u64 - 1);
        let place = place(self.second + ahead);
        self.buckets[place].push_back(deadline);
        self.count += 1;
    }

    /// The next deadline whose second is over at `now`.
    pub(super) fn pop_due(&mut self, now: u64) -> Option<Deadline> {
        let now = now / SECOND;
        if self.count == 0 {
            self.second = self.second.max(now);
            return None;
        }
        if now >= self.second.saturating_add(PLACES as u64) {
            self.leap(now);
        }
        if let Some(deadline) = self.overdue.pop_front() {
            self.count -= 1;
            return Some(deadline);
        }
        while self.second < now {
            if let Some(deadline) = self.buckets[place(self.second)].pop_front() {
                self.count -= 1;
                return Some(deadline);
            }
            self.leave();
        }
        None
    }

    /// The first deadline of all.
    pub(super) fn pop_first(&mut self) -> Option<Deadline> {
        if self.count == 0 {
            return None;
        }
        self.count -= 1;
        if let Some(deadline) = self.overdue.pop_front() {
            return Some(deadline);
        }
        // The wheel must not move on before the clock does: what is due sooner may still come.
        (0..PLACES as u64).find_map(|ahead| self.buckets[place(self.second + ahead)].pop_front())
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Deadline) -> bool) {
        for bucket in &mut self.buckets {
            bucket.retain(&mut keep);
        }
        self.overdue.retain(&mut keep);
        self.count = self.buckets.iter().map(VecDeque::len).sum::<usize>() + self.overdue.len();
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Moves on from a second that is over and empty.
    fn leave(&mut self) {
        let bucket = &mut self.buckets[place(self.second)];
        if bucket.capacity() > KEPT {
            *bucket = VecDeque::new();
        }
        self.second += 1;
    }

    fn leap(&mut self, now: u64) {
        for ahead in 0..PLACES as u64 {
            let bucket = std::mem::take(&mut self.buckets[place(self.second + ahead)]);
            self.overdue.extend(bucket);
        }
        self.second = now;
    }
}

const fn place(second: u64) -> usize {
    (second % PLACES as u64) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_comes_out_once_and_none_before_its_time(
            steps in proptest::collection::vec((0u64..2000 * SECOND, 0u64..400 * SECOND), 1..100),
        ) {
            let mut deadlines = Deadlines::new();
            let (mut now, mut seen) = (1_600_000_000 * SECOND, Vec::new());
            for (slot, (leap, ahead)) in (0u32..).zip(&steps) {
                now += leap / 8;
                while let Some(deadline) = deadlines.pop_due(now) {
                    prop_assert!(deadline.time < now);
                    seen.push(deadline.slot);
                }
                deadlines.insert(Deadline { time: now + ahead, slot, token: 0 });
            }
            while let Some(deadline) = deadlines.pop_first() {
                seen.push(deadline.slot);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..steps.len() as u32).collect::<Vec<_>>());
            prop_assert_eq!(deadlines.len(), 0);
        }

        #[test]
        fn any_clock_is_survived(times in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..50)) {
            let mut deadlines = Deadlines::new();
            for (now, time) in times {
                deadlines.insert(Deadline { time, slot: 0, token: 0 });
                deadlines.pop_due(now);
            }
        }
    }
}
