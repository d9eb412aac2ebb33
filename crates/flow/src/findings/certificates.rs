//! Certificates of servers, where they are not encrypted.

use weir_proto::{Ip, Tls};

use super::bounded::Bounded;
use super::evidence::Evidence;
use super::finding::{Finding, display};
use super::kind::{Kind, Severity};
use super::thresholds::Thresholds;

/// Certificates that are followed.
const MAX_CERTIFICATES: usize = 4096;
const DAY: u64 = 86_400_000_000;

#[derive(Debug, Default)]
struct Certificate {
    subject: String,
    self_signed: bool,
    not_before: u64,
    not_after: u64,
    hellos: u64,
    evidence: Evidence,
}

/// The certificates of a capture, by server, port and end.
#[derive(Debug)]
pub(super) struct Certificates {
    all: Bounded<([u8; 16], u16, u64), Certificate>,
}

impl Certificates {
    pub(super) fn new() -> Self {
        Self { all: Bounded::new(MAX_CERTIFICATES) }
    }

    pub(super) const fn lost(&self) -> u64 {
        self.all.lost
    }

    pub(super) fn hello(&mut self, hello: &Tls) {
        if hello.not_after == 0 {
            return;
        }
        let server = Ip::new(hello.dst_ip_high, hello.dst_ip_low).octets();
        let key = (server, hello.dst_port as u16, hello.not_after);
        let Some(certificate) = self.all.entry(key, |certificate| certificate.hellos > 1) else { return };
        certificate.hellos += 1;
        certificate.subject.clone_from(&hello.subject);
        certificate.self_signed = !hello.subject.is_empty() && hello.subject == hello.issuer;
        (certificate.not_before, certificate.not_after) = (hello.not_before, hello.not_after);
        certificate.evidence.flow(hello.flow_id, 0, hello.time, hello.time);
    }

    pub(super) fn findings(&self, thresholds: &Thresholds, found: &mut Vec<Finding>) {
        for (&(server, port, _), certificate) in self.all.iter() {
            let mut push = |kind, severity, what: String| {
                let name = common_name(&certificate.subject);
                let summary = format!("the certificate {name} of {} port {port} {what}", display(server));
                found.push(
                    Finding::new(kind, severity, 0.95, &certificate.evidence)
                        .to(server)
                        .port(port)
                        .with("subject", certificate.subject.clone())
                        .with("not_before_us", certificate.not_before)
                        .with("not_after_us", certificate.not_after)
                        .with("hellos", certificate.hellos)
                        .saying(summary),
                );
            };
            // As of the capture: a recording of last year does not expire.
            let (now, end) = (certificate.evidence.last, certificate.not_after);
            if now > end {
                let days = (now - end) / DAY;
                push(Kind::CertificateExpired, Severity::Critical, format!("expired {days} days before the capture"));
            } else if now < certificate.not_before {
                push(Kind::CertificateExpired, Severity::Warning, "was not yet valid".to_owned());
            } else if end - now < thresholds.certificate_days * DAY {
                let days = (end - now) / DAY;
                push(Kind::CertificateExpiring, Severity::Warning, format!("ends {days} days after the capture"));
            }
            if certificate.self_signed {
                push(Kind::CertificateSelfSigned, Severity::Info, "is signed by itself".to_owned());
            }
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
    fn a_certificate_is_called_by_its_first_common_name() {
        assert_eq!(common_name("C=US, O=Weir, CN=*.weir.example, CN=weir.example"), "*.weir.example");
        assert_eq!(common_name("C=US, O=Weir"), "C=US, O=Weir");
        assert_eq!(common_name(&format!("CN={}", "é".repeat(1000))).chars().count(), 253);
    }
}
