//! `weir status`: what each part says of itself now, beside what the supervisor knows of it.

use std::time::Duration;

use anyhow::Result;
use comfy_table::Cell;
use futures::future::join_all;
use serde::Serialize;
use tokio::time::Instant;

use crate::args::Status;
use crate::instance::{Instance, Part, PartState, State};
use crate::output;

/// How long a part may take to answer.
const PROBE: Duration = Duration::from_secs(2);

/// How often `--wait` asks.
const POLL: Duration = Duration::from_millis(250);

/// What a part's health endpoint said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Ready,
    /// It says why not.
    NotReady(String),
    /// It says nothing.
    Silent(String),
}

#[derive(Serialize)]
struct Report {
    running: bool,
    ready: bool,
    #[serde(flatten)]
    state: Option<State>,
}

pub(crate) async fn run(options: &Status) -> Result<bool> {
    let instance = Instance::find(&options.instance)?;
    let deadline = Instant::now() + Duration::from_secs(options.timeout);
    let mut poll = tokio::time::interval(POLL);
    loop {
        poll.tick().await;
        let report = look(&instance).await?;
        if report.ready || !options.wait || Instant::now() >= deadline {
            print(&instance, &report, options.json)?;
            return Ok(report.ready);
        }
    }
}

async fn look(instance: &Instance) -> Result<Report> {
    if instance.running()?.is_none() {
        return Ok(Report { running: false, ready: false, state: None });
    }
    let mut state = instance.state()?;
    if let Some(state) = &mut state {
        let client = reqwest::Client::new();
        join_all(state.parts.iter_mut().map(|part| refresh(&client, part))).await;
    }
    let ready = state.as_ref().is_some_and(|state| {
        state.parts.iter().all(|part| matches!(part.state, PartState::Ready | PartState::Off | PartState::External))
    });
    Ok(Report { running: true, ready, state })
}

/// Asks a part that should answer; what the supervisor wrote is up to two seconds old.
async fn refresh(client: &reqwest::Client, part: &mut Part) {
    let Some(health) = part.health.clone().filter(|_| part.pid.is_some()) else { return };
    match ask(client, &health).await {
        Answer::Ready => {
            part.state = PartState::Ready;
            part.reason = None;
        }
        Answer::NotReady(reason) | Answer::Silent(reason) => {
            if part.state == PartState::Ready {
                part.state = PartState::NotReady;
            }
            part.reason = Some(reason);
        }
    }
}

/// Asks one health endpoint.
pub(crate) async fn ask(client: &reqwest::Client, health: &str) -> Answer {
    let answer = match client.get(health).timeout(PROBE).send().await {
        Ok(answer) => answer,
        Err(error) if error.is_connect() => return Answer::Silent("does not listen yet".to_owned()),
        Err(error) if error.is_timeout() => {
            return Answer::Silent(format!("did not answer within {} s", PROBE.as_secs()));
        }
        Err(error) => return Answer::Silent(error.without_url().to_string()),
    };
    if answer.status().is_success() {
        return Answer::Ready;
    }
    let status = answer.status();
    let body = answer.text().await.unwrap_or_default();
    Answer::NotReady(reasons(&body).unwrap_or_else(|| format!("answers {status}")))
}

/// The unmet conditions of `{"ready": false, "conditions": {name: null | reason}}`, or the `error` of the body.
fn reasons(body: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    // As NATS says it.
    if let Some(error) = body.get("error").and_then(serde_json::Value::as_str) {
        return Some(error.to_owned());
    }
    let conditions = body.get("conditions")?.as_object()?;
    let unmet: Vec<_> = conditions
        .iter()
        .filter_map(|(name, reason)| {
            let reason = reason.as_str()?;
            Some(if reason.contains(name.as_str()) { reason.to_owned() } else { format!("{name}: {reason}") })
        })
        .collect();
    if unmet.is_empty() { Some("has not said what it waits for".to_owned()) } else { Some(unmet.join("; ")) }
}

fn print(instance: &Instance, report: &Report, json: bool) -> Result<()> {
    if json {
        return output::json(report);
    }
    let Some(state) = &report.state else {
        let dir = instance.root().display();
        return output::line(&if report.running {
            format!("`weir up` is starting on {dir}")
        } else {
            format!("nothing runs on {dir}; start it with `weir up`")
        });
    };
    let mut table = output::table(&["part", "state", "pid", "restarts", "why"]);
    for part in &state.parts {
        table.add_row([
            Cell::new(&part.name),
            Cell::new(part.state.as_str()),
            output::number(&part.pid.map_or_else(String::new, |pid| pid.to_string())),
            output::number(&part.restarts),
            Cell::new(why(part)),
        ]);
    }
    output::line(&table)?;
    output::line(&format!(
        "API {}   data {}   logs {}",
        state.api,
        instance.root().display(),
        instance.logs().display()
    ))
}

fn why(part: &Part) -> String {
    let last = part.last_exit.as_ref().map(|exit| format!("last exit: {exit}"));
    [part.reason.clone(), last].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unmet_conditions_are_the_reason() {
        let body =
            r#"{"ready":false,"conditions":{"nats":"connection refused","clickhouse":null,"docker":"docker is away"}}"#;
        assert_eq!(reasons(body).as_deref(), Some("docker is away; nats: connection refused"));
        assert_eq!(reasons(r#"{"ready":false,"conditions":{}}"#).as_deref(), Some("has not said what it waits for"));
        assert_eq!(reasons("<html>"), None);
    }
}
