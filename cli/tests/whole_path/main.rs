//! The whole system as a user starts it, `weir up`, with real packets, real captures, real engines, and answers over HTTP; and with every
//! part killed while records flow.

mod captures;
mod commands;
mod containers;
mod demand;
#[expect(dead_code, reason = "docker-watcher's tests need more of it")]
mod engine;
mod expiry;
mod full_disk;
mod kills;
mod known;
mod managed;
mod packets;
mod questions;
mod weir;
