//! The text of a statement before it is parsed.

use super::Refused;

/// The statement from its first word on, without the comments before it.
///
/// `EXPLAIN AST` will stand before exactly this text, so it must begin with a keyword that begins a statement: a text such as
/// `optimize = 1 SELECT ...` would be read as settings of the `EXPLAIN`.
pub fn prepare(sql: &str) -> Result<&str, Refused> {
    let sql = skip_comments(sql);
    if sql.is_empty() || sql == ";" {
        return Err(Refused::Empty);
    }
    let end = sql.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(sql.len());
    let word = sql[..end].to_ascii_uppercase();
    let next = sql[end..].chars().next();
    // A longer word, such as SELECT1 or WITHx.
    let whole = !next.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$');
    match word.as_str() {
        "SELECT" | "WITH" | "EXPLAIN" | "DESCRIBE" | "DESC" | "SHOW" | "EXISTS" if whole => Ok(sql),
        "" if sql.starts_with('(') => Ok(sql),
        "" => Err(Refused::Statement(format!("a statement that begins with {:?}", next.unwrap_or(' ')))),
        _ => Err(Refused::Statement(word.chars().take(40).collect())),
    }
}

/// Whether the statement is nothing but these words.
pub(super) fn is_exactly(sql: &str, words: &[&str]) -> bool {
    sql.trim_end_matches(';').split_ascii_whitespace().map(str::to_ascii_uppercase).eq(words.iter().copied())
}

fn skip_comments(mut sql: &str) -> &str {
    loop {
        sql = sql.trim();
        let rest = if sql.starts_with("--") {
            sql.split_once('\n').map_or("", |(_, rest)| rest)
        } else if let Some(comment) = sql.strip_prefix("/*") {
            comment.split_once("*/").map_or("", |(_, rest)| rest)
        } else {
            return sql;
        };
        sql = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_begins_with_a_keyword_that_reads() {
        for sql in [
            "SELECT 1",
            " select\n1",
            "-- why\nSELECT 1",
            "/* a */ -- b\n WITH 1 AS x SELECT x",
            "(SELECT 1)",
            "SELECT*FROM t",
        ] {
            assert!(prepare(sql).is_ok(), "{sql}");
        }
        for sql in [
            "",
            " ;",
            "-- only",
            "/* open",
            "optimize = 1 SELECT 1",
            "SELECT1",
            "AST SELECT 1",
            "INSERT INTO t VALUES (1)",
            "@",
            "sélect",
        ] {
            assert!(prepare(sql).is_err(), "{sql}");
        }
        assert_eq!(prepare("drop table flows"), Err(Refused::Statement("DROP".into())));
    }

    #[test]
    fn what_is_sent_begins_where_the_statement_begins() {
        assert_eq!(prepare("/* optimize=1 */ SELECT 1 -- end").unwrap(), "SELECT 1 -- end");
    }
}
