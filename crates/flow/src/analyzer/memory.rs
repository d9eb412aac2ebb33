//! One bound on memory for all tables of an analysis.

use super::app::FlowState;
use super::{Config, StreamLimits};
use crate::tcp::Connection;
use crate::tracker::{self, Entry};
use crate::{dns, fragments};

/// Bytes of a flow: its entry, its connection, and its places in the index and among the deadlines.
const FLOW: usize = size_of::<Option<Entry<FlowState>>>() + size_of::<Connection>() + 64;
/// Bytes of the name of a flow that ended.
const RETIRED: usize = 128;
/// Bytes of a DNS query that waits, with a name of usual length.
const QUERY: usize = 1024;

impl Config {
    /// Lowers the bounds so that all tables together hold about `bytes` at most: half for flows, an eighth each for the names of flows
    /// that ended, for streams, for fragments, and for DNS queries. What each gives up at its bound is counted in the summary: flows that
    /// end early, streams that are not looked into, fragments without their first one, queries without their answer.
    #[must_use]
    pub fn within(self, bytes: usize) -> Self {
        let share = bytes / 8;
        Self {
            tracker: tracker::Limits {
                flows: self.tracker.flows.min(4 * share / FLOW).max(1),
                retired: self.tracker.retired.min(share / RETIRED).max(1),
                ..self.tracker
            },
            streams: StreamLimits { bytes: self.streams.bytes.min(share) },
            fragments: fragments::Limits { bytes: self.fragments.bytes.min(share), ..self.fragments },
            dns: dns::Limits { pending: self.dns.pending.min(share / QUERY).max(1), ..self.dns },
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_lowers_what_is_above_it_and_raises_nothing() {
        let (default, small) = (Config::default(), Config::default().within(16 << 20));
        let large = default.clone().within(4 << 30);
        assert_eq!((large.tracker.flows, large.streams.bytes), (default.tracker.flows, default.streams.bytes));
        assert!(small.tracker.flows * FLOW <= 8 << 20 && small.tracker.retired * RETIRED <= 2 << 20);
        assert_eq!((small.streams.bytes, small.fragments.bytes), (2 << 20, 2 << 20));
        assert_eq!(default.within(0).tracker.flows, 1, "there is always room for one");
    }
}
