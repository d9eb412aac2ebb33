use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_capture_common::{
    dissect::Headers,
    flow::Address,
    initiator::{ACK, SYN},
    slot::{Counters, LIVE},
};

use super::*;

const SECOND: u64 = 1_000_000_000;

/// The kernel's table without a kernel: the same life of a slot, and packets that come between any two calls.
struct Model {
    slots: Vec<Slot>,
    index: BTreeMap<Vec<u64>, u32>,
    free: Vec<u32>,
    /// A program that looked a slot up before it was unlinked, and has not added its packet yet.
    in_flight: Vec<(u32, Packet)>,
    now: u64,
    accounted: Total,
    full: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    packets: u64,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Packet {
    flow: u16,
    back: bool,
    flags: u8,
    bytes: u64,
}

fn key(flow: u16) -> (FlowKey, Side) {
    let address = |low| Address { high: 0, low };
    FlowKey::new(&Headers {
        src: address(1),
        dst: address(2),
        src_port: flow,
        dst_port: 443,
        protocol: TCP,
        ..Headers::default()
    })
}

fn name(key: &FlowKey) -> Vec<u64> {
    vec![key.a.low, key.b.low, u64::from(key.a_port), u64::from(key.b_port)]
}

impl Model {
    fn new(capacity: u32) -> Self {
        Self {
            slots: vec![Slot::default(); capacity as usize],
            index: BTreeMap::new(),
            free: (0..capacity).rev().collect(),
            in_flight: Vec::new(),
            now: SECOND,
            accounted: Total::default(),
            full: 0,
        }
    }

    /// A packet passes: lookup and add at once.
    fn packet(&mut self, packet: Packet) {
        if let Some(number) = self.find_or_open(packet) {
            self.add(number, packet);
        }
    }

    /// A packet whose program is between lookup and add.
    fn packet_in_flight(&mut self, packet: Packet) {
        if let Some(number) = self.find_or_open(packet) {
            self.in_flight.push((number, packet));
        }
    }

    fn find_or_open(&mut self, packet: Packet) -> Option<u32> {
        let (key, side) = key(packet.flow);
        if let Some(&number) = self.index.get(&name(&key)) {
            return Some(number);
        }
        let Some(number) = self.free.pop() else {
            self.full += 1;
            return None;
        };
        assert_eq!(self.slots[number as usize], Slot::default(), "a free slot is empty");
        let initiator = if packet.back { side.other() } else { side };
        self.slots[number as usize] = Slot {
            key,
            state: LIVE,
            initiator: u32::from(initiator == Side::B),
            first_seen: self.now,
            ..Slot::default()
        };
        self.index.insert(name(&key), number);
        Some(number)
    }

    fn add(&mut self, number: u32, packet: Packet) {
        let slot = &mut self.slots[number as usize];
        assert_eq!(slot.key, key(packet.flow).0, "a slot is not given to another flow while a program knows it");
        let side = if packet.back { key(packet.flow).1.other() } else { key(packet.flow).1 };
        if slot.interval_first == 0 {
            slot.interval_first = self.now;
        }
        let counters: &mut Counters = match side {
            Side::A => &mut slot.from_a,
            Side::B => &mut slot.from_b,
        };
        counters.packets += 1;
        counters.bytes += packet.bytes;
        counters.tcp_flags |= u64::from(packet.flags);
        counters.last_seen = self.now;
        self.accounted.packets += 1;
        self.accounted.bytes += packet.bytes;
    }
}

impl Table for Model {
    type Error = ();

    fn capacity(&self) -> u32 {
        self.slots.len() as u32
    }

    fn read(&self, number: u32) -> Option<Slot> {
        let slot = self.slots[number as usize];
        matches!(slot.state, LIVE | ENDING).then_some(slot)
    }

    fn facts(&self, _number: u32) -> Facts {
        Facts::default()
    }

    fn take_interval_first(&mut self, number: u32) -> u64 {
        std::mem::take(&mut self.slots[number as usize].interval_first)
    }

    fn take_tcp_flags(&mut self, number: u32, side: Side) -> u8 {
        let slot = &mut self.slots[number as usize];
        let counters = match side {
            Side::A => &mut slot.from_a,
            Side::B => &mut slot.from_b,
        };
        std::mem::take(&mut counters.tcp_flags) as u8
    }

    fn unlink(&mut self, _number: u32, key: &FlowKey) -> Result<(), ()> {
        self.index.remove(&name(key));
        Ok(())
    }

    fn wait_for_writers(&mut self) -> bool {
        for (number, packet) in std::mem::take(&mut self.in_flight) {
            self.add(number, packet);
        }
        true
    }

    fn free(&mut self, number: u32) -> Result<(), ()> {
        self.slots[number as usize] = Slot::default();
        self.free.push(number);
        Ok(())
    }
}

fn policy() -> Policy {
    let idle = Duration::from_secs(10);
    Policy {
        first: Duration::from_secs(5),
        active: Pace::steady(Duration::from_secs(5)),
        linger: Duration::from_secs(1),
        idle: Idle { tcp: idle, udp: idle, icmp: idle, other: idle },
    }
}

fn run(drain: &mut Drain, table: &mut Model) -> Vec<Interval> {
    let mut intervals = Vec::new();
    let now = table.now;
    drain.run(table, now, &mut |interval| intervals.push(interval)).unwrap();
    intervals
}

fn there(flags: u8) -> Packet {
    Packet { flow: 50000, back: false, flags, bytes: 100 }
}

fn back(flags: u8) -> Packet {
    Packet { back: true, bytes: 60, ..there(flags) }
}

#[test]
fn a_flow_that_goes_on_is_reported_by_its_differences() {
    let (mut table, mut drain) = (Model::new(4), Drain::new(policy()));
    table.packet(there(SYN));
    table.now += SECOND;
    assert_eq!(run(&mut drain, &mut table), []);
    table.packet(back(SYN | ACK));
    table.now += 4 * SECOND;
    let first = run(&mut drain, &mut table);
    assert_eq!(first[0].tx, Traffic { packets: 1, bytes: 100, tcp_flags: SYN });
    assert_eq!(first[0].rx, Traffic { packets: 1, bytes: 60, tcp_flags: SYN | ACK });
    assert_eq!((first[0].start, first[0].end, first[0].end_reason), (SECOND, 2 * SECOND, EndReason::Active));

    table.packet(there(ACK));
    table.now += 2 * SECOND;
    assert_eq!(run(&mut drain, &mut table), []);
    table.now += 3 * SECOND;
    let second = run(&mut drain, &mut table);
    assert_eq!(second[0].tx, Traffic { packets: 1, bytes: 100, tcp_flags: ACK });
    assert_eq!(second[0].rx, Traffic::default());
    assert_eq!((second[0].start, second[0].end), (6 * SECOND, 6 * SECOND));
}

#[test]
fn a_new_flow_is_told_before_one_that_goes_on() {
    let (mut table, mut drain) = (Model::new(4), Drain::new(Policy { first: Duration::from_secs(1), ..policy() }));
    table.packet(there(SYN));
    // One that ends so soon is told when it has ended, and not before.
    for packet in [there(FIN | ACK), back(FIN | ACK)] {
        table.packet(Packet { flow: 50001, ..packet });
    }
    table.now += SECOND / 2;
    table.packet(there(ACK));
    table.packet(Packet { flow: 50001, ..there(ACK) });
    assert_eq!(run(&mut drain, &mut table), []);
    table.now += SECOND / 2;
    let told = run(&mut drain, &mut table);
    assert_eq!(
        told.iter().map(|interval| (interval.tx.packets, interval.end_reason)).collect::<Vec<_>>(),
        [(2, EndReason::Active)]
    );
    for seconds in 1..10 {
        table.packet(there(ACK));
        table.now += SECOND;
        let told = run(&mut drain, &mut table);
        let of_flow = told.iter().filter(|interval| interval.key == key(50000).0).count();
        assert_eq!(of_flow, usize::from(seconds % 5 == 0), "after {seconds} s more");
    }
}

#[test]
fn a_flow_that_goes_on_is_told_every_second_as_long_as_few_do() {
    let pace = Pace { shortest: Duration::from_secs(1), longest: Duration::from_secs(5) };
    let policy = || Policy { first: Duration::from_secs(1), active: pace, ..policy() };
    for (flows, quiet, every) in [(1, 0, 1), (50, 1000, 1), (51, 0, 2), (100, 0, 2), (200, 0, 4), (1000, 0, 5)] {
        let (mut table, mut drain) = (Model::new(4000), Drain::new(policy()));
        // Those that are silent do not count, nor what is over after a packet.
        (0..quiet).for_each(|flow| table.packet(Packet { flow: 10_000 + flow, ..there(ACK) }));
        let mut told = Vec::new();
        for second in 0..60 {
            (0..flows).for_each(|flow| table.packet(Packet { flow, ..there(ACK) }));
            table.packet(Packet { flow: 20_000 + second, ..there(ACK) });
            table.now += SECOND;
            let records = run(&mut drain, &mut table);
            told.push(records.iter().filter(|interval| interval.key.a_port < 10_000).count());
        }
        let steady: usize = told[20..].iter().sum();
        assert_eq!(steady, usize::from(flows) * 40 / every, "{flows} flows: {told:?}");
        assert!(every == 5 || steady <= 40 * 50, "more records than are allowed: {told:?}");
    }
}

#[test]
fn a_flow_that_says_little_is_told_at_once_however_many_there_are() {
    let pace = Pace { shortest: Duration::from_secs(1), longest: Duration::from_secs(5) };
    let (mut table, mut drain) =
        (Model::new(4000), Drain::new(Policy { first: Duration::from_secs(1), active: pace, ..policy() }));
    for second in 0..30 {
        (0..1000).for_each(|flow| table.packet(Packet { flow, ..there(ACK) }));
        if second % 6 == 0 {
            table.packet(there(ACK));
        }
        table.now += SECOND;
        let told = run(&mut drain, &mut table).iter().filter(|interval| interval.key == key(50_000).0).count();
        assert_eq!(told, usize::from(second % 6 == 0), "after {second} s");
    }
}

#[test]
fn what_another_slot_counts_now_ends_at_the_next_drain() {
    let (mut table, mut drain) = (Model::new(4), Drain::new(policy()));
    table.packet(there(ACK));
    table.packet(Packet { flow: 50001, ..there(ACK) });
    table.slots.iter_mut().filter(|slot| slot.key == key(50000).0).for_each(|slot| slot.state = ENDING);
    let told = run(&mut drain, &mut table);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].key, told[0].tx.packets, told[0].end_reason), (key(50000).0, 1, EndReason::Evicted));
    assert_eq!(table.free.len(), 3);
}

#[test]
fn a_closed_conversation_is_reported_after_its_last_acknowledgements() {
    let (mut table, mut drain) = (Model::new(4), Drain::new(policy()));
    table.packet(there(SYN));
    table.packet(there(FIN | ACK));
    table.packet(back(FIN | ACK));
    assert_eq!(run(&mut drain, &mut table), []);
    table.now += SECOND / 2;
    table.packet(there(ACK));
    assert_eq!(run(&mut drain, &mut table), []);
    table.now += SECOND;
    let ended = run(&mut drain, &mut table);
    assert_eq!((ended[0].tx.packets, ended[0].rx.packets, ended[0].end_reason), (3, 1, EndReason::Fin));
    assert_eq!(table.free.len(), 4);
}

#[test]
fn flags_that_were_reported_still_end_the_flow() {
    let (mut table, mut drain) = (Model::new(4), Drain::new(policy()));
    table.packet(there(FIN | ACK));
    table.now += 6 * SECOND;
    assert_eq!(run(&mut drain, &mut table)[0].end_reason, EndReason::Active);
    table.packet(back(FIN | ACK));
    table.now += SECOND;
    let ended = run(&mut drain, &mut table);
    assert_eq!((ended[0].end_reason, ended[0].tx.packets, ended[0].rx.packets), (EndReason::Fin, 0, 1));
}

#[test]
fn a_reset_ends_a_flow() {
    let (mut table, mut drain) = (Model::new(4), Drain::new(policy()));
    table.packet(there(SYN));
    table.packet(back(RST | ACK));
    table.now += SECOND;
    assert_eq!(run(&mut drain, &mut table)[0].end_reason, EndReason::Rst);
}

#[test]
fn a_conversation_that_goes_on_after_its_end_is_still_reported() {
    let (mut table, mut drain) = (Model::new(4), Drain::new(policy()));
    let mut reported = 0;
    for _ in 0..60 {
        table.packet(there(RST));
        table.now += SECOND / 2;
        for interval in run(&mut drain, &mut table) {
            assert_eq!(interval.end_reason, EndReason::Active);
            reported += interval.tx.packets;
        }
    }
    assert!(reported >= 40, "{reported}");
}

#[test]
fn slots_are_found_wherever_the_table_is_used() {
    let (mut table, mut drain) = (Model::new(5000), Drain::new(policy()));
    for flow in 0..3000 {
        table.packet(Packet { flow, ..there(ACK) });
    }
    // Holes of flows that have ended, and flows behind them.
    table.now += 20 * SECOND;
    for flow in 2500..3000 {
        table.packet(Packet { flow, ..there(ACK) });
    }
    assert_eq!(run(&mut drain, &mut table).len(), 3000);
    table.now += 6 * SECOND;
    for flow in 2900..3100 {
        table.packet(Packet { flow, ..there(ACK) });
    }
    let again = run(&mut drain, &mut table);
    assert_eq!(again.iter().filter(|interval| interval.tx.packets > 0).count(), 100);
    assert_eq!(drain.live(), 600);
}

#[test]
fn the_last_record_of_a_silent_flow_says_that_it_is_over() {
    let (mut table, mut drain) = (Model::new(4), Drain::new(policy()));
    table.packet(there(ACK));
    table.now += 5 * SECOND;
    assert_eq!(run(&mut drain, &mut table)[0].end_reason, EndReason::Active);
    table.now += 5 * SECOND;
    let over = run(&mut drain, &mut table);
    assert_eq!((over[0].end_reason, over[0].tx, over[0].rx), (EndReason::Idle, Traffic::default(), Traffic::default()));
    assert_eq!((over[0].start, over[0].end), (SECOND, SECOND));
    assert_eq!(drain.live(), 1);
    assert_eq!(run(&mut drain, &mut table), []);
    assert_eq!(drain.live(), 0);
}

#[test]
fn quiet_flows_make_room_when_the_table_is_nearly_full() {
    let (mut table, mut drain) = (Model::new(10), Drain::new(policy()));
    for flow in 0..9 {
        table.packet(Packet { flow, ..there(ACK) });
        table.now += SECOND / 4;
    }
    table.now += SECOND;
    let evicted = run(&mut drain, &mut table);
    assert_eq!(evicted.iter().map(|interval| interval.key.a_port).collect::<Vec<_>>(), [0]);
    assert_eq!(evicted[0].end_reason, EndReason::Evicted);
}

#[test]
fn no_record_covers_more_than_a_minute_even_after_a_suspend() {
    let (mut table, mut drain) = (Model::new(4), Drain::new(policy()));
    table.packet(there(ACK));
    table.now += 500 * SECOND;
    table.packet(there(ACK));
    let interval = run(&mut drain, &mut table)[0];
    assert_eq!((interval.end - interval.start, interval.tx.packets), (MAX_INTERVAL_NS, 2));
}

#[test]
fn a_kernel_that_cannot_tell_gets_another_round() {
    struct Silent(Model);
    impl Table for Silent {
        type Error = ();
        fn capacity(&self) -> u32 {
            self.0.capacity()
        }
        fn read(&self, number: u32) -> Option<Slot> {
            self.0.read(number)
        }
        fn facts(&self, number: u32) -> Facts {
            self.0.facts(number)
        }
        fn take_interval_first(&mut self, number: u32) -> u64 {
            self.0.take_interval_first(number)
        }
        fn take_tcp_flags(&mut self, number: u32, side: Side) -> u8 {
            self.0.take_tcp_flags(number, side)
        }
        fn unlink(&mut self, number: u32, key: &FlowKey) -> Result<(), ()> {
            self.0.unlink(number, key)
        }
        fn wait_for_writers(&mut self) -> bool {
            false
        }
        fn free(&mut self, number: u32) -> Result<(), ()> {
            self.0.free(number)
        }
    }
    let (mut table, mut drain) = (Silent(Model::new(4)), Drain::new(policy()));
    let mut intervals = Vec::new();
    table.0.packet(there(SYN));
    table.0.packet(back(RST));
    drain.run(&mut table, 3 * SECOND, &mut |interval| intervals.push(interval)).unwrap();
    assert_eq!(intervals, []);
    table.0.add(0, there(ACK));
    drain.run(&mut table, 4 * SECOND, &mut |interval| intervals.push(interval)).unwrap();
    assert_eq!((intervals[0].tx.packets, intervals.len()), (2, 1));
    assert_eq!(table.0.free.len(), 4);
}

#[derive(Clone, Debug)]
enum Step {
    Packet(Packet),
    InFlight(Packet),
    Wait(u64),
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    let flags = prop::sample::select(&[SYN, ACK, FIN | ACK, RST, SYN | ACK][..]);
    let packet = (0..12u16, any::<bool>(), flags, 40..1500u64).prop_map(|(flow, back, flags, bytes)| Packet {
        flow,
        back,
        flags,
        bytes,
    });
    prop_oneof![
        5 => packet.clone().prop_map(Step::Packet),
        1 => packet.prop_map(Step::InFlight),
        2 => (0..4 * SECOND).prop_map(Step::Wait),
        2 => Just(Step::Drain),
    ]
}

proptest! {
    #[test]
    fn nothing_is_lost_or_counted_twice(steps in prop::collection::vec(step(), 0..300)) {
        let (mut table, mut drain) = (Model::new(8), Drain::new(policy()));
        let mut reported = Vec::new();
        for step in steps {
            match step {
                Step::Packet(packet) => table.packet(packet),
                Step::InFlight(packet) => table.packet_in_flight(packet),
                Step::Wait(time) => table.now += time,
                Step::Drain => reported.extend(run(&mut drain, &mut table)),
            }
        }
        let now = table.now;
        drain.finish(&mut table, now, &mut |interval| reported.push(interval)).unwrap();
        let sum = reported.iter().fold(Total::default(), |sum, interval| Total {
            packets: sum.packets + interval.tx.packets + interval.rx.packets,
            bytes: sum.bytes + interval.tx.bytes + interval.rx.bytes,
        });
        prop_assert_eq!(sum, table.accounted);
        prop_assert_eq!(table.free.len(), 8);
        prop_assert!(table.index.is_empty());
        for interval in &reported {
            prop_assert!(interval.start <= interval.end && interval.end <= now);
            prop_assert!(interval.end - interval.start <= MAX_INTERVAL_NS);
        }
    }
}
