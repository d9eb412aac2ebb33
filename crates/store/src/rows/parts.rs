//! Many rows without one large list of them.

/// Rows in the parts in which they came. A list that holds them all would be copied each time that it grows, and its memory be asked for anew:
/// of a large block that is more work than all that is done with its rows.
#[derive(Clone, Debug)]
pub struct Parts<T>(Vec<Vec<T>>);

impl<T> Parts<T> {
    /// Adds rows.
    pub fn push(&mut self, part: Vec<T>) {
        if !part.is_empty() {
            self.0.push(part);
        }
    }

    /// All rows together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(Vec::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rows in their order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.into_iter()
    }

    /// Drops the others.
    pub fn retain(&mut self, kept: impl Fn(&T) -> bool) {
        for part in &mut self.0 {
            part.retain(&kept);
        }
        self.0.retain(|part| !part.is_empty());
    }
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'a, T> IntoIterator for &'a Parts<T> {
    type Item = &'a T;
    type IntoIter = std::iter::Flatten<std::slice::Iter<'a, Vec<T>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stay_in_order_and_a_part_without_rows_is_gone() {
        let mut parts = Parts::default();
        for part in [vec![1, 2], vec![], vec![3], vec![4, 5]] {
            parts.push(part);
        }
        assert_eq!((parts.len(), parts.iter().copied().collect::<Vec<_>>()), (5, vec![1, 2, 3, 4, 5]));
        parts.retain(|row| row % 2 == 0);
        assert_eq!(parts.iter().copied().collect::<Vec<_>>(), [2, 4]);
        parts.retain(|_| false);
        assert!(parts.is_empty());
    }
}
