//! `weir capture`: has a host record packets, and with `--wait` follows it to the end of its analysis.

use anyhow::Result;
use comfy_table::Cell;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::captures::{
    follow::{POLL, PROGRESS, bar, bars, look},
    packets::to_file,
};
use super::{number, text};
use crate::api::{self, Api};
use crate::args::Capture;
use crate::output;

/// True = it is recorded and, with `--wait`, analysed.
pub(crate) async fn run(options: &Capture) -> Result<bool> {
    let api = Api::find(&options.api)?;
    let mut body = json!({
        "host": options.host.clone().unwrap_or_else(hostname),
        "filter": options.filter,
        "duration_seconds": options.duration,
        "snap_length": options.snap_length,
    });
    if let Some(bytes) = options.max_bytes {
        body["max_bytes"] = bytes.into();
    }
    if let Some(name) = &options.name {
        body["name"] = name.as_str().into();
    }
    // Heard from the first moment, and remembered until it is looked for.
    let mut interrupts =
        if options.wait || options.output.is_some() { Some(signal(SignalKind::interrupt())?) } else { None };
    let mut capture: Value = api::json(api.send(api.post("/captures/live").json(&body)).await?).await?;
    let id = text(&capture, "capture_id");
    if let Some(interrupts) = &mut interrupts {
        capture = follow(&api, &id, interrupts).await?;
    }
    let well = text(&capture, "state") != "failed";
    if let (Some(path), Some(interrupts), true) = (options.output.as_deref(), &mut interrupts, well) {
        let download = async { to_file(api.send(api.get(&format!("/captures/{id}/packets"))).await?, path).await };
        tokio::select! {
            done = download => done?,
            Some(()) = interrupts.recv() => anyhow::bail!("interrupted; the capture is kept as {id}"),
        }
    }
    if options.json {
        output::line(&capture)?;
    } else {
        print(&capture)?;
    }
    Ok(well)
}

/// Waits for the end. The first Ctrl-C ends the recording, and what it has is analysed; the second one ends the waiting.
async fn follow(api: &Api, id: &str, interrupts: &mut Signal) -> Result<Value> {
    let bars = bars();
    let bar = bar(&bars, PROGRESS, "recording", "{prefix:24!} {bar:30} {msg}");
    let mut poll = tokio::time::interval(POLL);
    let mut stopped = false;
    loop {
        tokio::select! {
            _ = poll.tick() => {}
            Some(()) = interrupts.recv() => {
                if stopped {
                    anyhow::bail!("interrupted; the capture goes on as {id}");
                }
                stopped = true;
                // One that has ended by now goes on as it would.
                let answer = api.send(api.post(&format!("/captures/{id}/stop"))).await;
                bar.set_message(answer.map_or_else(|error| format!("{error:#}"), |_| "stopping".to_owned()));
                continue;
            }
        }
        if let Some(capture) = look(api, id, &bar).await? {
            bar.finish_and_clear();
            return Ok(capture);
        }
    }
}

fn print(capture: &Value) -> Result<()> {
    let recording = capture.get("recording").cloned().unwrap_or_default();
    let mut table = output::table(&["name", "capture", "host", "state", "packets", "lost", "bytes", "ended", "error"]);
    table.add_row([
        Cell::new(text(capture, "name")),
        Cell::new(text(capture, "capture_id")),
        Cell::new(text(&recording, "host")),
        Cell::new(text(capture, "state")),
        output::number(&number(capture, "packets")),
        output::number(&number(&recording, "lost_packets")),
        output::number(&output::bytes(number(capture, "size_bytes"))),
        Cell::new(text(&recording, "ended")),
        Cell::new(text(capture, "error")),
    ]);
    output::line(&table)
}

/// As the services name this host when nobody says.
fn hostname() -> String {
    let name = std::env::var("WEIR_HOST").ok().filter(|name| !name.is_empty());
    let name = name.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}
