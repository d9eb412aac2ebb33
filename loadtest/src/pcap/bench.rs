//! The table: what a capture costs here, and elsewhere, on one core, with the page cache warm.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::make::{Kind, Made, make};
use super::measure::{Took, What, measure};
use super::peers::PEERS;
use super::whole;

/// What to measure.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// Packets of the mixed capture
    #[arg(long, default_value_t = PACKETS)]
    packets: u64,
    /// Times that each thing is measured, by turns; the best counts
    #[arg(long, default_value_t = ROUNDS, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Measure the other programs that are installed, too
    #[arg(long)]
    peers: bool,
    /// And those that take long
    #[arg(long)]
    slow_peers: bool,
    /// Measure this capture too; classic, Ethernet
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Where captures are made [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Do not start the whole system to measure the way from the first byte to the last row
    #[arg(long)]
    no_system: bool,
}

const PACKETS: u64 = 1_000_000;
const ROUNDS: u32 = 3;

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let directory = match &options.directory {
        Some(directory) => tempfile::tempdir_in(directory),
        None => tempfile::tempdir(),
    }
    .context("no place for captures")?;
    let mixed = directory.path().join("mixed.pcap");
    let made = make(&mixed, Kind::Mixed, options.packets)?;
    table("mixed traffic", &mixed, made, options)?;
    if !options.no_system {
        whole::run(&mixed, made)?;
    }
    if let Some(capture) = &options.capture {
        let made = Made { bytes: std::fs::metadata(capture)?.len(), ..Made::default() };
        table("the capture given", capture, made, options)?;
    }
    let bulk = directory.path().join("bulk.pcap");
    // A gigabyte with the default number of packets.
    let made = make(&bulk, Kind::Bulk, options.packets * 83 / 100)?;
    table("few large flows", &bulk, made, options)
}

type Measure = Box<dyn Fn(&Path) -> anyhow::Result<Took>>;

/// A thing that is measured.
struct Row {
    name: String,
    does: &'static str,
    best: Option<Took>,
    run: Measure,
}

fn rows(options: &Options) -> Vec<Row> {
    let own = |name: &str, does, what| Row {
        name: name.to_owned(),
        does,
        best: None,
        run: Box::new(move |path: &Path| measure(what, path)),
    };
    let mut rows = vec![
        own("read", "the bytes", What::Read),
        own("bare walk", "a hash table of 5-tuples", What::Walk),
        own("weir", "the whole analysis", What::Analyse),
    ];
    for peer in &PEERS {
        if !options.slow_peers && (!options.peers || peer.slow) {
            continue;
        }
        let Some(program) = peer.path() else {
            eprintln!("skipped: {} is not installed", peer.program);
            continue;
        };
        let run = move |capture: &Path| peer.measure(&program, capture);
        rows.push(Row { name: peer.program.to_owned(), does: peer.does, best: None, run: Box::new(run) });
    }
    rows
}

fn table(title: &str, capture: &Path, made: Made, options: &Options) -> anyhow::Result<()> {
    let mut rows = rows(options);
    for _ in 0..options.rounds {
        for row in &mut rows {
            let took = (row.run)(capture).with_context(|| row.name.clone())?;
            if row.best.is_none_or(|best| took.seconds < best.seconds) {
                row.best = Some(took);
            }
        }
    }
    let best = |name: &str| rows.iter().find(|row| row.name == name).and_then(|row| row.best).unwrap_or_default();
    let (walk, weir) = (best("bare walk"), best("weir"));
    println!("\n{title}: {} packets, {} flows, {:.0} MB", weir.packets, made.flows, made.bytes as f64 / 1e6);
    println!(
        "{:<12} {:<26} {:>8} {:>6} {:>9} {:>7} {:>9} {:>9}",
        "", "", "seconds", "cpu", "Mpkt/s", "GB/s", "x walk", "memory"
    );
    for Row { name, does, best, .. } in &rows {
        let Some(took) = best else { continue };
        let rate = weir.packets as f64 / took.seconds / 1e6;
        let bytes = made.bytes as f64 / took.seconds / 1e9;
        let ratio = took.seconds / walk.seconds;
        let memory = took.memory as f64 / 1e6;
        println!(
            "{name:<12} {does:<26} {:>8.2} {:>6.2} {rate:>9.2} {bytes:>7.2} {ratio:>9.2} {memory:>6.0} MB",
            took.seconds, took.cpu
        );
    }
    Ok(())
}
