//! Names: packets that the kernel picked are dissected here, into rows of `dns`, `tls` and `http`, and into the names and protocols of flows.
//!
//! The dissectors are those of pcap-worker: [`weir_flow::Analyzer`] sees the picked packets as if they were a capture. Its flows are thrown
//! away, because the kernel counts better, and its rows get the kernel's flow ids.

mod dissector;
mod exchanges;
mod generations;
mod known;

use std::{
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
use weir_capture_common::picks::Head;
use weir_proto::Batch;

use crate::{
    clock::{self, Clock},
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
    /// Starts to dissect. `seed` makes the same flow ids as those of the capturing thread.
    pub fn start(buffer: Buffer, seed: u64, nat: Nat, known: Arc<Known>, rows: Rows) -> std::io::Result<Self> {
        let (orders, inbox) = sync_channel(ORDERS);
        let thread = std::thread::Builder::new().name("weir-picks".into()).spawn(move || {
            let mut reading = Reading { buffer, dissector: Dissector::new(seed, known), nat, rows, clock: None };
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
            reading.dissector.finish();
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
    dissector: Dissector,
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
            match split(&item) {
                Some((head, frame)) => self.dissector.packet(&head, frame, clock),
                // The kernel's program and this one are of one version.
                None => counter!("weir_capture_picks_unreadable_total").increment(1),
            }
        }
        if let Ok(now) = clock::boot_ns() {
            self.dissector.advance(clock.to_utc_us(now));
        }
        self.publish();
    }

    fn publish(&mut self) {
        let mut batch = self.dissector.take();
        let (dns, tls, http) = (batch.dns.len() as u64, batch.tls.len() as u64, batch.http.len() as u64);
        if dns + tls + http == 0 {
            return;
        }
        if let Some(clock) = self.clock {
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

/// The head and the bytes that it announces.
fn split(item: &[u8]) -> Option<(Head, &[u8])> {
    let (head, rest) = item.split_at_checked(size_of::<Head>())?;
    // SAFETY: a head is integers only, any bytes are one, and there are as many as it has.
    let head = unsafe { head.as_ptr().cast::<Head>().read_unaligned() };
    Some((head, rest.get(..head.captured as usize)?))
}
