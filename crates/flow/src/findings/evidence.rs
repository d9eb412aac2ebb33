//! What shows a finding, within bounds.

/// Flows and frames that a finding names.
const MOST: usize = 16;

/// Times, flows and frames; the first ones of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Evidence {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) flows: Firsts,
    pub(super) frames: Firsts,
    any: bool,
}

/// What has none.
pub(super) static NONE: Evidence =
    Evidence { first: 0, last: 0, flows: Firsts::NONE, frames: Firsts::NONE, any: false };

/// The first numbers of many. Where there are few, as nearly everywhere, they need no memory of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Firsts {
    few: [u64; Self::FEW],
    /// All of them, once there are more.
    many: Option<Box<[u64; MOST]>>,
    count: u8,
}

impl Firsts {
    const FEW: usize = 2;
    const NONE: Self = Self { few: [0; Self::FEW], many: None, count: 0 };

    /// Adds a number, if there is room.
    fn push(&mut self, number: u64) {
        let at = usize::from(self.count);
        if at >= MOST {
            return;
        }
        if at < Self::FEW && self.many.is_none() {
            self.few[at] = number;
        } else {
            let few = self.few;
            let many = self.many.get_or_insert_with(|| {
                let mut many = Box::new([0; MOST]);
                many[..Self::FEW].copy_from_slice(&few);
                many
            });
            many[at] = number;
        }
        self.count += 1;
    }

    /// In order of size.
    pub(super) fn sort(&mut self) {
        let count = usize::from(self.count);
        match &mut self.many {
            Some(many) => many[..count].sort_unstable(),
            None => self.few[..count].sort_unstable(),
        }
    }
}

impl std::ops::Deref for Firsts {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        let all: &[u64] = match &self.many {
            Some(many) => many.as_ref(),
            None => &self.few,
        };
        &all[..usize::from(self.count)]
    }
}

impl Evidence {
    /// A flow from its first frame on.
    pub(super) fn flow(&mut self, flow_id: u64, frame: u64, start: u64, end: u64) {
        self.span(start, end);
        self.name(flow_id);
        self.frame(frame);
    }

    /// A flow by its name alone; 0 = none.
    pub(super) fn name(&mut self, flow_id: u64) {
        if flow_id != 0 && !self.flows.contains(&flow_id) {
            self.flows.push(flow_id);
        }
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
        for flow in other.flows.iter() {
            if !self.flows.contains(flow) {
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
        if self.frames.last() != Some(&frame) && frame != 0 {
            self.frames.push(frame);
        }
    }

    /// Seconds from the first packet to the last one.
    pub(super) fn seconds(&self) -> f64 {
        self.last.saturating_sub(self.first) as f64 / 1e6
    }
}
