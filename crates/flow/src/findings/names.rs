//! DNS: names that carry data, and servers that do not answer well.

use weir_proto::{Dns, Ip};

use super::bounded::Bounded;
use super::distinct::Distinct;
use super::evidence::Evidence;
use super::finding::{Finding, display, percent, tenths};
use super::kind::{Kind, Severity};
use super::thresholds::Thresholds;
use crate::analyzer::Scale;

/// Domains and servers that are followed.
const MAX_DOMAINS: usize = 4096;
const MAX_SERVERS: usize = 1024;

/// Letters, digits, and one for all others.
const CLASSES: usize = 38;

#[derive(Debug)]
struct Domain {
    queries: u64,
    names: Distinct,
    characters: [u32; CLASSES],
    length: u64,
    /// Of the types that hold free text or bytes: NULL, TXT, and what tunnels use besides.
    wide: u64,
    client: [u8; 16],
    evidence: Evidence,
}

impl Default for Domain {
    fn default() -> Self {
        Self {
            queries: 0,
            names: Distinct::default(),
            characters: [0; CLASSES],
            length: 0,
            wide: 0,
            client: [0; 16],
            evidence: Evidence::default(),
        }
    }
}

#[derive(Debug, Default)]
struct Server {
    queries: u64,
    unanswered: u64,
    failed: u64,
    nxdomain: u64,
    /// Answers by the power of two of their latency in units of 0.1 ms, quartered.
    latencies: Vec<u32>,
    timed: u64,
    unanswered_at: Evidence,
    failed_at: Evidence,
    nxdomain_at: Evidence,
    slow_at: Evidence,
}

/// What was asked and answered.
#[derive(Debug)]
pub(super) struct Questions {
    domains: Bounded<String, Domain>,
    servers: Bounded<[u8; 16], Server>,
}

impl Questions {
    pub(super) fn new(scale: Scale) -> Self {
        Self { domains: Bounded::new(scale.of(MAX_DOMAINS)), servers: Bounded::new(scale.of(MAX_SERVERS)) }
    }

    pub(super) const fn lost(&self) -> u64 {
        self.domains.lost + self.servers.lost
    }

    /// A query, when it is seen.
    pub(super) fn query(&mut self, frame: u64, query: &Dns) {
        let Some((below, domain)) = split(&query.qname) else { return };
        // Addresses turned round, and the names of devices, are many and long by nature.
        if below.is_empty() || [&b".arpa"[..], b".local"].iter().any(|top| domain.as_bytes().ends_with(top)) {
            return;
        }
        let Some(domain) = self.domains.entry_of(domain, |domain| domain.names.count() > 2) else { return };
        if domain.queries == 0 {
            domain.client = Ip::new(query.src_ip_high, query.src_ip_low).octets();
        }
        domain.queries += 1;
        domain.names.add(&below);
        domain.length += below.len() as u64;
        domain.wide += u64::from([5, 10, 15, 16, 25].contains(&query.qtype));
        for byte in below.bytes().filter(|byte| *byte != b'.') {
            domain.characters[class(byte)] += 1;
        }
        domain.evidence.packet(query.flow_id, frame, query.time);
    }

    /// An exchange that ended, with the frames of its query and, if it has one, its answer.
    pub(super) fn exchange(&mut self, query_frame: u64, frame: u64, exchange: &Dns, thresholds: &Thresholds) {
        if !exchange.has_query || [5353, 5355].contains(&exchange.dst_port) {
            return;
        }
        let ip = Ip::new(exchange.dst_ip_high, exchange.dst_ip_low).octets();
        if super::ended::is_group(ip) {
            return;
        }
        let Some(server) = self.servers.entry(ip, |server| server.queries > 1) else { return };
        // An exchange lasts from its query to its answer.
        let end = exchange.time + u64::from(exchange.latency_us.unwrap_or(0));
        let at = |evidence: &mut Evidence, frame| evidence.flow(exchange.flow_id, frame, exchange.time, end);
        server.queries += 1;
        match exchange.rcode {
            None => (server.unanswered, ()) = (server.unanswered + 1, at(&mut server.unanswered_at, query_frame)),
            // SERVFAIL, REFUSED.
            Some(2 | 5) => (server.failed, ()) = (server.failed + 1, at(&mut server.failed_at, frame)),
            Some(3) => (server.nxdomain, ()) = (server.nxdomain + 1, at(&mut server.nxdomain_at, frame)),
            Some(_) => {}
        }
        if let Some(latency) = exchange.latency_us {
            if server.latencies.is_empty() {
                server.latencies = vec![0; 128];
            }
            let step = (f64::from(latency / 100 + 1).log2() * 4.0) as usize;
            server.latencies[step.min(127)] += 1;
            server.timed += 1;
            if f64::from(latency) >= thresholds.dns_slow_ms * 1000.0 {
                at(&mut server.slow_at, frame);
            }
        }
    }

    pub(super) fn findings(&self, thresholds: &Thresholds, found: &mut Vec<Finding>) {
        for (name, domain) in self.domains.iter() {
            found.extend(domain.tunnel(name, thresholds));
        }
        for (ip, server) in self.servers.iter() {
            if server.queries >= thresholds.dns_queries {
                server.findings(*ip, thresholds, found);
            }
        }
    }
}

impl Domain {
    fn tunnel(&self, name: &str, thresholds: &Thresholds) -> Option<Finding> {
        let names = self.names.count().min(self.queries);
        let length = self.length as f64 / self.queries.max(1) as f64;
        let entropy = self.entropy();
        if names < thresholds.dns_tunnel_names
            || length < thresholds.dns_tunnel_length
            || entropy < thresholds.dns_tunnel_entropy
        {
            return None;
        }
        let wide = percent(self.wide, self.queries);
        let summary = format!(
            "{} asked for {names} different names below {name}, {length:.0} characters of {entropy:.1} bits each on average",
            display(self.client),
        );
        let confidence = 0.5
            + 0.1 * (names as f64 / thresholds.dns_tunnel_names as f64).log2().clamp(0.0, 2.0)
            + 0.1 * (length / thresholds.dns_tunnel_length).log2().clamp(0.0, 1.0)
            + wide / 100.0 * 0.15;
        Some(
            Finding::new(Kind::DnsTunnel, Severity::Critical, confidence.min(0.95), &self.evidence)
                .from(self.client)
                .with("domain", name)
                .with("queries", self.queries)
                .with("names", names)
                .with("mean_length", tenths(length))
                .with("entropy", tenths(entropy))
                .with("wide_types_percent", wide)
                .saying(summary),
        )
    }

    /// Bits per character, over all names.
    fn entropy(&self) -> f64 {
        let all = f64::from(self.characters.iter().sum::<u32>().max(1));
        let shares = self.characters.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / all);
        -shares.map(|share| share * share.log2()).sum::<f64>()
    }
}

impl Server {
    fn findings(&self, ip: [u8; 16], thresholds: &Thresholds, found: &mut Vec<Finding>) {
        let answered = self.queries - self.unanswered;
        let cases = [
            (
                Kind::DnsUnanswered,
                self.unanswered,
                self.queries,
                thresholds.dns_unanswered_percent,
                "queries to",
                "got no answer",
                &self.unanswered_at,
            ),
            (
                Kind::DnsFailed,
                self.failed,
                answered,
                thresholds.dns_failed_percent,
                "answers of",
                "say that it failed or refused",
                &self.failed_at,
            ),
            (
                Kind::DnsNxdomain,
                self.nxdomain,
                answered,
                thresholds.dns_nxdomain_percent,
                "answers of",
                "say that there is no such name",
                &self.nxdomain_at,
            ),
        ];
        for (kind, count, of, least, which, what, evidence) in cases {
            let share = percent(count, of);
            if count < 2 || share < least || of < thresholds.dns_queries {
                continue;
            }
            let severity = if kind == Kind::DnsNxdomain { Severity::Info } else { Severity::Warning };
            let summary = format!("{share} % of the {which} {} {what} ({count} of {of})", display(ip));
            found.push(
                Finding::new(kind, severity, 0.9, evidence)
                    .to(ip)
                    .with("count", count)
                    .with("of", of)
                    .with("percent", share)
                    .saying(summary),
            );
        }
        found.extend(self.slow(ip, thresholds));
    }

    fn slow(&self, ip: [u8; 16], thresholds: &Thresholds) -> Option<Finding> {
        let late = self.late_ms();
        if self.timed < thresholds.dns_queries || late < thresholds.dns_slow_ms {
            return None;
        }
        let summary = format!("one in twenty answers of {} takes {late:.0} ms or more", display(ip));
        Some(
            Finding::new(Kind::DnsSlow, Severity::Warning, 0.9, &self.slow_at)
                .to(ip)
                .with("p95_ms", tenths(late))
                .with("answers", self.timed)
                .saying(summary),
        )
    }

    /// The latency that one answer in twenty exceeds; the lower bound of its step.
    fn late_ms(&self) -> f64 {
        let mut left = self.timed / 20 + 1;
        for (step, count) in self.latencies.iter().enumerate().rev() {
            left = left.saturating_sub(u64::from(*count));
            if left == 0 {
                return ((step as f64 / 4.0).exp2() - 1.0) / 10.0;
            }
        }
        0.0
    }
}

const fn class(byte: u8) -> usize {
    match byte {
        b'a'..=b'z' => (byte - b'a') as usize,
        b'A'..=b'Z' => (byte - b'A') as usize,
        b'0'..=b'9' => 26 + (byte - b'0') as usize,
        b'-' | b'_' => 36,
        _ => 37,
    }
}

/// What stands before the registered domain, and the domain; none where nothing does. Without the list of public suffixes: two labels, or
/// three below a country's short second level (co.uk, com.au).
#[must_use]
pub fn split(name: &str) -> Option<(&str, &str)> {
    // Names are short: a search that is made for long texts takes several times as long.
    let dot_before = |end: usize| name.as_bytes()[..end].iter().rposition(|byte| *byte == b'.');
    let top = dot_before(name.len())?;
    let second = dot_before(top)?;
    let cut = if name.len() - top == 3 && top - second <= 4 { dot_before(second)? } else { second };
    Some((&name[..cut], &name[cut + 1..]))
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn the_registered_domain_has_two_labels_or_three_below_a_country() {
        assert_eq!(split("a.b.example.com"), Some(("a.b", "example.com")));
        assert_eq!(split("www.example.co.uk"), Some(("www", "example.co.uk")));
        assert_eq!(split("www.example.de"), Some(("www", "example.de")));
        assert_eq!(split("example.com"), None);
        assert_eq!(split("."), None);
    }
}
