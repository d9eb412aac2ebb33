//! What a report cannot tell, and why.

use maud::{Markup, html};

use crate::Report;
use crate::remarks::{comments, remarks};
use crate::text::{count, json};

pub(super) fn limits(report: &Report) -> Markup {
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
