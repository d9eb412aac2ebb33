//! From the stream of records into the tables: nothing lost, nothing twice.
//!
//! # The path of a record through the ingester
//!
//! ```text
//! NATS ── reader ── former ────────────► Block ── committer ── cut ──► inserts ──► deletes ──► acks
//!                    │  windows: was this batch taken before?           (NATS)    (ClickHouse)          (NATS)
//!                    └─ identities: whose container was that address?
//! ```
//!
//! The [`former`] reads messages in stream order, drops batches that were taken before, and collects the rows of the others until a block
//! is full, or its first message has waited long enough and the block before is committed. The [`committer`] writes the cut (which
//! messages the block has, and what the producers' windows are after it), inserts the rows table by table under the block's token, and
//! acks. One block is committed while the next one is formed; there are never more than these two, and while `ClickHouse` is away nobody
//! reads on beyond them.
//!
//! # Why a crash changes no count
//!
//! | the crash is | after it |
//! |---|---|
//! | before the cut is written | nothing of the block was inserted; its messages are read again and cut anew, perhaps elsewhere |
//! | between cut and last ack | the cut says which messages the block has, so the same block is formed and committed again; `ClickHouse` knows its token, and the ingester looks which messages the tables have |
//! | in the middle of the acks | the same, with the rest of the messages; what is acked was inserted |
//! | after the acks | the cut's messages are gone; the next block follows |
//!
//! The cut is compare-and-swap: of two ingesters only one can go on, and the other one stops.
//!
//! When NATS goes away the session ends: all that is not acked is dropped from memory, and a new session begins as a new process would.

mod announcer;
mod block;
mod committer;
mod config;
mod cut;
mod error;
mod failpoint;
mod former;
mod identities;
mod ledger;
mod metrics;
mod pipeline;
mod watchdog;
mod windows;

use anyhow::Context as _;
use weir_bus::Bus;
use weir_service::Context;
use weir_store::Writer;

pub use config::Config;

use watchdog::Status;

/// Runs until it is told to stop. An error means that starting again does not help without somebody doing something first.
pub async fn run(config: Config, context: Context) -> anyhow::Result<()> {
    metrics::describe();
    let status = Status::new(context.health.clone());
    let bus = Bus::connect(&config.nats, "weir-ingester").await.context("cannot use NATS")?;
    let writer = Writer::connect(&config.clickhouse);
    watchdog::start(bus.clone(), writer.clone(), status.clone(), context.shutdown.clone());

    let schema = watchdog::schema(&config.clickhouse, &status, &context);
    let topology = bus.ready(&context.shutdown, |error| status.nats_away(error));
    let (schema, topology) = tokio::join!(schema, topology);
    let schema = schema.context("cannot bring the database to this version's schema")?;
    match topology {
        Err(weir_bus::Error::Stopped) => return Ok(()),
        topology => topology.context("cannot use NATS")?,
    }
    if !schema {
        return Ok(());
    }
    pipeline::run(&config, &bus, writer, status, &context.shutdown).await.context("stopped taking records")
}
