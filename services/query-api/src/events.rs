//! Which events are wanted: the same choice for who follows and for webhooks.

use serde::Deserialize;
use serde_json::Value;

use crate::feed::Row;

/// Conditions on an event, all of which must hold; an empty list is none. Of a list one must fit, of `labels` all. `*` stands for anything.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Wanted {
    pub(crate) actions: Vec<String>,
    /// Names.
    pub(crate) containers: Vec<String>,
    pub(crate) images: Vec<String>,
    /// `key` or `key=value`.
    pub(crate) labels: Vec<String>,
    /// Of compose.
    pub(crate) projects: Vec<String>,
    pub(crate) hosts: Vec<String>,
}

impl Wanted {
    /// Whether an event is wanted.
    pub(crate) fn fits(&self, row: &Row) -> bool {
        let text = |column: &str| row.columns.get(column).and_then(Value::as_str).unwrap_or_default();
        let label = |key: &str| row.columns.get("labels").and_then(|labels| labels.get(key)).and_then(Value::as_str);
        let project = label("com.docker.compose.project").or_else(|| label("io.podman.compose.project"));
        any(&self.actions, text("action"))
            && any(&self.containers, text("name"))
            && any(&self.images, text("image"))
            && any(&self.projects, project.unwrap_or_default())
            && any(&self.hosts, &row.host)
            && self.labels.iter().all(|wanted| match wanted.split_once('=') {
                Some((key, pattern)) => label(key).is_some_and(|value| matches(pattern, value)),
                None => label(wanted).is_some(),
            })
    }
}

fn any(patterns: &[String], text: &str) -> bool {
    patterns.is_empty() || patterns.iter().any(|pattern| matches(pattern, text))
}

/// Whether a text fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_conditions_must_hold_and_of_a_list_one() {
        let row: Row = serde_json::from_value(serde_json::json!({
            "feed_at": 1, "feed_sequence": 2, "host": "h", "container_id": "c", "action": "die", "name": "web-1", "image": "shop:1",
            "labels": {"team": "a", "com.docker.compose.project": "shop"}
        }))
        .unwrap();
        let fits = |json: Value| serde_json::from_value::<Wanted>(json).unwrap().fits(&row);
        assert!(fits(serde_json::json!({})));
        assert!(fits(
            serde_json::json!({"actions": ["oom", "die"], "containers": ["web-*"], "labels": ["team=a"], "hosts": ["h"]})
        ));
        for json in [
            serde_json::json!({"actions": ["oom"]}),
            serde_json::json!({"actions": ["die"], "projects": ["other"]}),
            serde_json::json!({"labels": ["team", "tier"]}),
            serde_json::json!({"images": ["shop"]}),
        ] {
            assert!(!fits(json.clone()), "{json}");
        }
        assert!(serde_json::from_value::<Wanted>(serde_json::json!({"colour": []})).is_err());
        assert!(matches("a*b*c", "a-b-b-c") && !matches("a*b*c", "a-c") && !matches("*a*a", "a"));
    }
}
