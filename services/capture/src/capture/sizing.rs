//! When the flow table gets another size.

use crate::config::Config;

/// The table is made larger when more than this share of it is used, before flows have to go.
const CROWDED_PERCENT: u64 = 75;

/// What the options say about the size of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizing {
    /// Flows that there is room for at least.
    pub max_flows: u32,
    /// How far it grows by itself.
    pub limit: u32,
}

impl Sizing {
    /// As the options say.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self { max_flows: config.max_flows, limit: config.max_flows_limit().max(config.max_flows) }
    }

    /// The size for a table with `room` for flows, of which there are `live`; `short` = some have found none. `None` = it stays as it is.
    pub(super) fn next(self, room: u32, live: u64, short: bool) -> Option<u32> {
        let crowded = live * 100 >= u64::from(room) * CROWDED_PERCENT;
        ((crowded || short) && room < self.limit).then(|| room.saturating_mul(2).min(self.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowded_table_doubles_up_to_the_limit() {
        let sizing = Sizing { max_flows: 100, limit: 350 };
        assert_eq!(sizing.next(100, 74, false), None);
        assert_eq!(sizing.next(100, 75, false), Some(200));
        assert_eq!(sizing.next(100, 10, true), Some(200));
        assert_eq!(sizing.next(200, 200, false), Some(350));
        assert_eq!(sizing.next(350, 350, true), None);
    }
}
