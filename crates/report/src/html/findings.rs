//! Findings, each with its evidence and what to look at next.

use maud::{Markup, html};

use crate::Finding;
use crate::groups::{Group, groups};
use crate::text::{count, evidence, moment};

/// Findings whose evidence is open at once.
const OPEN_FINDINGS: usize = 3;
/// Packets or flows that are named in a list.
const LISTED: usize = 20;

pub(super) fn findings(id: &str, title: &str, findings: &[Finding]) -> Markup {
    html! {
        h2 id=(id) { (title) }
        @if findings.is_empty() { p { "None." } }
        @let groups = groups(findings);
        @if groups.len() > 1 { p.kinds { @for group in &groups {
            span class=(group.severity.name()) { span.badge { (group.kind) } (count(group.len() as u64)) }
        } } }
        ol.findings {
            @let before = groups.iter().scan(0, |sum, group| Some(std::mem::replace(sum, *sum + group.len())));
            @for (group, before) in groups.iter().zip(before) {
                @for (index, finding) in group.first.iter().enumerate() { (one(finding, before + index < OPEN_FINDINGS)) }
                @if !group.more.is_empty() { (more(group)) }
            }
        }
    }
}

/// The findings of a kind after the first ones.
fn more(group: &Group<'_>) -> Markup {
    html! {
        li class=(format!("more {}", group.severity.name())) { details {
            summary { (count(group.more.len() as u64)) " more of the kind " code { (group.kind) } }
            div.table { table {
                thead { tr { th scope="col" { "finding" } th scope="col" { "from (UTC)" } th scope="col" { "packets" } th scope="col" { "flow" } } }
                tbody { @for finding in &group.more { tr {
                    td.name { (finding.summary) }
                    td { @if let Some(time) = &finding.time { (moment(time).trim_end_matches(" UTC")) } }
                    td { (listed(&finding.packets, 3)) }
                    td { @if let Some(flow) = finding.flow_ids.first() { code { (flow) } } }
                } } }
            } }
        } }
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
                        p { "Packets (Wireshark's frame numbers): " code { (listed(&finding.packets, LISTED)) } }
                    }
                    @if !finding.flow_ids.is_empty() { p { "Flows: " code { (listed(&finding.flow_ids, LISTED)) } } }
                }
            }
        }
    }
}

fn listed<T: ToString>(values: &[T], most: usize) -> String {
    let mut text = values.iter().take(most).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if values.len() > most {
        text.push_str(", …");
    }
    text
}
