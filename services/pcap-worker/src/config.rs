//! Options of pcap-worker; the text here is the reference.

use std::path::PathBuf;
use std::time::Duration;

use weir_service::sandbox::Policy;

use crate::capture_file::Limits;

/// Analyses uploaded captures: flows, DNS exchanges, TLS client hellos
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "weir-pcap-worker", version)]
pub struct Config {
    /// Analyse this file, print its report as JSON, and end; nothing else is needed for it
    #[arg(long, value_name = "FILE")]
    pub read: Option<PathBuf>,
    /// Seconds without a sign of life after which another worker takes a job over; the first worker to start decides
    #[arg(
        long,
        env = "WEIR_PCAP_WORKER_ACK_WAIT",
        value_name = "SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    pub ack_wait: u64,
    /// Times that a job is tried before its capture is given up as failed
    #[arg(
        long,
        env = "WEIR_PCAP_WORKER_MAX_ATTEMPTS",
        value_name = "NUMBER",
        default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub max_attempts: u32,
    /// Seconds that a read from the object store may take
    #[arg(
        long,
        env = "WEIR_PCAP_WORKER_READ_TIMEOUT",
        value_name = "SECONDS",
        default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    pub read_timeout: u64,
    /// Bytes that a compressed capture may decompress to
    #[arg(
        long,
        env = "WEIR_PCAP_WORKER_MAX_DECOMPRESSED_BYTES",
        value_name = "BYTES",
        default_value_t = Limits::default().bytes
    )]
    pub max_decompressed_bytes: u64,
    /// Bytes that each byte of a compressed capture may decompress to, once it is more than 256 MiB
    #[arg(long, env = "WEIR_PCAP_WORKER_MAX_RATIO", value_name = "NUMBER", default_value_t = Limits::default().ratio)]
    pub max_ratio: u64,
    /// Flows that are followed at one time; what is beyond ends the longest silent one early
    #[arg(
        long,
        env = "WEIR_PCAP_WORKER_MAX_FLOWS",
        value_name = "NUMBER",
        default_value_t = weir_flow::tracker::Limits::default().flows
    )]
    pub max_flows: usize,
    /// Bytes that the tables of an analysis hold together, about: flows, streams, fragments, DNS queries, findings, names, top talkers.
    /// What is given up at this bound is counted in the report. The process itself takes about 10 MB besides
    #[arg(long, env = "WEIR_PCAP_WORKER_MAX_MEMORY", value_name = "BYTES", default_value_t = 512 << 20)]
    pub max_memory: usize,
    /// Bytes of heap and stacks that the kernel gives this process; one that wants more ends, and its job is tried again
    #[arg(long, env = "WEIR_PCAP_WORKER_MEMORY_LIMIT_BYTES", value_name = "BYTES", default_value_t = 4 << 30)]
    pub memory_limit_bytes: u64,
    /// Confine this process as for its work, try what must not be possible then, say what came of it, and end: 0 = all was refused
    #[arg(long)]
    pub check_sandbox: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub bus: weir_bus::Options,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub service: weir_service::Options,
}

impl Config {
    /// What a file may decompress to.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { bytes: self.max_decompressed_bytes, ratio: self.max_ratio, ..Limits::default() }
    }

    /// How captures are analysed; `producer` names the analysis.
    #[must_use]
    pub fn analyzer(&self, producer: [u8; 16]) -> weir_flow::Config {
        let tracker = weir_flow::tracker::Limits { flows: self.max_flows, ..Default::default() };
        weir_flow::Config { producer, tracker, ..Default::default() }.within(self.max_memory)
    }

    /// What the process may do once it works: speak with NATS, and compute.
    #[must_use]
    pub fn policy(&self) -> Policy {
        /// Its sockets, the runtime's own descriptors, and a few for name resolution.
        const OPEN_FILES: u64 = 256;
        Policy {
            readable: self.bus.nats_credentials.iter().cloned().collect(),
            connect: self.bus.port().into_iter().collect(),
            memory_bytes: Some(self.memory_limit_bytes),
            open_files: Some(OPEN_FILES),
            ..Policy::default()
        }
    }

    /// What is left for `--read`, which has its file open already: computing.
    #[must_use]
    pub fn policy_of_reading(&self) -> Policy {
        Policy { memory_bytes: Some(self.memory_limit_bytes), ..Policy::default() }
    }

    /// As a duration.
    #[must_use]
    pub const fn ack_wait(&self) -> Duration {
        Duration::from_secs(self.ack_wait)
    }

    /// As a duration.
    #[must_use]
    pub const fn read_timeout(&self) -> Duration {
        Duration::from_secs(self.read_timeout)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_options_fit_each_other() {
        Config::command().debug_assert();
    }
}
