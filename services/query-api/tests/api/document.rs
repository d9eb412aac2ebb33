use std::{env, fs, path::Path};

#[test]
fn the_description_that_is_checked_in_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let described = weir_query_api::document();
    if env::var_os("WEIR_REGENERATE").is_some() {
        fs::write(&path, described).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == described,
        "openapi.json is not up to date: run the tests with WEIR_REGENERATE=1 and look at the difference"
    );
}

#[test]
fn every_operation_tells_how_it_fails() {
    let document: serde_json::Value = serde_json::from_str(weir_query_api::document()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 10);
    let mut ids = std::collections::HashSet::new();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{method} {path}");
            let problem = &operation["responses"]["default"]["content"]["application/problem+json"];
            assert_eq!(problem["schema"]["$ref"], "#/components/schemas/Problem", "{method} {path}");
        }
    }
}
