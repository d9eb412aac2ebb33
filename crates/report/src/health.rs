//! The score: a weighted mean of parts, each a straight line between what is good and what is bad. Everything that goes into it is shown.

use crate::model::{Health, HealthPart, Severity, Y1541};
use crate::text::duration;

/// What the score is made of; none = not measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// TCP segments that were lost on the way, as a share of all, 0 to 1.
    pub loss: Option<f64>,
    /// TCP segments that were sent again, as a share of all.
    pub retransmission: Option<f64>,
    /// Median round trip, microseconds.
    pub rtt_us: Option<u64>,
    /// DNS queries that got no answer, or one that the server failed or refused, as a share of all.
    pub dns_failed: Option<f64>,
    /// Jitter of streams, the 95th percentile, microseconds.
    pub jitter_us: Option<u64>,
}

/// A part: from what value on it begins to be bad, and from which on it is as bad as it gets.
struct Rule {
    name: &'static str,
    unit: &'static str,
    good: f64,
    bad: f64,
    weight: f64,
}

/// Y.1541 has a loss of 0.1 % in all its bounded classes.
const LOSS: Rule = Rule { name: "loss", unit: "%", good: 0.1, bad: 2.0, weight: 25.0 };
const RETRANSMISSION: Rule = Rule { name: "retransmission", unit: "%", good: 0.5, bad: 5.0, weight: 20.0 };
/// There and back what Y.1541's class 1 has for one way.
const RTT: Rule = Rule { name: "rtt", unit: "ms", good: 100.0, bad: 800.0, weight: 15.0 };
const DNS: Rule = Rule { name: "dns", unit: "%", good: 1.0, bad: 20.0, weight: 15.0 };
/// Y.1541's classes 0 and 1 have 50 ms.
const JITTER: Rule = Rule { name: "jitter", unit: "ms", good: 20.0, bad: 100.0, weight: 10.0 };
/// Points of the findings.
const ANOMALIES: Rule = Rule { name: "anomalies", unit: "points", good: 0.0, bad: 100.0, weight: 15.0 };

/// Points of one finding that is certain.
const fn points(severity: Severity) -> f64 {
    match severity {
        Severity::Info => 0.0,
        Severity::Warning => 10.0,
        Severity::Critical => 40.0,
    }
}

/// The score of what was measured; none where only findings could speak and nothing was measured.
#[must_use]
pub fn health(measured: &Measured, findings: impl IntoIterator<Item = (Severity, f64)>) -> Option<Health> {
    let percent = |share: Option<f64>| share.map(|share| share * 100.0);
    let milliseconds = |us: Option<u64>| us.map(|us| us as f64 / 1000.0);
    // Not `sum`, which is -0 where there is nothing.
    let anomalies = findings.into_iter().fold(0.0, |sum, (severity, confidence)| sum + points(severity) * confidence);
    let values = [
        (LOSS, percent(measured.loss)),
        (RETRANSMISSION, percent(measured.retransmission)),
        (RTT, milliseconds(measured.rtt_us)),
        (DNS, percent(measured.dns_failed)),
        (JITTER, milliseconds(measured.jitter_us)),
    ];
    if values.iter().all(|(_, value)| value.is_none()) && anomalies == 0.0 {
        return None;
    }
    let mut parts = Vec::new();
    let mut not_measured = Vec::new();
    for (rule, value) in values.into_iter().chain([(ANOMALIES, Some(anomalies))]) {
        match value {
            Some(value) => parts.push(part(&rule, value)),
            None => not_measured.push(rule.name.to_owned()),
        }
    }
    let weights: f64 = parts.iter().map(|part| part.weight).sum();
    let score = 100.0 * parts.iter().map(|part| part.weight * part.score).sum::<f64>() / weights;
    Some(Health { score: rounded(score), formula: formula(&parts), parts, not_measured, y1541: y1541(measured) })
}

fn part(rule: &Rule, value: f64) -> HealthPart {
    let score = ((rule.bad - value) / (rule.bad - rule.good)).clamp(0.0, 1.0);
    let rule_text = if rule.name == ANOMALIES.name {
        "1 at 0 points, 0 from 100 points on; a warning has 10 points and a critical finding 40, times its confidence"
            .to_owned()
    } else {
        format!("1 up to {} {unit}, 0 from {} {unit} on, straight between", rule.good, rule.bad, unit = rule.unit)
    };
    HealthPart {
        name: rule.name.to_owned(),
        value: (value * 1000.0).round() / 1000.0,
        unit: rule.unit.to_owned(),
        score: (score * 1000.0).round() / 1000.0,
        weight: rule.weight,
        rule: rule_text,
    }
}

/// The mean with its numbers.
fn formula(parts: &[HealthPart]) -> String {
    let sum = parts.iter().map(|part| format!("{} × {}", part.weight, part.score)).collect::<Vec<_>>().join(" + ");
    let weights = parts.iter().map(|part| part.weight.to_string()).collect::<Vec<_>>().join(" + ");
    format!("100 × ({sum}) / ({weights})")
}

fn rounded(score: f64) -> f64 {
    (score * 10.0).round() / 10.0
}

/// The best class whose bounds are kept. Y.1541 (12/2011), table 1: transfer delay, its variation, loss.
fn y1541(measured: &Measured) -> Option<Y1541> {
    const MAX_LOSS: f64 = 1e-3;
    const MAX_VARIATION_US: u64 = 50_000;
    /// (class, one-way delay in microseconds, whether its variation is bounded)
    const CLASSES: [(u8, u64, bool); 5] =
        [(0, 100_000, true), (1, 400_000, true), (2, 100_000, false), (3, 400_000, false), (4, 1_000_000, false)];
    let loss = measured.loss.or(measured.retransmission);
    if measured.rtt_us.is_none() && loss.is_none() {
        return None;
    }
    let delay = measured.rtt_us.map(|rtt| rtt / 2);
    let keeps = |&(_, most, bounded): &(u8, u64, bool)| {
        delay.is_none_or(|delay| delay <= most)
            && (!bounded || measured.jitter_us.is_some_and(|jitter| jitter <= MAX_VARIATION_US))
            && loss.is_none_or(|loss| loss <= MAX_LOSS)
    };
    let class = CLASSES.iter().find(|class| keeps(class)).map_or(5, |class| class.0);
    let delay = delay.map_or("delay not measured".to_owned(), |delay| {
        format!("delay {} (half of the median round trip)", duration(delay))
    });
    let variation =
        measured.jitter_us.map_or("its variation not measured, so no class that bounds it".to_owned(), |jitter| {
            format!("variation {} (95th percentile of jitter)", duration(jitter))
        });
    let of = if measured.loss.is_some() { "lost segments" } else { "retransmitted segments" };
    let loss = loss.map_or("loss not measured".to_owned(), |loss| format!("loss {:.3} % ({of})", loss * 100.0));
    Some(Y1541 { class, basis: format!("{delay}; {variation}; {loss}") })
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the values are exact")]
mod tests {
    use super::*;

    #[test]
    fn a_network_without_fault_has_all_points() {
        let measured = Measured {
            loss: Some(0.0),
            retransmission: Some(0.001),
            rtt_us: Some(20_000),
            dns_failed: Some(0.0),
            jitter_us: Some(2_000),
        };
        let health = health(&measured, []).unwrap();
        assert_eq!((health.score, health.not_measured.len()), (100.0, 0));
        assert_eq!(health.y1541.unwrap().class, 0);
    }

    #[test]
    fn what_was_not_measured_counts_neither_way() {
        let measured = Measured { rtt_us: Some(450_000), ..Measured::default() };
        let health = health(&measured, []).unwrap();
        // (800 - 450) / 700 = 0.5 of weight 15, and the findings' 15.
        assert_eq!(health.score, 75.0);
        assert_eq!(health.formula, "100 × (15 × 0.5 + 15 × 1) / (15 + 15)");
        assert_eq!(health.not_measured, ["loss", "retransmission", "dns", "jitter"]);
        assert_eq!(health.y1541.unwrap().class, 3);
        assert_eq!(super::health(&Measured::default(), []), None);
    }

    #[test]
    fn findings_take_points_by_their_severity_and_confidence() {
        let measured = Measured { retransmission: Some(0.0), ..Measured::default() };
        let findings = [(Severity::Critical, 0.5), (Severity::Warning, 1.0), (Severity::Info, 1.0)];
        let health = health(&measured, findings).unwrap();
        assert_eq!(health.parts[1].value, 30.0);
        assert_eq!(health.parts[1].score, 0.7);
    }
}
