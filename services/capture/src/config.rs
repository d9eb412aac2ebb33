//! Options of `weir-capture`. Each may stand on the command line, in the environment or in a file, in that order of weight.

mod memory;
mod sources;
mod values;

use std::{path::PathBuf, time::Duration};

use weir_filter::PacketFilter;

use crate::{
    Error,
    drain::Pace,
    select::{self, Plan},
};

pub use sources::{load, reload};
use values::{buffer, drain_interval, duration, interface_pattern, packet_filter, prefix};

/// Counts flows in the kernel and publishes them
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "weir-capture", version)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct Config {
    /// Interface to capture on; repeatable, `*` and `?` stand for any characters. One that does not exist is waited for. Of a VLAN device and
    /// its parent name only one: a packet is another flow with and without its tag
    /// [default: the interfaces that carry the default routes]
    #[arg(long = "interface", env = "WEIR_CAPTURE_INTERFACE", value_name = "NAME", value_delimiter = ',', value_parser = interface_pattern)]
    pub interfaces: Vec<String>,
    /// Flows that the kernel's table has room for, about 530 bytes each; with --config it may be changed there, and SIGHUP has it take effect [default: what takes a 256th of the host's memory, and at most a quarter of what the
    /// cgroup may use; a power of two from 16384 to 1048576]
    #[arg(long, env = "WEIR_CAPTURE_MAX_FLOWS", value_name = "COUNT", default_value_t = memory::flows(), hide_default_value = true, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub max_flows: u32,
    /// How far the table grows by itself when it is nearly full, without a restart and without losing a packet
    /// [default: four times what --max-flows is by default; where --max-flows is another, that: it does not grow]
    #[arg(long, env = "WEIR_CAPTURE_MAX_FLOWS_LIMIT", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub max_flows_limit: Option<u32>,
    /// Bytes of the buffer for packets whose flows find no room in the table, a power of two from 4096 on; 0 = none: they count by protocol and port
    #[arg(long, env = "WEIR_CAPTURE_OVERFLOW_BUFFER", value_name = "BYTES", default_value_t = 1 << 20, value_parser = buffer)]
    pub overflow_buffer: u32,
    /// Directory of a BPF file system (`/sys/fs/bpf/weir`) where the table and what is attached outlive a killed capture: the next one goes on with it
    #[arg(long, env = "WEIR_CAPTURE_PIN", value_name = "DIR")]
    pub pin: Option<PathBuf>,
    /// How often flows that have ended, and new ones, are reported
    #[arg(long, env = "WEIR_CAPTURE_DRAIN_ENDED", value_name = "DURATION", default_value = "1s", value_parser = drain_interval)]
    pub drain_ended: Duration,
    /// How often flows that go on are reported from then on
    /// [default: every second while that makes at most 50 records a second, and less often where more flows go on, but at least every 5 s]
    #[arg(long, env = "WEIR_CAPTURE_DRAIN_ACTIVE", value_name = "DURATION", value_parser = drain_interval)]
    pub drain_active: Option<Duration>,
    /// A TCP flow without packets for this long has ended
    #[arg(long, env = "WEIR_CAPTURE_IDLE_TCP", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub idle_tcp: Duration,
    /// The same for UDP
    #[arg(long, env = "WEIR_CAPTURE_IDLE_UDP", value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub idle_udp: Duration,
    /// The same for ICMP, of IPv4 and IPv6
    #[arg(long, env = "WEIR_CAPTURE_IDLE_ICMP", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub idle_icmp: Duration,
    /// The same for other protocols
    #[arg(long, env = "WEIR_CAPTURE_IDLE_OTHER", value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub idle_other: Duration,
    /// Count only packets that this filter accepts: of the filter language, what a packet tells (`ip`, `port`, `protocol`, `interface`)
    #[arg(long, env = "WEIR_CAPTURE_INCLUDE", value_name = "FILTER", default_value = "", hide_default_value = true, value_parser = packet_filter)]
    pub include: String,
    /// Do not count packets that this filter accepts
    #[arg(long, env = "WEIR_CAPTURE_EXCLUDE", value_name = "FILTER", default_value = "", hide_default_value = true, value_parser = packet_filter)]
    pub exclude: String,
    /// Count only packets from or to these addresses and prefixes; repeatable
    #[arg(long, env = "WEIR_CAPTURE_ALLOW", value_name = "PREFIX", value_delimiter = ',', value_parser = prefix)]
    pub allow: Vec<String>,
    /// Count one flow in so many, with all its packets, and scale its sums; 1 = all
    #[arg(long, env = "WEIR_CAPTURE_SAMPLE", value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub sample: u32,
    /// Whether DNS messages, client hellos and the like are read: rows of `dns` and `tls`, and names and protocols of flows
    #[arg(long, env = "WEIR_CAPTURE_NAMES", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub names: bool,
    /// Whether conntrack is asked what the ends of translated flows are on their own sides
    #[arg(long, env = "WEIR_CAPTURE_NAT", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub nat: bool,
    /// Hook of the interfaces to attach to
    #[arg(long, env = "WEIR_CAPTURE_HOOK", value_name = "HOOK", default_value = "auto")]
    pub hook: Hook,
    /// Place among the programs of others: what the first one sees may still be dropped by another, the last one sees what is left
    #[arg(long, env = "WEIR_CAPTURE_TCX_ORDER", value_name = "ORDER", default_value = "first")]
    pub tcx_order: Order,
    /// Whether to capture in the network namespaces of this host's containers, too: on what no interface here shows, their loopback and
    /// devices that were moved into them. Needs `CAP_SYS_ADMIN`, `CAP_SYS_PTRACE`, TCX (Linux 6.6), and to see the host's processes
    #[arg(long, env = "WEIR_CAPTURE_CONTAINER_NAMESPACES", value_name = "BOOL", default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub container_namespaces: bool,
    /// Whether packets may be recorded when query-api asks for it: `POST /api/v1/captures/live`. Needs `CAP_NET_RAW` and NATS
    #[arg(long, env = "WEIR_CAPTURE_ON_DEMAND", value_name = "BOOL", default_value_t = false, num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub on_demand: bool,
    /// Where records go
    /// [default: nats where --nats-url is given, else live on a terminal and lines elsewhere]
    #[arg(long, env = "WEIR_CAPTURE_OUTPUT", value_name = "FORM")]
    pub output: Option<Output>,
    /// File for the records, with `--output ndjson`, `lines` or `parquet` [default: standard output]
    #[arg(long, env = "WEIR_CAPTURE_FILE", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// YAML file with options under their long names; flags and environment weigh more
    #[arg(long, env = "WEIR_CAPTURE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Only print the options with their values, as such a file, and where each comes from
    #[arg(long)]
    pub print_config: bool,
    /// Only say whether capturing can work here: exit code 0, or 69 with what is missing and how to get it
    #[arg(long)]
    pub check: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub service: weir_service::Options,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub bus: weir_bus::Options,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub spool: weir_bus::SpoolOptions,
}

/// A hook for what passes an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Hook {
    /// TCX where the kernel has it (6.6), else clsact
    Auto,
    /// TCX: a chain of programs, each of which its owner alone can remove
    Tcx,
    /// Filters of the qdisc clsact; of two captures on one interface only one can have it
    Clsact,
}

/// A place in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// Before all others
    First,
    /// After all others
    Last,
}

/// Where records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// NATS, as a part of Weir
    Nats,
    /// A table on the terminal that shows what goes on now
    Live,
    /// One line for each record, for people
    Lines,
    /// One JSON object for each record
    Ndjson,
    /// A Parquet file (`--file`), complete when the program ends
    Parquet,
}

/// How far a table of the usual size grows: four times a 256th of the memory.
const GROWTH: u32 = 4;

/// How often flows that go on are reported if nobody says it.
const PACE: Pace = Pace { shortest: Duration::from_secs(1), longest: Duration::from_secs(5) };

impl Config {
    /// How often flows that go on are reported.
    #[must_use]
    pub fn pace(&self) -> Pace {
        self.drain_active.map_or(PACE, Pace::steady)
    }

    /// What is to be counted, compiled.
    pub fn plan(&self) -> Result<Plan, Error> {
        Ok(Plan::new(self.filter()?, self.sample).with_names(self.names))
    }

    /// How far the flow table grows by itself.
    #[must_use]
    pub fn max_flows_limit(&self) -> u32 {
        let usual = memory::flows();
        let by_itself = if self.max_flows == usual { usual.saturating_mul(GROWTH) } else { self.max_flows };
        self.max_flows_limit.unwrap_or(by_itself)
    }

    fn filter(&self) -> Result<PacketFilter, Error> {
        select::combine(&self.include, &self.exclude, &self.allow)
            .map_err(|(option, source)| Error::Filter { option, source })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn no_record_can_cover_more_than_a_minute() {
        assert!(Config::try_parse_from(["weir-capture", "--drain-active", "31s"]).is_err());
        assert!(Config::try_parse_from(["weir-capture", "--drain-active", "30s"]).is_ok());
    }

    #[test]
    fn interfaces_are_repeatable() {
        let config = Config::try_parse_from(["weir-capture", "--interface", "eth0", "--interface", "veth*"]).unwrap();
        assert_eq!(config.interfaces, ["eth0", "veth*"]);
        assert!(Config::try_parse_from(["weir-capture", "--interface", "a/b"]).is_err());
        assert!(Config::try_parse_from(["weir-capture", "--max-flows", "0"]).is_err());
    }
}
