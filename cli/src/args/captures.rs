//! `weir captures ...`

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{Api, Report, ReportFormat};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Captures {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Without a command they are listed.
    #[command(flatten)]
    pub(crate) list: List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List captures, the latest first; without a command the same
    List(List),
    /// Say all that is known about a capture
    Show(Show),
    /// Show what the analysis of a capture found; the same as `weir report`
    Report(Report),
    /// Say what is different between two captures
    Compare(Compare),
    /// Write the packets of a capture, or of some of its flows, as a file for Wireshark
    Packets(Packets),
    /// Analyse a capture again, with other thresholds
    Analyse(Analyse),
    /// End the analysis of a capture; its file stays
    Cancel(Cancel),
    /// Delete captures: their files, their rows and their reports
    Delete(Delete),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// How many captures
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Capture: its id, or its name (the latest one of that name)
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// What it was before: an id, or a name
    #[arg(value_name = "BEFORE")]
    pub(crate) before: String,
    /// What it is now
    #[arg(value_name = "AFTER")]
    pub(crate) after: String,
    /// Form of the comparison: markdown, html or json
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = ReportFormat::Markdown, hide_possible_values = true)]
    pub(crate) format: ReportFormat,
    /// Short for `--format json`
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
    /// Write it to this file
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) api: Api,
}

impl From<&Compare> for Report {
    fn from(compare: &Compare) -> Self {
        Self {
            capture: compare.after.clone(),
            format: compare.format,
            json: compare.json,
            table: String::new(),
            compare: Some(compare.before.clone()),
            output: compare.output.clone(),
            api: compare.api.clone(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Packets {
    /// Capture: its id, or its name (the latest one of that name)
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: String,
    /// Only the packets of flows that this means, as in `weir flows`
    #[arg(long, value_name = "FILTER")]
    pub(crate) filter: Option<String>,
    /// Only the packets of the flow with this id
    #[arg(long, value_name = "FLOW_ID")]
    pub(crate) flow: Option<u64>,
    /// Only packets from this time on (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub(crate) from: Option<String>,
    /// Only packets before this time
    #[arg(long, value_name = "TIME")]
    pub(crate) to: Option<String>,
    /// Write them to this file; it is there once it is whole [default: standard output, which may not be a terminal]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Args)]
pub(crate) struct Analyse {
    /// Capture: its id, or its name (the latest one of that name)
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: String,
    /// From where on something is a finding, as in `port_scan_ports=50`; may be given several times
    #[arg(long = "threshold", value_name = "NAME=VALUE", value_parser = threshold)]
    pub(crate) thresholds: Vec<(String, f64)>,
    /// Wait until it is analysed and its rows can be asked for
    #[arg(long)]
    pub(crate) wait: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}

fn threshold(text: &str) -> Result<(String, f64), String> {
    let (name, value) = text.split_once('=').ok_or("a threshold is NAME=VALUE, as in port_scan_ports=50")?;
    let value: f64 = value.trim().parse().map_err(|_| format!("{value:?} is no number"))?;
    if value.is_finite() { Ok((name.trim().to_owned(), value)) } else { Err("this is no number".to_owned()) }
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// Capture: its id, or its name (the latest one of that name)
    #[arg(value_name = "CAPTURE")]
    pub(crate) capture: String,
    /// Wait until its analysis has ended
    #[arg(long)]
    pub(crate) wait: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Captures: ids, or names that only one capture has
    #[arg(required = true, value_name = "CAPTURE")]
    pub(crate) captures: Vec<String>,
    #[command(flatten)]
    pub(crate) api: Api,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_a_name_and_a_number() {
        assert_eq!(threshold("beacon_interval_s=0.5"), Ok(("beacon_interval_s".to_owned(), 0.5)));
        assert!(["x", "x=", "x=y", "x=inf"].into_iter().all(|text| threshold(text).is_err()));
    }
}
