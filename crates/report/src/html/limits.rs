//! What a report cannot tell, and why.

use maud::{Markup, html};

use crate::Report;
use crate::text::{count, json};

pub(super) fn limits(report: &Report) -> Markup {
    let totals = &report.totals;
    let nothing = report.damage.is_none() && report.given_up.is_empty() && report.not_analysed.is_empty();
    html! {
        h2 #limits { "What this report does not know" }
        @if nothing { p { "Nothing: every packet was analysed, and no limit was reached." } }
        @if let Some(damage) = &report.damage {
            p { strong.worse { "The file is damaged" } " after packet " (count(damage.packets)) " (byte " (count(damage.offset)) " of the file): "
                (damage.reason) ". Nothing behind it was read." }
        }
        @if totals.cut_packets > 0 { p { "Of " (count(totals.cut_packets)) " packets the capture kept less than was on the wire." } }
        @if totals.clock_steps_back > 0 { p { "The clock stepped back " (count(totals.clock_steps_back)) " times." } }
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
