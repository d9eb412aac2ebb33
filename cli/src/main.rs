//! `weir`: runs the whole system on one machine (`up`, `down`, `status`) and asks it (everything else).

mod api;
mod args;
mod ask;
mod down;
mod instance;
mod output;
mod status;
mod up;

use std::process::ExitCode;

use args::{Cli, Command};
use clap::Parser;

/// Exit code for bad usage, as in `sysexits.h`.
const EX_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Printing fails only where nobody can read it.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    // One thread: the supervisor and a client wait for others nearly all the time.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("weir: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir: {error:#}");
            ExitCode::from(if error.is::<args::Usage>() { EX_USAGE } else { 1 })
        }
    }
}

/// True = done; false = done, and the answer is that something is not well.
async fn run(cli: Cli) -> anyhow::Result<bool> {
    match cli.command {
        Command::Up(up) => up::run(up).await,
        Command::Down(down) => down::run(&down).await,
        Command::Status(status) => status::run(&status).await,
        Command::Upload(upload) => ask::upload::run(&upload).await,
        Command::Capture(capture) => ask::capture::run(&capture).await,
        Command::Report(report) => ask::report::run(&report).await,
        Command::Captures(captures) => ask::captures::run(&captures).await,
        Command::Query(query) => ask::query::run(&query).await,
        Command::Flows(flows) => ask::flows::list(&flows).await,
        Command::Top(top) => ask::flows::top(&top).await,
        Command::Containers(containers) => ask::containers::list(&containers).await,
    }
}
