//! `weir report`: what the analysis of a capture found.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::text;
use crate::api::{self, Api};
use crate::args::{Report, ReportFormat};

pub(crate) async fn run(options: &Report) -> Result<bool> {
    let api = Api::find(&options.api)?;
    let capture = find(&api, &options.capture).await?;
    let format = if options.json { ReportFormat::Json } else { options.format };
    let mut query = vec![("format", format.name().to_owned())];
    if format == ReportFormat::Csv {
        query.push(("table", options.table.clone()));
    }
    if let Some(other) = &options.compare {
        query.push(("compare", find(&api, other).await?));
    }
    let answer = api.send(api.get(&format!("/captures/{capture}/report")).query(&query)).await?;
    let report = answer.bytes().await.context("the answer broke off")?;
    if let Some(path) = &options.output {
        std::fs::write(path, &report).with_context(|| format!("cannot write {}", path.display()))?;
    } else {
        let mut out = std::io::stdout().lock();
        out.write_all(&report)?;
        if !report.ends_with(b"\n") {
            out.write_all(b"\n")?;
        }
    }
    Ok(true)
}

/// The id of the capture that is meant.
async fn find(api: &Api, capture: &str) -> Result<String> {
    if is_id(capture) {
        return Ok(capture.to_owned());
    }
    let mut cursor = String::new();
    loop {
        let mut query = vec![("limit", "1000")];
        if !cursor.is_empty() {
            query.push(("cursor", &cursor));
        }
        let page: Value = api::json(api.send(api.get("/captures").query(&query)).await?).await?;
        let items = page.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        // The latest are first.
        if let Some(found) = items.iter().find(|item| text(item, "name") == capture) {
            return Ok(text(found, "capture_id"));
        }
        cursor = text(&page, "next_cursor");
        anyhow::ensure!(!cursor.is_empty(), "there is no capture with the id or the name {capture:?}");
    }
}

/// Whether this is a UUID in its usual form.
fn is_id(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_not_taken_for_an_id() {
        assert!(is_id("01890a5d-ac96-774b-bcce-b302099a8057"));
        assert!(
            !is_id("office.pcap")
                && !is_id("01890a5dac96774bbcceb302099a8057")
                && !is_id("x1890a5d-ac96-774b-bcce-b302099a8057")
        );
    }
}
