//! Rows that stay where they are.

use std::ops::{Index, IndexMut};

/// Rows of a block: few enough that one costs little, so many that there are few blocks.
const BLOCK: usize = 1024;

/// As a vector, but what is in it never moves: it grows by a block at a time, and copies nothing.
#[derive(Clone, Debug)]
pub(crate) struct Rows<T> {
    /// All of them full but for the last one.
    blocks: Vec<Vec<T>>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { blocks: Vec::new() }
    }
}

impl<T> Rows<T> {
    pub(crate) fn len(&self) -> usize {
        self.blocks.last().map_or(0, |last| (self.blocks.len() - 1) * BLOCK + last.len())
    }

    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        self.blocks.get(at / BLOCK)?.get(at % BLOCK)
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.blocks.get_mut(at / BLOCK)?.get_mut(at % BLOCK)
    }

    pub(crate) fn push(&mut self, row: T) -> &mut T {
        if self.blocks.last().is_none_or(|last| last.len() == BLOCK) {
            // The first one grows as a vector does: most captures need no whole one.
            let room = if self.blocks.is_empty() { 0 } else { BLOCK };
            self.blocks.push(Vec::with_capacity(room));
        }
        let last = self.blocks.len() - 1;
        self.blocks[last].push_mut(row)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flatten()
    }

    /// Drops the rows that are not to be kept; those behind them take their places.
    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        for row in std::mem::take(&mut self.blocks).into_iter().flatten().filter(keep) {
            self.push(row);
        }
    }
}

impl<T> Index<usize> for Rows<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.blocks[at / BLOCK][at % BLOCK]
    }
}

impl<T> IndexMut<usize> for Rows<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.blocks[at / BLOCK][at % BLOCK]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_are_those_of_a_vector(count in 0usize..3000, modulus in 1usize..9) {
            let (mut rows, mut vector) = (Rows::default(), Vec::new());
            for row in 0..count {
                *rows.push(row) += 1;
                vector.push(row + 1);
            }
            prop_assert_eq!(rows.iter().copied().collect::<Vec<_>>(), vector.clone());
            rows.retain(|row| row % modulus == 0);
            vector.retain(|row| row % modulus == 0);
            prop_assert_eq!(rows.len(), vector.len());
            for at in 0..=count {
                prop_assert_eq!(rows.get(at), vector.get(at));
                prop_assert_eq!(rows.get_mut(at).copied(), vector.get(at).copied());
            }
            if let Some(last) = vector.last_mut() {
                *last = 0;
                let at = rows.len() - 1;
                rows[at] = 0;
                prop_assert_eq!(rows[at], 0);
            }
            prop_assert_eq!(rows.push(7), &7);
            prop_assert_eq!(rows.len(), vector.len() + 1);
        }
    }
}
