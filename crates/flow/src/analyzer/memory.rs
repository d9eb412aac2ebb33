//! One bound on memory for all tables of an analysis.

use super::app::FlowState;
use super::{Config, Scale, StreamLimits};
use crate::tcp::Connection;
use crate::tracker::{self, Entry};
use crate::{dns, fragments};

/// Bytes of a flow: its entry, its connection, and its places in the index and among the deadlines.
const FLOW: usize = size_of::<Option<Entry<FlowState>>>() + size_of::<Connection>() + 64;
/// Bytes of the name of a flow that ended.
const RETIRED: usize = 128;
/// Bytes of a packet in fragments besides its payload: its entry, its ranges, and what waits for its first one.
const FRAGMENTED: usize = 4096;
/// Bytes of a DNS query that waits, with a name of usual length.
const QUERY: usize = 1024;

impl Config {
    /// Lowers the bounds so that all tables together hold about `bytes` at most. Of sixteen parts, seven are for flows, four for findings,
    /// names and top talkers, two for streams, and one each for the names of flows that ended, for fragments, and for DNS queries. What
    /// each gives up at its bound is counted in the summary: flows that end early, streams that are not looked into, fragments without
    /// their first one, queries without their answer, subjects of findings that are forgotten, names that are not kept.
    #[must_use]
    pub fn within(self, bytes: usize) -> Self {
        let part = bytes / 16;
        Self {
            tracker: tracker::Limits {
                flows: self.tracker.flows.min(7 * part / FLOW).max(1),
                retired: self.tracker.retired.min(part / RETIRED).max(1),
                ..self.tracker
            },
            streams: StreamLimits { bytes: self.streams.bytes.min(2 * part) },
            fragments: fragments::Limits {
                entries: self.fragments.entries.min(part / FRAGMENTED).max(1),
                bytes: self.fragments.bytes.min(part),
                ..self.fragments
            },
            dns: dns::Limits { pending: self.dns.pending.min(part / QUERY).max(1), ..self.dns },
            scale: Scale::within(4 * part),
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
        assert!(small.tracker.flows * FLOW <= 7 << 20 && small.tracker.retired * RETIRED <= 1 << 20);
        assert_eq!((small.streams.bytes, small.fragments.bytes), (2 << 20, 1 << 20));
        assert_eq!(default.within(0).tracker.flows, 1, "there is always room for one");
    }
}
