//! `weir upload`: streams capture files to the API and, with `--wait`, follows their analysis.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::MultiProgress;
use reqwest::Body;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde_json::Value;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio_util::io::ReaderStream;

use super::captures::follow::{bar, bars, follow};
use super::{captures, text};
use crate::api::{self, Api};
use crate::args::Upload;
use crate::output;

/// Files on their way at one time: the API takes 8 from all of its clients, unless it is told otherwise.
const SENDING: usize = 4;
/// Files that are sent or followed at one time. A worker has one capture in hand, the others wait there and not here.
const IN_HAND: usize = 16;

/// What an upload needs besides its file.
struct Uploads {
    api: Api,
    bars: MultiProgress,
    sending: Semaphore,
    wait: bool,
}

/// True = all files were taken and, with `--wait`, analysed.
pub(crate) async fn run(options: &Upload) -> Result<bool> {
    let uploads = Arc::new(Uploads {
        api: Api::find(&options.api)?,
        bars: bars(),
        sending: Semaphore::new(SENDING),
        wait: options.wait,
    });
    let files = options.files.iter().enumerate().map(|(place, file)| {
        let uploads = Arc::clone(&uploads);
        async move { (place, uploads.one(file).await.with_context(|| format!("cannot upload {}", file.display()))) }
    });
    let total = bar(&uploads.bars, options.files.len() as u64, "", "{pos} of {len} files");
    let mut ended = stream::iter(files).buffer_unordered(IN_HAND);
    let mut captures = Vec::new();
    let mut well = true;
    while let Some((place, result)) = ended.next().await {
        total.inc(1);
        match result {
            Ok(capture) => {
                well &= text(&capture, "state") != "failed";
                if options.json {
                    uploads.bars.suspend(|| output::line(&capture))?;
                }
                captures.push((place, capture));
            }
            // The other files are still wanted.
            Err(error) => {
                uploads.bars.suspend(|| eprintln!("weir: {error:#}"));
                well = false;
            }
        }
    }
    total.finish_and_clear();
    if !options.json && !captures.is_empty() {
        captures.sort_by_key(|(place, _)| *place);
        let captures: Vec<Value> = captures.into_iter().map(|(_, capture)| capture).collect();
        captures::table(&captures)?;
    }
    Ok(well)
}

impl Uploads {
    async fn one(&self, path: &Path) -> Result<Value> {
        let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let capture = {
            let _place = self.sending.acquire().await?;
            self.send(path, &name).await?
        };
        if !self.wait {
            return Ok(capture);
        }
        follow(&self.api, &text(&capture, "capture_id"), &name, &self.bars).await
    }

    async fn send(&self, path: &Path, name: &str) -> Result<Value> {
        let file = File::open(path).await?;
        let metadata = file.metadata().await?;
        anyhow::ensure!(metadata.is_file(), "it is not a file");
        let template = "{prefix:24!} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        let bar = bar(&self.bars, metadata.len(), name, template);
        let progress = bar.clone();
        // A file that grows meanwhile is sent as long as it was.
        let file = file.take(metadata.len());
        let stream =
            ReaderStream::with_capacity(file, 256 * 1024).inspect_ok(move |chunk| progress.inc(chunk.len() as u64));
        let request = self
            .api
            .post("/captures")
            .query(&[("name", name)])
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, metadata.len())
            .body(Body::wrap_stream(stream.boxed()));
        let answer = self.api.send(request).await;
        bar.finish_and_clear();
        self.bars.remove(&bar);
        api::json(answer?).await
    }
}
