//! Pings, and other requests of ICMP, by either of their sides. Pure; times are `CLOCK_BOOTTIME` in nanoseconds.
//!
//! A flow of ICMP has no numbers that tell two conversations between the same addresses apart: outside, what all containers of a host ask one
//! server is one flow. So every conversation is kept, also those that nobody translates, and a record has ends where all conversations that it can
//! stand for agree on them.

use std::collections::{HashMap, VecDeque};

use super::bindings::{Connection, Endpoint, KEPT_NS, Tuple};

/// It goes on.
const FOREVER: u64 = u64::MAX;

#[derive(Clone, Copy, Debug)]
struct Echo {
    connection: Connection,
    /// It began at this time or later, and ended at this time or earlier.
    since: u64,
    until: u64,
    /// The reading of the table that found it last.
    table: u64,
}

/// What is known.
#[derive(Debug)]
pub(super) struct Echoes {
    most: usize,
    by_view: HashMap<Tuple, Vec<Echo>>,
    /// Oldest end first.
    ended: VecDeque<(u64, Connection)>,
    count: usize,
    lost: u64,
    table: u64,
    /// What was lost when the table was last begun.
    lost_before: u64,
    /// All conversations are known that had a packet at this time or later.
    whole_since: u64,
}

impl Echoes {
    /// None yet, and never more than `most`.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            by_view: HashMap::new(),
            ended: VecDeque::new(),
            count: 0,
            lost: 0,
            table: 0,
            lost_before: 0,
            whole_since: 0,
        }
    }

    /// How many conversations are kept.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Conversations that found no room.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// A conversation is there; it began at `since` or later.
    pub(super) fn begin(&mut self, connection: Connection, since: u64) {
        let table = self.table;
        if self.change(&connection, FOREVER, |echo| echo.table = table) {
            return;
        }
        if self.count == self.most && !self.forget_oldest() {
            self.lost += 1;
            self.doubt();
            return;
        }
        for view in views(&connection) {
            self.by_view.entry(view).or_default().push(Echo { connection, since, until: FOREVER, table });
        }
        self.count += 1;
    }

    /// A conversation is over.
    pub(super) fn end(&mut self, connection: &Connection, now: u64) {
        if self.change(connection, FOREVER, |echo| echo.until = now) {
            self.ended.push_back((now, *connection));
        }
    }

    /// Some may be missing: nobody is named before the table was read again.
    pub(super) fn doubt(&mut self) {
        self.whole_since = FOREVER;
    }

    /// Whether it helps to read the table.
    pub(super) fn wants_table(&self) -> bool {
        self.whole_since == FOREVER && self.count <= self.most / 2
    }

    /// The table is read from its beginning.
    pub(super) fn begin_table(&mut self) {
        self.table += 1;
        self.lost_before = self.lost;
    }

    /// The table was read to its end, from `now` on: what it did not have is over.
    pub(super) fn end_table(&mut self, now: u64) {
        let gone = |echo: &&Echo| echo.until == FOREVER && echo.table != self.table;
        let gone: Vec<_> = self.by_view.values().flatten().filter(gone).map(|echo| echo.connection).collect();
        // Those that are translated are there twice; they end once.
        for connection in gone {
            self.end(&connection, now);
        }
        if self.whole_since == FOREVER && self.lost == self.lost_before {
            self.whole_since = now;
        }
    }

    /// Forgets what ended long ago.
    pub(super) fn forget_old(&mut self, now: u64) {
        while self.ended.front().is_some_and(|(at, _)| at.saturating_add(KEPT_NS) < now) {
            self.forget_oldest();
        }
    }

    /// What the ends of a flow are that has packets from one time to another: of its src and of its dst.
    pub(super) fn ends(&self, flow: &Tuple, from: u64, to: u64) -> Option<[Endpoint; 2]> {
        if from < self.whole_since {
            return None;
        }
        let possible = self.by_view.get(flow)?.iter().filter(|echo| echo.since <= to && from <= echo.until);
        let mut ends = possible.map(|echo| echo.connection.ends());
        let first = ends.next()?;
        ends.all(|others| others == first).then_some(first)
    }

    /// Changes the conversation with that end wherever it is; returns whether there is one.
    fn change(&mut self, connection: &Connection, until: u64, change: impl Fn(&mut Echo)) -> bool {
        let mut changed = false;
        for view in views(connection) {
            let Some(echoes) = self.by_view.get_mut(&view) else { continue };
            for echo in echoes.iter_mut().filter(|echo| echo.until == until && echo.connection == *connection) {
                change(echo);
                changed = true;
            }
        }
        changed
    }

    /// Returns whether there was one.
    fn forget_oldest(&mut self) -> bool {
        let Some((until, connection)) = self.ended.pop_front() else { return false };
        for view in views(&connection) {
            let Some(echoes) = self.by_view.get_mut(&view) else { continue };
            if let Some(at) = echoes.iter().position(|echo| echo.until == until && echo.connection == connection) {
                echoes.swap_remove(at);
            }
            if echoes.is_empty() {
                self.by_view.remove(&view);
            }
        }
        self.count -= 1;
        true
    }
}

/// One of what is not translated, else two.
fn views(connection: &Connection) -> impl Iterator<Item = Tuple> + use<> {
    let [before, after] = connection.views();
    std::iter::once(before).chain((after != before).then_some(after))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    const SERVER: u8 = 200;
    const HOST: u8 = 100;

    fn at(host: u8, port: u16) -> Endpoint {
        Endpoint { address: std::net::IpAddr::from(Ipv4Addr::new(192, 0, 2, host)).into(), port }
    }

    fn asks(from: u8, to: u8) -> Tuple {
        Tuple { protocol: 1, src: at(from, 8), dst: at(to, 0) }
    }

    fn answers(from: u8, to: u8) -> Tuple {
        Tuple { protocol: 1, src: at(from, 0), dst: at(to, 8) }
    }

    /// A ping of the server; `HOST` itself is not translated.
    fn ping(from: u8, id: u16) -> Connection {
        Connection { original: asks(from, SERVER), reply: answers(SERVER, HOST), ids: [id, id + 1000] }
    }

    fn outside(echoes: &Echoes, from: u64, to: u64) -> Option<[Endpoint; 2]> {
        echoes.ends(&asks(HOST, SERVER), from, to)
    }

    #[test]
    fn a_ping_leads_to_who_is_behind_it_from_both_sides() {
        let mut echoes = Echoes::new(10);
        echoes.begin(ping(1, 7), 10);
        let ends = Some([at(1, 8), at(SERVER, 0)]);
        assert_eq!((outside(&echoes, 12, 15), echoes.ends(&asks(1, SERVER), 12, 15)), (ends, ends));
        assert_eq!(echoes.ends(&asks(2, SERVER), 12, 15), None);
        assert_eq!(outside(&echoes, 5, 9), None, "it began later");
        // The same container pings once more.
        echoes.begin(ping(1, 8), 20);
        assert_eq!(outside(&echoes, 12, 25), ends);
    }

    #[test]
    fn two_who_ping_one_server_at_one_time_are_not_told_apart_and_one_after_the_other_they_are() {
        let mut echoes = Echoes::new(10);
        echoes.begin(ping(1, 7), 10);
        echoes.begin(ping(2, 7), 20);
        assert_eq!(outside(&echoes, 25, 30), None);
        assert_eq!(outside(&echoes, 12, 15), Some([at(1, 8), at(SERVER, 0)]));
        echoes.end(&ping(1, 7), 40);
        assert_eq!(outside(&echoes, 41, 50), Some([at(2, 8), at(SERVER, 0)]));
        // Nor is a container and the host itself.
        echoes.begin(ping(HOST, 3), 60);
        assert_eq!(outside(&echoes, 55, 70), None);
        echoes.end(&ping(2, 7), 80);
        assert_eq!(outside(&echoes, 90, 95), Some([at(HOST, 8), at(SERVER, 0)]));
    }

    #[test]
    fn where_some_may_be_missing_nobody_is_named() {
        let mut echoes = Echoes::new(10);
        echoes.begin(ping(1, 7), 10);
        echoes.doubt();
        assert_eq!(outside(&echoes, 20, 30), None);
        assert!(echoes.wants_table());
        echoes.begin_table();
        echoes.begin(ping(2, 7), 10);
        echoes.end_table(40);
        assert!(!echoes.wants_table());
        assert_eq!(outside(&echoes, 39, 50), None);
        assert_eq!(outside(&echoes, 41, 50), Some([at(2, 8), at(SERVER, 0)]), "the table has the other one no more");
        // One that finds no room is a gap, too.
        let mut full = Echoes::new(1);
        full.begin(ping(1, 7), 10);
        full.begin(ping(2, 7), 10);
        assert_eq!((full.len(), full.lost(), outside(&full, 20, 30)), (1, 1, None));
        assert!(!full.wants_table(), "there is no room yet");
        full.end(&ping(1, 7), 40);
        full.forget_old(50 + KEPT_NS);
        assert!(full.wants_table() && full.by_view.is_empty());
    }

    proptest! {
        #[test]
        fn a_name_is_that_of_the_only_one_who_was_there(
            steps in proptest::collection::vec((any::<bool>(), 0..4u8, 0..3u16), 0..60),
            from in 0..70u64,
            lasts in 0..20u64,
        ) {
            let mut echoes = Echoes::new(100);
            let mut lives: Vec<(u8, u16, u64, u64)> = Vec::new();
            for (time, (begins, who, id)) in (1..).zip(steps) {
                let who = if who == 0 { HOST } else { who };
                let known = lives.iter_mut().find(|life| (life.0, life.1, life.3) == (who, id, FOREVER));
                match (begins, known) {
                    (true, None) => {
                        lives.push((who, id, time, FOREVER));
                        echoes.begin(ping(who, id), time);
                    }
                    (true, Some(_)) => echoes.begin(ping(who, id), time),
                    (false, Some(life)) => {
                        life.3 = time;
                        echoes.end(&ping(who, id), time);
                    }
                    (false, None) => echoes.end(&ping(who, id), time),
                }
            }
            let to = from + lasts;
            let mut there: Vec<u8> = lives.iter().filter(|life| life.2 <= to && from <= life.3).map(|life| life.0).collect();
            there.sort_unstable();
            there.dedup();
            let expected = match there[..] {
                [who] => Some([at(who, 8), at(SERVER, 0)]),
                _ => None,
            };
            prop_assert_eq!(outside(&echoes, from, to), expected);
            prop_assert_eq!(echoes.len(), lives.len());
            for life in lives.iter().filter(|life| life.3 == FOREVER) {
                echoes.end(&ping(life.0, life.1), 100);
            }
            echoes.forget_old(101 + KEPT_NS);
            prop_assert!(echoes.by_view.is_empty() && echoes.len() == 0);
        }
    }
}
