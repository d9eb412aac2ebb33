//! The file with the hooks.

use std::path::{Path, PathBuf};

use axum::http::Uri;
use serde::{Deserialize, Deserializer};

use crate::events::Wanted;

/// Most hooks.
const MAX_HOOKS: usize = 32;

/// A file of webhooks that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{path} is no list of webhooks")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A hook that cannot be used.
    #[error("webhook {name:?}: {reason}")]
    Hook {
        /// Its name.
        name: String,
        /// Why.
        reason: &'static str,
    },
}

/// Where events go.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hook {
    /// Names its place and its dead letters; it should not change.
    pub(crate) name: String,
    #[serde(deserialize_with = "url")]
    pub(crate) url: Uri,
    /// Signs each request.
    pub(crate) secret: String,
    #[serde(default)]
    pub(crate) filter: Wanted,
    /// File with the only authorities (PEM) whose certificates the receiver may have; without it those that Mozilla trusts.
    #[serde(default)]
    pub(crate) ca_file: Option<PathBuf>,
    /// Tries of one event.
    #[serde(default = "attempts")]
    pub(crate) attempts: u32,
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

fn attempts() -> u32 {
    8
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    webhooks: Vec<Hook>,
}

/// Reads the hooks; none without a file, and none in an empty one.
pub(crate) fn read(path: Option<&Path>) -> Result<Vec<Hook>, FileError> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = std::fs::read_to_string(path).map_err(|source| FileError::Read { path: path.to_owned(), source })?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    parse(&text).map_err(|error| match error {
        Wrong::Parse(source) => FileError::Parse { path: path.to_owned(), source },
        Wrong::Hook(name, reason) => FileError::Hook { name, reason },
    })
}

enum Wrong {
    Parse(serde_json::Error),
    Hook(String, &'static str),
}

fn parse(text: &str) -> Result<Vec<Hook>, Wrong> {
    let hooks = serde_json::from_str::<File>(text).map_err(Wrong::Parse)?.webhooks;
    for (index, hook) in hooks.iter().enumerate() {
        let reason = if hook.name.is_empty() || hook.name.len() > 64 {
            "a name has 1 to 64 bytes"
        } else if hooks[..index].iter().any(|other| other.name == hook.name) {
            "two have this name"
        } else if !is_address(&hook.url) {
            "the URL should be http or https, without a user"
        } else if hook.secret.len() < 16 {
            "the secret has at least 16 bytes"
        } else if !(1..=20).contains(&hook.attempts) {
            "attempts are 1 to 20"
        } else if index >= MAX_HOOKS {
            "there are at most 32"
        } else {
            continue;
        };
        return Err(Wrong::Hook(hook.name.clone(), reason));
    }
    Ok(hooks)
}

fn is_address(url: &Uri) -> bool {
    let scheme = url.scheme_str().is_some_and(|scheme| ["http", "https"].contains(&scheme));
    scheme && url.authority().is_some_and(|authority| !authority.as_str().contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_has_a_name_an_address_and_a_secret() {
        let read = |hook: serde_json::Value| parse(&serde_json::json!({ "webhooks": [hook] }).to_string());
        let good = serde_json::json!({"name": "pager", "url": "https://example.com/x", "secret": "0123456789abcdef", "filter": {"actions": ["oom"]}});
        assert_eq!(read(good.clone()).ok().map(|hooks| (hooks.len(), hooks[0].attempts)), Some((1, 8)));
        for (field, value) in [
            ("name", serde_json::json!("")),
            ("url", serde_json::json!("ftp://example.com")),
            ("url", serde_json::json!("http://user@example.com")),
            ("secret", serde_json::json!("short")),
            ("attempts", serde_json::json!(0)),
            ("colour", serde_json::json!("red")),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert!(read(bad).is_err(), "{field}");
        }
    }
}
