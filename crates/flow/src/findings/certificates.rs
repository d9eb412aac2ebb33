//! Certificates of servers, where they are not encrypted.

use weir_proto::{Ip, Tls};

use super::bounded::Bounded;
use super::evidence::Evidence;
use super::finding::{Finding, display};
use super::kind::{Kind, Severity};
use super::thresholds::Thresholds;
use crate::analyzer::Scale;

/// Certificates that are followed.
const MAX_CERTIFICATES: usize = 4096;
const DAY: u64 = 86_400_000_000;

/// Certificates of one name that a server has shown, one after the other.
const MAX_OF_NAME: usize = 8;

#[derive(Debug, Default)]
struct Certificate {
    self_signed: bool,
    not_before: u64,
    not_after: u64,
    hellos: u64,
    evidence: Evidence,
}

/// What a server shows under one name.
#[derive(Debug, Default)]
struct Shown {
    certificates: Vec<Certificate>,
    hellos: u64,
}

/// The certificates of a capture, by server, port and subject.
#[derive(Debug)]
pub(super) struct Certificates {
    all: Bounded<([u8; 16], u16, String), Shown>,
}

impl Certificates {
    pub(super) fn new(scale: Scale) -> Self {
        Self { all: Bounded::new(scale.of(MAX_CERTIFICATES)) }
    }

    pub(super) const fn lost(&self) -> u64 {
        self.all.lost
    }

    pub(super) fn hello(&mut self, (time, frame): (u64, u64), hello: &Tls) {
        if hello.not_after == 0 {
            return;
        }
        let server = Ip::new(hello.dst_ip_high, hello.dst_ip_low).octets();
        let key = (server, hello.dst_port as u16, hello.subject.clone());
        let Some(shown) = self.all.entry(key, |shown| shown.hellos > 1) else { return };
        shown.hellos += 1;
        let Some(certificate) = shown.certificate(hello) else { return };
        certificate.hellos += 1;
        certificate.evidence.packet(hello.flow_id, frame, time);
    }

    pub(super) fn findings(&self, thresholds: &Thresholds, found: &mut Vec<Finding>) {
        for ((server, port, subject), shown) in self.all.iter() {
            let state = |certificate: &Certificate| certificate.state(thresholds);
            for kind in [Kind::CertificateExpired, Kind::CertificateExpiring, Kind::CertificateSelfSigned] {
                let is_of = |certificate: &&Certificate| match kind {
                    Kind::CertificateSelfSigned => certificate.self_signed,
                    _ => state(certificate).is_some_and(|(of, ..)| of == kind),
                };
                let all: Vec<&Certificate> = shown.certificates.iter().filter(is_of).collect();
                let Some(worst) = all.iter().min_by_key(|certificate| certificate.not_after) else { continue };
                let (severity, what) = match state(worst) {
                    Some((of, severity, what)) if of == kind => (severity, what),
                    _ => (Severity::Info, "is signed by itself".to_owned()),
                };
                let mut evidence = Evidence::default();
                for certificate in &all {
                    evidence.merge(&certificate.evidence);
                }
                let name = common_name(subject);
                let summary = format!("the certificate {name} of {} port {port} {what}", display(*server));
                found.push(
                    Finding::new(kind, severity, 0.95, &evidence)
                        .to(*server)
                        .port(*port)
                        .with("subject", subject.clone())
                        .with("not_before_us", worst.not_before)
                        .with("not_after_us", worst.not_after)
                        .with("certificates", all.len() as u64)
                        .with("hellos", all.iter().map(|certificate| certificate.hellos).sum::<u64>())
                        .saying(summary),
                );
            }
        }
    }
}

impl Shown {
    /// The one of a hello; none where there are too many.
    fn certificate(&mut self, hello: &Tls) -> Option<&mut Certificate> {
        let (not_before, not_after) = (hello.not_before, hello.not_after);
        let self_signed = !hello.subject.is_empty() && hello.subject == hello.issuer;
        let is_it = |known: &Certificate| {
            (known.not_before, known.not_after, known.self_signed) == (not_before, not_after, self_signed)
        };
        let at = self.certificates.iter().position(is_it).unwrap_or(self.certificates.len());
        if at == self.certificates.len() {
            if at >= MAX_OF_NAME {
                return None;
            }
            self.certificates.push(Certificate { self_signed, not_before, not_after, ..Certificate::default() });
        }
        self.certificates.get_mut(at)
    }
}

impl Certificate {
    /// What is wrong with its dates, if anything is. As of the capture: a recording of last year does not expire.
    fn state(&self, thresholds: &Thresholds) -> Option<(Kind, Severity, String)> {
        let (now, end) = (self.evidence.last, self.not_after);
        if now > end {
            let days = (now - end) / DAY;
            Some((Kind::CertificateExpired, Severity::Critical, format!("expired {days} days before the capture")))
        } else if now < self.not_before {
            // Nobody uses one a year before it begins: then it is the clock of the capture that is not set.
            let is_early = self.not_before - now < 365 * DAY;
            is_early.then(|| (Kind::CertificateExpired, Severity::Warning, "was not yet valid".to_owned()))
        } else if end - now < thresholds.certificate_days * DAY {
            let days = (end - now) / DAY;
            Some((Kind::CertificateExpiring, Severity::Warning, format!("ends {days} days after the capture")))
        } else {
            None
        }
    }
}

/// The first common name of a subject, cut where it is longer than a name of a host can be; all of a subject without one.
fn common_name(subject: &str) -> &str {
    const MOST: usize = 253;
    let name = subject.split(", ").find_map(|part| part.strip_prefix("CN=")).unwrap_or(subject);
    name.char_indices().nth(MOST).map_or(name, |(end, _)| &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_of_another_year_says_that_the_clock_of_the_capture_is_not_set() {
        let state = |now: u64| {
            let (not_before, not_after) = (20_000 * DAY, 20_090 * DAY);
            let mut certificate = Certificate { not_before, not_after, ..Certificate::default() };
            certificate.evidence.packet(1, 1, now * DAY);
            certificate.state(&Thresholds::default()).map(|(kind, severity, _)| (kind, severity))
        };
        assert_eq!(state(19_999), Some((Kind::CertificateExpired, Severity::Warning)));
        // As devices without a clock begin, and captures whose times are relative.
        assert_eq!((state(0), state(10_957)), (None, None));
        assert_eq!(state(20_091), Some((Kind::CertificateExpired, Severity::Critical)));
    }

    #[test]
    fn a_certificate_is_called_by_its_first_common_name() {
        assert_eq!(common_name("C=US, O=Weir, CN=*.weir.example, CN=weir.example"), "*.weir.example");
        assert_eq!(common_name("C=US, O=Weir"), "C=US, O=Weir");
        assert_eq!(common_name(&format!("CN={}", "é".repeat(1000))).chars().count(), 253);
    }
}
