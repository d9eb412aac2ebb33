//! The lists of functions, read once from `functions.txt`.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

/// The file.
const FILE: &str = include_str!("functions.txt");

static LISTS: LazyLock<Lists> = LazyLock::new(|| Lists::parse(FILE));

/// What a function's name says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may be called.
    Allowed,
    /// The engine has it and it may not be called, for this reason.
    Refused(&'static str),
    /// It is on no list.
    Unknown,
}

#[derive(Default)]
struct Lists {
    allowed: HashSet<&'static str>,
    aggregates: HashSet<&'static str>,
    combinators: Vec<&'static str>,
    tables: HashSet<&'static str>,
    refused: HashMap<&'static str, &'static str>,
}

/// What is to be thought of a scalar or aggregate function.
pub(super) fn standing(name: &str) -> Standing {
    let name = name.to_ascii_lowercase();
    if LISTS.allowed.contains(name.as_str()) || LISTS.is_aggregate(&name) {
        Standing::Allowed
    } else if let Some(reason) = LISTS.refused.get(name.as_str()) {
        Standing::Refused(reason)
    } else {
        Standing::Unknown
    }
}

/// Whether a table function may be used.
pub(super) fn is_table_allowed(name: &str) -> bool {
    LISTS.tables.contains(name.to_ascii_lowercase().as_str())
}

impl Lists {
    fn parse(file: &'static str) -> Self {
        let mut lists = Self::default();
        let mut section = "";
        for line in file.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']');
            } else if !line.starts_with('#') {
                let names = line.split_ascii_whitespace();
                match section {
                    "allowed" => lists.allowed.extend(names),
                    "aggregate" => lists.aggregates.extend(names),
                    "combinator" => lists.combinators.extend(names),
                    "table" => lists.tables.extend(names),
                    refused => {
                        let reason = refused.strip_prefix("refused: ").unwrap_or(refused);
                        lists.refused.extend(names.map(|name| (name, reason)));
                    }
                }
            }
        }
        lists
    }

    /// `sum`, `sumIf`, `quantileMergeState`, ...
    fn is_aggregate(&self, name: &str) -> bool {
        self.aggregates.contains(name)
            || self.combinators.iter().any(|combinator| {
                name.strip_suffix(combinator).is_some_and(|base| !base.is_empty() && self.is_aggregate(base))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_function_is_both_allowed_and_refused() {
        for name in LISTS.refused.keys() {
            assert!(!LISTS.allowed.contains(name) && !LISTS.is_aggregate(name), "{name}");
        }
    }

    #[test]
    fn names_are_known_in_any_case_and_with_combinators() {
        for name in ["count", "COUNT", "countIf", "quantilesTDigestArrayIf", "sumMap", "if", "toStartOfMinute"] {
            assert_eq!(standing(name), Standing::Allowed, "{name}");
        }
        for name in ["file", "FILE", "sleepEachRow", "dictGetUInt64", "hostName"] {
            assert!(matches!(standing(name), Standing::Refused(_)), "{name}");
        }
        for name in ["fileIf", "If", "fıle", "my_udf", "numbers", ""] {
            let expected = if name == "If" { Standing::Allowed } else { Standing::Unknown };
            assert_eq!(standing(name), expected, "{name}");
        }
        assert!(is_table_allowed("numbers") && !is_table_allowed("file") && !is_table_allowed("url"));
    }
}
