//! `weir containers`.

use anyhow::Result;
use comfy_table::Cell;
use serde_json::Value;

use super::{moment, text};
use crate::api::{self, Api};
use crate::args::Containers;
use crate::output;

/// Characters of a container's id that tell it apart, as Docker shows it.
const SHORT_ID: usize = 12;

pub(crate) async fn list(options: &Containers) -> Result<bool> {
    let api = Api::find(&options.api)?;
    let mut query = vec![("limit", options.limit.to_string())];
    let chosen = [
        ("name", &options.name),
        ("label", &options.label),
        ("image", &options.image),
        ("network", &options.network),
        ("project", &options.project),
        ("state", &options.state),
    ];
    query.extend(chosen.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    let answer: Value = api::json(api.send(api.get("/containers").query(&query)).await?).await?;
    if options.json {
        return output::json(&answer).map(|()| true);
    }
    let mut table =
        output::table(&["id", "name", "image", "host", "state", "health", "addresses", "started", "finished", "exit"]);
    for container in answer.get("items").and_then(Value::as_array).into_iter().flatten() {
        let id: String = text(container, "container_id").chars().take(SHORT_ID).collect();
        table.add_row([
            Cell::new(id),
            Cell::new(text(container, "name")),
            Cell::new(text(container, "image")),
            Cell::new(text(container, "host")),
            Cell::new(text(container, "state")),
            Cell::new(text(container, "health")),
            Cell::new(text(container, "ip_addresses")),
            Cell::new(moment(container, "started_at")),
            Cell::new(moment(container, "finished_at")),
            output::number(&text(container, "exit_code")),
        ]);
    }
    output::line(&table)?;
    Ok(true)
}
