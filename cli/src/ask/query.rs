//! `weir query`: read-only SQL.

use std::io::Write;

use anyhow::{Context, Result};
use comfy_table::{Cell, CellAlignment};
use futures::TryStreamExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::cell;
use crate::api::{self, Api};
use crate::args::{Format, Query};
use crate::output;

/// An answer in the format `json`: one object a row, keyed by column.
#[derive(Deserialize)]
struct Answer {
    meta: Vec<Column>,
    data: Vec<Value>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

pub(crate) async fn run(options: &Query) -> Result<bool> {
    let api = Api::find(&options.api)?;
    let format = if options.json { Format::Json } else { options.format };
    let body = json!({ "sql": options.sql, "format": name(format) });
    let answer = api.send(api.post("/query").json(&body)).await?;
    if format == Format::Table {
        return print(&api::json(answer).await?).map(|()| true);
    }
    let mut chunks = answer.bytes_stream();
    let mut out = std::io::stdout().lock();
    while let Some(chunk) = chunks.try_next().await.context("the answer broke off")? {
        out.write_all(&chunk)?;
    }
    if format == Format::Json {
        writeln!(out)?;
    }
    out.flush()?;
    Ok(true)
}

fn name(format: Format) -> &'static str {
    match format {
        Format::Table | Format::Json => "json",
        Format::Ndjson => "ndjson",
        Format::Csv => "csv",
        Format::Parquet => "parquet",
        Format::Arrow => "arrow",
    }
}

fn print(answer: &Answer) -> Result<()> {
    let names: Vec<_> = answer.meta.iter().map(|column| column.name.as_str()).collect();
    let mut table = output::table(&names);
    // Names of columns are the user's own: as they are.
    table.set_header(&names);
    for row in &answer.data {
        table.add_row(answer.meta.iter().map(|column| {
            let text = row.get(&column.name).map(cell).unwrap_or_default();
            let right = ["Int", "UInt", "Float", "Decimal"]
                .iter()
                .any(|kind| column.kind.trim_start_matches("Nullable(").starts_with(kind));
            Cell::new(text).set_alignment(if right { CellAlignment::Right } else { CellAlignment::Left })
        }));
    }
    output::line(&table)?;
    match answer.data.len() {
        1 => eprintln!("1 row"),
        rows => eprintln!("{rows} rows"),
    }
    Ok(())
}
