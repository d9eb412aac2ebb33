//! Which capture is meant.

use anyhow::Result;
use serde_json::Value;

use crate::api::{self, Api};
use crate::ask::text;

/// The id of a capture: the id itself, or that of the latest capture of this name.
pub(crate) async fn one(api: &Api, capture: &str) -> Result<String> {
    match named(api, capture, 1).await?.pop() {
        Some(id) => Ok(id),
        None => Err(unknown(capture)),
    }
}

/// The same where something is lost if another one is meant.
pub(super) async fn only(api: &Api, capture: &str) -> Result<String> {
    let mut ids = named(api, capture, usize::MAX).await?;
    anyhow::ensure!(
        ids.len() < 2,
        "{} captures are called {capture:?}: say which by its id: {}",
        ids.len(),
        ids.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ")
    );
    ids.pop().ok_or_else(|| unknown(capture))
}

fn unknown(capture: &str) -> anyhow::Error {
    anyhow::anyhow!("there is no capture with the id or the name {capture:?}: see weir captures list")
}

/// What an upload of the file of this path is called: the name has no directories.
fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The first ids of captures with this name, the latest first.
async fn named(api: &Api, capture: &str, limit: usize) -> Result<Vec<String>> {
    if is_id(capture) {
        return Ok(vec![capture.to_owned()]);
    }
    let name = file_name(capture);
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let mut query = vec![("limit", "1000")];
        if !cursor.is_empty() {
            query.push(("cursor", &cursor));
        }
        let page: Value = api::json(api.send(api.get("/captures").query(&query)).await?).await?;
        let items = page.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        ids.extend(items.iter().filter(|item| text(item, "name") == name).map(|item| text(item, "capture_id")));
        cursor = text(&page, "next_cursor");
        if ids.len() >= limit || cursor.is_empty() {
            ids.truncate(limit);
            return Ok(ids);
        }
    }
}

/// Whether this is a UUID in its usual form.
fn is_id(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_file_that_was_uploaded_names_its_capture() {
        for path in ["a.pcap", "./a.pcap", "/captures/of today/a.pcap", "../b/a.pcap"] {
            assert_eq!(file_name(path), "a.pcap");
        }
    }

    #[test]
    fn a_name_is_not_taken_for_an_id() {
        assert!(is_id("01890a5d-ac96-774b-bcce-b302099a8057"));
        assert!(
            !is_id("office.pcap")
                && !is_id("01890a5dac96774bbcceb302099a8057")
                && !is_id("x1890a5d-ac96-774b-bcce-b302099a8057")
        );
    }
}
