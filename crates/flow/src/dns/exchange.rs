//! Which answer belongs to which query.

use std::collections::VecDeque;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use weir_proto::Dns;

use crate::key::Endpoint;

/// Bounds of the table.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Queries that wait for their answer at one time.
    pub pending: usize,
    /// Microseconds of packet time that a query waits.
    pub timeout_us: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pending: 32_768, timeout_us: 30_000_000 }
    }
}

/// Queries of one flow and identifier that a message is compared with: a client has one of them, a hostile capture any number.
const MAX_COMPARED: usize = 64;
/// Rows that are given up at one time; the rest follows with the next packets, so that a leap of the clock does not give up a whole table
/// at once.
const TOGETHER: usize = 64;

impl Limits {
    const fn is_over(&self, since: u64, now: u64) -> bool {
        now.saturating_sub(since) >= self.timeout_us
    }
}

/// What an answer has in common with its query, besides the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Match {
    /// The flow (its ordinal) and the message's identifier.
    Flow(u64, u16),
    /// The client and the message's identifier: LLMNR asks a group and is answered by a member.
    Client(Endpoint, u16),
}

/// The part of an exchange that the answer brings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Microseconds.
    pub time: u64,
    /// With EDNS's upper bits.
    pub rcode: u16,
    /// Presentation form.
    pub answers: Vec<String>,
}

#[derive(Debug)]
struct Pending {
    serial: u64,
    /// Of the query.
    frame: u64,
    record: Dns,
}

/// The queries of one match in their order: nearly always one, which needs no memory of its own.
#[derive(Debug)]
struct Queue {
    first: Pending,
    rest: VecDeque<Pending>,
}

impl Queue {
    fn iter(&self) -> impl DoubleEndedIterator<Item = &Pending> {
        std::iter::once(&self.first).chain(&self.rest)
    }
}

/// The queries that wait for their answers.
#[derive(Debug, Default)]
pub struct Exchanges {
    limits: Limits,
    pending: HashMap<Match, Queue>,
    /// In the order of the queries; one that was answered is known by its serial number.
    order: VecDeque<(u64, Match, u64)>,
    serials: u64,
    waiting: usize,
    early: u64,
    /// With the frames of their queries; 0 = none.
    finished: Vec<(u64, Dns)>,
}

impl Exchanges {
    /// An empty table.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Keeps a query, which is in `frame`, until its answer comes. Without a match it is a row of its own at once. One that waits already and is sent again is
    /// another row, which says how often it was sent before.
    pub fn query(&mut self, by: Option<Match>, frame: u64, mut record: Dns) {
        let Some(by) = by else { return self.finished.push((frame, record)) };
        let same = |pending: &&Pending| {
            (&pending.record.qname, pending.record.qtype) == (&record.qname, record.qtype)
                && !self.limits.is_over(pending.record.time, record.time)
        };
        let before = self.pending.get(&by).and_then(|queue| queue.iter().rev().take(MAX_COMPARED).find(same));
        record.repeats = before.map_or(0, |before| before.record.repeats.saturating_add(1));
        while self.order.len() >= self.limits.pending.max(1) {
            let waiting = self.waiting;
            self.give_up_oldest();
            self.early += waiting.saturating_sub(self.waiting) as u64;
        }
        self.serials += 1;
        self.order.push_back((record.time, by, self.serials));
        let pending = Pending { serial: self.serials, frame, record };
        match self.pending.entry(by) {
            Entry::Occupied(mut queue) => queue.get_mut().rest.push_back(pending),
            Entry::Vacant(place) => {
                place.insert(Queue { first: pending, rest: VecDeque::new() });
            }
        }
        self.waiting += 1;
    }

    /// Joins an answer with the oldest query that it fits; `record` is the row that it makes alone.
    pub fn answer(&mut self, by: Option<Match>, record: Dns, answer: Answer) {
        let (frame, mut row) = match by.and_then(|by| self.take(by, &record, answer.time)) {
            Some((frame, query)) => {
                let latency = answer.time.saturating_sub(query.time);
                (frame, Dns { latency_us: Some(u32::try_from(latency).unwrap_or(u32::MAX)), ..query })
            }
            None => (0, record),
        };
        row.rcode = Some(u32::from(answer.rcode));
        row.answers = answer.answers;
        self.finished.push((frame, row));
    }

    /// Queries that stopped waiting for their answer because the table was full.
    #[must_use]
    pub const fn given_up_early(&self) -> u64 {
        self.early
    }

    /// Gives up the queries that waited too long; some of them at each call.
    pub fn expire(&mut self, now: u64) {
        while self.finished.len() < TOGETHER
            && let Some(&(time, ..)) = self.order.front()
            && self.limits.is_over(time, now)
        {
            self.give_up_oldest();
        }
    }

    /// Gives up the next queries in their order, some of them at each call; whether there are more. Their rows are to be taken in between.
    pub fn finish_some(&mut self) -> bool {
        while self.finished.len() < TOGETHER && !self.order.is_empty() {
            self.give_up_oldest();
        }
        !self.order.is_empty()
    }

    /// Whether a row is finished that was not taken.
    #[must_use]
    pub const fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// Takes the rows that are finished, in the order in which they were, each with the frame of its query (0 = none).
    pub fn take_finished(&mut self) -> std::vec::Drain<'_, (u64, Dns)> {
        self.finished.drain(..)
    }

    fn take(&mut self, by: Match, answer: &Dns, now: u64) -> Option<(u64, Dns)> {
        let limits = self.limits;
        // An answer may leave the question away (RFC 5936), and either message may be cut before the end of it.
        let fits = |query: &Dns| {
            let name = query.qname.is_empty() || answer.qname.is_empty() || query.qname == answer.qname;
            name && (query.qtype == 0 || answer.qtype == 0 || query.qtype == answer.qtype)
                && !limits.is_over(query.time, now)
        };
        self.remove(by, |queue| queue.iter().take(MAX_COMPARED).position(|pending| fits(&pending.record)))
    }

    fn give_up_oldest(&mut self) {
        let Some((_, by, serial)) = self.order.pop_front() else { return };
        // Queries of one match leave the order as they came, so an older one cannot stand before this one.
        let given_up = self.remove(by, |queue| (queue.first.serial == serial).then_some(0));
        self.finished.extend(given_up);
    }

    /// Takes a query out of the queue of a match, by its place there.
    fn remove(&mut self, by: Match, place: impl FnOnce(&Queue) -> Option<usize>) -> Option<(u64, Dns)> {
        let Entry::Occupied(mut entry) = self.pending.entry(by) else { return None };
        let queue = entry.get_mut();
        let found = match place(queue)? {
            0 => match queue.rest.pop_front() {
                Some(next) => std::mem::replace(&mut queue.first, next),
                None => entry.remove().first,
            },
            place => queue.rest.remove(place - 1)?,
        };
        self.waiting -= 1;
        Some((found.frame, found.record))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(time: u64, qname: &str, has_query: bool) -> Dns {
        Dns { time, qname: qname.to_owned(), has_query, ..Dns::default() }
    }

    fn answer(time: u64) -> Answer {
        Answer { time, ..Answer::default() }
    }

    fn rows(table: &mut Exchanges) -> Vec<Dns> {
        table.take_finished().map(|(_, row)| row).collect()
    }

    const BY: Option<Match> = Some(Match::Flow(1, 7));

    #[test]
    fn an_answer_joins_the_query_with_its_question_however_often_that_was_sent() {
        let mut table = Exchanges::new(Limits::default());
        table.query(BY, 1, row(10, "a", true));
        table.query(BY, 2, row(20, "b", true));
        table.query(BY, 3, row(30, "b", true));
        table.query(BY, 4, row(40, "c", true));
        table.answer(BY, row(50, "b", false), answer(50));
        let (frame, joined) = table.take_finished().next().unwrap();
        assert_eq!((joined.time, joined.latency_us, joined.rcode, joined.repeats), (20, Some(30), Some(0), 0));
        assert_eq!(frame, 2, "of the query");
        while table.finish_some() {}
        let left = table.take_finished();
        assert_eq!(
            left.map(|(frame, row)| (frame, row.time, row.rcode, row.repeats)).collect::<Vec<_>>(),
            [(1, 10, None, 0), (3, 30, None, 1), (4, 40, None, 0)]
        );
    }

    #[test]
    fn an_answer_to_another_question_is_a_row_of_its_own() {
        let mut table = Exchanges::new(Limits::default());
        table.query(BY, 1, row(10, "a", true));
        table.answer(BY, row(20, "evil", false), answer(20));
        let rows = rows(&mut table);
        assert_eq!((rows.len(), rows[0].has_query, rows[0].latency_us), (1, false, None));
    }

    #[test]
    fn a_query_that_waited_too_long_is_a_row_without_an_answer() {
        let mut table = Exchanges::new(Limits { timeout_us: 100, ..Limits::default() });
        table.query(BY, 1, row(10, "a", true));
        table.expire(109);
        assert_eq!(rows(&mut table), []);
        table.expire(110);
        assert_eq!(rows(&mut table), [row(10, "a", true)]);
    }

    proptest! {
        #[test]
        fn each_query_and_each_answer_is_in_one_row(
            events in proptest::collection::vec((any::<bool>(), 0u16..4, 0u8..3, 0u64..300), 0..300),
        ) {
            let limits = Limits { pending: 5, timeout_us: 50 };
            let mut table = Exchanges::new(limits);
            let (mut queries, mut answers) = (0, 0);
            for (is_query, id, name, time) in events {
                table.expire(time);
                let record = row(time, &name.to_string(), is_query);
                if is_query {
                    queries += 1;
                    table.query(Some(Match::Flow(1, id)), 1, record);
                } else {
                    answers += 1;
                    table.answer(Some(Match::Flow(1, id)), record, answer(time));
                }
                prop_assert!(table.order.len() <= limits.pending && table.waiting <= limits.pending);
            }
            let mut rows = rows(&mut table);
            while table.finish_some() {
                rows.extend(table.take_finished().map(|(_, row)| row));
            }
            rows.extend(table.take_finished().map(|(_, row)| row));
            prop_assert_eq!(rows.iter().filter(|row| row.has_query).count(), queries);
            prop_assert_eq!(rows.iter().filter(|row| row.rcode.is_some()).count(), answers);
            prop_assert!(table.pending.is_empty() && table.waiting == 0);
        }
    }
}
