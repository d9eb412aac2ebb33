//! `weir report`: what the analysis of a capture found.

use std::io::Write as _;

use anyhow::{Context as _, Result};

use super::captures::find;
use crate::api::Api;
use crate::args::{Report, ReportFormat};

pub(crate) async fn run(options: &Report) -> Result<bool> {
    let api = Api::find(&options.api)?;
    let capture = find::one(&api, &options.capture).await?;
    let format = if options.json { ReportFormat::Json } else { options.format };
    let mut query = vec![("format", format.name().to_owned())];
    if format == ReportFormat::Csv {
        query.push(("table", options.table.clone()));
    }
    if let Some(other) = &options.compare {
        query.push(("compare", find::one(&api, other).await?));
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
