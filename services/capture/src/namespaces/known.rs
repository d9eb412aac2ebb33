//! What is known of interfaces in containers, for all threads that make records of what was seen there.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Interfaces that are known: flows of one that is gone are reported with its name. The oldest ones are forgotten.
const MAX_KNOWN: usize = 16_384;

/// Interfaces by their numbers, which are never given twice. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<BTreeMap<u32, Interface>>>);

#[derive(Debug)]
struct Interface {
    name: Box<str>,
    inside: Inside,
}

/// What keeps flows apart from the same addresses elsewhere, and whose addresses they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    /// In the keys of flows; 0 = nothing keeps them apart: they are the host's.
    pub mask: u64,
    /// Number (inode) of the network namespace.
    pub namespace: u64,
}

impl Known {
    /// An interface has this number.
    pub(super) fn learn(&self, number: u32, name: &str, inside: Inside) {
        let mut known = self.lock();
        known.insert(number, Interface { name: name.into(), inside });
        if known.len() > MAX_KNOWN {
            known.pop_first();
        }
    }

    /// `lo@4026532281`; empty = not known any more.
    #[must_use]
    pub fn name(&self, number: u32) -> String {
        self.lock().get(&number).map(|interface| interface.name.to_string()).unwrap_or_default()
    }

    /// Whose addresses are seen there; `None` = not known any more.
    #[must_use]
    pub fn inside(&self, number: u32) -> Option<Inside> {
        self.lock().get(&number).map(|interface| interface.inside)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Interface>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten() {
        let known = Known::default();
        for number in 0..=MAX_KNOWN as u32 {
            known.learn(number, "lo@1", Inside { mask: number.into(), namespace: 1 });
        }
        assert_eq!((known.name(0), known.inside(0)), (String::new(), None));
        assert_eq!((known.name(1).as_str(), known.inside(1).unwrap().mask), ("lo@1", 1));
    }
}
