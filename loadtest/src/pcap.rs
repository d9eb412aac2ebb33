//! `pcap`: how fast captures are analysed, beside others, and how often what is said of a packet is what tshark says of it.

use std::path::PathBuf;

mod agreement;
mod bench;
mod digest;
mod frames;
mod make;
mod measure;
mod peers;
mod walk;
mod whole;

/// Analysis of captures.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    /// Without a command: make captures, measure a bare walk, the analysis, and other programs on them, and print a table
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    bench: bench::Options,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write a capture of generated traffic
    Make(make::Options),
    /// Print a hash of all that is said of captures: equal ones are of versions that say the same
    Digest(digest::Options),
    /// Compare the marks of each TCP packet with tshark's
    Agreement(agreement::Options),
    /// Measure one thing in this process: what `bench` starts
    #[command(hide = true)]
    Measure(measure::Options),
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    match &options.command {
        None => bench::run(&options.bench),
        Some(Command::Make(options)) => make::run(options),
        Some(Command::Digest(options)) => digest::run(options),
        Some(Command::Agreement(options)) => agreement::run(options),
        Some(Command::Measure(options)) => measure::run(options),
    }
}

/// A program that is installed, by its name.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    places.map(|place| place.join(name)).find(|program| program.is_file())
}
