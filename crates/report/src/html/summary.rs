//! What stands first: what the capture is, its figures at a glance, and how well the network does.

use maud::{Markup, html};

use super::charts;
use crate::text::{bits_per_second, bytes, count, duration, moment, short};
use crate::{Health, Report, Severity};

pub(super) fn about(report: &Report) -> Markup {
    let capture = &report.capture;
    // Files may have interfaces without a name.
    let names = capture.interfaces.iter().map(String::as_str);
    let interfaces: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    html! {
        p.quiet {
            (capture.format)
            @if !capture.compression.is_empty() { " in " (capture.compression) }
            ", " (bytes(capture.size_bytes as f64))
            @if !interfaces.is_empty() {
                ", " (if interfaces.len() == 1 { "interface " } else { "interfaces " }) (interfaces[..interfaces.len().min(8)].join(", "))
                @if interfaces.len() > 8 { " and " (interfaces.len() - 8) " more" }
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

pub(super) fn tiles(report: &Report) -> Markup {
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
            div { dt { "Critical · warnings" } dd { (of(Severity::Critical)) " · " (of(Severity::Warning)) } }
        }
    }
}

pub(super) fn health(report: &Report) -> Markup {
    html! {
        @if let Some(health) = &report.health {
            h2 #health { "Health" }
            (score(health))
            (not_judged("Not judged, and left out of the score", report))
        } @else if !report.not_judged.is_empty() {
            h2 #health { "Health" }
            p { strong { "There is no score." } " Nothing in this capture says how well the network does." }
            (not_judged("What it would be made of", report))
        }
    }
}

fn not_judged(title: &str, report: &Report) -> Markup {
    html! { @if !report.not_judged.is_empty() {
        p.quiet { (title) ":" }
        ul.quiet { @for part in &report.not_judged { li { (part.part) ": " (part.reason) } } }
    } }
}

fn score(health: &Health) -> Markup {
    html! {
        div.score {
            (charts::ring(health.score))
            div {
                @if let Some(class) = &health.y1541 {
                    p { strong { "ITU-T Y.1541 class " (class.class) } }
                    p.quiet { (class.basis) }
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
                td.number { (part.weight) } td.quiet.rule { (part.rule) }
            } } }
        } }
        p.quiet { "score = " (health.formula) }
    }
}
