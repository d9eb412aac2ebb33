//! `weir upload`: streams capture files to the API and, with `--wait`, follows their analysis.

use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::Cell;
use futures::{StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Body;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde_json::Value;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio_util::io::ReaderStream;

use super::{number, text};
use crate::api::{self, Api};
use crate::args::Upload;
use crate::output;

/// How often `--wait` asks for the state.
const POLL: Duration = Duration::from_millis(100);

/// Steps of the bar of an analysis.
const PROGRESS: u64 = 1000;

/// True = all files were taken and, with `--wait`, analysed.
pub(crate) async fn run(options: &Upload) -> Result<bool> {
    let api = Api::find(&options.api)?;
    let mut captures = Vec::new();
    let mut well = true;
    for file in &options.files {
        match one(&api, file, options.wait).await.with_context(|| format!("cannot upload {}", file.display())) {
            Ok(capture) => {
                well &= text(&capture, "state") != "failed";
                if options.json {
                    output::line(&capture)?;
                }
                captures.push(capture);
            }
            // The other files are still wanted.
            Err(error) => {
                eprintln!("weir: {error:#}");
                well = false;
            }
        }
    }
    if !options.json && !captures.is_empty() {
        print(&captures)?;
    }
    Ok(well)
}

async fn one(api: &Api, path: &Path, wait: bool) -> Result<Value> {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let capture = send(api, path, &name).await?;
    if !wait {
        return Ok(capture);
    }
    let id = text(&capture, "capture_id");
    follow(api, &id, &name).await
}

async fn send(api: &Api, path: &Path, name: &str) -> Result<Value> {
    let file = File::open(path).await?;
    let metadata = file.metadata().await?;
    anyhow::ensure!(metadata.is_file(), "it is not a file");
    let bar = bar(metadata.len(), name, "{prefix} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let progress = bar.clone();
    // A file that grows meanwhile is sent as long as it was.
    let file = file.take(metadata.len());
    let stream =
        ReaderStream::with_capacity(file, 256 * 1024).inspect_ok(move |chunk| progress.inc(chunk.len() as u64));
    let request = api
        .post("/captures")
        .query(&[("name", name)])
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(CONTENT_LENGTH, metadata.len())
        .body(Body::wrap_stream(stream.boxed()));
    let answer = api.send(request).await;
    bar.finish_and_clear();
    api::json(answer?).await
}

async fn follow(api: &Api, id: &str, name: &str) -> Result<Value> {
    let bar = bar(PROGRESS, name, "{prefix} {bar:30} {msg}");
    let mut poll = tokio::time::interval(POLL);
    loop {
        poll.tick().await;
        let capture: Value = api::json(api.send(api.get(&format!("/captures/{id}"))).await?).await?;
        let state = text(&capture, "state");
        bar.set_message(format!("{state}, {} packets", output::count(number(&capture, "packets"))));
        let progress = capture.get("progress").and_then(Value::as_f64).unwrap_or(0.0);
        bar.set_position((progress.clamp(0.0, 1.0) * PROGRESS as f64) as u64);
        if !matches!(state.as_str(), "queued" | "running") {
            bar.finish_and_clear();
            return Ok(capture);
        }
    }
}

fn bar(length: u64, name: &str, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length).with_prefix(name.to_owned());
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn print(captures: &[Value]) -> Result<()> {
    let mut table = output::table(&["name", "capture", "state", "packets", "bytes", "error"]);
    for capture in captures {
        table.add_row([
            Cell::new(text(capture, "name")),
            Cell::new(text(capture, "capture_id")),
            Cell::new(text(capture, "state")),
            output::number(&number(capture, "packets")),
            output::number(&output::bytes(number(capture, "bytes"))),
            Cell::new(text(capture, "error")),
        ]);
    }
    output::line(&table)
}
