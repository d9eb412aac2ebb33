//! The page that says what is different between two reports.

use maud::html;

use super::{findings::findings, page::page};
use crate::text::{change, figure};
use crate::{Comparison, Verdict};

/// A comparison as a page.
#[must_use]
pub fn comparison(comparison: &Comparison) -> String {
    let title = format!("{} compared with {}", comparison.after.name, comparison.before.name);
    page(
        &title,
        &html! {
            h1 { (title) }
            h2 { "Figures" }
            div.table { table.figures {
                thead { tr {
                    th scope="col" { "figure" } th.number scope="col" { "before" } th.number scope="col" { "after" }
                    th.number scope="col" { "change" } th scope="col" { "the network does" }
                } }
                tbody { @for difference in &comparison.differences { tr {
                    td { (difference.name) }
                    @for value in [difference.before, difference.after] {
                        td.number { @if let Some(value) = value { (figure(value, &difference.unit)) } @else { "not measured" } }
                    }
                    td.number { @if let Some(percent) = difference.change_percent { (change(percent)) } }
                    td class=(difference.verdict.name()) { (verdict(difference.verdict)) }
                } } }
            } }
            @for difference in &comparison.differences {
                @if let Some(note) = &difference.note { p.quiet { (difference.name) ": " (note) "." } }
            }
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
