//! Names by number, so that a key stays small.

use super::Scale;
use crate::table::Table;

/// Names, or ends, of which each has a number.
const MAX_NAMES: usize = 65_536;

/// Numbers from 0 on, in the order in which the names came; 0 is the empty name. Names for which there is no room share the number after
/// the last one.
#[derive(Debug)]
pub(super) struct Names {
    /// From number 1 on.
    all: Table<String, ()>,
    most: usize,
    /// Times that there was no room for a name.
    lost: u64,
}

impl Names {
    pub(super) fn new(scale: Scale) -> Self {
        Self { all: Table::default(), most: scale.of(MAX_NAMES), lost: 0 }
    }

    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn number(&mut self, name: &str) -> u32 {
        if name.is_empty() { 0 } else { self.find_or_add(name).unwrap_or(self.all.len() as u32 + 1) }
    }

    /// As [`Names::number`], but a name for which there is no room has no number.
    pub(super) fn number_of(&mut self, name: &str) -> u32 {
        if name.is_empty() { 0 } else { self.find_or_add(name).unwrap_or(0) }
    }

    pub(super) fn name(&self, number: u32) -> &str {
        let Some(at) = (number as usize).checked_sub(1) else { return "" };
        self.all.rows().get(at).map_or("other", |(name, ())| name)
    }

    fn find_or_add(&mut self, name: &str) -> Option<u32> {
        let hash = self.all.hash(name);
        if let Some(at) = self.all.find(hash, name) {
            return Some(at as u32 + 1);
        }
        if self.all.len() >= self.most {
            self.lost += 1;
            return None;
        }
        self.all.push(hash, name.to_owned(), ());
        Some(self.all.len() as u32)
    }
}

/// Ends of tunnels by number, from 1 on; 0 where there is no room for more.
#[derive(Debug)]
pub(super) struct TunnelEnds {
    all: Table<[[u8; 16]; 2], ()>,
    most: usize,
    /// Times that there was no room for a pair.
    lost: u64,
}

impl TunnelEnds {
    pub(super) fn new(scale: Scale) -> Self {
        Self { all: Table::default(), most: scale.of(MAX_NAMES), lost: 0 }
    }

    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn number(&mut self, src: [u8; 16], dst: [u8; 16]) -> u32 {
        let ends = [src, dst];
        let hash = self.all.hash(&ends);
        if let Some(at) = self.all.find(hash, &ends) {
            return at as u32 + 1;
        }
        if self.all.len() >= self.most {
            self.lost += 1;
            return 0;
        }
        self.all.push(hash, ends, ());
        self.all.len() as u32
    }

    pub(super) fn ends(&self, number: u32) -> Option<[[u8; 16]; 2]> {
        self.all.rows().get((number as usize).checked_sub(1)?).map(|(ends, ())| *ends)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_without_room_share_a_number_or_have_none() {
        let mut names = Names { most: 2, ..Names::new(Scale::default()) };
        assert_eq!(["", "a", "b", "c", "a", "d"].map(|name| names.number(name)), [0, 1, 2, 3, 1, 3]);
        assert_eq!([0, 1, 2, 3].map(|number| names.name(number).to_owned()), ["", "a", "b", "other"]);
        assert_eq!((names.number_of("b"), names.number_of("e"), names.lost()), (2, 0, 3));
    }

    #[test]
    fn ends_without_room_have_no_number() {
        let mut ends = TunnelEnds { most: 1, ..TunnelEnds::new(Scale::default()) };
        assert_eq!([1, 2, 1].map(|last| ends.number([0; 16], [last; 16])), [1, 0, 1]);
        assert_eq!((ends.ends(1), ends.ends(0), ends.lost()), (Some([[0; 16], [1; 16]]), None, 1));
    }
}
