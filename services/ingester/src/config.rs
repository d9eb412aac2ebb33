//! Options of the ingester.

use std::time::Duration;

use weir_bus::names;

use crate::failpoint::Failpoint;

/// Takes records from the bus into the tables, each once.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "weir-ingester", version, about)]
pub struct Config {
    /// Rows that close a block; one block is one insert a table
    #[arg(
        long,
        env = "WEIR_INGESTER_BLOCK_ROWS",
        value_name = "ROWS",
        default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub block_rows: u32,
    /// Bytes of records (without compression) that close a block; two blocks are in memory at one time
    #[arg(
        long,
        env = "WEIR_INGESTER_BLOCK_BYTES",
        value_name = "BYTES",
        default_value_t = 64 << 20,
        value_parser = clap::value_parser!(u64).range(1 << 10..=1 << 30)
    )]
    pub block_bytes: u64,
    /// Milliseconds after its first message that close a block, once the one before is written: no record waits longer for others. Those
    /// of an upload wait three times as long, as long as its analysis goes on
    #[arg(
        long,
        env = "WEIR_INGESTER_BLOCK_WAIT_MS",
        value_name = "MS",
        default_value_t = 250,
        value_parser = clap::value_parser!(u64).range(1..=30_000)
    )]
    pub block_wait_ms: u64,
    /// Abort the process after this step of the first block that reaches it: for the tests of crashes
    #[arg(long, hide = true, value_name = "STEP")]
    pub fail_after: Option<Failpoint>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub nats: weir_bus::Options,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub clickhouse: weir_store::Options,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub service: weir_service::Options,
}

/// How long a statement about a capture waits for others: somebody may wait for it.
const STATEMENT: Duration = Duration::from_millis(20);
/// Fewer and larger blocks cost the tables less; nobody waits for the first rows of an upload.
const UPLOADS: u32 = 3;

/// What closes a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    pub(crate) messages: usize,
    pub(crate) wait: Duration,
}

impl Limits {
    /// How long a message of a subject may wait for others.
    pub(crate) fn wait_of(&self, subject: &str) -> Duration {
        match subject {
            names::RECORDS_CAPTURES => self.wait.min(STATEMENT),
            names::RECORDS_PCAP => self.wait * UPLOADS,
            _ => self.wait,
        }
    }
}

impl Config {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            rows: self.block_rows as usize,
            bytes: usize::try_from(self.block_bytes).unwrap_or(usize::MAX),
            messages: crate::cut::MAX_MESSAGES,
            wait: Duration::from_millis(self.block_wait_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};
    use weir_bus::names;

    #[test]
    fn statements_wait_shortly_and_uploads_longer() {
        let limits = super::Config::parse_from(["weir-ingester", "--block-wait-ms", "100"]).limits();
        let waits = [names::RECORDS_CAPTURES, names::RECORDS_EBPF, names::RECORDS_PCAP].map(|of| limits.wait_of(of));
        assert_eq!(waits.map(|wait| wait.as_millis()), [20, 100, 300]);
    }

    #[test]
    fn the_command_line_is_consistent() {
        super::Config::command().debug_assert();
    }
}
