//! `weir captures`: what is there, and what can be done with it.

mod change;
pub(crate) mod find;
pub(crate) mod follow;
pub(crate) mod packets;

use anyhow::Result;
use comfy_table::Cell;
use serde_json::Value;

use super::{moment, number, report, text};
use crate::api::{self, Api};
use crate::args::Report;
use crate::args::captures::{Captures, Command, List, Show};
use crate::output;

pub(crate) async fn run(captures: &Captures) -> Result<bool> {
    let Some(command) = &captures.command else { return list(&captures.list).await };
    match command {
        Command::List(options) => list(options).await,
        Command::Show(options) => show(options).await,
        Command::Report(options) => report::run(options).await,
        Command::Compare(options) => report::run(&Report::from(options)).await,
        Command::Packets(options) => packets::run(options).await,
        Command::Analyse(options) => change::analyse(options).await,
        Command::Cancel(options) => change::cancel(options).await,
        Command::Delete(options) => change::delete(options).await,
    }
}

async fn list(options: &List) -> Result<bool> {
    let api = Api::find(&options.api)?;
    let query = [("limit", options.limit)];
    let page: Value = api::json(api.send(api.get("/captures").query(&query)).await?).await?;
    if options.json {
        return output::json(&page).map(|()| true);
    }
    let items = page.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if items.is_empty() {
        eprintln!("weir: there is no capture yet: weir upload FILE");
    }
    table(items)?;
    if page.get("next_cursor").is_some_and(|cursor| !cursor.is_null()) {
        eprintln!("weir: there are more: --limit says how many are listed");
    }
    Ok(true)
}

/// Captures as a table.
pub(crate) fn table(captures: &[Value]) -> Result<()> {
    let mut table = output::table(&["name", "capture", "state", "packets", "bytes", "uploaded", "error"]);
    for capture in captures {
        table.add_row([
            Cell::new(text(capture, "name")),
            Cell::new(text(capture, "capture_id")),
            Cell::new(state(capture)),
            output::number(&number(capture, "packets")),
            output::number(&output::bytes(number(capture, "bytes"))),
            Cell::new(moment(capture, "uploaded_at")),
            Cell::new(text(capture, "error")),
        ]);
    }
    output::line(&table)
}

/// The state, and how far an analysis is.
fn state(capture: &Value) -> String {
    let (state, phase) = (text(capture, "state"), text(capture, "phase"));
    let percent = capture.get("progress").and_then(Value::as_f64).unwrap_or(0.0) * 100.0;
    match phase.as_str() {
        _ if capture.get("cancelling") == Some(&Value::Bool(true)) => format!("{state}, being cancelled"),
        "reading" => format!("{state}, {percent:.0} %"),
        "report" | "storing" => format!("{state}, {phase}"),
        _ => state,
    }
}

async fn show(options: &Show) -> Result<bool> {
    let api = Api::find(&options.api)?;
    let id = find::one(&api, &options.capture).await?;
    let capture: Value = api::json(api.send(api.get(&format!("/captures/{id}"))).await?).await?;
    if options.json {
        return output::json(&capture).map(|()| true);
    }
    for (name, value) in lines(&capture).into_iter().filter(|(_, value)| !value.is_empty()) {
        output::line(&format!("{name:<14}{value}"))?;
    }
    Ok(true)
}

fn lines(capture: &Value) -> Vec<(&'static str, String)> {
    let id = text(capture, "capture_id");
    let next = match text(capture, "state").as_str() {
        "done" => format!("weir report {id}"),
        "failed" => format!("weir captures analyse {id}, or weir captures delete {id}"),
        "queued" | "running" => format!("weir captures cancel {id}"),
        _ => String::new(),
    };
    vec![
        ("name", text(capture, "name")),
        ("capture", id),
        ("state", state(capture)),
        ("error", text(capture, "error")),
        ("size", output::bytes(number(capture, "size_bytes"))),
        ("sha256", text(capture, "sha256")),
        ("packets", number(capture, "packets").to_string()),
        ("bytes", output::bytes(number(capture, "bytes"))),
        ("first packet", moment(capture, "first_packet")),
        ("last packet", moment(capture, "last_packet")),
        ("uploaded", moment(capture, "uploaded_at")),
        ("finished", moment(capture, "finished_at")),
        ("expires", moment(capture, "expires_at")),
        ("next", next),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_says_how_far_it_is() {
        assert_eq!(state(&json!({ "state": "running", "phase": "reading", "progress": 0.5 })), "running, 50 %");
        assert_eq!(state(&json!({ "state": "running", "phase": "storing", "progress": 1 })), "running, storing");
        assert_eq!(
            state(&json!({ "state": "queued", "phase": "waiting", "cancelling": true })),
            "queued, being cancelled"
        );
        assert_eq!(state(&json!({ "state": "done", "phase": null, "progress": 1 })), "done");
    }
}
