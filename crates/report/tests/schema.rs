//! The schema that is checked in is that of the types. `WEIR_REGENERATE=1` writes it.

use std::path::Path;

#[test]
fn the_schema_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/report.schema.json");
    let mut schema = serde_json::to_string_pretty(&weir_report::schema()).expect("a schema has only strings as keys");
    schema.push('\n');
    if std::env::var_os("WEIR_REGENERATE").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), schema, "run this test with WEIR_REGENERATE=1");
}
