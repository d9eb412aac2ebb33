//! What was said in the protocols that are read: DNS, TLS, HTTP.

use maud::{Markup, html};

use super::tables::{bars, codes, names, plain, rows, spreads};
use crate::text::{cipher, count, counted, duration, moment, rcode, tls_version};
use crate::{NameCount, Report};

pub(super) fn has_dns(report: &Report) -> bool {
    report.dns.queries + report.dns.answers + report.dns.malformed > 0
}

pub(super) fn dns(report: &Report) -> Markup {
    let dns = &report.dns;
    if !has_dns(report) {
        return html! {};
    }
    let time = |value: Option<u64>| value.map(duration).unwrap_or_default();
    html! {
        h2 #dns { "DNS" }
        div.columns {
            (plain("Messages", &[
                ("queries", count(dns.queries)), ("answers", count(dns.answers)), ("without answer", count(dns.unanswered)),
                ("answers without query", count(dns.unasked)), ("malformed", count(dns.malformed)), ("different names", count(dns.distinct_names as u64)),
            ]))
            (codes("Answers", "code", &dns.rcodes, rcode))
        }
        (spreads(&[("latency", dns.latency)]))
        (bars("Domains", &["domain", "queries", "failed", "without answer", "median", "95 %"],
            rows(&dns.domains, |domain| domain.queries, |domain| (domain.domain.clone(), vec![
                count(domain.queries), count(domain.failed), count(domain.unanswered), time(domain.median_us), time(domain.p95_us)]))))
        (bars("Servers", &["server", "queries", "failed", "without answer", "median", "95 %"],
            rows(&dns.servers, |server| server.queries, |server| (server.ip.clone(), vec![
                count(server.queries), count(server.failed), count(server.unanswered), time(server.median_us), time(server.p95_us)]))))
        @if dns.domains.is_empty() { (names("Names", "name", &dns.names)) }
    }
}

pub(super) fn tls(report: &Report) -> Markup {
    let tls = &report.tls;
    if tls.client_hellos == 0 {
        return html! {};
    }
    html! {
        h2 #tls { "TLS" }
        p { (counted(tls.client_hellos, "client hello")) " for " (counted(tls.distinct_names as u64, "name")) "." }
        div.columns {
            (names("Offered versions", "version", &named(&tls.versions, tls_version)))
            (names("Chosen versions", "version", &named(&tls.chosen_versions, tls_version)))
            (names("Chosen ciphers", "cipher", &named(&tls.ciphers, cipher)))
            (names("Server names", "name", &tls.names))
            (names("Clients (JA4)", "fingerprint", &tls.ja4))
            (names("Alerts", "alert", &tls.alerts))
        }
        @if !tls.certificates.is_empty() {
            div.table { table {
                caption { "Certificates" }
                thead { tr { @for head in ["subject", "issuer", "server", "valid until"] { th scope="col" { (head) } } } }
                tbody { @for certificate in &tls.certificates { tr {
                    td.name { (certificate.subject) } td.name { (certificate.issuer) } td { (certificate.server) }
                    td class=(if certificate.expired { "worse" } else { "" }) { @if let Some(end) = &certificate.not_after { (moment(end)) } }
                } } }
            } }
        }
    }
}

/// The same with names for numbers.
fn named(counts: &[NameCount], name: fn(&str) -> String) -> Vec<NameCount> {
    counts.iter().map(|count| NameCount { value: name(&count.value), count: count.count }).collect()
}

pub(super) fn http(report: &Report) -> Markup {
    let Some(http) = &report.http else { return html! {} };
    html! {
        h2 #http { "HTTP in clear text" }
        p { (counted(http.requests, "request")) ", " (count(http.unanswered)) " without a response." }
        div.columns {
            (codes("Responses", "status", &http.statuses, |status| status.to_string()))
            (names("Methods", "method", &http.methods))
            (names("Hosts", "host", &http.hosts))
        }
        (spreads(&[("latency", http.latency)]))
    }
}
