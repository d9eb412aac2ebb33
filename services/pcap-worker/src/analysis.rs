//! One capture from its first byte to its last record, on the thread of the caller.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use weir_flow::analyzer::Summary;
use weir_flow::{Analyzer, Config, Frame, Record};

use crate::capture_file::{Aside, CaptureFile, Damage, Format, Limits, Notes, OpenError, Packet, Progress, Stop};
use crate::report::Tally;

/// How far an analysis is, and the order to end it; shared with other threads.
#[derive(Clone, Debug, Default)]
pub struct Live {
    counts: Arc<Counts>,
    file: Progress,
}

#[derive(Debug, Default)]
struct Counts {
    packets: AtomicU64,
    bytes: AtomicU64,
    cancelled: AtomicBool,
}

impl Live {
    /// Makes the analysis end at its next packet.
    pub fn cancel(&self) {
        self.counts.cancelled.store(true, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.counts.cancelled.load(Ordering::Relaxed)
    }

    /// Packets read so far.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.counts.packets.load(Ordering::Relaxed)
    }

    /// Bytes of these packets on the wire.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.counts.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the stored file read so far.
    #[must_use]
    pub fn bytes_read(&self) -> u64 {
        self.file.bytes_read()
    }

    fn count(&self, packet: &Packet<'_>) {
        // Only the analysis writes, so that no update can be lost between load and store.
        self.counts.packets.store(packet.number, Ordering::Relaxed);
        self.counts.bytes.store(self.bytes() + u64::from(packet.original_length), Ordering::Relaxed);
    }
}

/// Whoever takes the records says so when nobody wants any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled;

/// An analysis that came to its end.
#[derive(Debug)]
pub struct Analysis {
    /// The form of the file.
    pub format: Format,
    /// What it was packed in; empty = nothing.
    pub compression: &'static str,
    /// Names of its interfaces; empty = not given.
    pub interfaces: Vec<String>,
    /// What the file says besides its packets.
    pub notes: Notes,
    /// What was seen in all.
    pub summary: Summary,
    /// Where the file broke, if it did.
    pub damage: Option<Damage>,
    /// What its records say together.
    pub(crate) tally: Tally,
}

/// An analysis that did not.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Not a capture.
    #[error(transparent)]
    Open(OpenError),
    /// Decompresses to more than is allowed.
    #[error("{0}")]
    Bomb(String),
    /// The source failed; trying again may help.
    #[error("cannot read the file")]
    Source(#[source] io::Error),
    /// Nobody wants the records any more.
    #[error("the analysis was cancelled")]
    Cancelled,
}

impl Failure {
    /// Whether trying again may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Open(error) => error.is_transient(),
            Self::Source(_) | Self::Cancelled => true,
            Self::Bomb(_) => false,
        }
    }
}

/// Analyses a capture. The records come in an order that follows from its bytes alone.
pub fn analyse(
    source: impl Read + Send + 'static,
    limits: Limits,
    config: Config,
    live: &Live,
    mut sink: impl FnMut(&Record) -> Result<(), Cancelled>,
) -> Result<Analysis, Failure> {
    let mut file = CaptureFile::open(source, limits, &live.file).map_err(Failure::Open)?;
    let mut tally = Tally::new(config.scale);
    let mut analyzer = Analyzer::new(config);
    // The analyzer's number of each interface of the file; 0 = not asked for yet, or without a name.
    let mut interfaces: Vec<u32> = Vec::new();
    let damage = loop {
        match file.next_packet() {
            Ok(Some(_)) if live.is_cancelled() => return Err(Failure::Cancelled),
            Ok(Some(packet)) => {
                live.count(&packet);
                if packet.interface >= interfaces.len() {
                    interfaces.resize(packet.interface + 1, 0);
                }
                let interface = &mut interfaces[packet.interface];
                if *interface == 0 && !packet.interface_name.is_empty() {
                    *interface = analyzer.interface(packet.interface_name);
                }
                analyzer.packet(&frame(&packet, *interface));
            }
            Ok(None) => break None,
            Err(Stop::Damage(damage)) => break Some(damage),
            Err(Stop::Bomb(bomb)) => return Err(Failure::Bomb(bomb.to_string())),
            Err(Stop::Source(error)) => return Err(Failure::Source(error)),
        }
        // Most packets bring neither.
        if file.has_asides() {
            name_addresses(&mut file, &mut analyzer);
        }
        if analyzer.has_records() {
            deliver(&mut analyzer, &mut tally, &mut sink)?;
        }
    };
    name_addresses(&mut file, &mut analyzer);
    while analyzer.finish_some() {
        deliver(&mut analyzer, &mut tally, &mut sink)?;
    }
    deliver(&mut analyzer, &mut tally, &mut sink)?;
    Ok(Analysis {
        format: file.format(),
        compression: file.compression().name(),
        interfaces: file.interfaces().to_vec(),
        notes: file.notes().clone(),
        summary: analyzer.into_summary(),
        damage,
        tally,
    })
}

/// Passes on the names that the file itself gives to addresses. Secrets have no use here.
fn name_addresses(file: &mut CaptureFile, analyzer: &mut Analyzer) {
    for aside in file.take_asides() {
        if let Aside::Name(address, name) = aside {
            analyzer.name(address, &name);
        }
    }
}

fn frame<'a>(packet: &Packet<'a>, interface: u32) -> Frame<'a> {
    Frame {
        time_us: packet.time_us,
        link_type: packet.link_type,
        data: packet.data,
        original_length: packet.original_length,
        interface,
    }
}

/// Shows records where they are: one is a kilobyte, and moving it takes longer than reading it.
fn deliver(
    analyzer: &mut Analyzer,
    tally: &mut Tally,
    sink: &mut impl FnMut(&Record) -> Result<(), Cancelled>,
) -> Result<(), Failure> {
    for record in analyzer.records() {
        tally.record(record);
        sink(record).map_err(|Cancelled| Failure::Cancelled)?;
    }
    drop(analyzer.take_records());
    Ok(())
}
