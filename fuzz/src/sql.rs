//! SQL of strangers, and what the engine says about it.

use weir_query_api::sql::{check, prepare};

/// A statement, and after the first zero byte the lines of the tree that the engine made of it.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (statement, tree) = text.split_once('\0').unwrap_or((text, ""));
    let Ok(prepared) = prepare(statement) else { return };
    assert!(statement.contains(prepared));
    let word: String = prepared.chars().take_while(char::is_ascii_alphabetic).collect::<String>().to_ascii_uppercase();
    let known = ["SELECT", "WITH", "EXPLAIN", "DESCRIBE", "DESC", "SHOW", "EXISTS"];
    assert!(known.contains(&word.as_str()) || prepared.starts_with('('), "{prepared}");
    assert_eq!(prepare(prepared), Ok(prepared), "what is prepared stays as it is");
    if check(prepared, tree.split('\n')).is_ok() {
        for name in ["file", "url", "remote", "s3", "executable"] {
            let called = tree.lines().any(|line| {
                let mut words = line.trim_start_matches(' ').split(' ');
                words.next() == Some("Function") && words.next() == Some(name)
            });
            assert!(!called, "{name} is let through");
        }
    }
}
