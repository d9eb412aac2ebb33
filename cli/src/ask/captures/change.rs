//! What changes a capture: another analysis, the end of one, the end of all.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::{find, follow, table};
use crate::api::{self, Api};
use crate::args::captures::{Analyse, Cancel, Delete};
use crate::ask::text;
use crate::output;

pub(super) async fn analyse(options: &Analyse) -> Result<bool> {
    let api = Api::find(&options.api)?;
    let id = find::one(&api, &options.capture).await?;
    let thresholds: Map<String, Value> =
        options.thresholds.iter().map(|(name, value)| (name.clone(), number(*value))).collect();
    let request = api.post(&format!("/captures/{id}/analyse")).json(&json!({ "thresholds": thresholds }));
    let capture: Value = api::json(api.send(request).await?).await?;
    let capture = if options.wait { followed(&api, &capture).await? } else { capture };
    shown(&capture, options.json)?;
    Ok(text(&capture, "state") != "failed")
}

/// Whole numbers without a fraction, as some thresholds want them.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 9e15 { json!(value as i64) } else { json!(value) }
}

pub(super) async fn cancel(options: &Cancel) -> Result<bool> {
    let api = Api::find(&options.api)?;
    let id = find::one(&api, &options.capture).await?;
    let capture: Value = api::json(api.send(api.post(&format!("/captures/{id}/cancel"))).await?).await?;
    let capture = if options.wait { followed(&api, &capture).await? } else { capture };
    shown(&capture, options.json).map(|()| true)
}

async fn followed(api: &Api, capture: &Value) -> Result<Value> {
    follow::follow(api, &text(capture, "capture_id"), &text(capture, "name"), &follow::bars()).await
}

fn shown(capture: &Value, json: bool) -> Result<()> {
    if json { output::json(capture) } else { table(std::slice::from_ref(capture)) }
}

pub(super) async fn delete(options: &Delete) -> Result<bool> {
    let api = Api::find(&options.api)?;
    let mut well = true;
    for capture in &options.captures {
        // The others are still to go.
        if let Err(error) = delete_one(&api, capture).await.with_context(|| format!("cannot delete {capture}")) {
            eprintln!("weir: {error:#}");
            well = false;
        }
    }
    Ok(well)
}

async fn delete_one(api: &Api, capture: &str) -> Result<()> {
    let id = find::only(api, capture).await?;
    api.send(api.delete(&format!("/captures/{id}"))).await?;
    output::line(&format!("deleted {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_stay_whole() {
        assert_eq!((number(50.0).to_string(), number(0.5).to_string()), ("50".to_owned(), "0.5".to_owned()));
    }
}
