//! Errors as people read them.

use std::{error::Error, fmt::Write as _};

/// An error with its causes, on one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        // Writing to a String cannot fail.
        let _written = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}
