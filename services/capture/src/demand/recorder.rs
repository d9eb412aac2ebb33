//! The thread that listens: the only one that may open packet sockets, and that right is all it has.

use std::{
    collections::BTreeMap,
    os::fd::AsFd as _,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::mpsc::Sender;
use weir_bus::PIECE_BYTES;
use weir_capture_common::dissect::Link;
use weir_filter::PacketFilter;
use weir_proto::RecordedPiece;
use weir_service::Shutdown;

use super::{
    frame::{Chooser, Chosen, Ends},
    pcapng::{Described, Packet, STATISTICS_BYTES, Statistics, Writer},
    prefilter,
    ring::{BLOCK_BYTES, RETIRE_MS, Ring, Seen},
    who::Who,
};
use crate::{Error, privileges};

/// Memory of all rings together.
const RINGS_BYTES: usize = 32 << 20;
/// Interfaces that can be listened on at one time: each ring has two blocks at least.
pub(super) const MAX_INTERFACES: usize = RINGS_BYTES / BLOCK_BYTES / 2;
/// A ring that is alone is no larger.
const MAX_BLOCKS: usize = 64;
/// Bytes of packets that may wait for names.
const HELD_BYTES: usize = 16 << 20;
/// What a packet that waits takes beside its bytes.
const HELD_EACH: usize = 160;
/// How often the thread looks whether it should stop.
const LOOK: Duration = Duration::from_millis(100);
/// How often something is sent, also where there is nothing to send.
const PIECE_EVERY: Duration = Duration::from_millis(500);

/// A part of the answer, or why there is none.
pub(super) type Piece = Result<RecordedPiece, String>;

/// An interface to listen on.
pub(super) struct Place {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) link: Link,
    /// What is accepted here.
    pub(super) filter: PacketFilter,
    /// The container behind it; empty = none is known.
    pub(super) container: String,
}

/// What is to be recorded.
pub(super) struct Order {
    pub(super) places: Vec<Place>,
    /// Said in the file.
    pub(super) comment: String,
    pub(super) duration: Duration,
    pub(super) max_bytes: u64,
    /// 0 = whole packets.
    pub(super) snap_length: u32,
    /// How long packets wait for the names of their ends.
    pub(super) patience: Duration,
    pub(super) who: Arc<Who>,
    pub(super) pieces: Sender<Piece>,
    /// Somebody has enough.
    pub(super) stop: Shutdown,
    /// The service stops: no waiting for names any more.
    pub(super) shutdown: Shutdown,
}

/// Gives orders to the thread.
#[derive(Clone)]
pub struct Recorder(SyncSender<Order>);

impl Recorder {
    /// Starts the thread, which keeps its right while others lose theirs.
    pub fn start() -> Result<Self, Error> {
        let (orders, inbox) = sync_channel(1);
        std::thread::Builder::new()
            .name("weir-record".into())
            .spawn(move || serve(&inbox))
            .map_err(|source| Error::System { what: "start a thread", source })?;
        Ok(Self(orders))
    }

    /// Hands over an order; false = the thread is gone or has another one.
    pub(super) fn order(&self, order: Order) -> bool {
        self.0.try_send(order).is_ok()
    }
}

fn serve(inbox: &Receiver<Order>) {
    let rights = privileges::keep_for_recording();
    for order in inbox {
        let done = match &rights {
            Ok(()) => record(&order),
            Err(error) => Err(error.to_string()),
        };
        if let Err(reason) = done {
            // Who waited may have gone.
            let _gone = order.pieces.blocking_send(Err(reason));
        }
    }
}

/// Records from the first piece, which tells that it goes on, to the last one.
fn record(order: &Order) -> Result<(), String> {
    let blocks = (RINGS_BYTES / BLOCK_BYTES / order.places.len().max(1)).clamp(2, MAX_BLOCKS);
    let rings = order.places.iter().map(|place| {
        let program = prefilter::program(&place.filter, place.link);
        Ring::open(place.index, blocks, program).map_err(|error| format!("cannot listen on {}: {error}", place.name))
    });
    let rings = rings.collect::<Result<Vec<_>, _>>()?;
    let mut recording = Recording::new(order, rings);
    if recording.writer.bytes() + recording.reserve >= order.max_bytes {
        return Err("the file may not even hold the names of the interfaces".to_owned());
    }
    // Nobody takes the pieces any more: that is an end too.
    if recording.send("").is_ok() {
        let _gone = recording.run();
    }
    Ok(())
}

/// Whoever took the pieces is gone.
struct Gone;

struct Recording<'a> {
    order: &'a Order,
    rings: Vec<Ring>,
    accepted: Vec<u64>,
    chooser: Chooser,
    writer: Writer,
    held: Held,
    /// Bytes that the end of the file takes.
    reserve: u64,
    packets: u64,
    lost: u64,
    started_ns: u64,
    sent: Instant,
}

/// Packets that wait for the names of their ends, by time and number.
#[derive(Default)]
struct Held {
    packets: BTreeMap<(u64, u64), (Instant, Packet, Option<Ends>)>,
    number: u64,
    /// In memory.
    memory: usize,
    /// In the file, without comments.
    bare: u64,
}

impl Held {
    fn push(&mut self, now: Instant, packet: Packet, ends: Option<Ends>) {
        self.memory += packet.data.len() + HELD_EACH;
        self.bare += Writer::packet_bytes(packet.data.len(), "");
        self.number += 1;
        self.packets.insert((packet.time_ns, self.number), (now, packet, ends));
    }

    /// The oldest, if it has waited since `until` or before, or there are too many.
    fn pop(&mut self, until: Option<Instant>) -> Option<(Packet, Option<Ends>)> {
        let oldest = self.packets.first_entry()?;
        let due = self.memory > HELD_BYTES || until.is_some_and(|until| oldest.get().0 <= until);
        let (_, packet, ends) = due.then(|| oldest.remove())?;
        self.memory -= packet.data.len() + HELD_EACH;
        self.bare -= Writer::packet_bytes(packet.data.len(), "");
        Some((packet, ends))
    }
}

impl<'a> Recording<'a> {
    fn new(order: &'a Order, rings: Vec<Ring>) -> Self {
        let mut writer = Writer::default();
        writer.section(&system(), &order.comment);
        for place in &order.places {
            let container = &place.container;
            let description = if container.is_empty() { String::new() } else { format!("container={container}") };
            let snap_length = order.snap_length;
            writer.interface(&Described {
                link: place.link,
                name: &place.name,
                description: &description,
                snap_length,
            });
        }
        Self {
            order,
            accepted: vec![0; rings.len()],
            reserve: STATISTICS_BYTES * rings.len() as u64,
            rings,
            chooser: Chooser::default(),
            writer,
            held: Held::default(),
            packets: 0,
            lost: 0,
            started_ns: now_ns(),
            sent: Instant::now(),
        }
    }

    fn run(&mut self) -> Result<(), Gone> {
        let deadline = Instant::now() + self.order.duration;
        let ended = loop {
            if self.order.shutdown.is_cancelled() {
                break "shutdown";
            }
            if self.order.stop.is_cancelled() {
                break "stopped";
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break "time";
            }
            self.wait(left.min(LOOK));
            if !self.read(u64::MAX) {
                break "bytes";
            }
            self.release(Instant::now().checked_sub(self.order.patience))?;
            self.send_if_due()?;
        };
        if ended != "bytes" {
            self.read_the_rest()?;
        }
        self.finish(ended)
    }

    /// Waits until a ring has something, for so long at most.
    fn wait(&self, most: Duration) {
        let mut sockets: Vec<_> = self.rings.iter().map(|ring| PollFd::new(ring.as_fd(), PollFlags::POLLIN)).collect();
        // At least one, or the last part of a millisecond would be spent turning.
        let most = PollTimeout::try_from(most.max(Duration::from_millis(1))).unwrap_or(PollTimeout::ZERO);
        // A signal is no reason to do anything else than to look.
        let _ready = poll(&mut sockets, most);
        let failed: Vec<_> = sockets.iter().map(PollFd::revents).collect();
        for (ring, events) in self.rings.iter().zip(failed) {
            if events.is_some_and(|events| events.contains(PollFlags::POLLERR)) {
                ring.clear_error();
            }
        }
    }

    /// Takes what passed until `until_ns`; false = the file is full.
    fn read(&mut self, until_ns: u64) -> bool {
        let now = Instant::now();
        let room = self.order.max_bytes.saturating_sub(self.reserve);
        let mut full = false;
        let places = self.order.places.iter().zip(&mut self.rings).zip(&mut self.accepted).enumerate();
        for (number, ((place, ring), accepted)) in places {
            ring.read(|seen| {
                // What a loopback interface sends comes in again at once.
                if full || seen.time_ns > until_ns || (place.name == "lo" && seen.is_outgoing()) {
                    return;
                }
                let Some(Chosen(ends)) = self.chooser.choose(&seen.data, place.link, &place.filter) else { return };
                let packet = packet(&seen, number, self.order.snap_length);
                let bytes = Writer::packet_bytes(packet.data.len(), "");
                if self.writer.bytes() + self.held.bare + bytes > room {
                    full = true;
                    return;
                }
                *accepted += 1;
                self.held.push(now, packet, ends);
            });
        }
        !full
    }

    /// Takes what passed before now and lies in blocks that the kernel has not handed over yet.
    fn read_the_rest(&mut self) -> Result<(), Gone> {
        let until_ns = now_ns();
        let until = Instant::now() + Duration::from_millis(u64::from(RETIRE_MS) * 3);
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.wait(left);
            if !self.read(until_ns) {
                break;
            }
            self.send_if_due()?;
        }
        Ok(())
    }

    /// Writes the packets that have waited since `until`, and those for which there is no room to wait.
    fn release(&mut self, until: Option<Instant>) -> Result<(), Gone> {
        let room = self.order.max_bytes.saturating_sub(self.reserve);
        while let Some((packet, ends)) = self.held.pop(until) {
            let mut comment = ends.map(|ends| self.order.who.comment(&ends)).unwrap_or_default();
            let bytes = Writer::packet_bytes(packet.data.len(), &comment);
            // Rather a packet without a comment than a comment in its place.
            if self.writer.bytes() + self.held.bare + bytes > room {
                comment.clear();
            }
            self.writer.packet(&packet, &comment);
            self.packets += 1;
            if self.writer.waiting() >= PIECE_BYTES {
                self.send("")?;
            }
        }
        Ok(())
    }

    /// Waits for the last names, writes what is left, and says what happened.
    fn finish(&mut self, ended: &str) -> Result<(), Gone> {
        let (rings, started_ns) = (&mut self.rings, self.started_ns);
        let dropped: Vec<_> = rings.iter_mut().map(Ring::dropped).collect();
        self.lost = dropped.iter().sum();
        let to_ns = now_ns();
        // Nothing more is wanted of the interfaces.
        self.rings.clear();
        let until = Instant::now() + self.order.patience;
        while !self.held.packets.is_empty() && Instant::now() < until && !self.order.shutdown.is_cancelled() {
            std::thread::sleep(LOOK);
            self.release(Instant::now().checked_sub(self.order.patience))?;
            self.send_if_due()?;
        }
        self.release(Some(Instant::now()))?;
        for (number, (&dropped, &accepted)) in dropped.iter().zip(&self.accepted).enumerate() {
            let statistics = Statistics { from_ns: started_ns, to_ns, accepted, dropped };
            self.writer.statistics(number as u32, &statistics);
        }
        self.send(ended)
    }

    fn send_if_due(&mut self) -> Result<(), Gone> {
        if self.sent.elapsed() < PIECE_EVERY {
            return Ok(());
        }
        self.lost = self.rings.iter_mut().map(Ring::dropped).sum::<u64>().max(self.lost);
        self.send("")
    }

    /// Sends all that is written, in pieces.
    fn send(&mut self, ended: &str) -> Result<(), Gone> {
        self.sent = Instant::now();
        let mut data = self.writer.take();
        loop {
            let rest = if data.len() > PIECE_BYTES { data.split_off(PIECE_BYTES) } else { Vec::new() };
            let is_last = rest.is_empty();
            let piece = RecordedPiece {
                data,
                packets: self.packets,
                lost: self.lost,
                ended: if is_last { ended.to_owned() } else { String::new() },
            };
            self.order.pieces.blocking_send(Ok(piece)).map_err(|_| Gone)?;
            if is_last {
                return Ok(());
            }
            data = rest;
        }
    }
}

fn packet(seen: &Seen<'_>, interface: usize, snap_length: u32) -> Packet {
    let most = if snap_length == 0 { seen.data.len() } else { seen.data.len().min(snap_length as usize) };
    let Seen { time_ns, flags, original, .. } = *seen;
    Packet { interface: interface as u32, time_ns, flags, original, data: seen.data[..most].into() }
}

/// `Linux 6.6.1`.
fn system() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| String::new(),
        |name| format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy()),
    )
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(time_ns: u64, bytes: usize) -> Packet {
        Packet { time_ns, data: vec![0; bytes].into(), ..Packet::default() }
    }

    #[test]
    fn packets_wait_in_the_order_of_their_time_and_only_while_there_is_room() {
        let mut held = Held::default();
        let now = Instant::now();
        for time in [3, 1, 2] {
            held.push(now, packet(time, 10), None);
        }
        assert!(held.pop(now.checked_sub(Duration::from_secs(1))).is_none());
        let times: Vec<_> = std::iter::from_fn(|| held.pop(Some(now))).map(|(packet, _)| packet.time_ns).collect();
        assert_eq!(times, [1, 2, 3]);
        assert_eq!((held.memory, held.bare), (0, 0));
        held.push(now, packet(1, HELD_BYTES), None);
        held.push(now, packet(2, 10), None);
        assert!(held.pop(None).is_some_and(|(packet, _)| packet.time_ns == 1));
        assert!(held.pop(None).is_none());
    }
}
