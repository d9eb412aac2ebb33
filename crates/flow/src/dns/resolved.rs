//! Which name an address had for a client: what the answers said that it got.

use std::collections::VecDeque;

use hashbrown::HashMap;

use crate::analyzer::Scale;

/// Addresses of clients and servers that are remembered.
const MAX_ENTRIES: usize = 65_536;
/// Seconds that an answer holds at least: connections are made a moment after the answer, also where it says 0.
const LEAST_SECONDS: u32 = 10;

type Address = [u8; 16];

/// What the answers said, within bounds: the oldest ones give way.
#[derive(Debug)]
pub struct Resolved {
    /// By client and address: the number of the name, and until when it holds (microseconds).
    table: HashMap<(Address, Address), (u32, u64)>,
    order: VecDeque<(Address, Address)>,
    most: usize,
    /// Names that gave way while they held.
    lost: u64,
}

impl Resolved {
    /// Nothing that was said.
    #[must_use]
    pub fn new(scale: Scale) -> Self {
        Self { table: HashMap::new(), order: VecDeque::new(), most: scale.of(MAX_ENTRIES), lost: 0 }
    }

    /// Names that were forgotten while they held, because there were too many.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Remembers that `client` was told at `time` that the name with this number has this address.
    pub fn learn(&mut self, time: u64, client: Address, address: Address, ttl: u32, name: u32) {
        let until = time.saturating_add(u64::from(ttl.max(LEAST_SECONDS)) * 1_000_000);
        if self.table.insert((client, address), (name, until)).is_none() {
            self.order.push_back((client, address));
        }
        if self.order.len() > self.most
            && let Some(oldest) = self.order.pop_front()
            && let Some((_, until)) = self.table.remove(&oldest)
        {
            self.lost += u64::from(time <= until);
        }
    }

    /// Whether no answer said anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The number of the name that `address` has for `client` at this time; 0 = none.
    #[must_use]
    pub fn name(&self, time: u64, client: Address, address: Address) -> u32 {
        self.table.get(&(client, address)).map_or(0, |(name, until)| if time <= *until { *name } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_holds_for_who_asked_and_as_long_as_the_answer_says() {
        let mut resolved = Resolved::new(Scale::default());
        resolved.learn(1_000_000, [1; 16], [2; 16], 60, 7);
        assert_eq!(resolved.name(61_000_000, [1; 16], [2; 16]), 7);
        assert_eq!(resolved.name(61_000_001, [1; 16], [2; 16]), 0);
        assert_eq!(resolved.name(2_000_000, [3; 16], [2; 16]), 0);
        resolved.learn(2_000_000, [1; 16], [2; 16], 0, 8);
        assert_eq!(resolved.name(12_000_000, [1; 16], [2; 16]), 8);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut resolved = Resolved::new(Scale::default());
        for number in 0..MAX_ENTRIES as u128 + 10 {
            resolved.learn(0, [1; 16], number.to_be_bytes(), 60, 1);
        }
        assert_eq!((resolved.table.len(), resolved.order.len()), (MAX_ENTRIES, MAX_ENTRIES));
        assert_eq!(resolved.lost(), 10, "all of them held still");
        assert_eq!(resolved.name(0, [1; 16], 9u128.to_be_bytes()), 0);
        assert_eq!(resolved.name(0, [1; 16], 10u128.to_be_bytes()), 1);
    }
}
