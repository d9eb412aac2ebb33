//! Secrets in clear and refused logins, by client and service.

use super::bounded::Bounded;
use super::evidence::Evidence;
use super::finding::{Finding, display};
use super::kind::{Kind, Severity};
use super::signs::Sign;
use super::thresholds::Thresholds;
use crate::analyzer::Scale;

/// Clients at services that are followed.
const MAX_LOGINS: usize = 8192;

/// Client, server, port of the server, and what was seen.
type Login = ([u8; 16], [u8; 16], u16, Sign);

#[derive(Debug, Default)]
struct Seen {
    times: u64,
    evidence: Evidence,
}

/// The signs of a capture.
#[derive(Debug)]
pub(super) struct Secrets {
    logins: Bounded<Login, Seen>,
}

impl Secrets {
    pub(super) fn new(scale: Scale) -> Self {
        Self { logins: Bounded::new(scale.of(MAX_LOGINS)) }
    }

    pub(super) const fn lost(&self) -> u64 {
        self.logins.lost
    }

    pub(super) fn sign(&mut self, login: Login, flow_id: u64, frame: u64, time: u64) {
        let Some(seen) = self.logins.entry(login, |seen| seen.times > 1) else { return };
        seen.times += 1;
        seen.evidence.packet(flow_id, frame, time);
    }

    pub(super) fn findings(&self, thresholds: &Thresholds, found: &mut Vec<Finding>) {
        for (&(client, server, port, sign), seen) in self.logins.iter() {
            let finding = match sign {
                Sign::Secret(method) => secret(method, client, seen, 0.95),
                Sign::Prompt(method) => secret(method, client, seen, 0.7),
                Sign::Refused(service) if seen.times >= thresholds.brute_force_failures => {
                    refused(service, client, seen, thresholds)
                }
                Sign::Refused(_) => continue,
            };
            let summary = format!("{} on {} port {port}", finding.summary, display(server));
            found.push(finding.from(client).to(server).port(port).saying(summary));
        }
    }
}

fn secret(method: &str, client: [u8; 16], seen: &Seen, confidence: f64) -> Finding {
    let summary = format!("{} sent a secret ({method}) in clear {}", display(client), times(seen.times));
    Finding::new(Kind::CleartextCredentials, Severity::Warning, confidence, &seen.evidence)
        .with("method", method)
        .with("times", seen.times)
        .saying(summary)
}

fn refused(service: &str, client: [u8; 16], seen: &Seen, thresholds: &Thresholds) -> Finding {
    let summary = format!("{} was refused a login to {service} {}", display(client), times(seen.times));
    // Browsers are refused once for each request that they begin without credentials.
    let sure = if service == "http" { 0.5 } else { 0.8 };
    let confidence = sure + 0.05 * (seen.times as f64 / thresholds.brute_force_failures as f64).log2();
    Finding::new(Kind::BruteForce, Severity::Warning, confidence.min(0.95), &seen.evidence)
        .with("service", service)
        .with("refused_logins", seen.times)
        .saying(summary)
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}
