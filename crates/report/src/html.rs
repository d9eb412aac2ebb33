//! A report as one page: no script, nothing from elsewhere, light and dark, and good on paper.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::remarks::{comments, remarks};
use crate::text::{bits_per_second, bytes, count, duration, moment, protocol, rcode, short};
use crate::{CodeCount, Comparison, Finding, Health, NameCount, Report, Spread, Verdict};

mod charts;

/// Findings whose evidence is open at once.
const OPEN_FINDINGS: usize = 3;

/// The report as a page.
#[must_use]
pub fn report(report: &Report) -> String {
    let title = format!("Report of {}", report.capture.name);
    page(
        &title,
        &html! {
            h1 { (title) }
            (about(report))
            nav aria-label="Parts" {
                @for (name, label, there) in sections(report) {
                    @if there { a href=(format!("#{name}")) { (label) } }
                }
            }
            (tiles(report))
            @if let Some(health) = &report.health { (health_of(health)) }
            (findings("findings", "Findings", &report.findings))
            @if report.findings_left_out > 0 { p { (count(report.findings_left_out)) " further findings are left out." } }
            (timeline(report))
            (traffic(report))
            (tcp(report))
            (dns(report))
            (tls(report))
            (http(report))
            (streams(report))
            (limits(report))
        },
    )
}

/// A comparison as a page.
#[must_use]
pub fn comparison(comparison: &Comparison) -> String {
    let title = format!("{} compared with {}", comparison.after.name, comparison.before.name);
    page(
        &title,
        &html! {
            h1 { (title) }
            h2 { "Figures" }
            div.table { table {
                thead { tr {
                    th scope="col" { "figure" } th.number scope="col" { "before" } th.number scope="col" { "after" }
                    th.number scope="col" { "change" } th scope="col" { "the network does" }
                } }
                tbody { @for difference in &comparison.differences { tr {
                    td { (difference.name) }
                    @for value in [difference.before, difference.after] {
                        td.number { @if let Some(value) = value { (figure(value, &difference.unit)) } @else { "not measured" } }
                    }
                    td.number { @if let Some(change) = difference.change_percent { (format!("{change:+.1} %")) } }
                    td class=(difference.verdict.name()) { (verdict(difference.verdict)) }
                } } }
            } }
            (findings("new", "New findings", &comparison.new_findings))
            (findings("gone", "Findings that are gone", &comparison.gone_findings))
            (findings("remaining", "Findings that remain", &comparison.remaining_findings))
        },
    )
}

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Better => "better",
        Verdict::Worse => "worse",
        Verdict::Same => "the same",
        Verdict::Neutral => "",
        Verdict::Unknown => "not known",
    }
}

fn figure(value: f64, unit: &str) -> String {
    match unit {
        "B" => bytes(value),
        "bit/s" => bits_per_second(value),
        "" => count(value.round() as u64),
        unit => format!("{}\u{a0}{unit}", short(value)),
    }
}

fn page(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // Nothing may be loaded or run, should anything of a stranger ever get through.
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="referrer" content="no-referrer";
                title { (title) }
                style { (PreEscaped(include_str!("html/style.css"))) }
            }
            body { main {
                (body)
                footer { "Made by Weir " (env!("CARGO_PKG_VERSION")) ". Times are UTC; M, G are powers of 1000." }
            } }
        }
    };
    page.into_string()
}

fn sections(report: &Report) -> [(&'static str, &'static str, bool); 9] {
    [
        ("health", "Health", report.health.is_some()),
        ("findings", "Findings", true),
        ("time", "Over time", report.timeline.is_some()),
        ("traffic", "Traffic", true),
        ("tcp", "TCP", report.tcp.is_some()),
        ("dns", "DNS", has_dns(report)),
        ("tls", "TLS", report.tls.client_hellos > 0),
        ("http", "HTTP", report.http.is_some()),
        ("limits", "What it does not know", true),
    ]
}

fn has_dns(report: &Report) -> bool {
    report.dns.queries + report.dns.answers + report.dns.malformed > 0
}

fn about(report: &Report) -> Markup {
    let capture = &report.capture;
    html! {
        p.quiet {
            (capture.format)
            @if !capture.compression.is_empty() { " in " (capture.compression) }
            ", " (bytes(capture.size_bytes as f64))
            @if !capture.interfaces.is_empty() {
                ", interfaces " (capture.interfaces.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", "))
                @if capture.interfaces.len() > 8 { " and " (capture.interfaces.len() - 8) " more" }
            }
            @if let Some(id) = capture.capture_id { ", capture " code { (id) } }
        }
        @if let (Some(first), Some(last)) = (&report.totals.first_packet, &report.totals.last_packet) {
            p.quiet { "From " (moment(first)) " to " (moment(last)) }
        }
        @if report.damage.is_some() {
            p { strong.worse { "The file is damaged." } " " a href="#limits" { "See what was not read." } }
        }
    }
}

fn tiles(report: &Report) -> Markup {
    let totals = &report.totals;
    let seconds = totals.duration_us as f64 / 1e6;
    let of = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    html! {
        dl.tiles {
            div { dt { "Packets" } dd { (count(totals.packets)) } }
            div { dt { "On the wire" } dd { (bytes(totals.bytes as f64)) } }
            div { dt { "Duration" } dd { (duration(totals.duration_us)) } }
            @if seconds > 0.0 { div { dt { "Mean throughput" } dd { (bits_per_second(totals.bytes as f64 * 8.0 / seconds)) } } }
            div { dt { "Flows" } dd { (count(report.flows.flows)) } }
            div { dt { "Critical · warnings" } dd { (of(crate::Severity::Critical)) " · " (of(crate::Severity::Warning)) } }
        }
    }
}

fn health_of(health: &Health) -> Markup {
    html! {
        h2 #health { "Health" }
        div.score {
            (charts::ring(health.score))
            div {
                @if let Some(class) = &health.y1541 {
                    p { strong { "ITU-T Y.1541 class " (class.class) } }
                    p.quiet { (class.basis) }
                }
                @if !health.not_measured.is_empty() {
                    p.quiet { "Not measured, and left out: " (health.not_measured.join(", ")) "." }
                }
            }
        }
        div.table { table {
            thead { tr {
                th scope="col" { "part" } th.number scope="col" { "value" } th.number scope="col" { "score" }
                th.number scope="col" { "weight" } th scope="col" { "how the score follows" }
            } }
            tbody { @for part in &health.parts { tr {
                td { (part.name) } td.number { (short(part.value)) "\u{a0}" (part.unit) } td.number { (short(part.score)) }
                td.number { (part.weight) } td.quiet { (part.rule) }
            } } }
        } }
        p.quiet { "score = " (health.formula) }
    }
}

fn findings(id: &str, title: &str, findings: &[Finding]) -> Markup {
    html! {
        h2 id=(id) { (title) }
        @if findings.is_empty() { p { "None." } }
        ol.findings { @for (index, finding) in findings.iter().enumerate() { (one(finding, index < OPEN_FINDINGS)) } }
    }
}

fn one(finding: &Finding, open: bool) -> Markup {
    let more = !finding.evidence.is_empty() || !finding.packets.is_empty() || !finding.flow_ids.is_empty();
    html! {
        li class=(finding.severity.name()) {
            div { span.badge { (finding.severity.name()) } span.summary { (finding.summary) } }
            p { "Next: " (finding.next) }
            p.quiet {
                code { (finding.kind) } ", confidence " (format!("{:.0}\u{a0}%", finding.confidence * 100.0))
                @if let Some(time) = &finding.time { ", from " (moment(time)) }
            }
            @if more {
                details open[open] {
                    summary { "Evidence" }
                    @if !finding.evidence.is_empty() { table { tbody {
                        @for (name, value) in &finding.evidence {
                            tr { th scope="row" { (name.replace('_', " ")) } td.name { (json(value)) } }
                        }
                    } } }
                    @if !finding.packets.is_empty() {
                        p { "Packets (Wireshark's frame numbers): " code { (listed(&finding.packets)) } }
                    }
                    @if !finding.flow_ids.is_empty() { p { "Flows: " code { (listed(&finding.flow_ids)) } } }
                }
            }
        }
    }
}

fn json(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(values) => values.iter().map(json).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn listed<T: ToString>(values: &[T]) -> String {
    const MOST: usize = 20;
    let mut text = values.iter().take(MOST).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if values.len() > MOST {
        text.push_str(", …");
    }
    text
}

fn timeline(report: &Report) -> Markup {
    let Some(timeline) = report.timeline.as_ref().filter(|timeline| !timeline.bytes.is_empty()) else {
        return html! {};
    };
    html! {
        h2 #time { "Over time" }
        (charts::throughput(timeline))
        (charts::packets(timeline))
        @if let Some(chart) = charts::retransmits(timeline) { (chart) }
    }
}

/// One row: a name, and figures; the bar is the share of the largest.
struct Row {
    name: String,
    figures: Vec<String>,
    share: f64,
}

fn bars(caption: &str, heads: &[&str], rows: Vec<Row>) -> Markup {
    if rows.is_empty() {
        return html! {};
    }
    html! {
        div.table { table {
            caption { (caption) }
            thead { tr {
                th scope="col" { (heads[0]) }
                @for head in &heads[1..] { th.number scope="col" { (head) } }
            } }
            tbody { @for row in rows { tr {
                td.name { (row.name) span.bar style=(format!("width:{:.1}%", row.share * 100.0)) {} }
                @for figure in row.figures { td.number { (figure) } }
            } } }
        } }
    }
}

/// Rows whose bars are relative to the largest weight.
fn rows<T>(items: &[T], weight: impl Fn(&T) -> u64, row: impl Fn(&T) -> (String, Vec<String>)) -> Vec<Row> {
    let most = items.iter().map(&weight).max().unwrap_or(0).max(1) as f64;
    let made = items.iter().map(|item| {
        let (name, figures) = row(item);
        Row { name, figures, share: weight(item) as f64 / most }
    });
    made.collect()
}

fn traffic(report: &Report) -> Markup {
    let figures = |packets, of: u64| vec![count(packets), bytes(of as f64)];
    let mut protocols = report.protocols.clone();
    protocols.sort_by_key(|of| std::cmp::Reverse(of.bytes));
    html! {
        h2 #traffic { "Traffic" }
        div.columns {
            (bars("Protocols", &["protocol", "packets", "bytes"],
                rows(&protocols, |of| of.bytes, |of| (protocol(of.protocol), figures(of.packets, of.bytes)))))
            (bars("Services", &["service", "flows", "packets", "bytes"],
                rows(&report.services, |of| of.bytes, |of| (of.service.clone(),
                    vec![count(of.flows), count(of.packets), bytes(of.bytes as f64)]))))
            (bars("Top talkers", &["address", "packets", "bytes"],
                rows(&report.talkers, |of| of.bytes, |of| (of.ip.clone(), figures(of.packets, of.bytes)))))
            (bars("Conversations", &["from, to", "flows", "packets", "bytes"],
                rows(&report.conversations, |of| of.bytes, |of| (format!("{} → {}", of.src_ip, of.dst_ip),
                    vec![count(of.flows), count(of.packets), bytes(of.bytes as f64)]))))
            (bars("Regular conversations", &["from, to", "flows", "every", "spread"],
                rows(&report.rhythms, |of| of.flows, |of| (format!("{} → {} port {} ({})", of.src_ip, of.dst_ip, of.dst_port, protocol(of.protocol)),
                    vec![count(of.flows), duration((of.interval_s * 1e6) as u64), format!("{} %", short(of.jitter_percent))]))))
            (names("ICMP errors", "error", &report.icmp_errors))
        }
        @if report.flows.packets_in_tunnels > 0 {
            p { (count(report.flows.packets_in_tunnels)) " packets were inside tunnels." }
        }
        @if let Some(one_way) = report.flows.one_way.filter(|&one_way| one_way > 0) {
            p { "Of " (count(one_way)) " TCP flows only one direction is in the capture." }
        }
    }
}

fn plain(caption: &str, pairs: &[(&str, String)]) -> Markup {
    html! {
        table {
            caption { (caption) }
            tbody { @for (name, value) in pairs { tr { th scope="row" { (name) } td.number { (value) } } } }
        }
    }
}

fn spreads(spreads: &[(&str, Option<Spread>)]) -> Markup {
    if spreads.iter().all(|(_, spread)| spread.is_none()) {
        return html! {};
    }
    html! {
        div.table { table {
            caption { "Times" }
            thead { tr {
                th scope="col" { "" }
                @for head in ["values", "median", "95 %", "99 %", "most"] { th.number scope="col" { (head) } }
            } }
            tbody { @for (name, spread) in spreads { @if let Some(spread) = spread { tr {
                th scope="row" { (name) } td.number { (count(spread.count)) }
                @for value in [spread.median_us, spread.p95_us, spread.p99_us, spread.max_us] { td.number { (duration(value)) } }
            } } } }
        } }
    }
}

fn tcp(report: &Report) -> Markup {
    let Some(tcp) = &report.tcp else { return html! {} };
    let of_packets = |part: u64| {
        if tcp.packets == 0 {
            count(part)
        } else {
            format!("{} ({:.2}\u{a0}%)", count(part), part as f64 * 100.0 / tcp.packets as f64)
        }
    };
    html! {
        h2 #tcp { "TCP" }
        div.columns {
            (plain("Connections", &[
                ("flows", count(tcp.flows)), ("whole handshakes", count(tcp.handshakes)), ("reset", count(tcp.resets)),
                ("without answer", count(tcp.unanswered)), ("SYN sent again", count(tcp.syn_retransmits)),
                ("reset before data", count(tcp.states.reset_before_data)), ("half-open", count(tcp.states.half_open)),
                ("half-closed", count(tcp.states.half_closed)), ("idle", count(tcp.states.idle)),
                ("kept alive without data", count(tcp.states.zombie)),
            ]))
            (plain("Segments", &[
                ("sent again", of_packets(tcp.retransmits)), ("of these fast", count(tcp.fast_retransmits)),
                ("of these needlessly", count(tcp.spurious_retransmits)), ("out of order", of_packets(tcp.out_of_order)),
                ("acknowledged, not captured", of_packets(tcp.lost_segments)), ("duplicate acknowledgements", count(tcp.duplicate_acks)),
                ("zero windows", count(tcp.zero_windows)), ("windows filled", count(tcp.window_full)),
                ("captured more than once", count(tcp.duplicate_segments)),
            ]))
        }
        (spreads(&[
            ("handshake", tcp.handshake), ("… to the responder", tcp.syn_ack), ("… to the initiator", tcp.handshake_ack),
            ("round trip", tcp.rtt), ("… to the responder", tcp.rtt_to_dst), ("… to the initiator", tcp.rtt_to_src),
            ("first byte", tcp.first_byte), ("response of servers", tcp.response),
        ]))
        @if !tcp.worst.is_empty() {
            div.table { table {
                caption { "Connections with the most trouble" }
                thead { tr {
                    th scope="col" { "connection" }
                    @for head in ["packets", "again", "out of order", "lost", "zero windows", "round trip"] { th.number scope="col" { (head) } }
                } }
                tbody { @for flow in &tcp.worst { tr {
                    td.name { (flow.src) " → " (flow.dst) @if !flow.name.is_empty() { br; span.quiet { (flow.name) } } }
                    @for value in [flow.packets, flow.retransmits, flow.out_of_order, flow.lost_segments, flow.zero_windows] { td.number { (count(value)) } }
                    td.number { @if let Some(rtt) = flow.rtt_us { (duration(rtt)) } }
                } } }
            } }
        }
    }
}

fn names(caption: &str, head: &str, names: &[NameCount]) -> Markup {
    let shown = |name: &NameCount| if name.value.is_empty() { "(none)".to_owned() } else { name.value.clone() };
    bars(caption, &[head, "count"], rows(names, |name| name.count, |name| (shown(name), vec![count(name.count)])))
}

fn codes(caption: &str, head: &str, codes: &[CodeCount], name: impl Fn(u16) -> String) -> Markup {
    bars(caption, &[head, "count"], rows(codes, |code| code.count, |code| (name(code.value), vec![count(code.count)])))
}

fn dns(report: &Report) -> Markup {
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

fn tls(report: &Report) -> Markup {
    let tls = &report.tls;
    if tls.client_hellos == 0 {
        return html! {};
    }
    html! {
        h2 #tls { "TLS" }
        p { (count(tls.client_hellos)) " client hellos for " (count(tls.distinct_names as u64)) " names." }
        div.columns {
            (names("Offered versions", "version", &tls.versions))
            (names("Chosen versions", "version", &tls.chosen_versions))
            (names("Chosen ciphers", "cipher", &tls.ciphers))
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

fn http(report: &Report) -> Markup {
    let Some(http) = &report.http else { return html! {} };
    html! {
        h2 #http { "HTTP in clear text" }
        p { (count(http.requests)) " requests, " (count(http.unanswered)) " without a response." }
        div.columns {
            (codes("Responses", "status", &http.statuses, |status| status.to_string()))
            (names("Methods", "method", &http.methods))
            (names("Hosts", "host", &http.hosts))
        }
        (spreads(&[("latency", http.latency)]))
    }
}

fn streams(report: &Report) -> Markup {
    let made = rows(
        &report.streams,
        |stream| stream.jitter_us,
        |stream| {
            let name = format!("{} → {}", stream.src, stream.dst);
            let variation = stream.delay_variation_us.map_or(String::new(), |[_, p95, _]| duration(p95));
            let lost = count(stream.lost);
            (name, vec![count(stream.packets), bytes(stream.bytes as f64), lost, duration(stream.jitter_us), variation])
        },
    );
    if made.is_empty() {
        return html! {};
    }
    html! {
        h2 #streams { "Streams" }
        (bars("UDP by jitter (RFC 3550)", &["stream", "packets", "bytes", "lost", "jitter", "variation, 95 %"], made))
    }
}

fn limits(report: &Report) -> Markup {
    let (noted, left_out) = comments(report);
    let nothing = report.damage.is_none() && report.given_up.is_empty() && report.not_analysed.is_empty();
    html! {
        h2 #limits { "What this report does not know" }
        @if nothing { p { "Nothing: every packet was analysed, and no limit was reached." } }
        @if let Some(damage) = &report.damage {
            p { strong.worse { "The file is damaged" } " after packet " (count(damage.packets)) " (byte " (count(damage.offset)) " of the file): "
                (damage.reason) ". Nothing behind it was read." }
        }
        @for remark in remarks(report) { p { (remark) } }
        @if !noted.is_empty() { div.table { table {
            caption { "Comments in the file" @if left_out > 0 { " (the first ones; " (count(left_out)) " more)" } }
            thead { tr { th.number scope="col" { "packet" } th scope="col" { "comment" } } }
            tbody { @for (packet, text) in &noted { tr { td.number { (packet) } td { (text) } } } }
        } } }
        @if !report.given_up.is_empty() { div.table { table {
            caption { "Given up at a limit" }
            thead { tr { th scope="col" { "what" } th.number scope="col" { "count" } th scope="col" { "which means" } } }
            tbody { @for given in &report.given_up { tr { td { (given.what) } td.number { (count(given.count)) } td { (given.meaning) } } } }
        } } }
        @if !report.not_analysed.is_empty() { div.table { table {
            caption { "Not analysed" }
            thead { tr { th scope="col" { "reason" } th scope="col" { "within" } th.number scope="col" { "packets" } } }
            tbody { @for not in &report.not_analysed { tr { td { (not.reason) } td { (not.within) } td.number { (count(not.packets)) } } } }
        } } }
        @if !report.thresholds.is_empty() { div.table { table {
            caption { "Thresholds of findings that were set for this analysis" }
            tbody { @for (name, value) in &report.thresholds { tr { th scope="row" { (name) } td.number { (json(value)) } } } }
        } } }
    }
}
