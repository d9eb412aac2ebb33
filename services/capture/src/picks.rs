//! Names: packets that the kernel picked are dissected here, into rows of `dns`, `tls` and `http`, and into the names and protocols of flows.
//!
//! The dissectors are those of pcap-worker: [`weir_flow::Analyzer`] sees the picked packets as if they were a capture. Its flows are thrown
//! away, because the kernel counts better, and its rows get the kernel's flow ids.

mod dissector;
mod exchanges;
mod generations;
mod known;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use metrics::counter;
use tracing::warn;
use weir_capture_common::{contained::is_contained, picks::Head};
use weir_proto::Batch;

use crate::{
    clock::{self, Clock},
    namespaces,
    nat::Nat,
};
use dissector::Dissector;
pub use known::Known;

/// Size of the buffer between the kernel and this thread: at least 1000 packets.
pub(crate) const BUFFER_BYTES: u32 = 4 << 20;
/// Orders that may wait for the thread.
const ORDERS: usize = 8;
/// How long a report waits for names.
const PATIENCE: Duration = Duration::from_millis(250);
/// Places with addresses of their own whose packets are dissected at one time; those of more are not.
const MAX_APART: usize = 256;
/// Microseconds after which such a place is forgotten where nothing more is picked.
const APART_IDLE: u64 = 120_000_000;
/// How often the thread looks.
const TICK: Duration = Duration::from_millis(100);

/// The kernel's side of the buffer.
pub type Buffer = RingBuf<MapData>;

/// Where rows go: whether they will be kept.
pub type Rows = Box<dyn FnMut(Batch) -> bool + Send>;

/// The running thread.
pub struct Picks {
    orders: SyncSender<Order>,
    thread: JoinHandle<()>,
}

/// Makes the thread read what the kernel has picked so far.
#[derive(Clone)]
pub struct CatchUp(SyncSender<Order>);

enum Order {
    Read(SyncSender<()>),
    Stop,
}

impl Picks {
    /// Starts to dissect. `seed` makes the same flow ids as those of the capturing thread; `inside` tells of interfaces in containers.
    pub fn start(
        buffer: Buffer,
        seed: u64,
        nat: Nat,
        inside: namespaces::Known,
        known: Arc<Known>,
        rows: Rows,
    ) -> std::io::Result<Self> {
        let (orders, inbox) = sync_channel(ORDERS);
        let thread = std::thread::Builder::new().name("weir-picks".into()).spawn(move || {
            let places = Places::new(seed, known, inside);
            let mut reading = Reading { buffer, places, nat, rows, clock: None };
            loop {
                let order = inbox.recv_timeout(TICK);
                reading.read();
                match order {
                    Ok(Order::Read(done)) => {
                        // Who asked may have given up.
                        let _gone = done.try_send(());
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            reading.places.finish();
            reading.publish();
        })?;
        Ok(Self { orders, thread })
    }

    /// For who is about to report flows, and wants their names.
    #[must_use]
    pub fn catch_up(&self) -> CatchUp {
        CatchUp(self.orders.clone())
    }

    /// Dissects what was picked so far, publishes the rest, and ends. To be called when nothing is attached any more.
    pub fn stop(self) {
        // It fails for a thread that has ended.
        let _ended = self.orders.send(Order::Stop);
        if self.thread.join().is_err() {
            warn!("the dissecting thread has panicked");
        }
    }
}

impl CatchUp {
    /// Returns when all that was picked before is dissected, or after a moment: a name is not worth more.
    pub fn wait(&self) {
        let (done, told) = sync_channel(1);
        if self.0.try_send(Order::Read(done)).is_ok() && told.recv_timeout(PATIENCE).is_err() {
            counter!("weir_capture_names_late_total").increment(1);
        }
    }
}

struct Reading {
    buffer: Buffer,
    places: Places,
    nat: Nat,
    rows: Rows,
    /// The last good sample.
    clock: Option<Clock>,
}

impl Reading {
    fn read(&mut self) {
        self.clock = Clock::sample().ok().or(self.clock);
        let Some(clock) = self.clock else { return };
        while let Some(item) = self.buffer.next() {
            let Some((head, frame)) = split(&item) else {
                // The kernel's program and this one are of one version.
                counter!("weir_capture_picks_unreadable_total").increment(1);
                continue;
            };
            match self.places.dissector(&head, clock.to_utc_us(head.now)) {
                Some(dissector) => dissector.packet(&head, frame, clock),
                None => counter!("weir_capture_picks_unread_total").increment(1),
            }
        }
        let now = clock::boot_ns().ok().map(|now| clock.to_utc_us(now));
        if let Some(now) = now {
            self.places.advance(now);
        }
        self.publish();
        if let Some(now) = now {
            self.places.forget(now);
        }
    }

    fn publish(&mut self) {
        let here = self.places.here.take();
        self.publish_one(here, true);
        let apart: Vec<_> = self.places.apart.values_mut().map(|(dissector, _)| dissector.take()).collect();
        for batch in apart {
            self.publish_one(batch, false);
        }
    }

    /// `here` = the addresses are those of this host, which may translate them.
    fn publish_one(&mut self, mut batch: Batch, here: bool) {
        let (dns, tls, http) = (batch.dns.len() as u64, batch.tls.len() as u64, batch.http.len() as u64);
        if dns + tls + http == 0 {
            return;
        }
        if let Some(clock) = self.clock.filter(|_| here) {
            self.nat.tell_rows(&mut batch, clock);
        }
        counter!("weir_capture_rows_total", "table" => "dns").increment(dns);
        counter!("weir_capture_rows_total", "table" => "tls").increment(tls);
        counter!("weir_capture_rows_total", "table" => "http").increment(http);
        if !(self.rows)(batch) {
            counter!("weir_capture_rows_unpublished_total").increment(dns + tls + http);
        }
    }
}

/// A dissector for each place with addresses of its own.
struct Places {
    seed: u64,
    known: Arc<Known>,
    inside: namespaces::Known,
    here: Dissector,
    /// Of the others, by what keeps them apart, and when the last packet came there.
    apart: BTreeMap<u64, (Dissector, u64)>,
}

impl Places {
    fn new(seed: u64, known: Arc<Known>, inside: namespaces::Known) -> Self {
        let here = Dissector::new(seed, 0, Arc::clone(&known));
        Self { seed, known, inside, here, apart: BTreeMap::new() }
    }

    /// For a packet that came at `now`; `None` = there are too many, or nobody knows any more where that is.
    fn dissector(&mut self, head: &Head, now: u64) -> Option<&mut Dissector> {
        let mask = if is_contained(head.ifindex) { self.inside.inside(head.ifindex)?.mask } else { 0 };
        if mask == 0 {
            return Some(&mut self.here);
        }
        if self.apart.len() >= MAX_APART && !self.apart.contains_key(&mask) {
            return None;
        }
        let new = || (Dissector::new(self.seed, mask, Arc::clone(&self.known)), now);
        let (dissector, last) = self.apart.entry(mask).or_insert_with(new);
        *last = now;
        Some(dissector)
    }

    /// Gives up what waited too long.
    fn advance(&mut self, now: u64) {
        self.here.advance(now);
        for (dissector, last) in self.apart.values_mut() {
            dissector.advance(now);
            if is_idle(*last, now) {
                dissector.finish();
            }
        }
    }

    /// Forgets places where nothing comes any more, and of which [`Self::advance`] has made the last rows.
    fn forget(&mut self, now: u64) {
        self.apart.retain(|_, (_, last)| !is_idle(*last, now));
    }

    /// Ends everything.
    fn finish(&mut self) {
        self.here.finish();
        self.apart.values_mut().for_each(|(dissector, _)| dissector.finish());
    }
}

fn is_idle(last: u64, now: u64) -> bool {
    now.saturating_sub(last) > APART_IDLE
}

/// The head and the bytes that it announces.
fn split(item: &[u8]) -> Option<(Head, &[u8])> {
    let (head, rest) = item.split_at_checked(size_of::<Head>())?;
    // SAFETY: a head is integers only, any bytes are one, and there are as many as it has.
    let head = unsafe { head.as_ptr().cast::<Head>().read_unaligned() };
    Some((head, rest.get(..head.captured as usize)?))
}
