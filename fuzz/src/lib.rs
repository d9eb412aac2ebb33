//! What reads bytes of strangers, given any bytes.
//!
//! A target takes bytes and panics where something is wrong: besides the panics of the code itself, where a sum does not hold, memory
//! outgrows its bound, the same bytes say two things, or less of a packet says more. [`seeds`] makes the bytes to begin with, out of the
//! captures that are kept in this repository.
//!
//! - `./dev fuzz TARGET` looks for such bytes for as long as it is given, guided by coverage (`libfuzzer/`, which is no part of the workspace)
//! - `tests/targets.rs` tries each target for a moment, with every `./dev test`

mod app;
mod batch;
mod capture_file;
mod dns;
mod filter;
mod fragments;
mod frames;
pub mod heap;
mod http;
mod kernel;
mod packet;
mod quic;
mod script;
pub mod seeds;
mod sql;
mod stream;
mod tls;

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// As `./dev fuzz` takes it.
    pub name: &'static str,
    /// Panics where something is wrong.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 17] = [
    Target { name: "app", run: app::run },
    Target { name: "batch", run: batch::run },
    Target { name: "capture", run: capture_file::analysed },
    Target { name: "capture_file", run: capture_file::read },
    Target { name: "dns", run: dns::run },
    Target { name: "dtls", run: tls::datagrams },
    Target { name: "filter", run: filter::run },
    Target { name: "fragments", run: fragments::run },
    Target { name: "frames", run: frames::run },
    Target { name: "http", run: http::run },
    Target { name: "kernel", run: kernel::run },
    Target { name: "packet", run: packet::run },
    Target { name: "quic", run: quic::datagrams },
    Target { name: "quic_frames", run: quic::frames },
    Target { name: "sql", run: sql::run },
    Target { name: "stream", run: stream::run },
    Target { name: "tls", run: tls::stream },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
