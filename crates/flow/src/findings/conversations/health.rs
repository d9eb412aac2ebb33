//! Conversations that do not work well.

use hashbrown::HashMap;

use super::{Conversation, Ends};
use crate::findings::evidence::{Evidence, NONE};
use crate::findings::finding::{Finding, display, percent};
use crate::findings::kind::{Kind, Severity};
use crate::findings::thresholds::Thresholds;
use crate::packet::ip::protocol;

impl Conversation {
    pub(super) fn retransmissions(&self, ends: &Ends, thresholds: &Thresholds) -> Option<Finding> {
        let share = percent(self.retransmits, self.packets);
        if self.packets < thresholds.health_packets || share < thresholds.retransmission_percent {
            return None;
        }
        let severity =
            if share >= 5.0 * thresholds.retransmission_percent { Severity::Critical } else { Severity::Warning };
        let summary = format!(
            "{share} % of the segments between {} and {} port {} were sent again ({} of {})",
            display(ends.src),
            display(ends.dst),
            ends.port,
            self.retransmits,
            self.packets,
        );
        Some(
            self.trouble(Kind::Retransmissions, severity, 0.95, ends)
                .with("retransmissions", self.retransmits)
                .with("packets", self.packets)
                .with("percent", share)
                .saying(summary),
        )
    }

    pub(super) fn zero_windows(&self, ends: &Ends, thresholds: &Thresholds) -> Option<Finding> {
        let [tx, rx] = self.zero_windows;
        if tx + rx < thresholds.zero_windows {
            return None;
        }
        let slow = if tx > rx { ends.src } else { ends.dst };
        let summary = format!(
            "{} closed its receive window {} times in its connections with {} port {}",
            display(slow),
            tx.max(rx),
            display(if tx > rx { ends.dst } else { ends.src }),
            ends.port,
        );
        Some(
            self.trouble(Kind::ZeroWindow, Severity::Warning, 0.95, ends)
                .with("zero_windows_src", tx)
                .with("zero_windows_dst", rx)
                .with("slow", display(slow))
                .saying(summary),
        )
    }

    pub(super) fn resets(&self, ends: &Ends, thresholds: &Thresholds) -> Option<Finding> {
        let share = percent(self.reset, self.established);
        if self.established < thresholds.reset_connections || share < thresholds.reset_percent {
            return None;
        }
        let summary = format!(
            "{} of {} connections from {} to {} port {} ended with a reset",
            self.reset,
            self.established,
            display(ends.src),
            display(ends.dst),
            ends.port,
        );
        Some(
            // Many clients end with a reset what they no longer need.
            self.trouble(Kind::Reset, Severity::Info, 0.6, ends)
                .with("resets", self.reset)
                .with("connections", self.established)
                .with("percent", share)
                .saying(summary),
        )
    }

    fn troubled_at(&self) -> &Evidence {
        self.trouble.as_deref().unwrap_or(&NONE)
    }

    fn trouble(&self, kind: Kind, severity: Severity, confidence: f64, ends: &Ends) -> Finding {
        Finding::new(kind, severity, confidence, self.troubled_at()).from(ends.src).to(ends.dst).port(ends.port)
    }
}

/// The attempts of all clients to reach one port.
#[derive(Debug, Default)]
pub(super) struct Service {
    established: u64,
    unanswered: u64,
    refused: u64,
    clients: u64,
    evidence: Vec<Evidence>,
}

pub(super) fn add_to_service(
    services: &mut HashMap<([u8; 16], u16), Service>,
    ends: &Ends,
    conversation: &Conversation,
) {
    if ends.protocol != protocol::TCP || conversation.established + conversation.unanswered + conversation.refused == 0
    {
        return;
    }
    let service = services.entry((ends.dst, ends.port)).or_default();
    service.established += conversation.established;
    service.unanswered += conversation.unanswered;
    service.refused += conversation.refused;
    if conversation.unanswered + conversation.refused > 0 {
        service.clients += 1;
        service.evidence.push(conversation.troubled_at().clone());
    }
}

pub(super) fn services(services: HashMap<([u8; 16], u16), Service>, thresholds: &Thresholds, found: &mut Vec<Finding>) {
    for ((ip, port), mut service) in services {
        // The table has no order of its own.
        service.evidence.sort_by_key(|evidence| (evidence.first, evidence.frames.first().copied()));
        let mut evidence = Evidence::default();
        service.evidence.iter().for_each(|of| evidence.merge(of));
        let kinds = [
            (Kind::Unanswered, service.unanswered, "were not answered"),
            (Kind::Refused, service.refused, "were refused"),
        ];
        for (kind, count, what) in kinds {
            if count < thresholds.failed_connections {
                continue;
            }
            let severity = if service.established == 0 { Severity::Warning } else { Severity::Info };
            let summary = format!(
                "{count} attempts of {} host{} to connect to {} port {port} {what}{}",
                service.clients,
                if service.clients == 1 { "" } else { "s" },
                display(ip),
                if service.established == 0 { "" } else { ", others were not" },
            );
            let finding = Finding::new(kind, severity, 0.9, &evidence)
                .to(ip)
                .port(port)
                .with("attempts", count)
                .with("connections", service.established)
                .with("clients", service.clients)
                .saying(summary);
            found.push(finding);
        }
    }
}
