//! `capture`: what capturing costs, and that it counts everything, on wires between network namespaces of this machine.
//!
//! Needs root and Linux 6.6 or later, and iproute2. Each figure stands beside what it is compared with, taken in turn in the same run: on a
//! machine that does other things too, look at the ratio.

mod network;
mod service;
mod traffic;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use weir_capture::{
    kernel::{Kernel, Room},
    select::Plan,
};

use network::Wire;
use service::{Report, Service};

/// What to measure.
#[derive(Debug, clap::Parser)]
pub(crate) struct Options {
    /// The program [default: weir-capture beside this one]
    #[arg(long, value_name = "FILE")]
    capture: Option<PathBuf>,
    /// Seconds that each kind of traffic lasts
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Flows at one time
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    flows: u32,
    /// New flows a second
    #[arg(long, value_name = "COUNT", default_value_t = 3500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
}

/// Runs of each frame in the kernel, and rounds of them.
const REPEAT: u32 = 500_000;
const ROUNDS: u32 = 8;
/// Pairs of runs without and with capturing.
const PAIRS: usize = 12;

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    weir_capture::check().context("this machine cannot capture")?;
    ensure!(network::has_ip(), "`ip` is missing: install iproute2");
    let program = options.capture.clone().map_or_else(service::beside, Ok)?;
    cost()?;
    let duration = Duration::from_secs(options.seconds);
    flood(&program, duration)?;
    new_flows(&program, duration, options.rate)?;
    many_flows(&program, duration, options.flows)?;
    harm(&program, duration)
}

/// Nanoseconds per packet of a flow that is known.
fn cost() -> anyhow::Result<()> {
    let (mut kernel, _table) =
        Kernel::load(Room { max_flows: 1024, overflow_buffer: 1 << 20, ..Room::default() }, &Plan::default())?;
    println!("kernel, per packet of a known TCP flow (best of {ROUNDS} rounds of {REPEAT}, all features on)");
    for (what, payload) in [("acknowledgement", 0), ("1448 bytes", 1448)] {
        let cost = kernel.cost(&traffic::segment(payload), REPEAT, ROUNDS)?;
        let (mine, least) = (cost.classifier.as_nanos(), cost.minimal.as_nanos());
        println!(
            "  {what}: {mine} ns; one lookup and two additions: {least} ns; ratio {:.2} (mark: 2, and 199 ns)",
            mine as f64 / least.max(1) as f64
        );
    }
    Ok(())
}

fn flood(program: &std::path::Path, duration: Duration) -> anyhow::Result<()> {
    let wire = Wire::new()?;
    let service = Service::start(program, &wire, &[])?;
    let sent = traffic::flood(&wire, duration)?;
    let least = wire.packets()?;
    let report = service.stop()?;
    // Between them it was detached, and the hosts of the wire may still look for neighbours.
    let counted = least..=wire.packets()?;
    println!("64-byte UDP as fast as one thread sends, {} s", duration.as_secs());
    println!("  sent {sent} packets, {:.0} a second", sent as f64 / duration.as_secs_f64());
    say(&report);
    ensure!(
        counted.contains(&report.seen),
        "the interface counted {counted:?} packets, the program saw {}",
        report.seen
    );
    println!("  the interface counted as many");
    let per_packet = report.cpu.as_nanos() as f64 / report.seen.max(1) as f64;
    println!("  process: {per_packet:.1} ns of CPU per packet (mark: 100)");
    Ok(())
}

fn new_flows(program: &std::path::Path, duration: Duration, rate: u32) -> anyhow::Result<()> {
    let wire = Wire::new()?;
    let service = Service::start(program, &wire, &[])?;
    let opened = traffic::new_flows(&wire, duration, rate)?;
    let used = service.used();
    let report = service.stop()?;
    println!("{rate} new flows a second, {} s", duration.as_secs());
    println!("  opened {opened}; process: {:.1} % of a core (mark: 5 %)", percent(used, duration));
    say(&report);
    Ok(())
}

fn many_flows(program: &std::path::Path, duration: Duration, flows: u32) -> anyhow::Result<()> {
    let wire = Wire::new()?;
    let room = (flows + flows / 4).to_string();
    let service = Service::start(program, &wire, &["--max-flows", &room])?;
    let rounds = traffic::many_flows(&wire, duration, flows)?;
    let used = service.used();
    let report = service.stop()?;
    println!("{flows} flows at one time, {rounds} packets of each in {} s", duration.as_secs());
    println!("  process: {:.1} % of a core", percent(used, duration));
    say(&report);
    Ok(())
}

/// What the traffic of others loses by it: pairs without and with, in turn, every other one the other way round.
fn harm(program: &std::path::Path, duration: Duration) -> anyhow::Result<()> {
    let (mut rates, mut turns) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let mut runs = [(0.0, 0.0); 2];
        for captured in [pair % 2, (pair + 1) % 2] {
            let wire = Wire::new()?;
            let service = if captured == 1 { Some(Service::start(program, &wire, &[])?) } else { None };
            let rate = traffic::stream(&wire, duration / 4)? / 1e9;
            runs[captured] = (rate, traffic::turns(&wire, duration / 4)?.as_secs_f64() * 1e6);
            service.map(Service::stop).transpose()?;
        }
        let [(plain, slow), (captured, slower)] = runs;
        rates.push((plain, captured));
        turns.push((slow, slower));
    }
    println!(
        "TCP over the wire, without and with capturing (medians of {PAIRS} pairs; between the quarters of their ratios)"
    );
    println!("  stream: {} (mark: 0.97)", compared(&rates, "Gbit/s"));
    println!("  request and response, p99: {} (mark: 1.05)", compared(&turns, "us"));
    Ok(())
}

/// Medians of pairs and of their ratios: one run that something else disturbed does not decide.
fn compared(pairs: &[(f64, f64)], unit: &str) -> String {
    let sorted = |values: &mut dyn Iterator<Item = f64>| {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let without = sorted(&mut pairs.iter().map(|pair| pair.0));
    let with = sorted(&mut pairs.iter().map(|pair| pair.1));
    let ratios = sorted(&mut pairs.iter().map(|pair| pair.1 / pair.0.max(f64::MIN_POSITIVE)));
    let at = |values: &[f64], quarters: usize| values.get(values.len() * quarters / 4).copied().unwrap_or_default();
    format!(
        "{:.2} and {:.2} {unit}, ratio {:.3}, {:.3} to {:.3}",
        at(&without, 2),
        at(&with, 2),
        at(&ratios, 2),
        at(&ratios, 1),
        at(&ratios, 3)
    )
}

fn say(report: &Report) {
    println!(
        "  seen {} = accounted {} + ignored {} + lost {}; in records {}; peak memory {} MB, and {} MB maps",
        report.seen,
        report.accounted,
        report.ignored,
        report.lost,
        report.reported,
        report.memory.saturating_sub(report.maps) >> 20,
        report.maps >> 20
    );
}

fn percent(used: Duration, of: Duration) -> f64 {
    used.as_secs_f64() / of.as_secs_f64() * 100.0
}
