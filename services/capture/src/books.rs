//! The ledger as records: what became of the packets of each interface in each interval, for whoever asks in SQL.
//!
//! Only differences to what was told before are told, and a difference counts as told when its batch is in the spool. So the sums over all
//! records are the kernel's ledger, whatever was refused meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use weir_capture_common::ledger::{self, Kind, Ledger};
use weir_proto::{Batch, LedgerEntry, Source, ledger_entry::Outcome};

use crate::{metrics::Sums, picks::Rows};

/// By outcome.
type Entries = [ledger::Entry; ledger::Outcome::ALL.len()];

/// What was told of each interface, and where to tell the rest.
#[derive(Default)]
pub(crate) struct Books {
    rows: Option<Rows>,
    pages: BTreeMap<u32, Page>,
    /// What the life before has told, until it is known which interfaces are where.
    earlier: BTreeMap<u32, Entries>,
    /// What is not in the kernel's ledger: packets in records that found no room, and packets that nobody saw.
    unpublished: Sums,
    unseen: u64,
    since: u64,
    told: Option<Instant>,
}

/// One place of the kernel's ledger.
#[derive(Default)]
struct Page {
    names: BTreeSet<String>,
    told: Ledger,
    since: u64,
}

impl Books {
    /// Tells these from now on.
    pub(crate) fn tell(&mut self, rows: Rows) {
        self.rows = Some(rows);
    }

    /// These interfaces are attached to, name and index, since `now` (microseconds since the Unix epoch). Who was before at the place of one
    /// must have been told of.
    pub(crate) fn open(&mut self, attached: &[(String, u32)], now: u64) {
        for (place, entries) in std::mem::take(&mut self.earlier) {
            let told = Ledger { entries, ..Ledger::default() };
            self.pages.insert(place, Page { told, since: now, ..Page::default() });
        }
        let mut places: BTreeMap<u32, BTreeSet<String>> = BTreeMap::new();
        for (name, index) in attached {
            places.entry(ledger::place(*index)).or_default().insert(name.clone());
        }
        for (place, names) in places {
            let new = || Page { since: now, ..Page::default() };
            self.pages.entry(place).or_insert_with(new).names = names;
        }
    }

    /// Goes on with what the life before has told of each place.
    pub(crate) fn go_on(&mut self, told: impl Iterator<Item = (u32, Entries)>) {
        self.earlier.extend(told);
    }

    /// What was told of each place until now.
    pub(crate) fn told(&self) -> impl Iterator<Item = (u32, Entries)> {
        self.pages.iter().map(|(place, page)| (*place, page.told.entries))
    }

    /// Records that the spool did not take.
    pub(crate) fn unpublished(&mut self, sums: Sums) {
        self.unpublished.add(sums);
    }

    /// Packets that passed while nobody counted.
    pub(crate) fn unseen(&mut self, packets: u64) {
        self.unseen += packets;
    }

    /// Whether the last time is so long ago that it is time to tell again.
    pub(crate) fn due(&self, every: Duration) -> bool {
        self.rows.is_some() && self.told.is_none_or(|told| told.elapsed() >= every)
    }

    /// Tells what is new at `now`.
    pub(crate) fn keep(&mut self, ledgers: &[(u32, Ledger)], now: u64) {
        self.told = Some(Instant::now());
        let Some(rows) = &mut self.rows else { return };
        let mut entries: Vec<_> = (ledgers.iter())
            .filter_map(|(place, ledger)| self.pages.get(place).map(|page| page.entries(&page.settled(ledger), now)))
            .collect();
        entries.push(beside(self.unpublished, self.unseen, self.since, now));
        let capture_ledger = entries.concat();
        let batch = Batch { source: Source::Ebpf.into(), capture_ledger, ..Batch::default() };
        if !batch.capture_ledger.is_empty() && !rows(batch) {
            // What was refused is a part of the next difference.
            return;
        }
        for (place, ledger) in ledgers {
            if let Some(page) = self.pages.get_mut(place) {
                (page.told, page.since) = (page.settled(ledger), now);
            }
        }
        (self.unpublished, self.unseen, self.since) = (Sums::default(), 0, now);
    }
}

impl Page {
    /// The ledger without what would take back more than is new: of packets that were told as accounted, and turned out to be duplicates. That
    /// part waits until others have been accounted, so that sums only grow and close at every moment.
    fn settled(&self, ledger: &Ledger) -> Ledger {
        let mut settled = *ledger;
        let (accounted, duplicate) = (ledger::Outcome::Accounted as usize, ledger::Outcome::Duplicate as usize);
        let (told, now) = (self.told.entries[accounted], ledger.entries[accounted]);
        let packets = told.packets.saturating_sub(now.packets);
        let bytes = told.bytes.saturating_sub(now.bytes);
        settled.entries[accounted].packets += packets;
        settled.entries[accounted].bytes += bytes;
        settled.entries[duplicate].packets = settled.entries[duplicate].packets.saturating_sub(packets);
        settled.entries[duplicate].bytes = settled.entries[duplicate].bytes.saturating_sub(bytes);
        settled
    }

    fn entries(&self, ledger: &Ledger, now: u64) -> Vec<LedgerEntry> {
        let new = ledger.since(&self.told);
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let interface = names.join(",");
        let outcomes = ledger::Outcome::ALL.into_iter().filter(|outcome| new.entry(*outcome).packets > 0);
        let entry = |outcome: ledger::Outcome| {
            let (told, reason) = match outcome.kind() {
                Kind::Seen => (Outcome::Seen, ""),
                Kind::Accounted => (Outcome::Accounted, ""),
                Kind::Ignored => (Outcome::Ignored, outcome.reason()),
                Kind::Lost => (Outcome::Lost, outcome.reason()),
            };
            let ledger::Entry { packets, bytes } = new.entry(outcome);
            LedgerEntry {
                start_time: self.since,
                end_time: now,
                interface: interface.clone(),
                outcome: told.into(),
                reason: reason.to_owned(),
                packets,
                bytes,
            }
        };
        outcomes.map(entry).collect()
    }
}

fn beside(unpublished: Sums, unseen: u64, since: u64, now: u64) -> Vec<LedgerEntry> {
    let counts = [(Outcome::Unpublished, unpublished.packets, unpublished.bytes), (Outcome::Unseen, unseen, 0)];
    let told = counts.into_iter().filter(|(_, packets, _)| *packets > 0);
    let entry = |(outcome, packets, bytes): (Outcome, u64, u64)| LedgerEntry {
        start_time: since,
        end_time: now,
        outcome: outcome.into(),
        packets,
        bytes,
        ..LedgerEntry::default()
    };
    told.map(entry).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;
    use weir_capture_common::wire::Size;

    use super::*;

    type Shared<T> = Arc<Mutex<T>>;

    /// Books whose batches come back, and whether the next one is taken.
    fn books() -> (Books, Shared<Vec<LedgerEntry>>, Shared<bool>) {
        let (told, takes) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(true)));
        let mut books = Books::default();
        let (to, taking) = (Arc::clone(&told), Arc::clone(&takes));
        books.tell(Box::new(move |batch| {
            let takes = *taking.lock().unwrap();
            if takes {
                to.lock().unwrap().extend(batch.capture_ledger);
            }
            takes
        }));
        (books, told, takes)
    }

    fn sum(entries: &[LedgerEntry], interface: &str, outcome: Outcome) -> u64 {
        let of = |entry: &&LedgerEntry| entry.interface == interface && entry.outcome() == outcome;
        entries.iter().filter(of).map(|entry| entry.packets).sum()
    }

    #[test]
    fn an_interface_that_takes_the_place_of_another_has_its_own_counts() {
        let (mut books, told, _) = books();
        let mut ledger = Ledger::default();
        books.open(&[("veth1".into(), 7)], 100);
        ledger.record(ledger::Outcome::Accounted, Size { packets: 3, bytes: 30 });
        books.keep(&[(7, ledger)], 200);
        books.open(&[("veth9".into(), 7 + ledger::LEDGERS)], 200);
        ledger.record(ledger::Outcome::NotIp, Size { packets: 2, bytes: 20 });
        books.keep(&[(7, ledger)], 300);
        let told = told.lock().unwrap();
        assert_eq!((sum(&told, "veth1", Outcome::Seen), sum(&told, "veth1", Outcome::Accounted)), (3, 3));
        assert_eq!((sum(&told, "veth9", Outcome::Seen), sum(&told, "veth9", Outcome::Ignored)), (2, 2));
        assert!(
            told.iter().all(|entry| entry.reason == if entry.outcome() == Outcome::Ignored { "not_ip" } else { "" })
        );
        assert_eq!((told[0].start_time, told[0].end_time, told[2].start_time), (100, 200, 200));
    }

    #[test]
    fn what_was_accounted_and_is_a_duplicate_after_all_is_taken_back_from_what_comes() {
        let (mut books, told, _) = books();
        books.open(&[("a".into(), 0)], 0);
        let size = |packets| Size { packets, bytes: packets * 10 };
        let mut ledger = Ledger::default();
        ledger.record(ledger::Outcome::Accounted, size(5));
        books.keep(&[(0, ledger)], 1);
        ledger.entries[ledger::Outcome::Accounted as usize] = ledger::Entry { packets: 2, bytes: 20 };
        ledger.entries[ledger::Outcome::Duplicate as usize] = ledger::Entry { packets: 3, bytes: 30 };
        books.keep(&[(0, ledger)], 2);
        let sums = |told: &[LedgerEntry]| {
            [Outcome::Seen, Outcome::Accounted, Outcome::Ignored].map(|outcome| sum(told, "a", outcome))
        };
        assert_eq!(sums(&told.lock().unwrap()), [5, 5, 0]);
        ledger.record(ledger::Outcome::Accounted, size(4));
        books.keep(&[(0, ledger)], 3);
        assert_eq!(sums(&told.lock().unwrap()), [9, 6, 3]);
    }

    #[test]
    fn what_the_life_before_has_told_is_not_told_again() {
        let (mut books, told, _) = books();
        let mut ledger = Ledger::default();
        ledger.record(ledger::Outcome::Accounted, Size { packets: 3, bytes: 30 });
        books.go_on([(7, ledger.entries), (9, ledger.entries)].into_iter());
        ledger.record(ledger::Outcome::Accounted, Size { packets: 2, bytes: 20 });
        books.keep(&[(7, ledger), (9, ledger)], 100);
        assert!(told.lock().unwrap().is_empty(), "it is not known of which interface");
        books.open(&[("veth1".into(), 7)], 200);
        books.keep(&[(7, ledger), (9, ledger)], 300);
        let told = told.lock().unwrap();
        assert_eq!((sum(&told, "veth1", Outcome::Seen), sum(&told, "", Outcome::Seen)), (2, 2));
        assert_eq!(
            books.told().map(|(place, entries)| (place, entries[0].packets)).collect::<Vec<_>>(),
            [(7, 5), (9, 5)]
        );
    }

    #[test]
    fn what_is_beside_the_kernels_ledger_is_told_once() {
        let (mut books, told, _) = books();
        books.unseen(5);
        books.unpublished(Sums { records: 1, packets: 4, bytes: 40 });
        books.keep(&[], 10);
        books.keep(&[], 20);
        let told = told.lock().unwrap();
        assert_eq!((sum(&told, "", Outcome::Unseen), sum(&told, "", Outcome::Unpublished), told.len()), (5, 4, 2));
    }

    proptest! {
        #[test]
        fn the_sums_of_what_is_told_are_the_ledger_whatever_is_refused(
            steps in proptest::collection::vec((1..10usize, 0..5u64, 0..3u32, any::<bool>()), 1..60),
        ) {
            let (mut books, told, takes) = books();
            books.open(&[("a".into(), 0), ("b".into(), 1), ("c".into(), 2)], 0);
            let mut ledgers = [0, 1, 2].map(|place| (place, Ledger::default()));
            for (now, (outcome, packets, place, taken)) in steps.into_iter().enumerate() {
                ledgers[place as usize].1.record(ledger::Outcome::ALL[outcome], Size { packets, bytes: packets * 100 });
                *takes.lock().unwrap() = taken;
                books.keep(&ledgers, now as u64);
            }
            *takes.lock().unwrap() = true;
            books.keep(&ledgers, 1000);
            let told = told.lock().unwrap();
            for (name, (_, ledger)) in ["a", "b", "c"].into_iter().zip(ledgers) {
                let kinds = [Outcome::Accounted, Outcome::Ignored, Outcome::Lost];
                prop_assert_eq!(sum(&told, name, Outcome::Seen), ledger.sum(Kind::Seen).packets);
                prop_assert_eq!(kinds.map(|kind| sum(&told, name, kind)).iter().sum::<u64>(), ledger.sum(Kind::Seen).packets);
                prop_assert_eq!(sum(&told, name, Outcome::Lost), ledger.sum(Kind::Lost).packets);
            }
            prop_assert!(told.iter().all(|entry| entry.packets > 0 && entry.start_time <= entry.end_time));
        }
    }
}
