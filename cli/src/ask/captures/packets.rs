//! `weir captures packets`: a capture, or a part of it, as a file.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Response;

use super::{find, follow};
use crate::api::Api;
use crate::args::{Usage, captures::Packets};
use crate::output;

pub(super) async fn run(options: &Packets) -> Result<bool> {
    if options.output.is_none() && io::stdout().is_terminal() {
        return Err(Usage(
            "packets are no text for a terminal: say --output FILE, or pipe them to another program".to_owned(),
        )
        .into());
    }
    let api = Api::find(&options.api)?;
    let capture = find::one(&api, &options.capture).await?;
    let mut query = Vec::new();
    let flow = options.flow.map(|flow| flow.to_string());
    for (name, value) in [("filter", &options.filter), ("flow_id", &flow), ("from", &options.from), ("to", &options.to)]
    {
        query.extend(value.as_ref().map(|value| (name, value)));
    }
    let answer = api.send(api.get(&format!("/captures/{capture}/packets")).query(&query)).await?;
    match &options.output {
        Some(path) => to_file(answer, path).await?,
        None => copy(answer, &mut io::stdout().lock()).await.map(drop)?,
    }
    Ok(true)
}

/// Whoever reads the file finds all of it or nothing.
pub(crate) async fn to_file(answer: Response, path: &Path) -> Result<()> {
    let unfinished = unfinished(path);
    let mut file =
        std::fs::File::create(&unfinished).with_context(|| format!("cannot write {}", unfinished.display()))?;
    let written = copy(answer, &mut file).await;
    let bytes = match written {
        Ok(bytes) => bytes,
        Err(error) => {
            // What is broken off is of no use; that it cannot be removed is the lesser trouble.
            let _ = std::fs::remove_file(&unfinished);
            return Err(error);
        }
    };
    std::fs::rename(&unfinished, path).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("weir: {} in {}", output::bytes(bytes), path.display());
    Ok(())
}

/// `x.pcapng.part` beside `x.pcapng`.
fn unfinished(path: &Path) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

async fn copy(mut answer: Response, to: &mut impl Write) -> Result<u64> {
    let bars = follow::bars();
    let bar = bars.add(match answer.content_length() {
        Some(length) => ProgressBar::new(length),
        None => ProgressBar::new_spinner(),
    });
    let template = if bar.length().is_some() {
        "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}"
    } else {
        "{spinner} {bytes} {bytes_per_sec}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let mut bytes = 0;
    while let Some(piece) = answer.chunk().await.context("the answer broke off: nothing of it is kept, try again")? {
        to.write_all(&piece)?;
        bytes += piece.len() as u64;
        bar.set_position(bytes);
    }
    to.flush()?;
    bar.finish_and_clear();
    Ok(bytes)
}
