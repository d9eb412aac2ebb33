//! Load with known content, and the check that the tables hold exactly that.
//!
//! `weir-loadtest capture` measures what capturing costs, and needs root.
//! `weir-loadtest ingest` needs nothing but the engines and the ingester's program beside it; `flows` and `check` work on a system that runs.

mod capture;
mod check;
mod containers;
mod flows;
mod ingest;
mod latency;
mod load;
mod pcap;
mod process;

use std::process::ExitCode;

use clap::Parser as _;

/// Publishes known records and checks that the tables hold exactly them.
#[derive(Debug, clap::Parser)]
#[command(name = "weir-loadtest", version, about)]
struct Arguments {
    /// Without a command: `ingest`
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Start the engines and an ingester, publish known flows, check them and report what it cost
    Ingest(ingest::Options),
    /// Start a Docker engine with a hundred containers, and report what watching them costs, beside `docker stats`
    Containers(containers::Options),
    /// Measure what capturing costs, on wires between network namespaces of this machine; needs root
    Capture(capture::Options),
    /// Measure how long it takes from a packet to a row that a query finds, over the whole path; needs root
    Latency(latency::Options),
    /// Publish known flows to a NATS that runs
    Flows(flows::Options),
    /// Check that the tables hold exactly the flows that `flows` published with the same options
    Check(check::Options),
    /// Measure the analysis of captures, beside other programs
    Pcap(pcap::Options),
}

weir_service::allocator!();

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Printing fails only where nobody can read it.
            let _printed = error.print();
            return if error.use_stderr() { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    let result = match arguments.command {
        None => ingest::run(&ingest::Options::default()).await,
        Some(Command::Ingest(options)) => ingest::run(&options).await,
        Some(Command::Containers(options)) => containers::run(&options).await,
        Some(Command::Capture(options)) => tokio::task::block_in_place(|| capture::run(&options)),
        Some(Command::Latency(options)) => latency::run(&options).await,
        Some(Command::Flows(options)) => flows::run(&options).await,
        Some(Command::Check(options)) => check::run(&options).await,
        Some(Command::Pcap(options)) => pcap::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}
