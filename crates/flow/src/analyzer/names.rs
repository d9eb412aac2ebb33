//! Names by number, so that a key stays small.

use hashbrown::HashMap;

/// Names beyond which all further ones share the last number.
const MAX_NAMES: usize = 65_536;

/// Numbers from 0 on, in the order in which the names came; 0 is the empty name.
#[derive(Debug)]
pub(super) struct Names {
    names: Vec<String>,
    index: HashMap<String, u32>,
}

impl Default for Names {
    fn default() -> Self {
        Self { names: vec![String::new()], index: HashMap::from([(String::new(), 0)]) }
    }
}

impl Names {
    pub(super) fn number(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        if let Some(number) = self.index.get(name) {
            return *number;
        }
        let last = self.names.len() - 1;
        if self.names.len() >= MAX_NAMES {
            "other".clone_into(&mut self.names[last]);
            return last as u32;
        }
        self.names.push(name.to_owned());
        self.index.insert(name.to_owned(), last as u32 + 1);
        last as u32 + 1
    }

    /// As [`Names::number`], but a name for which there is no room has no number.
    pub(super) fn number_of(&mut self, name: &str) -> u32 {
        if self.names.len() >= MAX_NAMES && !self.index.contains_key(name) { 0 } else { self.number(name) }
    }

    pub(super) fn name(&self, number: u32) -> &str {
        self.names.get(number as usize).map_or("", String::as_str)
    }
}

/// Ends of tunnels by number, from 1 on; 0 where there is no room for more.
#[derive(Debug, Default)]
pub(super) struct TunnelEnds {
    ends: Vec<[[u8; 16]; 2]>,
    index: HashMap<[[u8; 16]; 2], u32>,
}

impl TunnelEnds {
    pub(super) fn number(&mut self, src: [u8; 16], dst: [u8; 16]) -> u32 {
        let ends = [src, dst];
        if let Some(number) = self.index.get(&ends) {
            return *number;
        }
        if self.ends.len() >= MAX_NAMES {
            return 0;
        }
        self.ends.push(ends);
        let number = self.ends.len() as u32;
        self.index.insert(ends, number);
        number
    }

    pub(super) fn ends(&self, number: u32) -> Option<[[u8; 16]; 2]> {
        self.ends.get((number as usize).checked_sub(1)?).copied()
    }
}
