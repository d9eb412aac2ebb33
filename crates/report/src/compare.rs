//! What is different between two reports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::{Capture, Finding, Report, Tcp};

/// Two reports side by side: the first is what was, the second what is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Comparison {
    /// What was.
    pub before: Capture,
    /// What is now.
    pub after: Capture,
    /// Figures that at least one of them has.
    pub differences: Vec<Difference>,
    /// Findings of kinds and ends that were not there before, the most harmful first.
    pub new_findings: Vec<Finding>,
    /// Findings that are there no more.
    pub gone_findings: Vec<Finding>,
    /// Findings that were there and are.
    pub remaining_findings: Vec<Finding>,
}

/// One figure of both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// Its name for people.
    pub name: String,
    /// `%`, `ms`, `bit/s`, `/100`, or empty.
    pub unit: String,
    /// Null = not measured.
    pub before: Option<f64>,
    /// Null = not measured.
    pub after: Option<f64>,
    /// In percent of what was; null where one of them is not measured, or what was is 0.
    pub change_percent: Option<f64>,
    /// Whether that is good.
    pub verdict: Verdict,
    /// What is to be known of it; absent = nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What a change means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The network does better.
    Better,
    /// It does worse.
    Worse,
    /// Less than a twentieth, or less than can be told.
    Same,
    /// Neither good nor bad: another amount of traffic.
    Neutral,
    /// One of them is not measured, or they are not made of the same.
    Unknown,
}

impl Verdict {
    /// As in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Same => "same",
            Self::Neutral => "neutral",
            Self::Unknown => "unknown",
        }
    }
}

/// Which way a figure is good.
#[derive(Clone, Copy)]
enum Good {
    More,
    Less,
    Neither,
}

type Figure = (&'static str, &'static str, Good, fn(&Report) -> Option<f64>);

const FIGURES: [Figure; 18] = [
    ("Health score", "/100", Good::More, |report| report.health.as_ref().map(|health| health.score)),
    ("Packets", "", Good::Neither, |report| Some(report.totals.packets as f64)),
    ("Bytes", "B", Good::Neither, |report| Some(report.totals.bytes as f64)),
    ("Duration", "s", Good::Neither, |report| Some(report.totals.duration_us as f64 / 1e6)),
    ("Throughput", "bit/s", Good::Neither, throughput),
    ("Flows", "", Good::Neither, |report| Some(report.flows.flows as f64)),
    ("TCP retransmitted segments", "%", Good::Less, |report| of_segments(report, |tcp| tcp.retransmits)),
    ("TCP segments that were not captured", "%", Good::Less, |report| of_segments(report, |tcp| tcp.lost_segments)),
    ("TCP out of order", "%", Good::Less, |report| of_segments(report, |tcp| tcp.out_of_order)),
    ("TCP connections reset", "%", Good::Less, |report| {
        report.tcp.as_ref().and_then(|tcp| share(tcp.resets, tcp.flows))
    }),
    ("TCP connections without answer", "%", Good::Less, |report| {
        report.tcp.as_ref().and_then(|tcp| share(tcp.unanswered, tcp.flows))
    }),
    ("TCP round trip, median", "ms", Good::Less, |report| {
        report.tcp.as_ref()?.rtt.map(|rtt| rtt.median_us as f64 / 1e3)
    }),
    ("TCP round trip, 95 %", "ms", Good::Less, |report| report.tcp.as_ref()?.rtt.map(|rtt| rtt.p95_us as f64 / 1e3)),
    ("TCP response of servers, median", "ms", Good::Less, |report| {
        report.tcp.as_ref()?.response.map(|response| response.median_us as f64 / 1e3)
    }),
    ("DNS latency, median", "ms", Good::Less, |report| {
        report.dns.latency.map(|latency| latency.median_us as f64 / 1e3)
    }),
    ("DNS without answer", "%", Good::Less, |report| share(report.dns.unanswered, report.dns.queries)),
    ("HTTP latency, median", "ms", Good::Less, |report| {
        report.http.as_ref()?.latency.map(|latency| latency.median_us as f64 / 1e3)
    }),
    ("Critical findings", "", Good::Less, |report| {
        Some(report.findings.iter().filter(|finding| finding.severity == crate::Severity::Critical).count() as f64)
    }),
];

impl Comparison {
    /// Compares what was with what is now.
    #[must_use]
    pub fn new(before: &Report, after: &Report) -> Self {
        let mut differences: Vec<Difference> = FIGURES
            .iter()
            .filter_map(|&(name, unit, good, figure)| difference(name, unit, good, figure(before), figure(after)))
            .collect();
        if let Some(score) = differences.iter_mut().find(|difference| difference.name == FIGURES[0].0) {
            score.note = of_score(before, after);
            if score.note.is_some() {
                // Two means of other things.
                score.verdict = Verdict::Unknown;
            }
        }
        let (old, new) = (by_subject(before), by_subject(after));
        let only = |of: &BTreeMap<_, &Finding>, other: &BTreeMap<_, &Finding>, there: bool| {
            let mut findings: Vec<Finding> = of
                .iter()
                .filter(|(subject, _)| other.contains_key(*subject) == there)
                .map(|(_, finding)| (*finding).clone())
                .collect();
            findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
            findings
        };
        Self {
            before: before.capture.clone(),
            after: after.capture.clone(),
            differences,
            new_findings: only(&new, &old, false),
            gone_findings: only(&old, &new, false),
            remaining_findings: only(&new, &old, true),
        }
    }
}

/// What a finding is about, whenever it is: two captures are of two times.
type Subject = (String, Option<String>, Option<String>, Option<u16>);

fn by_subject(report: &Report) -> BTreeMap<Subject, &Finding> {
    let subject =
        |finding: &Finding| (finding.kind.clone(), finding.src_ip.clone(), finding.dst_ip.clone(), finding.dst_port);
    // The first one of a subject is the most harmful.
    report.findings.iter().rev().map(|finding| (subject(finding), finding)).collect()
}

fn difference(name: &str, unit: &str, good: Good, before: Option<f64>, after: Option<f64>) -> Option<Difference> {
    if before.is_none() && after.is_none() {
        return None;
    }
    let change_percent = match (before, after) {
        (Some(before), Some(after)) if before != 0.0 => Some(((after - before) / before * 1000.0).round() / 10.0),
        _ => None,
    };
    let verdict = match (before, after) {
        (Some(before), Some(after)) => verdict(good, before, after),
        _ => Verdict::Unknown,
    };
    Some(Difference {
        name: name.to_owned(),
        unit: unit.to_owned(),
        before,
        after,
        change_percent,
        verdict,
        note: None,
    })
}

/// Why one of two scores is not there, or which parts only one of them has.
fn of_score(before: &Report, after: &Report) -> Option<String> {
    let parts = |report: &Report| -> Option<Vec<String>> {
        Some(report.health.as_ref()?.parts.iter().map(|part| part.name.clone()).collect())
    };
    let why = |report: &Report| {
        let reasons = report.not_judged.iter().map(|part| format!("{}: {}", part.part, part.reason));
        reasons.collect::<Vec<_>>().join("; ")
    };
    match (parts(before), parts(after)) {
        (Some(was), Some(is)) if was != is => {
            Some(format!("made of {} before and of {} after, so not to be compared", was.join(", "), is.join(", ")))
        }
        (None, Some(_)) => Some(format!("no score before: {}", why(before))),
        (Some(_), None) => Some(format!("no score after: {}", why(after))),
        _ => None,
    }
}

fn verdict(good: Good, before: f64, after: f64) -> Verdict {
    // What differs by less than a twentieth is chance as often as not.
    let same = (after - before).abs() <= 0.05 * before.abs().max(after.abs());
    match good {
        Good::Neither => Verdict::Neutral,
        _ if same => Verdict::Same,
        Good::More if after > before => Verdict::Better,
        Good::Less if after < before => Verdict::Better,
        Good::More | Good::Less => Verdict::Worse,
    }
}

/// A count in percent of the segments whose headers are whole.
fn of_segments(report: &Report, count: fn(&Tcp) -> u64) -> Option<f64> {
    let tcp = report.tcp.as_ref()?;
    share(count(tcp), tcp.packets.saturating_sub(tcp.cut_packets))
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 * 100.0 / whole as f64)
}

fn throughput(report: &Report) -> Option<f64> {
    let seconds = report.totals.duration_us as f64 / 1e6;
    (seconds > 0.0).then(|| report.totals.bytes as f64 * 8.0 / seconds)
}
