//! The JSON schema of a report, made from its types.

use serde_json::{Value, json};
use utoipa::openapi::{RefOr, schema::Schema};
use utoipa::{PartialSchema as _, ToSchema as _};

use crate::Report;

/// JSON Schema (2020-12) of [`Report`]; checked in as `docs/reference/report.schema.json`.
#[must_use]
pub fn schema() -> Value {
    let mut parts: Vec<(String, RefOr<Schema>)> = Vec::new();
    Report::schemas(&mut parts);
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    let mut schema = json!(Report::schema());
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Report of a capture".into();
    schema["$defs"] =
        parts.into_iter().map(|(name, part)| (name, json!(part))).collect::<serde_json::Map<_, _>>().into();
    local(&mut schema);
    schema
}

/// Points references at the schema itself.
fn local(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get_mut("$ref") {
                *reference = reference.replace("#/components/schemas/", "#/$defs/");
            }
            members.values_mut().for_each(local);
        }
        Value::Array(items) => items.iter_mut().for_each(local),
        _ => {}
    }
}
