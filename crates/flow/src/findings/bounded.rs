//! A table that forgets what matters least before it refuses what is new.

use std::borrow::Borrow;
use std::hash::Hash;

use crate::table::Table;

/// Values by key, at most so many.
#[derive(Debug)]
pub(super) struct Bounded<K, V> {
    values: Table<K, V>,
    most: usize,
    /// New keys that are refused before it is looked again for what can be forgotten.
    until_sweep: usize,
    /// What was forgotten or refused.
    pub(super) lost: u64,
}

impl<K: Hash + Eq, V: Default> Bounded<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self { values: Table::default(), most, until_sweep: 0, lost: 0 }
    }

    /// The value of a key, made if need be; nothing where the table is full of what matters.
    pub(super) fn entry(&mut self, key: K, matters: impl Fn(&V) -> bool) -> Option<&mut V> {
        let hash = self.values.hash(&key);
        match self.values.find(hash, &key) {
            Some(at) => Some(self.values.value_mut(at)),
            None => self.insert(hash, key, matters),
        }
    }

    /// As [`Bounded::entry`], for a key that is made only where it is new.
    pub(super) fn entry_of<'q, Q>(&mut self, key: &'q Q, matters: impl Fn(&V) -> bool) -> Option<&mut V>
    where
        K: Borrow<Q> + From<&'q Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.values.hash(key);
        match self.values.find(hash, key) {
            Some(at) => Some(self.values.value_mut(at)),
            None => self.insert(hash, key.into(), matters),
        }
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.values.find(self.values.hash(key), key)?;
        Some(self.values.value_mut(at))
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let at = self.values.find(self.values.hash(key), key)?;
        Some(&self.values.rows()[at].1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.values.rows().iter().map(|(key, value)| (key, value))
    }

    fn insert(&mut self, hash: u32, key: K, matters: impl Fn(&V) -> bool) -> Option<&mut V> {
        if self.values.len() >= self.most && !self.sweep(matters) {
            self.lost += 1;
            return None;
        }
        Some(self.values.push(hash, key, V::default()))
    }

    fn sweep(&mut self, matters: impl Fn(&V) -> bool) -> bool {
        if self.until_sweep > 0 {
            self.until_sweep -= 1;
            return false;
        }
        let before = self.values.len();
        self.values.retain(matters);
        self.lost += (before - self.values.len()) as u64;
        self.until_sweep = if self.values.len() > self.most / 4 * 3 { self.most / 4 } else { 0 };
        self.values.len() < self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_forgets_what_does_not_matter_and_counts_it() {
        let mut table = Bounded::<u32, u32>::new(8);
        for key in 0..100 {
            if let Some(value) = table.entry(key, |value| *value > 1) {
                *value += 1 + u32::from(key < 4);
            }
        }
        assert!((0..4).all(|key| table.get(&key).is_some()));
        assert!(table.values.len() <= 8);
        assert_eq!(table.lost as usize + table.values.len(), 100);
    }
}
