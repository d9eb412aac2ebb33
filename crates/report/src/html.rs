//! A report as one page: no script, nothing from elsewhere, light and dark, and good on paper.

use maud::html;

mod charts;
mod comparison;
mod findings;
mod limits;
mod page;
mod protocols;
mod summary;
mod tables;
mod tcp;
mod traffic;

pub use comparison::comparison;

use crate::Report;
use crate::text::count;

/// The report as a page.
#[must_use]
pub fn report(report: &Report) -> String {
    let title = format!("Report of {}", report.capture.name);
    page::page(
        &title,
        &html! {
            h1 { (title) }
            (summary::about(report))
            @if report.totals.packets == 0 { p { strong { "There is no packet in this capture." } } } @else {
                nav aria-label="Parts" {
                    @for (name, label, there) in sections(report) {
                        @if there { a href=(format!("#{name}")) { (label) } }
                    }
                }
                (summary::tiles(report))
            }
            (summary::health(report))
            @if report.totals.packets > 0 { (findings::findings("findings", "Findings", &report.findings)) }
            @if report.findings_left_out > 0 { p { (count(report.findings_left_out)) " further findings are left out." } }
            (traffic::timeline(report))
            @if report.totals.packets > 0 { (traffic::traffic(report)) }
            (tcp::tcp(report))
            (protocols::dns(report))
            (protocols::tls(report))
            (protocols::http(report))
            (traffic::streams(report))
            (limits::limits(report))
        },
    )
}

fn sections(report: &Report) -> [(&'static str, &'static str, bool); 9] {
    [
        ("health", "Health", report.health.is_some() || !report.not_judged.is_empty()),
        ("findings", "Findings", true),
        ("time", "Over time", traffic::has_timeline(report)),
        ("traffic", "Traffic", true),
        ("tcp", "TCP", report.tcp.is_some()),
        ("dns", "DNS", protocols::has_dns(report)),
        ("tls", "TLS", report.tls.client_hellos > 0),
        ("http", "HTTP", report.http.is_some()),
        ("limits", "What it does not know", true),
    ]
}
