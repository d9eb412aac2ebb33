//! `weir-capture`: counts flows in the kernel, and publishes them or, alone, shows them.
//!
//! # The path of a record through capture
//!
//! 1. The classifier of `capture-ebpf`, attached to both directions of each interface ([`interfaces`] chooses, [`kernel`] attaches), counts every
//!    packet into a slot of the flow table, and into the ledger.
//! 2. Every second a thread of its own ([`capture`]) reads the table. [`drain`] decides which flows are due, and gives the difference to what was
//!    reported of them before as an interval.
//! 3. [`record`] turns the interval into a record: who began becomes src, kernel time becomes UTC ([`clock`]).
//!    Where this host translates addresses, `nat` adds what the ends are on their own sides.
//! 4. Batches of records go to the bus's publisher, which names them, keeps them in its spool, and sends them until NATS has them; without
//!    NATS they go to the writer of `output`. Whoever listens on `/api/live` ([`http`]) gets them too ([`live`]).
//!
//! Beside that the kernel picks packets that may name what a flow is about; [`picks`] dissects them into rows of their own, and into the names of
//! flows.
//!
//! What stays inside a container its own network namespace shows: where the operator allows it, [`namespaces`] attaches there, too.
//!
//! Packets themselves leave the host only where the operator allows it and somebody asks: [`demand`] records them for a while.
//!
//! What became of all packets is told as records, too (`books`). A packet is lost where the ledger says so (the table is full), where the spool says so (it is full), or with the process: when it is
//! killed the kernel forgets the table, unless it is pinned. The next life then counts what has passed meanwhile (`checkpoint`).

mod books;
pub mod capture;
mod checkpoint;
pub mod clock;
pub mod config;
pub mod demand;
pub mod drain;
mod error;
pub mod http;
pub mod interfaces;
pub mod kernel;
pub mod live;
pub mod metrics;
pub mod namespaces;
mod nat;
mod output;
pub mod picks;
mod pipeline;
pub mod privileges;
pub mod processes;
pub mod record;
pub mod select;

pub use config::Config;
pub use error::Error;
pub use http::{Told, routes};
pub use pipeline::{run, run_told};

use capture::Capture;

/// Loads the kernel program and gives up every right that is not needed any more. Call it before the process has threads.
pub fn prepare(config: &Config) -> Result<Capture, Error> {
    let more = privileges::More::of(config);
    privileges::check(more)?;
    // What others execute is not shown any more without the rights that go.
    let before = processes::Processes::read();
    privileges::keep_for_loading(more)?;
    let capture = Capture::load(config, &before)?;
    privileges::keep_nothing()?;
    privileges::forbid_the_rest(more)?;
    Ok(capture)
}

/// Index of the loopback interface in every network namespace.
const LOOPBACK: u32 = 1;

/// Whether capturing can work here: loads the program into the kernel and attaches it to the loopback interface for a moment.
pub fn check() -> Result<(), Error> {
    privileges::check(privileges::More::default())?;
    let (mut kernel, _table) =
        kernel::Kernel::load(kernel::Room { max_flows: 1, ..kernel::Room::default() }, &select::Plan::default())?;
    let _attached = kernel.attach("lo", LOOPBACK, weir_capture_common::dissect::Link::Ethernet)?;
    Ok(())
}
