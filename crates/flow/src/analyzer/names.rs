//! Names by number, so that a key stays small.

use crate::table::Table;

/// Names beyond which all further ones share the last number.
const MAX_NAMES: usize = 65_536;

/// Numbers from 0 on, in the order in which the names came; 0 is the empty name.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// From number 1 on.
    names: Table<String, ()>,
    /// Others share the last number.
    shared: bool,
}

impl Names {
    pub(super) fn number(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let hash = self.names.hash(name);
        if let Some(at) = self.names.find(hash, name) {
            return at as u32 + 1;
        }
        if self.is_full() {
            self.shared = true;
        } else {
            self.names.push(hash, name.to_owned(), ());
        }
        self.names.len() as u32
    }

    /// As [`Names::number`], but a name for which there is no room has no number.
    pub(super) fn number_of(&mut self, name: &str) -> u32 {
        if self.is_full() && self.names.find(self.names.hash(name), name).is_none() { 0 } else { self.number(name) }
    }

    pub(super) fn name(&self, number: u32) -> &str {
        let number = number as usize;
        if self.shared && number == self.names.len() {
            return "other";
        }
        number.checked_sub(1).and_then(|at| self.names.rows().get(at)).map_or("", |(name, ())| name)
    }

    fn is_full(&self) -> bool {
        self.names.len() + 1 >= MAX_NAMES
    }
}

/// Ends of tunnels by number, from 1 on; 0 where there is no room for more.
#[derive(Debug, Default)]
pub(super) struct TunnelEnds(Table<[[u8; 16]; 2], ()>);

impl TunnelEnds {
    pub(super) fn number(&mut self, src: [u8; 16], dst: [u8; 16]) -> u32 {
        let ends = [src, dst];
        let hash = self.0.hash(&ends);
        if let Some(at) = self.0.find(hash, &ends) {
            return at as u32 + 1;
        }
        if self.0.len() >= MAX_NAMES {
            return 0;
        }
        self.0.push(hash, ends, ());
        self.0.len() as u32
    }

    pub(super) fn ends(&self, number: u32) -> Option<[[u8; 16]; 2]> {
        self.0.rows().get((number as usize).checked_sub(1)?).map(|(ends, ())| *ends)
    }
}
