//! The thread that owns what the kernel gave: it attaches, drains, and at the end detaches and reports the rest.
//!
//! It is a thread of its own because it alone keeps capabilities, and because a grace period blocks.

mod attachments;
mod sizing;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tracing::{info, warn};
use weir_capture_common::ledger::{Entry, Kind, Ledger, Outcome};
use weir_proto::Flow;
use weir_service::Health;

use crate::{
    Error,
    books::Books,
    checkpoint::Checkpoint,
    clock::{self, Clock},
    config::Config,
    demand::Recorder,
    drain::{Drain, Idle, Interval, Policy, Spilled, Table as _},
    interfaces::Selection,
    kernel::{Feature, Kernel, KernelTable, Life, Room, Share},
    metrics::{self, Sums},
    namespaces::{self, Known, Namespaces},
    nat::Nat,
    picks::{Buffer, Rows},
    privileges,
    processes::Processes,
    record::{self, Context},
};
use attachments::Attachments;

pub use sizing::Sizing;

/// Takes records; returns whether it will keep them. It must not block.
pub type Sink = Box<dyn FnMut(Vec<Flow>) -> bool + Send>;

/// Records in one batch: some hundred kilobytes before compression.
const BATCH: usize = 2000;
/// How often the buffer of packets without room is looked into, and how soon again when there were any.
const LOOK: Duration = Duration::from_millis(50);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Orders that may wait for the thread.
const ORDERS: usize = 8;

/// The running thread.
pub struct Capture {
    orders: SyncSender<Order>,
    thread: JoinHandle<Result<Totals, Error>>,
    picks: Option<Buffer>,
    recorder: Option<Recorder>,
    seed: u64,
    nat: Nat,
    namespaces: Option<Namespaces>,
    /// Why namespaces that are wanted cannot be entered.
    shut: Option<String>,
    known: Known,
}

/// What was counted in one life, when all of it is reported: `seen = accounted + ignored + lost` and `accounted = reported`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// What the kernel counted.
    pub ledger: Ledger,
    /// What became records.
    pub reported: Sums,
}

enum Order {
    Start(Sink, Health, Option<PathBuf>),
    Books(Rows),
    Select(Selection),
    /// Interfaces in containers, number and name: those that are attached to, and those that will be as soon as this is answered.
    Contained(Vec<(u32, String)>, SyncSender<()>),
    Resize(Sizing),
    Stop,
}

/// The thread is gone; [`Capture::stop`] tells why.
#[derive(Debug, thiserror::Error)]
#[error("the capturing thread has ended")]
pub struct Ended;

impl Capture {
    /// Loads the programs, and starts the thread. It keeps the rights that it needs; the caller may give up its own afterwards. Of processes
    /// that are there already it is told `before`.
    pub fn load(config: &Config, before: &Processes) -> Result<Self, Error> {
        let (mut kernel, mut table) = Kernel::load(
            Room {
                max_flows: config.max_flows,
                overflow_buffer: config.overflow_buffer,
                pin: config.pin.clone(),
                contained: config.container_namespaces,
            },
            &config.plan()?,
        )?;
        kernel.learn_executables(before);
        kernel.stand(config.hook, config.tcx_order);
        let picks = kernel.take_picks();
        let recorder = config.on_demand.then(Recorder::start).transpose()?;
        let mut drain = Drain::new(policy(config));
        let mut books = Books::default();
        let earlier = kernel.earlier();
        let life = earlier.unwrap_or_else(|| Life { seed: uuid::Uuid::new_v4().as_u64_pair().0, ..Life::default() });
        let shares: BTreeMap<u32, Share> = kernel.earlier_shares()?.into_iter().collect();
        if earlier.is_some() {
            let pending = drain.adopt(&mut table)?;
            let accounted = kernel.ledger()?.entry(Outcome::Accounted).packets;
            // What the killed process alone knew of: flows without room, and duplicates among them.
            let duplicates: u64 = shares.values().map(|share| share.duplicates.packets).sum();
            let unseen = accounted.saturating_sub(life.reported.packets + duplicates + pending);
            metrics::unseen(unseen);
            books.unseen(unseen);
            books.go_on(shares.iter().map(|(place, share)| (*place, share.told)));
        }
        kernel.hand_on(&life, std::iter::empty())?;
        let seed = life.seed;
        let every = config.pace().longest;
        let spilled = Spilled::new(every, config.drain_ended);
        let tick = config.drain_ended.min(every);
        let (with_nat, nat) = (config.nat, Nat::new());
        let nat_of_rows = nat.clone();
        let sizing = Sizing::of(config);
        let (orders, inbox) = sync_channel(ORDERS);
        let known = Known::default();
        let (namespaces, shut) = match kernel.take_contained(config.hook, config.tcx_order) {
            Ok(contained) => {
                let start = |contained| Namespaces::start(contained, known.clone(), tell(orders.clone()));
                (contained.map(start).transpose()?, None)
            }
            Err(reason) => (None, Some(reason)),
        };
        let known_inside = known.clone();
        let thread = std::thread::Builder::new()
            .name("weir-capture".into())
            .spawn(move || {
                privileges::keep_for_capturing()?;
                let Ok(Order::Start(sink, health, path)) = inbox.recv() else { return Ok(Totals::default()) };
                let attachments = Attachments::new(health, known_inside);
                let mut checkpoint = path.map(Checkpoint::open);
                if let (Some(_), Some(checkpoint)) = (earlier, &mut checkpoint) {
                    // The programs have counted meanwhile.
                    checkpoint.forget();
                }
                if with_nat {
                    nat.open();
                }
                let reported = life.reported;
                let duplicates = shares.into_iter().map(|(place, share)| (place, share.duplicates)).collect();
                Thread {
                    kernel,
                    table,
                    drain,
                    spilled,
                    unreported: Vec::new(),
                    duplicates,
                    attachments,
                    nat,
                    sink,
                    seed,
                    reported,
                    books,
                    every,
                    checkpoint,
                    sizing,
                }
                .run(&inbox, tick)
            })
            .map_err(|source| Error::System { what: "start a thread", source })?;
        Ok(Self { orders, thread, picks, recorder, seed, nat: nat_of_rows, namespaces, shut, known })
    }

    /// Begins to report; `health` is told whether anything is captured on; the file `checkpoint` tells the next life how far this one got.
    pub fn start(&self, sink: Sink, health: Health, checkpoint: Option<PathBuf>) -> Result<(), Ended> {
        if let Some(reason) = &self.shut {
            metrics::feature(namespaces::FEATURE, false);
            warn!(feature = namespaces::FEATURE, hook = "tcx", reason, "not available: records do not tell it");
        }
        self.orders.send(Order::Start(sink, health, checkpoint)).map_err(|_| Ended)
    }

    /// Tells what became of all packets from now on.
    pub fn keep_books(&self, rows: Rows) -> Result<(), Ended> {
        self.orders.send(Order::Books(rows)).map_err(|_| Ended)
    }

    /// Where the kernel puts packets for [`crate::picks`], the first time that this is called; `None` if it picks none.
    pub fn take_picks(&mut self) -> Option<Buffer> {
        self.picks.take()
    }

    /// What records packets, the first time that this is called; `None` where nobody may ask for that.
    pub fn take_recorder(&mut self) -> Option<Recorder> {
        self.recorder.take()
    }

    /// Part of the ids of all flows of this life.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What translated ends are, for [`crate::picks`].
    #[must_use]
    pub fn nat(&self) -> Nat {
        self.nat.clone()
    }

    /// What is known of interfaces in containers.
    #[must_use]
    pub fn known_inside(&self) -> Known {
        self.known.clone()
    }

    /// Attaches to these interfaces, and to no others but those in containers.
    pub fn select(&self, selection: Selection) -> Result<(), Ended> {
        if let Some(namespaces) = &self.namespaces {
            namespaces.captured(selection.present.iter().map(|interface| interface.index).collect());
        }
        self.orders.send(Order::Select(selection)).map_err(|_| Ended)
    }

    /// Gives the flow table another size, without losing a packet.
    pub fn resize(&self, sizing: Sizing) -> Result<(), Ended> {
        self.orders.send(Order::Resize(sizing)).map_err(|_| Ended)
    }

    /// Whether the thread has ended by itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Detaches, reports what the table holds, and returns the totals. Blocks for some milliseconds.
    pub fn stop(self) -> Result<Totals, Error> {
        // First, because it waits for the other one.
        if let Some(namespaces) = self.namespaces {
            namespaces.stop();
        }
        // A thread that has ended needs no order.
        let _ended = self.orders.send(Order::Stop);
        self.thread.join().map_err(|_| Error::System {
            what: "go on: the capturing thread has panicked",
            source: std::io::Error::other("panic"),
        })?
    }
}

/// Tells the capturing thread of interfaces in containers, and waits until it knows them.
fn tell(orders: SyncSender<Order>) -> namespaces::Tell {
    Box::new(move |interfaces| {
        let (done, told) = sync_channel(1);
        orders.send(Order::Contained(interfaces, done)).is_ok() && told.recv().is_ok()
    })
}

fn policy(config: &Config) -> Policy {
    Policy {
        first: config.drain_ended.min(config.pace().longest),
        active: config.pace(),
        // Half a second by default: longer than the last acknowledgement takes around the world.
        linger: config.drain_ended / 2,
        idle: Idle { tcp: config.idle_tcp, udp: config.idle_udp, icmp: config.idle_icmp, other: config.idle_other },
    }
}

struct Thread {
    kernel: Kernel,
    table: KernelTable,
    drain: Drain,
    spilled: Spilled,
    /// Of flows without room, until the next report.
    unreported: Vec<Interval>,
    /// What the life before had found out, by place of the ledger.
    duplicates: BTreeMap<u32, Entry>,
    attachments: Attachments,
    nat: Nat,
    sink: Sink,
    seed: u64,
    reported: Sums,
    books: Books,
    /// How often the ledger is told.
    every: Duration,
    checkpoint: Option<Checkpoint>,
    sizing: Sizing,
}

impl Thread {
    fn run(mut self, inbox: &Receiver<Order>, tick: Duration) -> Result<Totals, Error> {
        self.kernel.features().tell();
        // A table that was taken over is as large as it was.
        self.resize(self.sizing.max_flows)?;
        let mut next = Instant::now() + tick;
        let mut look = next;
        loop {
            match inbox.recv_timeout(next.min(look).saturating_duration_since(Instant::now())) {
                Ok(Order::Select(selection)) => {
                    let now = self.keep_books()?;
                    self.attachments.follow(&mut self.kernel, &mut self.table, selection);
                    self.books.open(&self.attachments.current(), now);
                    self.look_back();
                }
                Ok(Order::Contained(interfaces, done)) => {
                    let now = self.keep_books()?;
                    self.attachments.contain(&mut self.kernel, &mut self.table, &interfaces);
                    self.books.open(&named(interfaces), now);
                    // Who waits for it may be gone.
                    let _gone = done.try_send(());
                }
                Ok(Order::Resize(sizing)) => {
                    self.sizing = sizing;
                    self.resize(sizing.max_flows)?;
                }
                Ok(Order::Books(rows)) => self.books.tell(rows),
                Ok(Order::Start(..)) => {}
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let spilled = self.read_spilled();
                    if let Some(larger) = self.sizing.next(self.table.max_flows(), self.drain.live(), spilled > 0) {
                        self.resize(larger)?;
                    }
                    look = Instant::now() + if spilled == 0 { LOOK } else { LOOK_AGAIN };
                    if Instant::now() < next && self.unreported.is_empty() {
                        continue;
                    }
                    let before = utc_us()?;
                    if self.attachments.retry(&mut self.kernel) {
                        self.books.open(&self.attachments.current(), before);
                    }
                    self.report(false)?;
                    if self.books.due(self.every) {
                        self.keep_books()?;
                    }
                    // From now, not from when it was due: after a suspend there is one drain, not many.
                    next = Instant::now() + tick;
                }
            }
        }
        self.attachments.clear();
        self.report(true)?;
        self.keep_books()?;
        let totals = Totals { ledger: self.ledger()?, reported: self.reported };
        farewell(&totals);
        if let Some(checkpoint) = self.checkpoint.take() {
            checkpoint.remove();
        }
        Ok(totals)
    }

    /// Counts what passed between the end of a life that was killed and now.
    fn look_back(&mut self) {
        if let Some(checkpoint) = &mut self.checkpoint {
            let unseen = checkpoint.look_back(&self.attachments.current());
            metrics::unseen(unseen);
            self.books.unseen(unseen);
        }
    }

    /// Tells what became of packets; returns when.
    fn keep_books(&mut self) -> Result<u64, Error> {
        let now = utc_us()?;
        self.books.keep(&self.ledgers()?, now);
        // At once: what was told must not be unknown to the next life.
        self.hand_on()?;
        Ok(now)
    }

    fn keep_checkpoint(&mut self) -> Result<(), Error> {
        if self.checkpoint.is_none() {
            return Ok(());
        }
        let accounted = self.ledger()?.entry(Outcome::Accounted).packets;
        let Some(checkpoint) = &mut self.checkpoint else { return Ok(()) };
        checkpoint.keep(&self.attachments.current(), accounted.saturating_sub(self.reported.packets));
        Ok(())
    }

    /// Takes what the kernel tells of flows without room; returns how many packets.
    fn read_spilled(&mut self) -> usize {
        let (spilled, unreported) = (&mut self.spilled, &mut self.unreported);
        self.kernel.read_spilled(|spill| spilled.add(spill, &mut |interval| unreported.push(interval)))
    }

    /// Gives the table another size. Where there is no memory for it, it stays as it is, and does not try again by itself.
    fn resize(&mut self, max_flows: u32) -> Result<(), Error> {
        let (before, slots) = (self.table.max_flows(), self.table.capacity());
        if max_flows == before {
            return Ok(());
        }
        let next = match self.table.prepare(max_flows) {
            Ok(next) => next,
            Err(error) => {
                let error = format!("{:#}", anyhow::Error::from(error));
                warn!(from = before, to = max_flows, error, "the flow table stays as large as it is");
                self.sizing.limit = before;
                return Ok(());
            }
        };
        let (kernel, spilled, unreported) = (&mut self.kernel, &mut self.spilled, &mut self.unreported);
        let mut pause = || {
            kernel.read_spilled(|spill| spilled.add(spill, &mut |interval| unreported.push(interval)));
        };
        let started = Instant::now();
        self.table.change(next, &mut pause)?;
        // What found no room before it was there says nothing about the new size.
        self.read_spilled();
        self.drain.resized(&self.table, slots);
        metrics::resized();
        info!(from = before, to = max_flows, milliseconds = started.elapsed().as_millis(), "resized the flow table");
        Ok(())
    }

    /// The kernel's, with what is known better here.
    fn ledgers(&self) -> Result<Vec<(u32, Ledger)>, Error> {
        let mut ledgers = self.kernel.ledgers()?;
        for (place, ledger) in &mut ledgers {
            ledger.take_back(self.duplicates(*place));
        }
        Ok(ledgers)
    }

    /// What was found out to be duplicates, by this life and by the one before.
    fn duplicates(&self, place: u32) -> Entry {
        let (mine, earlier) =
            (self.spilled.duplicates(place), self.duplicates.get(&place).copied().unwrap_or_default());
        Entry { packets: earlier.packets + mine.packets, bytes: earlier.bytes + mine.bytes }
    }

    /// The sum of all.
    fn ledger(&self) -> Result<Ledger, Error> {
        let mut sum = Ledger::default();
        self.ledgers()?.iter().for_each(|(_, ledger)| sum.merge(ledger));
        Ok(sum)
    }

    fn hand_on(&mut self) -> Result<(), Error> {
        let life = Life { seed: self.seed, reported: self.reported };
        let share = |(place, told)| (place, Share { told, duplicates: self.duplicates(place) });
        let shares: Vec<_> = self.books.told().map(share).collect();
        self.kernel.hand_on(&life, shares.into_iter())?;
        Ok(())
    }

    /// Reports what is due; `last`: all there is.
    fn report(&mut self, last: bool) -> Result<(), Error> {
        let started = Instant::now();
        let clock = Clock::sample().map_err(|source| Error::System { what: "read the clock", source })?;
        let now = clock::boot_ns().map_err(|source| Error::System { what: "read the clock", source })?;
        self.read_spilled();
        let attachments = &self.attachments;
        let kernel = &self.kernel;
        let drop_reason = |reason| kernel.drop_reason(reason);
        let context = Context {
            clock,
            seed: self.seed,
            interface: &|index| attachments.name(index),
            inside: &|number| attachments.inside(number),
            executable: &|pid| kernel.executable(pid),
            drop_reason: kernel.features().has(Feature::Drops).then_some(&drop_reason),
            reset_reason: &|reason| kernel.reset_reason(reason),
        };
        let (nat, sink, reported, books) = (&self.nat, &mut self.sink, &mut self.reported, &mut self.books);
        let mut batch = Batch { flows: Vec::new(), clock, nat, sink, reported, books };
        let mut push = |interval| batch.push(record::flow(&interval, &context));
        self.unreported.drain(..).for_each(&mut push);
        if last {
            self.drain.finish(&mut self.table, now, &mut push)?;
            self.spilled.finish(&mut push);
        } else {
            self.drain.run(&mut self.table, now, &mut push)?;
            self.spilled.run(now, &mut push);
        }
        batch.publish();
        self.drain.settle(&mut self.table);
        let slots = self.table.capacity();
        if self.table.give_back()? {
            self.drain.resized(&self.table, slots);
        }
        self.hand_on()?;
        // Before anybody is told: after a kill, what was told must not be unknown to the next life.
        self.keep_checkpoint()?;
        metrics::ledger(&self.ledger()?, &self.reported);
        metrics::table(self.drain.live(), self.table.room());
        for (reason, packets) in self.kernel.drops()? {
            metrics::kernel_drops(reason, packets);
        }
        let (picked, lost) = self.kernel.picked()?;
        metrics::picked(picked, lost);
        metrics::drained(started.elapsed().as_secs_f64());
        Ok(())
    }
}

/// Records on their way to the sink.
struct Batch<'a> {
    flows: Vec<Flow>,
    clock: Clock,
    nat: &'a Nat,
    sink: &'a mut Sink,
    reported: &'a mut Sums,
    books: &'a mut Books,
}

impl Batch<'_> {
    fn push(&mut self, flow: Flow) {
        self.flows.push(flow);
        if self.flows.len() == BATCH {
            self.publish();
        }
    }

    fn publish(&mut self) {
        if self.flows.is_empty() {
            return;
        }
        // Now, and not when they were read: what began a moment before them is known by now.
        self.nat.tell(&mut self.flows, self.clock);
        let sums = Sums::of(&self.flows);
        self.reported.add(sums);
        if !(self.sink)(std::mem::take(&mut self.flows)) {
            metrics::unpublished(sums);
            self.books.unpublished(sums);
        }
    }
}

fn named(interfaces: Vec<(u32, String)>) -> Vec<(String, u32)> {
    interfaces.into_iter().map(|(number, name)| (name, number)).collect()
}

fn utc_us() -> Result<u64, Error> {
    clock::utc_us().map_err(|source| Error::System { what: "read the clock", source })
}

fn farewell(totals: &Totals) {
    let ledger = &totals.ledger;
    let (seen, lost) = (ledger.sum(Kind::Seen).packets, ledger.sum(Kind::Lost).packets);
    let (accounted, ignored) = (ledger.sum(Kind::Accounted).packets, ledger.sum(Kind::Ignored).packets);
    info!(seen, accounted, ignored, lost, reported = totals.reported.packets, "detached");
    if accounted != totals.reported.packets {
        warn!(accounted, reported = totals.reported.packets, "packets in flows and in records differ");
    }
}
