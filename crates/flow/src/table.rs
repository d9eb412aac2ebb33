//! A hash table whose rows lie one behind the other.

use std::borrow::Borrow;
use std::hash::{BuildHasher as _, Hash};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::rows::Rows;

/// Rows by key, in the order in which they came. The index holds nothing but places and hashes: it stays small, it grows without a look at
/// the rows, and a new row is written behind the last one. That is what counts where most keys come once.
#[derive(Clone, Debug)]
pub(crate) struct Table<K, V> {
    rows: Rows<(K, V)>,
    index: HashTable<Place>,
    hasher: DefaultHashBuilder,
}

/// Half of the hash of a key, and where its row is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) hash: u32,
    pub(crate) at: u32,
}

impl Place {
    /// What a table takes for the hash: it looks at the upper bits and at the lower ones.
    pub(crate) const fn spread(hash: u32) -> u64 {
        (hash as u64) << 32 | hash as u64
    }

    pub(crate) const fn rehash(self) -> u64 {
        Self::spread(self.hash)
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { rows: Rows::default(), index: HashTable::new(), hasher: DefaultHashBuilder::default() }
    }
}

impl<K: Hash + Eq, V> Table<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) const fn rows(&self) -> &Rows<(K, V)> {
        &self.rows
    }

    /// For [`Table::find`] and [`Table::push`].
    pub(crate) fn hash<Q>(&self, key: &Q) -> u32
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        self.hasher.hash_one(key) as u32
    }

    /// The number of a key's row.
    pub(crate) fn find<Q>(&self, hash: u32, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let holds = |place: &Place| place.hash == hash && self.rows[place.at as usize].0.borrow() == key;
        self.index.find(Place::spread(hash), holds).map(|place| place.at as usize)
    }

    /// Of the row with this number.
    pub(crate) fn value_mut(&mut self, at: usize) -> &mut V {
        &mut self.rows[at].1
    }

    /// Adds a row for a key that has none.
    pub(crate) fn push(&mut self, hash: u32, key: K, value: V) -> &mut V {
        let place = Place { hash, at: self.rows.len() as u32 };
        if self.index.len() == self.index.capacity() {
            // In large steps: each one looks for a new place for all.
            self.index.reserve(self.rows.len() * 3, |place| place.rehash());
        }
        self.index.insert_unique(place.rehash(), place, |place| place.rehash());
        &mut self.rows.push((key, value)).1
    }

    /// Drops the rows whose value is not to be kept.
    pub(crate) fn retain(&mut self, keep: impl Fn(&V) -> bool) {
        self.rows.retain(|(_, value)| keep(value));
        self.index.clear();
        for (at, (key, _)) in (0..).zip(self.rows.iter()) {
            let place = Place { hash: self.hasher.hash_one(key) as u32, at };
            self.index.insert_unique(place.rehash(), place, |place| place.rehash());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_put_in_is_found_also_after_some_was_dropped(
            keys in proptest::collection::vec(0u32..2000, 0..3000),
            dropped in 1u32..5,
        ) {
            let (mut table, mut expected) = (Table::<u32, u32>::default(), BTreeMap::new());
            for key in &keys {
                let hash = table.hash(key);
                match table.find(hash, key) {
                    Some(at) => *table.value_mut(at) += 1,
                    None => *table.push(hash, *key, 0) += 1,
                }
                *expected.entry(*key).or_insert(0) += 1;
            }
            table.retain(|count| count % dropped != 0);
            expected.retain(|_, count| *count % dropped != 0);
            for key in 0..2000 {
                let found = table.find(table.hash(&key), &key).map(|at| table.rows()[at]);
                prop_assert_eq!(found, expected.get(&key).map(|count| (key, *count)));
            }
            prop_assert_eq!(table.len(), expected.len());
        }
    }
}
