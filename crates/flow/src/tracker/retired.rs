//! Names of flows that ended.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::key::{Direction, Key};

/// What is remembered of a flow that ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retired {
    pub(super) key: Key,
    pub(super) ordinal: u64,
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
    ring: Vec<Retired>,
    /// The place in the ring that is taken next.
    next: usize,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Retirees {
    pub(super) fn new(most: usize) -> Self {
        let most = most.clamp(1, u32::MAX as usize);
        Self { most, ring: Vec::new(), next: 0, index: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }

    #[cfg(test)]
    pub(super) const fn places(&self) -> usize {
        self.ring.len()
    }

    pub(super) fn add(&mut self, retired: Retired) {
        self.remove(&retired.key);
        if self.ring.len() < self.most {
            self.next = self.ring.len();
            self.ring.push(retired);
        } else {
            self.next %= self.most;
            self.forget(self.next);
            self.ring[self.next] = retired;
        }
        let Self { ring, index, hasher, .. } = self;
        index.insert_unique(hasher.hash_one(retired.key), self.next as u32, |at| {
            hasher.hash_one(ring[*at as usize].key)
        });
        self.next += 1;
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<Retired> {
        let Self { ring, index, hasher, .. } = self;
        let entry = index.find_entry(hasher.hash_one(key), |at| ring[*at as usize].key == *key).ok()?;
        let (at, _) = entry.remove();
        Some(ring[at as usize])
    }

    /// Makes room at a place.
    fn forget(&mut self, place: usize) {
        let Self { ring, index, hasher, .. } = self;
        if let Ok(entry) = index.find_entry(hasher.hash_one(ring[place].key), |at| *at as usize == place) {
            entry.remove();
        }
    }
}
