//! How large the tables are that have no bound of their own to set.

/// Which part of their usual bounds the tables take that there are many of, each of them small: findings, names, top talkers.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    bytes: usize,
}

/// Bytes of all these tables, about, where each has its usual bound and is full.
const USUAL: usize = 128 << 20;
/// Rows that a table has room for however little memory there is.
const LEAST: usize = 64;

impl Default for Scale {
    fn default() -> Self {
        Self { bytes: USUAL }
    }
}

impl Scale {
    /// All tables together hold about so many bytes at most, and never more than usual.
    #[must_use]
    pub fn within(bytes: usize) -> Self {
        Self { bytes: bytes.min(USUAL) }
    }

    /// The bound of a table that usually has `most` rows.
    #[must_use]
    pub fn of(self, most: usize) -> usize {
        let rows = most as u128 * self.bytes as u128 / USUAL as u128;
        (rows as usize).max(LEAST.min(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_its_part_and_is_never_larger_than_usual_nor_without_room() {
        assert_eq!(Scale::default().of(8192), 8192);
        assert_eq!(Scale::within(usize::MAX).of(200_000), 200_000);
        assert_eq!(Scale::within(USUAL / 4).of(8192), 2048);
        assert_eq!((Scale::within(0).of(8192), Scale::within(0).of(10)), (LEAST, 10));
    }
}
