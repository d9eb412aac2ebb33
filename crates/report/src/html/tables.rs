//! The tables that the parts of a report are made of.

use maud::{Markup, html};

use crate::text::{count, duration};
use crate::{CodeCount, NameCount, Spread};

/// One row: a name, and figures; the bar is the share of the largest.
pub(super) struct Row {
    name: String,
    figures: Vec<String>,
    share: f64,
}

pub(super) fn bars(caption: &str, heads: &[&str], rows: Vec<Row>) -> Markup {
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
pub(super) fn rows<T>(items: &[T], weight: impl Fn(&T) -> u64, row: impl Fn(&T) -> (String, Vec<String>)) -> Vec<Row> {
    let most = items.iter().map(&weight).max().unwrap_or(0).max(1) as f64;
    let made = items.iter().map(|item| {
        let (name, figures) = row(item);
        Row { name, figures, share: weight(item) as f64 / most }
    });
    made.collect()
}

pub(super) fn plain(caption: &str, pairs: &[(&str, String)]) -> Markup {
    html! {
        table {
            caption { (caption) }
            tbody { @for (name, value) in pairs { tr { th scope="row" { (name) } td.number { (value) } } } }
        }
    }
}

pub(super) fn spreads(spreads: &[(&str, Option<Spread>)]) -> Markup {
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

pub(super) fn names(caption: &str, head: &str, names: &[NameCount]) -> Markup {
    let shown = |name: &NameCount| if name.value.is_empty() { "(none)".to_owned() } else { name.value.clone() };
    bars(caption, &[head, "count"], rows(names, |name| name.count, |name| (shown(name), vec![count(name.count)])))
}

pub(super) fn codes(caption: &str, head: &str, codes: &[CodeCount], name: impl Fn(u16) -> String) -> Markup {
    bars(caption, &[head, "count"], rows(codes, |code| code.count, |code| (name(code.value), vec![count(code.count)])))
}
