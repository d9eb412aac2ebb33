//! Waiting for an analysis, with a bar for who watches.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use crate::api::{self, Api};
use crate::ask::{number, text};
use crate::output;

/// How often the state is asked for.
pub(crate) const POLL: Duration = Duration::from_millis(100);
/// Steps of the bar of an analysis.
pub(crate) const PROGRESS: u64 = 1000;

/// Bars on standard error; none where that is no terminal.
pub(crate) fn bars() -> MultiProgress {
    let bars = MultiProgress::new();
    if !std::io::stderr().is_terminal() {
        bars.set_draw_target(ProgressDrawTarget::hidden());
    }
    bars
}

/// One bar among others.
pub(crate) fn bar(bars: &MultiProgress, length: u64, name: &str, template: &str) -> ProgressBar {
    let bar = bars.add(ProgressBar::new(length).with_prefix(name.to_owned()));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Waits until the analysis of a capture has ended, and gives the capture.
pub(crate) async fn follow(api: &Api, id: &str, name: &str, bars: &MultiProgress) -> Result<Value> {
    let bar = bar(bars, PROGRESS, name, "{prefix:24!} {bar:30} {msg}");
    let ended = wait(api, id, &bar).await;
    bar.finish_and_clear();
    bars.remove(&bar);
    ended
}

async fn wait(api: &Api, id: &str, bar: &ProgressBar) -> Result<Value> {
    let mut poll = tokio::time::interval(POLL);
    loop {
        poll.tick().await;
        if let Some(capture) = look(api, id, bar).await? {
            return Ok(capture);
        }
    }
}

/// Asks how far a capture is, and gives it when it has come to its end.
pub(crate) async fn look(api: &Api, id: &str, bar: &ProgressBar) -> Result<Option<Value>> {
    let capture: Value = api::json(api.send(api.get(&format!("/captures/{id}"))).await?).await?;
    let (state, phase) = (text(&capture, "state"), text(&capture, "phase"));
    let what = if phase.is_empty() { &state } else { &phase };
    bar.set_message(format!("{what}, {} packets", output::count(number(&capture, "packets"))));
    let progress = capture.get("progress").and_then(Value::as_f64).unwrap_or(0.0);
    bar.set_position((progress.clamp(0.0, 1.0) * PROGRESS as f64) as u64);
    Ok((!matches!(state.as_str(), "queued" | "running")).then_some(capture))
}
