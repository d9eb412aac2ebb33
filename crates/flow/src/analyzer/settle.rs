//! What the tables have finished becomes records.

use super::{Analyzer, Record, TOGETHER, without_ports};
use crate::fragments::Orphan;

impl Analyzer {
    /// Turns what the tables finished into records.
    pub(super) fn settle(&mut self) {
        // After most packets there is nothing.
        if self.fragments.has_given_up() {
            self.settle_fragments();
        }
        if self.tracker.has_finished() {
            self.settle_flows();
        }
        if self.exchanges.has_finished() {
            self.settle_exchanges(self.summary.frames.packets);
        }
    }

    pub(super) fn settle_fragments(&mut self) {
        for start in self.fragments.take_starts() {
            self.read_start(&start);
        }
        for orphan in self.fragments.take_orphans() {
            self.count_orphan(&orphan);
        }
        self.notice_incomplete();
    }

    fn settle_flows(&mut self) {
        self.held_bytes = self.held_bytes.saturating_sub(self.tracker.take_released_bytes());
        for mut ended in self.tracker.take_ended() {
            let found = ended.state.finish();
            self.rows(&ended.key, self.kept_id(ended.id, &ended.key, ended.ordinal), found);
        }
        let mut all = std::mem::take(&mut self.finished);
        self.tracker.take_finished(&mut all);
        for finished in all.chunks(TOGETHER) {
            self.flow_records(finished);
        }
        all.clear();
        self.finished = all;
    }

    /// `frame` is that of the answers.
    pub(super) fn settle_exchanges(&mut self, frame: u64) {
        for (query_frame, exchange) in self.exchanges.take_finished() {
            self.summary.exchange(&exchange);
            self.watch.exchange(query_frame, frame, &exchange);
            self.records.push(Record::Dns(exchange));
        }
    }

    /// Counts a fragment whose first one never came into the flow of its addresses, without ports.
    fn count_orphan(&mut self, orphan: &Orphan) {
        let (key, direction) = without_ports(&orphan.datagram, orphan.packet.protocol);
        self.summary.orphan_fragments += 1;
        self.count_waiting(&orphan.packet, (key, direction, (0, 0)));
    }
}
