//! What is said of each TCP packet here, beside what tshark says.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use weir_flow::tcp::Marks;
use weir_flow::{Analyzer, Config, Frame};
use weir_pcap_worker::capture_file::{CaptureFile, Limits, Progress};

/// What to compare.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Captures, or directories of them
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Name each packet on which the two differ
    #[arg(long)]
    verbose: bool,
    /// Fail where fewer percent of the packets agree
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    at_least: f64,
}

/// Marks that tshark does not have.
const OWN: [Marks; 2] = [Marks::DOUBLED, Marks::DUPLICATE_SACK];

#[derive(Default)]
struct Tally {
    packets: u64,
    agree: u64,
    /// By class: both say so, only we do, only tshark does.
    classes: BTreeMap<&'static str, [u64; 3]>,
    /// What we say, what tshark says; how often, and in how many files.
    differences: BTreeMap<(String, String), (u64, u64)>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let tshark = super::program("tshark").context("tshark is not installed: apt-get install tshark")?;
    let mut tally = Tally::default();
    for path in captures(&options.paths)? {
        let Some(theirs) = theirs(&tshark, &path)? else { continue };
        let ours = ours(&path).with_context(|| format!("cannot read {}", path.display()))?;
        tally.file(&path, &ours, &theirs, options.verbose);
    }
    tally.print();
    let percent = tally.percent();
    ensure!(percent >= options.at_least, "{percent:.2} % of the packets agree, fewer than {} %", options.at_least);
    Ok(())
}

fn captures(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = std::fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
            files.extend(entries.into_iter().map(|entry| entry.path()));
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    Ok(files)
}

fn classes() -> impl Iterator<Item = (Marks, &'static str)> {
    Marks::NAMES.into_iter().filter(|(mark, _)| !OWN.contains(mark))
}

/// The marks of each TCP frame as tshark has them; none where it cannot read the file, or there are none.
fn theirs(tshark: &Path, path: &Path) -> anyhow::Result<Option<BTreeMap<u64, Marks>>> {
    let mut command = Command::new(tshark);
    command.arg("-n").arg("-r").arg(path).args(["-Y", "tcp", "-T", "fields", "-e", "frame.number"]);
    for (_, name) in classes() {
        command.arg("-e").arg(format!("tcp.analysis.{name}"));
    }
    let output = command.stderr(Stdio::null()).output().context("cannot run tshark")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut frames = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split('\t');
        let Some(number) = fields.next().and_then(|number| number.parse().ok()) else { continue };
        let mut marks = Marks::default();
        for ((mark, _), field) in classes().zip(fields) {
            if !field.is_empty() {
                marks.insert(mark);
            }
        }
        frames.insert(number, marks);
    }
    Ok((!frames.is_empty()).then_some(frames))
}

/// The marks of each frame here.
fn ours(path: &Path) -> anyhow::Result<Vec<Marks>> {
    let mut file = CaptureFile::open(File::open(path)?, Limits::default(), &Progress::default())?;
    let mut analyzer = Analyzer::new(Config::default());
    let mut all = Vec::new();
    while let Ok(Some(packet)) = file.next_packet() {
        analyzer.packet(&Frame {
            time_us: packet.time_us,
            link_type: packet.link_type,
            data: packet.data,
            original_length: packet.original_length,
            interface: 0,
        });
        all.push(analyzer.marks());
        drop(analyzer.take_records());
    }
    Ok(all)
}

impl Tally {
    fn file(&mut self, path: &Path, ours: &[Marks], theirs: &BTreeMap<u64, Marks>, verbose: bool) {
        let mut seen: BTreeMap<(String, String), u64> = BTreeMap::new();
        for (number, theirs) in theirs {
            let ours = ours.get(*number as usize - 1).copied().unwrap_or_default();
            self.packets += 1;
            let mut same = true;
            for (mark, name) in classes() {
                let (we, they) = (ours.contains(mark), theirs.contains(mark));
                same &= we == they;
                if let Some(at) = [we && they, we, they].iter().position(|is| *is) {
                    self.classes.entry(name).or_default()[at] += 1;
                }
            }
            self.agree += u64::from(same);
            if !same {
                let difference = (names(ours), names(*theirs));
                if verbose {
                    println!("{} {number}: {} / {}", path.display(), difference.0, difference.1);
                }
                *seen.entry(difference).or_default() += 1;
            }
        }
        for (difference, count) in seen {
            let entry = self.differences.entry(difference).or_default();
            *entry = (entry.0 + count, entry.1 + 1);
        }
    }

    fn percent(&self) -> f64 {
        100.0 * self.agree as f64 / self.packets.max(1) as f64
    }

    fn print(&self) {
        println!("{:<24} {:>9} {:>9} {:>9} {:>8}", "class", "both", "weir", "tshark", "agree");
        for (name, [both, ours, theirs]) in &self.classes {
            let agree = 100.0 * (self.packets - ours - theirs) as f64 / self.packets as f64;
            println!("{name:<24} {both:>9} {ours:>9} {theirs:>9} {agree:>7.2}%");
        }
        println!("{} of {} TCP packets have the same marks: {:.2} %", self.agree, self.packets, self.percent());
        let mut differences: Vec<_> = self.differences.iter().collect();
        differences.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        for ((ours, theirs), (count, files)) in differences {
            println!("{count:>8} in {files:>3} files: weir {ours}, tshark {theirs}");
        }
    }
}

fn names(marks: Marks) -> String {
    let names: Vec<_> = Marks::NAMES.iter().filter(|(mark, _)| marks.contains(*mark)).map(|(_, name)| *name).collect();
    if names.is_empty() { "nothing".to_owned() } else { names.join("+") }
}
