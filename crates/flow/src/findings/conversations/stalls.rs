//! Transfers that stood still.

use super::{Conversation, Ends};
use crate::findings::ended::Ended;
use crate::findings::evidence::Evidence;
use crate::findings::finding::{Finding, display};
use crate::findings::kind::{Kind, Severity};
use crate::findings::thresholds::Thresholds;
use crate::tcp::{Silence, Silences, TX, Wait};

/// Silences that do harm, of all flows of a conversation.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    silences: Silences,
    evidence: Evidence,
}

/// What is a stall, and whether that is certain. A closed window is another finding.
const STALLS: [(Wait, bool); 3] = [(Wait::Acknowledgement, true), (Wait::Message, true), (Wait::Transfer, false)];

impl Conversation {
    pub(super) fn add_stalls(&mut self, ended: &Ended<'_>) {
        let Some(silences) = ended.silences else { return };
        let longest = STALLS.iter().map(|(wait, _)| silences.of(*wait)).max_by_key(|silence| silence.longest_us);
        let Some(longest) = longest.filter(|longest| longest.count > 0) else { return };
        let stalls = self.stalls.get_or_insert_default();
        stalls.silences.merge(silences);
        let record = ended.record;
        stalls.evidence.flow(record.flow_id, longest.frame, record.start_time, record.end_time);
    }

    pub(super) fn stalled(&self, ends: &Ends, thresholds: &Thresholds) -> Option<Finding> {
        let Stalls { silences, evidence } = self.stalls.as_deref()?;
        let of = |certain: bool| {
            let stalls = STALLS.iter().filter(move |(_, sure)| *sure || !certain);
            stalls.map(|(wait, _)| silences.of(*wait).total_us).sum::<u64>()
        };
        let least = thresholds.stalled_ms * 1000;
        let (severity, confidence, total_us) = if of(true) >= least {
            (Severity::Warning, 0.9, of(true))
        } else if of(false) >= least {
            // Whoever sends in portions of its own making looks alike.
            (Severity::Info, 0.5, of(false))
        } else {
            return None;
        };
        let all = STALLS.map(|(wait, _)| (wait, silences.of(wait)));
        let (wait, longest) = all.into_iter().max_by_key(|(_, silence)| silence.longest_us)?;
        let summary = format!(
            "transfers between {} and {} port {} stood still for {:.1} s in all, once for {:.1} s: {}",
            display(ends.src),
            display(ends.dst),
            ends.port,
            total_us as f64 / 1e6,
            longest.longest_us as f64 / 1e6,
            what(wait, longest, ends),
        );
        let mut finding = Finding::new(Kind::TransferStalled, severity, confidence, evidence)
            .from(ends.src)
            .to(ends.dst)
            .port(ends.port)
            .with("silences", all.iter().map(|(_, silence)| silence.count).sum::<u64>())
            .with("longest_ms", longest.longest_us / 1000);
        let names = ["unacknowledged_ms", "within_message_ms", "within_transfer_ms"];
        for (name, (_, silence)) in names.into_iter().zip(all).filter(|(_, (_, silence))| silence.count > 0) {
            finding = finding.with(name, silence.total_us / 1000);
        }
        Some(finding.saying(summary))
    }
}

fn what(wait: Wait, longest: &Silence, ends: &Ends) -> String {
    let (sender, receiver) = if longest.of == TX { (ends.src, ends.dst) } else { (ends.dst, ends.src) };
    match wait {
        Wait::Acknowledgement => {
            format!("what {} sent was not acknowledged by {}", display(sender), display(receiver))
        }
        Wait::Message => format!("{} stopped in the middle of a message", display(sender)),
        _ => format!("{} stopped sending, and went on later", display(sender)),
    }
}
