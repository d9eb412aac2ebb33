//! What shows a finding, within bounds.

/// Flows and frames that a finding names.
const MOST: usize = 16;

/// Times, flows and frames; the first ones of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) flows: Vec<u64>,
    pub(super) frames: Vec<u64>,
    any: bool,
}

impl Evidence {
    /// A flow from its first frame on.
    pub(super) fn flow(&mut self, flow_id: u64, frame: u64, start: u64, end: u64) {
        self.span(start, end);
        if self.flows.len() < MOST && self.flows.last() != Some(&flow_id) && flow_id != 0 {
            self.flows.push(flow_id);
        }
        self.frame(frame);
    }

    /// One packet.
    pub(super) fn packet(&mut self, flow_id: u64, frame: u64, time: u64) {
        self.flow(flow_id, frame, time, time);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if !other.any {
            return;
        }
        self.span(other.first, other.last);
        for flow in &other.flows {
            if self.flows.len() < MOST && !self.flows.contains(flow) {
                self.flows.push(*flow);
            }
        }
        other.frames.iter().for_each(|frame| self.frame(*frame));
    }

    fn span(&mut self, start: u64, end: u64) {
        self.first = if self.any { self.first.min(start) } else { start };
        self.last = self.last.max(end);
        self.any = true;
    }

    fn frame(&mut self, frame: u64) {
        if self.frames.len() < MOST && self.frames.last() != Some(&frame) && frame != 0 {
            self.frames.push(frame);
        }
    }

    /// Seconds from the first packet to the last one.
    pub(super) fn seconds(&self) -> f64 {
        self.last.saturating_sub(self.first) as f64 / 1e6
    }
}
