//! A table that forgets: what was neither written nor read for a while goes.

use std::{collections::HashMap, hash::Hash, time::Duration};

/// Keeps the entries of the last generation and of the one before.
#[derive(Debug)]
pub(super) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    capacity: usize,
    /// Microseconds that a generation lasts.
    lifetime: u64,
    born: u64,
}

impl<K: Eq + Hash, V> Generations<K, V> {
    /// A generation has at most `capacity` entries and lasts for `lifetime`.
    pub(super) fn new(capacity: usize, lifetime: Duration) -> Self {
        let lifetime = u64::try_from(lifetime.as_micros()).unwrap_or(u64::MAX);
        Self { young: HashMap::new(), old: HashMap::new(), capacity, lifetime, born: 0 }
    }

    /// The entry of this key, which lives on; `now` in microseconds.
    pub(super) fn get(&mut self, key: &K, now: u64) -> Option<&mut V>
    where
        K: Clone,
    {
        self.turn(now);
        if let Some(value) = self.old.remove(key) {
            self.young.insert(key.clone(), value);
        }
        self.young.get_mut(key)
    }

    pub(super) fn insert(&mut self, key: K, value: V, now: u64) {
        self.turn(now);
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    fn turn(&mut self, now: u64) {
        let over = now.saturating_sub(self.born) >= self.lifetime;
        if over || self.young.len() >= self.capacity {
            // After a long silence the old ones are too old as well.
            let silent = now.saturating_sub(self.born) >= self.lifetime.saturating_mul(2) && self.born != 0;
            self.old = std::mem::take(&mut self.young);
            if silent {
                self.old = HashMap::new();
            }
            self.born = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_asked_for_lives_on_and_the_rest_goes() {
        let mut table = Generations::new(10, Duration::from_micros(100));
        table.insert("a", 1, 1000);
        table.insert("b", 2, 1000);
        assert_eq!(table.get(&"a", 1110), Some(&mut 1));
        assert_eq!(table.get(&"a", 1220), Some(&mut 1));
        assert_eq!(table.get(&"b", 1220), None);
        assert_eq!(table.get(&"a", 9999), None);
    }

    proptest! {
        #[test]
        fn it_never_holds_more_than_two_generations(keys in proptest::collection::vec((0..50u8, 0..20u64), 0..500)) {
            let mut table = Generations::new(8, Duration::from_millis(1));
            let mut now = 5000;
            for (key, step) in keys {
                now += step;
                table.insert(key, key, now);
                prop_assert_eq!(table.get(&key, now), Some(&mut { key }));
                prop_assert!(table.young.len() <= 9 && table.old.len() <= 9);
            }
        }
    }
}
