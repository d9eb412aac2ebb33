//! The API as clients see it, on a real NATS and a real `ClickHouse`.

mod analyses;
mod captures;
mod containers;
mod document;
mod flows;
mod http;
mod live;
mod questions;
mod recordings;
mod sql;
mod support;
