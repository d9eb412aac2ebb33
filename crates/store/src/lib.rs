//! `ClickHouse` as Weir uses it: the only owner of the `clickhouse` crate.
//!
//! - [`Options`]: where it is
//! - [`schema`]: the tables, as numbered `.sql` files, and how a database gets them
//! - [`rows`]: one struct a table, made from the records of a batch
//! - [`Writer`]: inserts that can be repeated
//! - [`Reader`]: queries, streamed

mod error;
mod native;
mod options;
mod reader;
pub mod rows;
pub mod schema;
mod text;
mod writer;

pub use error::Error;
pub use options::{DATABASE, Options};
pub use reader::{Query, Reader, ResponseStream};
pub use rows::Rows;
pub use writer::{Block, Writer};
