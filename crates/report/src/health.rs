//! The score: a weighted mean of parts, each a straight line between what is good and what is bad. Everything that goes into it is shown.

use crate::model::{Health, HealthPart, NotJudged, Severity, Y1541};
use crate::text::{count, duration};

/// What the values are made of. Few cases say nothing: one that was lost among them would be as bad as it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cases {
    /// TCP packets whose header is whole.
    pub tcp_packets: u64,
    /// TCP packets of which the capture kept too little.
    pub cut_tcp_packets: u64,
    /// TCP flows whose round trip was measured.
    pub round_trips: u64,
    /// DNS queries.
    pub queries: u64,
    /// Directions of streams of UDP whose jitter was measured.
    pub streams: u64,
}

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
    /// How much these are made of.
    pub cases: Cases,
}

/// A part: from what value on it begins to be bad, and from which on it is as bad as it gets.
struct Rule {
    name: &'static str,
    unit: &'static str,
    good: f64,
    bad: f64,
    weight: f64,
    /// What it is made of, for people.
    cases: &'static str,
    /// So many of them at least: of fewer, a share would be as bad as it gets for one of them.
    least: u64,
}

/// Y.1541 has a loss of 0.1 % in all its bounded classes.
const LOSS: Rule = Rule { name: "loss", unit: "%", good: 0.1, bad: 2.0, weight: 25.0, cases: "TCP packets", least: 50 };
const RETRANSMISSION: Rule =
    Rule { name: "retransmission", unit: "%", good: 0.5, bad: 5.0, weight: 20.0, cases: "TCP packets", least: 20 };
/// There and back what Y.1541's class 1 has for one way.
const RTT: Rule = Rule {
    name: "rtt",
    unit: "ms",
    good: 100.0,
    bad: 800.0,
    weight: 15.0,
    cases: "round trips of TCP flows",
    least: 1,
};
/// The round trip of a handshake that nothing followed is that of an instant.
const RTT_OF_FEW: Rule = Rule { cases: RETRANSMISSION.cases, least: RETRANSMISSION.least, ..RTT };
const DNS: Rule = Rule { name: "dns", unit: "%", good: 1.0, bad: 20.0, weight: 15.0, cases: "DNS queries", least: 5 };
/// Y.1541's classes 0 and 1 have 50 ms.
const JITTER: Rule = Rule {
    name: "jitter",
    unit: "ms",
    good: 20.0,
    bad: 100.0,
    weight: 10.0,
    cases: "streams of UDP with jitter",
    least: 1,
};
/// Points of the findings.
const ANOMALIES: Rule = Rule {
    name: "anomalies",
    unit: "points",
    good: 0.0,
    bad: 100.0,
    weight: 15.0,
    cases: "other part that can be judged",
    least: 1,
};

/// Points of one finding that is certain.
const fn points(severity: Severity) -> f64 {
    match severity {
        Severity::Info => 0.0,
        Severity::Warning => 10.0,
        Severity::Critical => 40.0,
    }
}

/// The score of what can be judged, and what cannot with the reason. There is no score where only findings could speak: that nothing was
/// found where nothing was measured is no sign of health.
#[must_use]
pub fn health(
    measured: &Measured,
    findings: impl IntoIterator<Item = (Severity, f64)>,
) -> (Option<Health>, Vec<NotJudged>) {
    let measured = &measured.judged();
    let cases = measured.cases;
    let percent = |share: Option<f64>| share.map(|share| share * 100.0);
    let milliseconds = |us: Option<u64>| us.map(|us| us as f64 / 1000.0);
    // Not `sum`, which is -0 where there is nothing.
    let anomalies = findings.into_iter().fold(0.0, |sum, (severity, confidence)| sum + points(severity) * confidence);
    let rtt = milliseconds(measured.rtt_us);
    let rtt = if cases.round_trips < RTT.least {
        (RTT, cases.round_trips, rtt)
    } else {
        (RTT_OF_FEW, cases.tcp_packets, rtt)
    };
    let values = [
        (LOSS, cases.tcp_packets, percent(measured.loss)),
        (RETRANSMISSION, cases.tcp_packets, percent(measured.retransmission)),
        rtt,
        (DNS, cases.queries, percent(measured.dns_failed)),
        (JITTER, cases.streams, milliseconds(measured.jitter_us)),
    ];
    let known = values.iter().filter(|(.., value)| value.is_some()).count() as u64;
    let anomalies = (ANOMALIES, known, (known > 0).then_some(anomalies));
    let mut parts = Vec::new();
    let mut not_judged = Vec::new();
    for (rule, cases, value) in values.into_iter().chain([anomalies]) {
        match value {
            Some(value) => parts.push(part(&rule, value)),
            None => not_judged.push(NotJudged { part: rule.name.to_owned(), reason: rule.reason(cases, measured) }),
        }
    }
    if known == 0 {
        return (None, not_judged);
    }
    let not_measured = not_judged.iter().map(|part| part.part.clone()).collect();
    let weights: f64 = parts.iter().map(|part| part.weight).sum();
    let score = 100.0 * parts.iter().map(|part| part.weight * part.score).sum::<f64>() / weights;
    let (score, formula, y1541) = (rounded(score), formula(&parts), y1541(measured));
    (Some(Health { score, formula, parts, not_measured, y1541 }), not_judged)
}

impl Measured {
    /// Without the values that are made of too few cases.
    fn judged(&self) -> Self {
        let Cases { tcp_packets, round_trips, queries, streams, .. } = self.cases;
        Self {
            loss: self.loss.filter(|_| tcp_packets >= LOSS.least),
            retransmission: self.retransmission.filter(|_| tcp_packets >= RETRANSMISSION.least),
            rtt_us: self.rtt_us.filter(|_| round_trips >= RTT.least && tcp_packets >= RTT_OF_FEW.least),
            dns_failed: self.dns_failed.filter(|_| queries >= DNS.least),
            jitter_us: self.jitter_us.filter(|_| streams >= JITTER.least),
            cases: self.cases,
        }
    }
}

impl Rule {
    /// Why it cannot be judged.
    fn reason(&self, cases: u64, measured: &Measured) -> String {
        let cut = measured.cases.cut_tcp_packets;
        match cases {
            _ if self.cases == LOSS.cases && cut > 0 => format!(
                "of {} TCP packets the capture has the whole header, of {} it has not; at least {} are needed",
                count(cases),
                count(cut),
                self.least
            ),
            0 => format!("no {}", self.cases),
            few => format!("{}: {}, and at least {} are needed", self.cases, count(few), self.least),
        }
    }
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
    let loss = measured.loss.or(measured.retransmission).filter(|_| measured.cases.tcp_packets >= LOSS.least);
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

    /// Enough of everything.
    const MANY: Cases = Cases { tcp_packets: 1000, cut_tcp_packets: 0, round_trips: 10, queries: 100, streams: 2 };

    fn health(measured: &Measured, findings: impl IntoIterator<Item = (Severity, f64)>) -> Option<Health> {
        super::health(&Measured { cases: MANY, ..*measured }, findings).0
    }

    #[test]
    fn a_network_without_fault_has_all_points() {
        let measured = Measured {
            loss: Some(0.0),
            retransmission: Some(0.001),
            rtt_us: Some(20_000),
            dns_failed: Some(0.0),
            jitter_us: Some(2_000),
            cases: MANY,
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
        assert_eq!(super::tests::health(&Measured::default(), []), None);
    }

    #[test]
    fn findings_take_points_by_their_severity_and_confidence() {
        let measured = Measured { retransmission: Some(0.0), ..Measured::default() };
        let findings = [(Severity::Critical, 0.5), (Severity::Warning, 1.0), (Severity::Info, 1.0)];
        let health = health(&measured, findings).unwrap();
        assert_eq!(health.parts[1].value, 30.0);
        assert_eq!(health.parts[1].score, 0.7);
    }

    #[test]
    fn few_cases_and_findings_alone_make_no_score_and_the_reasons_are_told() {
        let one = Cases { tcp_packets: 1, ..Cases::default() };
        let measured = Measured { loss: Some(0.0), retransmission: Some(0.0), cases: one, ..Measured::default() };
        let (health, not_judged) = super::health(&measured, [(Severity::Warning, 0.9)]);
        assert_eq!(health, None);
        let reasons: Vec<_> = not_judged.iter().map(|part| (part.part.as_str(), part.reason.as_str())).collect();
        let expected = [
            ("loss", "TCP packets: 1, and at least 50 are needed"),
            ("retransmission", "TCP packets: 1, and at least 20 are needed"),
            ("rtt", "no round trips of TCP flows"),
            ("dns", "no DNS queries"),
            ("jitter", "no streams of UDP with jitter"),
            ("anomalies", "no other part that can be judged"),
        ];
        assert_eq!(reasons, expected);
    }

    #[test]
    fn the_round_trip_of_a_handshake_that_nothing_followed_makes_no_score() {
        let cases = Cases { tcp_packets: 3, round_trips: 1, ..Cases::default() };
        let measured =
            Measured { loss: Some(0.0), retransmission: Some(0.0), rtt_us: Some(1000), cases, ..Measured::default() };
        let (none, not_judged) = super::health(&measured, []);
        assert_eq!(none, None);
        let rtt = not_judged.iter().find(|part| part.part == "rtt").unwrap();
        assert_eq!(rtt.reason, "TCP packets: 3, and at least 20 are needed");

        let enough = Measured { cases: Cases { tcp_packets: RTT_OF_FEW.least, ..cases }, ..measured };
        let (health, _) = super::health(&enough, []);
        let parts: Vec<_> = health.unwrap().parts.into_iter().map(|part| part.name).collect();
        assert_eq!(parts, ["retransmission", "rtt", "anomalies"]);
    }

    #[test]
    fn a_share_is_judged_from_so_many_on_that_one_case_is_not_yet_the_worst() {
        for rule in [LOSS, RETRANSMISSION, DNS] {
            let worst = |cases: u64| 100.0 / cases as f64 > rule.bad;
            assert!(!worst(rule.least) && worst(rule.least - 1), "{}", rule.name);
        }
        let cases = Cases { tcp_packets: 30, cut_tcp_packets: 7, round_trips: 1, ..Cases::default() };
        let measured =
            Measured { loss: Some(0.0), retransmission: Some(0.0), rtt_us: Some(1000), cases, ..Measured::default() };
        let (health, not_judged) = super::health(&measured, []);
        let health = health.unwrap();
        let parts: Vec<_> = health.parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(
            (parts, health.not_measured),
            (
                vec!["retransmission", "rtt", "anomalies"],
                vec!["loss".to_owned(), "dns".to_owned(), "jitter".to_owned()]
            )
        );
        assert!(not_judged[0].reason.starts_with("of 30 TCP packets"), "{not_judged:?}");
        // What the class rests on is what can be judged.
        assert!(health.y1541.unwrap().basis.contains("loss not measured"));
    }
}
