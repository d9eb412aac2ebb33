//! A report as Markdown: for a ticket, or a terminal.

use std::fmt::Write as _;

use crate::groups::groups;
use crate::remarks::{comments, remarks};
use crate::text::{
    bits_per_second, bytes, change, count, counted, duration, figure, missing, moment, protocol, rcode, short,
    waited_for,
};
use crate::{Comparison, Finding, Report, Spread};

/// The report as Markdown (`CommonMark` with tables).
#[must_use]
pub fn report(report: &Report) -> String {
    let mut out = Markdown::default();
    out.heading(1, &format!("Report of {}", report.capture.name));
    totals(&mut out, report);
    health(&mut out, report);
    findings(&mut out, "Findings", &report.findings);
    if report.findings_left_out > 0 {
        out.text(&format!("{} further findings are left out.", count(report.findings_left_out)));
    }
    traffic(&mut out, report);
    tcp(&mut out, report);
    dns(&mut out, report);
    tls(&mut out, report);
    http(&mut out, report);
    streams(&mut out, report);
    limits(&mut out, report);
    out.0
}

/// A comparison as Markdown.
#[must_use]
pub fn comparison(comparison: &Comparison) -> String {
    let mut out = Markdown::default();
    out.heading(1, &format!("{} compared with {}", comparison.after.name, comparison.before.name));
    let rows = comparison.differences.iter().map(|difference| {
        let value =
            |value: Option<f64>| value.map_or("not measured".to_owned(), |value| figure(value, &difference.unit));
        let change = difference.change_percent.map_or(String::new(), change);
        let note = difference.note.as_ref().map_or(String::new(), |note| format!(" ({note})"));
        vec![
            difference.name.clone(),
            value(difference.before),
            value(difference.after),
            change,
            format!("{}{note}", difference.verdict.name()),
        ]
    });
    out.table(&["", "before", "after", "change", ""], rows);
    findings(&mut out, "New findings", &comparison.new_findings);
    findings(&mut out, "Findings that are gone", &comparison.gone_findings);
    findings(&mut out, "Findings that remain", &comparison.remaining_findings);
    out.0
}

fn totals(out: &mut Markdown, report: &Report) {
    let totals = &report.totals;
    let seconds = totals.duration_us as f64 / 1e6;
    let mut rows = vec![
        ("packets", count(totals.packets)),
        ("bytes on the wire", bytes(totals.bytes as f64)),
        ("first packet", totals.first_packet.as_deref().map(moment).unwrap_or_default()),
        ("duration", duration(totals.duration_us)),
        ("flows", count(report.flows.flows)),
    ];
    if seconds > 0.0 {
        rows.push(("mean throughput", bits_per_second(totals.bytes as f64 * 8.0 / seconds)));
    }
    out.table(&["", ""], rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]));
}

fn health(out: &mut Markdown, report: &Report) {
    let Some(health) = &report.health else {
        if !report.not_judged.is_empty() {
            out.heading(2, "Health: no score");
            not_judged(out, report);
        }
        return;
    };
    out.heading(2, &format!("Health: {} of 100", health.score));
    let rows = health.parts.iter().map(|part| {
        let value = format!("{} {}", short(part.value), part.unit);
        vec![part.name.clone(), value, part.score.to_string(), part.weight.to_string(), part.rule.clone()]
    });
    out.table(&["part", "value", "score", "weight", "rule"], rows);
    out.text(&format!("score = {}", health.formula));
    if let Some(class) = &health.y1541 {
        out.text(&format!("ITU-T Y.1541 class {}: {}.", class.class, class.basis));
    }
    not_judged(out, report);
}

fn not_judged(out: &mut Markdown, report: &Report) {
    let rows = report.not_judged.iter().map(|part| vec![part.part.clone(), part.reason.clone()]);
    if !report.not_judged.is_empty() {
        out.table(&["part", "not judged, because"], rows);
    }
}

fn findings(out: &mut Markdown, title: &str, findings: &[Finding]) {
    out.heading(2, title);
    if findings.is_empty() {
        return out.text("None.");
    }
    for group in groups(findings) {
        let (severity, kind) = (group.severity.name(), group.kind.replace('`', ""));
        full(out, severity, &kind, &group.first);
        if !group.more.is_empty() {
            let _ = writeln!(out.0, "- {} more of the kind `{kind}` (**{severity}**)", count(group.more.len() as u64));
        }
        for finding in group.more {
            let packet = finding.packets.first().map_or(String::new(), |packet| format!(" (packet {packet})"));
            let _ = writeln!(out.0, "  - {}{packet}", escaped(&finding.summary));
        }
    }
    out.0.push('\n');
}

fn full(out: &mut Markdown, severity: &str, kind: &str, findings: &[&Finding]) {
    for finding in findings {
        let _ = writeln!(out.0, "- **{severity}** `{kind}`: {}", escaped(&finding.summary));
        let _ = writeln!(out.0, "  - next: {}", escaped(&finding.next));
        if !finding.packets.is_empty() {
            let packets = finding.packets.iter().take(10).map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let _ = writeln!(out.0, "  - packets: {packets}");
        }
        if !finding.flow_ids.is_empty() {
            let flows = finding.flow_ids.iter().take(5).map(|flow| escaped(flow)).collect::<Vec<_>>().join(", ");
            let _ = writeln!(out.0, "  - flows: {flows}");
        }
    }
}

fn traffic(out: &mut Markdown, report: &Report) {
    out.heading(2, "Traffic");
    let rows = report.protocols.iter().map(|of| vec![protocol(of.protocol), count(of.packets), bytes(of.bytes as f64)]);
    out.table(&["protocol", "packets", "bytes"], rows);
    let rows = report.talkers.iter().map(|of| vec![of.ip.clone(), count(of.packets), bytes(of.bytes as f64)]);
    out.table(&["talker", "packets", "bytes"], rows);
    let rows = report
        .services
        .iter()
        .map(|of| vec![of.service.clone(), count(of.flows), count(of.packets), bytes(of.bytes as f64)]);
    out.table(&["service", "flows", "packets", "bytes"], rows);
    let rows = report.rhythms.iter().map(|of| {
        let ends = format!("{} → {} port {} ({})", of.src_ip, of.dst_ip, of.dst_port, protocol(of.protocol));
        let every = duration((of.interval_s * 1e6) as u64);
        vec![ends, count(of.flows), every, format!("{} %", short(of.jitter_percent))]
    });
    out.table(&["regular conversation", "flows", "every", "spread"], rows);
    let rows = report.one_way_flows.iter().map(|flow| {
        let name = format!("{} → {} ({})", flow.src, flow.dst, flow.service);
        vec![name, missing(flow), count(flow.packets), bytes(flow.bytes as f64)]
    });
    out.table(&["only one direction", "missing", "packets", "bytes"], rows);
    let rows = report.icmp_errors.iter().map(|error| vec![error.value.clone(), count(error.count)]);
    out.table(&["ICMP error", "count"], rows);
}

fn tcp(out: &mut Markdown, report: &Report) {
    let Some(tcp) = &report.tcp else { return };
    out.heading(2, "TCP");
    let rows = [
        ("flows", tcp.flows),
        ("handshakes", tcp.handshakes),
        ("resets", tcp.resets),
        ("unanswered", tcp.unanswered),
        ("retransmits", tcp.retransmits),
        ("out of order", tcp.out_of_order),
        ("duplicate acks", tcp.duplicate_acks),
        ("lost segments", tcp.lost_segments),
        ("zero windows", tcp.zero_windows),
        ("reset before data", tcp.states.reset_before_data),
        ("half-open", tcp.states.half_open),
        ("half-closed", tcp.states.half_closed),
        ("idle", tcp.states.idle),
        ("kept alive without data", tcp.states.zombie),
    ];
    out.table(&["", ""], rows.into_iter().map(|(name, value)| vec![name.to_owned(), count(value)]));
    let handshakes =
        [("handshake", tcp.handshake), ("to the responder", tcp.syn_ack), ("to the initiator", tcp.handshake_ack)];
    spreads(out, &handshakes);
    spreads(
        out,
        &[("round trip", tcp.rtt), ("to the responder", tcp.rtt_to_dst), ("to the initiator", tcp.rtt_to_src)],
    );
    spreads(out, &[("first byte", tcp.first_byte), ("response", tcp.response)]);
    let rows = tcp.silences.iter().map(|silence| {
        let name = waited_for(&silence.waited_for).to_owned();
        let longest = format!("{} → {}, packet {}", silence.src, silence.dst, silence.packet);
        vec![name, count(silence.count), duration(silence.total_us), duration(silence.longest_us), longest]
    });
    out.table(&["silent connections waited for", "silences", "in all", "longest", "of"], rows);
}

fn dns(out: &mut Markdown, report: &Report) {
    let dns = &report.dns;
    if dns.queries + dns.answers == 0 {
        return;
    }
    out.heading(2, "DNS");
    let rows = [("queries", dns.queries), ("answers", dns.answers), ("unanswered", dns.unanswered)];
    let rows = rows.into_iter().map(|(name, value)| vec![name.to_owned(), count(value)]);
    let codes = dns.rcodes.iter().map(|code| vec![rcode(code.value), count(code.count)]);
    out.table(&["", ""], rows.chain(codes));
    spreads(out, &[("latency", dns.latency)]);
    let rows = dns.domains.iter().map(|domain| {
        let latency = domain.median_us.map(duration).unwrap_or_default();
        vec![domain.domain.clone(), count(domain.queries), count(domain.failed), count(domain.unanswered), latency]
    });
    out.table(&["domain", "queries", "failed", "unanswered", "median"], rows);
}

fn tls(out: &mut Markdown, report: &Report) {
    if report.tls.client_hellos == 0 {
        return;
    }
    out.heading(2, "TLS");
    out.text(&format!("{}.", counted(report.tls.client_hellos, "client hello")));
    let names = report.tls.names.iter().map(|name| vec![name.value.clone(), count(name.count)]);
    out.table(&["server name", "hellos"], names);
}

fn streams(out: &mut Markdown, report: &Report) {
    if report.streams.is_empty() {
        return;
    }
    out.heading(2, "Streams");
    let rows = report.streams.iter().map(|stream| {
        let variation = stream.delay_variation_us.map_or(String::new(), |[_, p95, _]| duration(p95));
        let name = format!("{} → {}", stream.src, stream.dst);
        vec![name, count(stream.packets), count(stream.lost), duration(stream.jitter_us), variation]
    });
    out.table(&["stream", "packets", "lost", "jitter", "variation, 95 %"], rows);
}

fn http(out: &mut Markdown, report: &Report) {
    let Some(http) = &report.http else { return };
    out.heading(2, "HTTP in clear text");
    out.text(&format!("{}, {} without a response.", counted(http.requests, "request"), count(http.unanswered)));
    out.table(&["status", "count"], http.statuses.iter().map(|code| vec![code.value.to_string(), count(code.count)]));
    out.table(&["host", "requests"], http.hosts.iter().map(|host| vec![host.value.clone(), count(host.count)]));
    spreads(out, &[("latency", http.latency)]);
}

fn limits(out: &mut Markdown, report: &Report) {
    out.heading(2, "What this report does not know");
    if let Some(damage) = &report.damage {
        out.text(&format!(
            "The file is damaged after packet {} (byte {}): {}. Nothing behind it was read.",
            count(damage.packets),
            count(damage.offset),
            damage.reason
        ));
    }
    for remark in remarks(report) {
        out.text(&remark);
    }
    let (noted, _) = comments(report);
    out.table(&["packet", "comment"], noted.into_iter().map(|(packet, text)| vec![packet, text.to_owned()]));
    out.table(
        &["given up", "count", "which means"],
        report.given_up.iter().map(|given| vec![given.what.clone(), count(given.count), given.meaning.clone()]),
    );
    out.table(
        &["not analysed", "within", "packets"],
        report.not_analysed.iter().map(|not| vec![not.reason.clone(), not.within.clone(), count(not.packets)]),
    );
    if report.damage.is_none() && report.given_up.is_empty() && report.not_analysed.is_empty() {
        out.text("Nothing: every packet was analysed, and no limit was reached.");
    }
}

fn spreads(out: &mut Markdown, spreads: &[(&str, Option<Spread>)]) {
    let rows = spreads.iter().filter_map(|(name, spread)| {
        let spread = spread.as_ref()?;
        let values = [spread.median_us, spread.p95_us, spread.p99_us, spread.max_us].map(duration);
        Some([vec![(*name).to_owned(), count(spread.count)], values.to_vec()].concat())
    });
    out.table(&["", "values", "median", "95 %", "99 %", "most"], rows);
}

#[derive(Default)]
struct Markdown(String);

impl Markdown {
    fn heading(&mut self, level: usize, text: &str) {
        let _ = writeln!(self.0, "{} {}\n", "#".repeat(level), escaped(text));
    }

    fn text(&mut self, text: &str) {
        let _ = writeln!(self.0, "{}\n", escaped(text));
    }

    /// A table, unless it has no rows.
    fn table(&mut self, heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return;
        }
        let _ = writeln!(self.0, "| {} |\n|{}", heads.join(" | "), " --- |".repeat(heads.len()));
        for row in rows {
            let cells: Vec<_> = row.iter().map(|cell| escaped(cell)).collect();
            let _ = writeln!(self.0, "| {} |", cells.join(" | "));
        }
        self.0.push('\n');
    }
}

/// Text in which nothing is markup, HTML, or the end of a line or cell.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\r' | '\t' => escaped.push(' '),
            c if c.is_control() => escaped.push('\u{fffd}'),
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' | '!' => {
                escaped.push('\\');
                escaped.push(character);
            }
            '&' => escaped.push_str("&amp;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_stranger_is_markup() {
        assert_eq!(escaped("a|b\n# x <script>&amp; ![i](u)"), "a\\|b \\# x \\<script\\>&amp;amp; \\!\\[i\\](u)");
    }
}
