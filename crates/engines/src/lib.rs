//! The embedded engines: NATS with `JetStream` and `ClickHouse`, as child processes under one directory, on loopback only.
//!
//! Both are the genuine servers. [`locate`] finds their programs, [`Nats::prepare`] and [`ClickHouse::prepare`] write their
//! configuration and secrets, `command()` says how to start them and `ready()` whether they answer. Who runs them (the `weir`
//! command, or a test through [`testing`]) decides about restarts.
//!
//! `ClickHouse` comes in two forms with the same interfaces: a `clickhouse` program, or `libchdb.so`, the same server as a
//! library, which the small program `weir-clickhouse` of this crate loads and confines to its own directory.

pub mod clickhouse;
pub mod error;
pub mod locate;
pub mod nats;
pub mod ports;
pub mod process;
mod secrets;
pub mod testing;

pub use clickhouse::ClickHouse;
pub use error::Error;
pub use nats::Nats;
