//! Findings, each with its evidence and what to look at next.

use maud::{Markup, html};

use crate::Finding;
use crate::text::{evidence, moment};

/// Findings whose evidence is open at once.
const OPEN_FINDINGS: usize = 3;

pub(super) fn findings(id: &str, title: &str, findings: &[Finding]) -> Markup {
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
                            @let (name, text) = evidence(name, value);
                            tr { th scope="row" { (name) } td.name { (text) } }
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

fn listed<T: ToString>(values: &[T]) -> String {
    const MOST: usize = 20;
    let mut text = values.iter().take(MOST).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if values.len() > MOST {
        text.push_str(", …");
    }
    text
}
