//! The command line. The doc comments are what `--help` prints, and the reference.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) mod captures;

/// A flight recorder for the network of containers and hosts
#[derive(Debug, Parser)]
#[command(name = "weir", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the whole system on this machine, until Ctrl-C, SIGTERM or `weir down`
    Up(Up),
    /// Stop what `weir up` runs, without loss
    Down(Down),
    /// Say of each part whether it is ready, and why not
    Status(Status),
    /// Upload capture files for analysis
    Upload(Upload),
    /// Record packets of a host, where the operator allows it, and analyse them as an upload
    Capture(Capture),
    /// Show what the analysis of a capture found, or what is different from another one
    Report(Report),
    /// List captures, write their packets, analyse them again, cancel, compare, delete
    Captures(captures::Captures),
    /// Ask with read-only SQL
    Query(Query),
    /// List flow records, newest first
    Flows(Flows),
    /// Rank flows: who talks most
    Top(Top),
    /// List containers
    Containers(Containers),
}

/// Where an instance lives.
#[derive(Debug, Clone, Args)]
pub(crate) struct Instance {
    /// Directory of everything the system keeps [default: /var/lib/weir for root, else ~/.local/state/weir]
    #[arg(long, env = "WEIR_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// What stands below the options of `up`.
const OWN_SERVERS: &str = "\
Your own servers instead of the embedded ones:
  WEIR_NATS_URL                                 NATS with JetStream
  WEIR_CLICKHOUSE_URL                           ClickHouse, over HTTP, with two users:
  WEIR_CLICKHOUSE_USER, ..._PASSWORD            may do everything in the database weir
  WEIR_CLICKHOUSE_READER_USER, ..._PASSWORD     may only read it
Variables of the services (WEIR_LOG, OTEL_EXPORTER_OTLP_ENDPOINT, ...) are passed on to them.";

#[derive(Debug, Clone, Args)]
#[command(after_help = OWN_SERVERS)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) instance: Instance,
    /// Address of the API
    #[arg(long, env = "WEIR_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// Bearer token that the API asks for; needed where `--listen` is not a loopback address
    #[arg(long, env = "WEIR_API_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(crate) api_token: Option<String>,
    /// Interface to capture on; may be given several times [default: those of the default routes]
    #[arg(long = "interface", value_name = "NAME")]
    pub(crate) interfaces: Vec<String>,
    /// Let users of the API record packets of this host (`weir capture`); off by default
    #[arg(long)]
    pub(crate) live_captures: bool,
    /// Return when all is ready and leave it running
    #[arg(long)]
    pub(crate) detach: bool,
    /// Set on the process that `--detach` leaves running
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Down {
    #[command(flatten)]
    pub(crate) instance: Instance,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) instance: Instance,
    /// Wait until all that is on is ready
    #[arg(long)]
    pub(crate) wait: bool,
    /// How long `--wait` waits, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How to reach the API.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "API")]
pub(crate) struct Api {
    /// Address of the API [default: that of the running `weir up`, else port 8080 of this machine]
    #[arg(long = "api", env = "WEIR_API", value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Bearer token for the API
    #[arg(long = "api-token", env = "WEIR_API_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    #[command(flatten)]
    pub(crate) instance: Instance,
}

/// A span of time.
#[derive(Debug, Clone, Args)]
pub(crate) struct Span {
    /// Start of the span: RFC 3339, or relative as in `-15m`, `-2h`, `-7d`
    #[arg(long, value_name = "TIME", default_value = "-1h", allow_hyphen_values = true)]
    pub(crate) from: String,
    /// End of the span [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(crate) to: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Upload {
    /// Capture files: pcap or pcapng, also compressed with gzip, zstd, lz4 or xz
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Wait until they are analysed and their rows can be asked for
    #[arg(long)]
    pub(crate) wait: bool,
    /// Print JSON, one capture a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Args)]
pub(crate) struct Capture {
    /// Host that records, as `flows.host` names it [default: this one]
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Option<String>,
    /// Only packets that it accepts, as in `port = 53 and ip in 10.0.0.0/8`: `ip`, `port`, `protocol` and `interface` can be asked for
    #[arg(long, value_name = "FILTER", default_value = "", hide_default_value = true)]
    pub(crate) filter: String,
    /// How long, as in `30s` or `2m`
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = seconds)]
    pub(crate) duration: u32,
    /// Largest file, as in `10MB` or `64KiB` [default: what the API allows]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_bytes: Option<u64>,
    /// Bytes of each packet that are kept; 0 = all
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    pub(crate) snap_length: u32,
    /// What the capture is called [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Wait until it is analysed and its rows can be asked for; Ctrl-C ends the recording
    #[arg(long)]
    pub(crate) wait: bool,
    /// Wait, and write the recorded packets to this file
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Capture: its id, or its name (the latest one of that name)
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: String,
    /// Form of the report
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = ReportFormat::Markdown)]
    pub(crate) format: ReportFormat,
    /// Short for `--format json`
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// The table of `--format csv`: findings, talkers, conversations, services, timeline, domains, health
    #[arg(long, value_name = "TABLE", default_value = "findings")]
    pub(crate) table: String,
    /// Say what is different now from what was in this capture
    #[arg(long, value_name = "CAPTURE")]
    pub(crate) compare: Option<String>,
    /// Write it to this file
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For people, and for tickets
    Markdown,
    /// A page of its own, for browsers and paper
    Html,
    /// For programs
    Json,
    /// One table
    Csv,
}

impl ReportFormat {
    /// As the API calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Markdown => "markdown",
            Self::Html => "html",
            Self::Json => "json",
            Self::Csv => "csv",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Query {
    /// One SELECT over the tables of Weir
    #[arg(value_name = "SQL")]
    pub(crate) sql: String,
    /// Form of the answer
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Short for `--format json`
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// The form of a query's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// One document: columns, rows, statistics
    Json,
    /// One object a line
    Ndjson,
    /// With a header line
    Csv,
    /// Apache Parquet
    Parquet,
    /// Apache Arrow IPC stream
    Arrow,
}

#[derive(Debug, Args)]
pub(crate) struct Flows {
    /// Filter, as in `dst_port = 443 and src_container = "web"`
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    #[command(flatten)]
    pub(crate) span: Span,
    /// How many records
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Filter, as in `flows`
    #[arg(value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// One to four columns to group by, with commas
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', default_value = "src_ip,dst_ip")]
    pub(crate) by: Vec<String>,
    /// What to rank by
    #[arg(long, value_enum, value_name = "METRIC", default_value_t = Metric::Bytes)]
    pub(crate) metric: Metric,
    #[command(flatten)]
    pub(crate) span: Span,
    /// How many groups
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// What groups of flows are ranked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Metric {
    Bytes,
    Packets,
    Flows,
    Retransmits,
}

impl Metric {
    /// As the API names it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Packets => "packets",
            Self::Flows => "flows",
            Self::Retransmits => "retransmits",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Containers {
    /// How many containers
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
    /// Only containers with this name
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Only containers with these labels: `key` or `key=value`, several with commas
    #[arg(long, value_name = "LABEL")]
    pub(crate) label: Option<String>,
    /// Only containers of this image, or the beginning of its name
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// Only containers on this network, by name or id
    #[arg(long, value_name = "NETWORK")]
    pub(crate) network: Option<String>,
    /// Only containers of this compose project
    #[arg(long, value_name = "PROJECT")]
    pub(crate) project: Option<String>,
    /// Only containers in this state: created, running, paused, exited, dead, removed
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}

/// Whole seconds, from a number with a unit.
fn seconds(text: &str) -> Result<u32, String> {
    let (number, unit) = split(text);
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => 0,
    };
    let seconds = number.and_then(|number| number.checked_mul(factor)).and_then(|seconds| u32::try_from(seconds).ok());
    seconds.filter(|seconds| *seconds > 0).ok_or_else(|| "expected a number with a unit: 30s, 2m, 1h".to_owned())
}

/// Bytes, from a number with or without a unit.
fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kb" => Some(1000),
        "m" | "mb" => Some(1_000_000),
        "g" | "gb" => Some(1_000_000_000),
        "kib" => Some(1 << 10),
        "mib" => Some(1 << 20),
        "gib" => Some(1 << 30),
        _ => None,
    };
    let bytes = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "expected a size: 500KB, 10MB, 1GiB".to_owned())
}

fn split(text: &str) -> (Option<u64>, &str) {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    (number.parse().ok(), unit.trim())
}

/// A value that parses and yet cannot be used; exit code 64.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!((seconds("30s"), seconds("2m"), seconds("1h")), (Ok(30), Ok(120), Ok(3600)));
        assert_eq!((size("10MB"), size("64KiB"), size("5")), (Ok(10_000_000), Ok(65_536), Ok(5)));
        for bad in ["", "30", "0s", "-1s", "1.5m", "99999999999h", "s"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        for bad in ["", "MB", "10XB", "0", "99999999999999999999", "18446744073709551615GB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
