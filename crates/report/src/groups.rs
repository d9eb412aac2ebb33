//! Findings as people go through them: those of one kind together, the first ones in full.

use std::cmp::Ordering;

use crate::{Finding, Severity};

/// Findings of one kind that stand in full; of the others a line says enough.
const IN_FULL: usize = 3;
/// So few more are not worth opening.
const FEW: usize = 2;

/// Findings of one kind and severity.
#[derive(Debug)]
pub(crate) struct Group<'a> {
    pub(crate) severity: Severity,
    pub(crate) kind: &'a str,
    /// Stand in full.
    pub(crate) first: Vec<&'a Finding>,
    /// Stand in a line each.
    pub(crate) more: Vec<&'a Finding>,
}

impl Group<'_> {
    pub(crate) fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }
}

/// Groups in the order of the first finding of each, so that what harms most stays in front.
pub(crate) fn groups(findings: &[Finding]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for finding in findings {
        let (severity, kind) = (finding.severity, finding.kind.as_str());
        match groups.iter_mut().find(|group| group.severity == severity && group.kind == kind) {
            Some(group) => group.first.push(finding),
            None => groups.push(Group { severity, kind, first: vec![finding], more: Vec::new() }),
        }
    }
    for group in &mut groups {
        group
            .first
            .sort_by(|a, b| (b.confidence, size(b)).partial_cmp(&(a.confidence, size(a))).unwrap_or(Ordering::Equal));
        if group.first.len() > IN_FULL + FEW {
            group.more = group.first.split_off(IN_FULL);
        }
    }
    groups
}

/// How much of its kind a finding is about: the first of these numbers that it has.
fn size(finding: &Finding) -> f64 {
    const NUMBERS: [&str; 16] = [
        "retransmissions",
        "attempts",
        "resets",
        "refused_logins",
        "unacknowledged_ms",
        "longest_ms",
        "silence_ms",
        "answer_bytes",
        "sent_bytes",
        "names",
        "count",
        "messages",
        "times",
        "hellos",
        "connections",
        "packets",
    ];
    NUMBERS.iter().find_map(|name| finding.evidence.get(*name)?.as_f64()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_findings_of_a_kind_the_first_ones_stand_in_full_and_none_is_left_out() {
        let finding = |severity, kind: &str| Finding {
            kind: kind.into(),
            severity,
            confidence: 1.0,
            time: None,
            end_time: None,
            summary: String::new(),
            next: String::new(),
            flow_ids: Vec::new(),
            packets: Vec::new(),
            src_ip: None,
            dst_ip: None,
            dst_port: None,
            evidence: serde_json::Map::new(),
        };
        let mut findings = vec![finding(Severity::Critical, "a")];
        findings.extend((0..9).map(|_| finding(Severity::Warning, "b")));
        findings.insert(5, finding(Severity::Warning, "a"));
        findings.extend((0..5).map(|_| finding(Severity::Info, "b")));
        let told: Vec<_> = groups(&findings)
            .iter()
            .map(|group| (group.severity.name(), group.kind.to_owned(), group.first.len(), group.more.len()))
            .collect();
        let mut large = finding(Severity::Warning, "b");
        large.evidence.insert("packets".into(), 7.into());
        findings.push(large.clone());
        assert_eq!(groups(&findings)[1].first[0], &large, "what is about most stands first");
        findings.pop();
        let expected = [("critical", "a", 1, 0), ("warning", "b", 3, 6), ("warning", "a", 1, 0), ("info", "b", 5, 0)];
        assert_eq!(told, expected.map(|(severity, kind, first, more)| (severity, kind.to_owned(), first, more)));
    }
}
