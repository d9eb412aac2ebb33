//! The report of an analysis: its form, its score, and what people read of it.
//!
//! - [`Report`] is what pcap-worker stores as JSON; [`schema()`] describes it, and `docs/reference/report.md` explains it
//! - [`health`] makes the score out of figures, and shows how
//! - [`html()`], [`markdown()`] and [`csv()`] are made from a report when somebody asks, so that there is one truth
//! - [`Comparison`] says what is different between two reports
//!
//! Pure: no I/O, no clock. Everything in a report may come from strangers; nothing of it reaches a page without being escaped.

mod compare;
mod csv;
mod groups;
pub mod health;
mod html;
mod markdown;
mod model;
mod remarks;
mod schema;
mod text;

pub use compare::{Comparison, Difference, Verdict};
pub use csv::{Table, csv};
pub use html::{comparison as comparison_html, report as html};
pub use markdown::{comparison as comparison_markdown, report as markdown};
pub use model::*;
pub use schema::schema;
