//! The commands that ask the API.

pub(crate) mod capture;
pub(crate) mod captures;
pub(crate) mod containers;
pub(crate) mod flows;
pub(crate) mod query;
pub(crate) mod report;
pub(crate) mod upload;

use serde_json::Value;

/// The text of a JSON value in a cell: strings without quotes, nothing for null.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// The text of a member of an object; empty when it has none.
fn text(object: &Value, member: &str) -> String {
    object.get(member).map(cell).unwrap_or_default()
}

/// A moment without what nobody reads in a table: UTC to the millisecond; nothing for null and for 1970, which means never.
fn moment(object: &Value, member: &str) -> String {
    let text = text(object, member);
    if text.starts_with("1970-01-01T00:00:00") {
        return String::new();
    }
    text.replace('T', " ").trim_end_matches('Z').chars().take("2026-01-31 12:00:00.000".len()).collect()
}

/// A count that may be a JSON number or, as 64-bit integers often are, a string.
fn number(object: &Value, member: &str) -> u64 {
    match object.get(member) {
        Some(Value::Number(number)) => number.as_u64().unwrap_or_else(|| number.as_f64().unwrap_or(0.0) as u64),
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_hold_what_people_read() {
        let row = json!({ "at": "2026-01-31T12:00:00.123456Z", "never": "1970-01-01T00:00:00.000000Z", "none": null, "list": ["a", 1] });
        assert_eq!(moment(&row, "at"), "2026-01-31 12:00:00.123");
        assert_eq!(
            (moment(&row, "never"), moment(&row, "none"), text(&row, "list")),
            (String::new(), String::new(), "a, 1".into())
        );
        assert_eq!(number(&json!({ "n": "18446744073709551615" }), "n"), u64::MAX);
    }
}
