//! What goes to standard output: tables for people, JSON for programs.

use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table};
use serde::Serialize;

/// A table without lines, whose columns are as wide as what stands in them. Into a pipe it is never wrapped.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header.iter().map(|name| name.to_uppercase()));
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table
}

/// A cell that is aligned to the right.
pub(crate) fn number(value: &impl ToString) -> Cell {
    Cell::new(value.to_string()).set_alignment(CellAlignment::Right)
}

/// Prints one line, or a table.
pub(crate) fn line(value: &impl std::fmt::Display) -> Result<()> {
    writeln!(io::stdout().lock(), "{value}")?;
    Ok(())
}

/// Prints a JSON document.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    Ok(())
}

/// Bytes for people: `0 B`, `1.4 kB`, `23 MB`.
pub(crate) fn bytes(bytes: u64) -> String {
    scaled(bytes, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// A count for people: `950`, `1.4 k`, `23 M`.
pub(crate) fn count(count: u64) -> String {
    scaled(count, &["", "k", "M", "G", "T", "P", "E"]).trim_end().to_owned()
}

/// Whether whoever read the output has gone, which is no failure.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn scaled(value: u64, units: &[&str]) -> String {
    let mut scaled = value as f64;
    let mut unit = 0;
    while scaled >= 999.5 && unit + 1 < units.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    if unit == 0 || scaled >= 9.95 {
        format!("{scaled:.0} {}", units[unit])
    } else {
        format!("{scaled:.1} {}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people_have_two_or_three_digits() {
        let shown: Vec<_> =
            [0, 999, 1000, 1449, 9_949, 9_960, 999_499, 999_500, 23_400_000, u64::MAX].map(bytes).into();
        assert_eq!(
            shown,
            ["0 B", "999 B", "1.0 kB", "1.4 kB", "9.9 kB", "10 kB", "999 kB", "1.0 MB", "23 MB", "18 EB"]
        );
        assert_eq!([0, 1234].map(count), ["0", "1.2 k"]);
    }
}
