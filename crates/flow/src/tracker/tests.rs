use proptest::prelude::*;

use super::*;
use crate::key::Endpoint;

#[derive(Debug, Default)]
struct Nothing;

impl State for Nothing {
    fn held_bytes(&self) -> usize {
        0
    }
}

const SECOND: u64 = 1_000_000;

fn packet(time: u64, forward: bool, protocol: u8) -> Observation {
    let (client, server) = (Endpoint { ip: [1; 16], port: 4000 }, Endpoint { ip: [2; 16], port: 443 });
    let (src, dst) = if forward { (client, server) } else { (server, client) };
    let (key, direction) = Key::new(src, dst, protocol, 0, 0);
    Observation {
        time,
        frame: 1,
        key,
        direction,
        length: 100,
        interface: 0,
        tcp: None,
        is_fragment: false,
        is_copy: false,
        ports: (src.port, dst.port),
        tunnel_ends: 0,
    }
}

fn segment(time: u64, forward: bool, flags: u8, sequence: u32, acknowledgement: u32) -> Observation {
    Observation {
        tcp: Some(Segment { sequence, acknowledgement, flags, ..Segment::default() }),
        ..packet(time, forward, 6)
    }
}

fn run(packets: &[Observation]) -> Vec<Finished> {
    run_with(Limits::default(), packets)
}

fn run_with(limits: Limits, packets: &[Observation]) -> Vec<Finished> {
    let mut tracker = Tracker::<Nothing>::new(limits);
    for packet in packets {
        tracker.advance(packet.time);
        tracker.observe(packet);
    }
    while tracker.finish_some() {}
    let mut finished = Vec::new();
    tracker.take_finished(&mut finished);
    finished
}

fn sums(records: &[Finished]) -> (u64, u64) {
    records.iter().fold((0, 0), |(packets, bytes), record| {
        (packets + record.interval.packets.iter().sum::<u64>(), bytes + record.interval.bytes.iter().sum::<u64>())
    })
}

#[test]
fn a_connection_is_one_record_with_its_handshake_and_end() {
    let records = run(&[
        segment(0, true, 2, 100, 0),
        segment(30, false, 18, 500, 101),
        segment(50, true, 16, 101, 501),
        segment(60, true, 17, 101, 501),
        segment(70, false, 17, 501, 102),
        segment(80, true, 16, 102, 502),
    ]);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].reason, EndReason::Fin);
    assert_eq!(records[0].tcp.as_ref().and_then(|tcp| tcp.handshake_us), Some(50));
    assert_eq!(records[0].interval.packets, [4, 2]);
    assert_eq!(records[0].interval.flags, [2 | 16 | 1, 2 | 16 | 1]);
    assert_eq!(records[0].ports, (4000, 443));
}

#[test]
fn the_answer_that_is_seen_first_does_not_make_its_sender_the_initiator() {
    let records = run(&[segment(0, false, 18, 500, 101), segment(1, true, 16, 101, 501)]);
    assert_eq!(records[0].ports, (4000, 443));
    assert_eq!(records[0].interval.packets, [1, 1]);
}

#[test]
fn a_new_syn_with_another_sequence_number_is_a_new_flow() {
    let reused = run(&[segment(0, true, 2, 100, 0), segment(1, false, 4, 0, 101), segment(2, true, 2, 900, 0)]);
    assert_eq!(
        reused.iter().map(|record| (record.ordinal, record.reason)).collect::<Vec<_>>(),
        [(1, EndReason::Rst), (2, EndReason::Eof)]
    );
    let again = run(&[segment(0, true, 2, 100, 0), segment(SECOND, true, 2, 100, 0)]);
    assert_eq!(again.len(), 1, "a SYN that is sent again is the same connection");
}

#[test]
fn a_flow_that_goes_on_after_its_end_keeps_its_name_and_its_initiator() {
    let records = run(&[packet(0, true, 17), packet(1, false, 17), packet(90 * SECOND, false, 17)]);
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].ordinal, records[0].reason), (1, EndReason::Idle));
    assert_eq!((records[1].ordinal, records[1].reason), (1, EndReason::Eof));
    assert_eq!(records[1].ports, (4000, 443));
    assert_eq!(records[1].interval.packets, [0, 1]);
}

#[test]
fn a_connection_on_ports_whose_flow_was_forgotten_as_idle_is_new() {
    let records = run(&[segment(0, true, 2, 100, 0), segment(400 * SECOND, true, 2, 900, 0)]);
    assert_eq!(records.iter().map(|record| record.ordinal).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn a_full_table_gives_up_the_longest_silent_flow() {
    let mut others: Vec<Observation> = (0..4u8)
        .map(|n| {
            let (key, direction) =
                Key::new(Endpoint { ip: [n; 16], port: 1 }, Endpoint { ip: [9; 16], port: 2 }, 17, 0, 0);
            Observation { key, direction, ..packet(u64::from(n), true, 17) }
        })
        .collect();
    // The first flow speaks again, so the second is the longest silent one.
    others.insert(2, Observation { time: 2, ..others[0] });
    let records = run_with(Limits { flows: 3, ..Limits::default() }, &others);
    assert_eq!(records[0].reason, EndReason::Evicted);
    assert_eq!(records[0].key, others[1].key);
    assert_eq!(sums(&records).0, 5);
}

#[test]
fn ports_that_are_used_anew_with_each_packet_leave_nothing_behind() {
    let mut tracker = Tracker::<Nothing>::new(Limits { retired: 10, ..Limits::default() });
    for sequence in 0..20_000 {
        tracker.observe(&segment(0, true, 2, sequence, 0));
    }
    assert_eq!((tracker.flows(), tracker.index.len(), tracker.slots.len()), (20_000, 1, 1));
    assert!(tracker.deadlines.len() <= 2000 && tracker.retired.places() <= 10);
}

#[test]
fn flows_beyond_what_one_call_ends_are_ended_in_their_order() {
    let packets: Vec<_> = (0..2500u16)
        .map(|port| {
            let mut packet = packet(u64::from(port % 7), true, 17);
            packet.key.low.port = port;
            packet
        })
        .collect();
    let ordinals: Vec<u64> = run(&packets).iter().map(|record| record.ordinal).collect();
    assert_eq!(ordinals, (1..=2500).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn sums_are_exact_and_no_record_is_too_long_whatever_the_clock_does(
        packets in proptest::collection::vec(
            (prop_oneof![0u64..200 * SECOND, Just(u64::MAX), any::<u64>()], any::<bool>(), 0u8..64, 0u32..4, 0u8..6),
            0..200,
        ),
    ) {
        let limits = Limits { flows: 3, retired: 2, ..Limits::default() };
        let packets: Vec<_> = packets.into_iter().map(|(time, forward, flags, sequence, host)| {
            let mut packet = segment(time, forward, flags, sequence, 0);
            packet.key.low.ip[0] = host;
            packet
        }).collect();
        let records = run_with(limits, &packets);
        prop_assert_eq!(sums(&records), (packets.len() as u64, packets.len() as u64 * 100));
        for record in &records {
            prop_assert!(record.interval.start <= record.interval.end);
            prop_assert!(record.interval.end - record.interval.start < limits.active_us);
        }
        prop_assert_eq!(run_with(limits, &packets), records, "the same packets give the same records");
    }
}
