//! Names of flows that ended.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::key::{Direction, Key};
use crate::rows::Rows;
use crate::table::Place;

/// What is remembered of a flow that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retired {
    pub(super) key: Key,
    pub(super) ordinal: u64,
    pub(super) id: u64,
    pub(super) initiator: Direction,
    pub(super) ports: (u16, u16),
    pub(super) interface: u32,
    pub(super) base_sequence: [Option<u32>; 2],
    pub(super) app: &'static str,
    pub(super) tunnel_ends: u32,
}

/// The last ones, up to a bound.
#[derive(Debug)]
pub(super) struct Retirees {
    most: usize,
    ring: Rows<Retired>,
    /// The place in the ring that is taken next.
    next: usize,
    index: HashTable<Place>,
    hasher: DefaultHashBuilder,
}

impl Retirees {
    pub(super) fn new(most: usize) -> Self {
        let most = most.clamp(1, u32::MAX as usize);
        Self { most, ring: Rows::default(), next: 0, index: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.ring.len()
    }

    /// Takes the name of a flow that has none here: what goes on after its end takes its name out.
    pub(super) fn add(&mut self, retired: Retired) {
        if self.ring.len() < self.most {
            self.next = self.ring.len();
            self.ring.push(retired);
        } else {
            self.next %= self.most;
            self.forget(self.next);
            self.ring[self.next] = retired;
        }
        let place = Place { hash: self.hash(&retired.key), at: self.next as u32 };
        self.index.insert_unique(place.rehash(), place, |place| place.rehash());
        self.next += 1;
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Retired> {
        let hash = self.hash(key);
        let Self { ring, index, .. } = self;
        let holds = |place: &Place| place.hash == hash && ring[place.at as usize].key == *key;
        let (place, _) = index.find_entry(Place::spread(hash), holds).ok()?.remove();
        Some(ring[place.at as usize])
    }

    /// Makes room at a place.
    fn forget(&mut self, at: usize) {
        let hash = self.hash(&self.ring[at].key);
        if let Ok(entry) = self.index.find_entry(Place::spread(hash), |place| place.at as usize == at) {
            entry.remove();
        }
    }

    fn hash(&self, key: &Key) -> u32 {
        self.hasher.hash_one(key) as u32
    }
}
