use proptest::prelude::*;

use super::*;
use crate::packet::transport::flags::{ACK, FIN, RST, SYN};

const MS: u64 = 1000;

/// A connection from sequence numbers 100 and 500 on.
struct Wire {
    connection: Connection,
    ids: u16,
}

impl Wire {
    fn new() -> Self {
        Self { connection: Connection::default(), ids: 0 }
    }

    fn established() -> Self {
        let mut wire = Self::new();
        wire.segment(0, TX, Segment { window: 1000, flags: SYN, sequence: 99, ..scaled(2) });
        wire.segment(
            10 * MS,
            RX,
            Segment { window: 1000, flags: SYN | ACK, sequence: 499, acknowledgement: 100, ..scaled(3) },
        );
        wire.ack(12 * MS, TX, 100, 500);
        wire
    }

    fn segment(&mut self, time: u64, from: usize, segment: Segment) -> Marks {
        self.ids += 1;
        self.connection.segment(time, from, &Segment { id: self.ids, ..segment })
    }

    fn data(&mut self, time: u64, from: usize, sequence: u32, acknowledgement: u32, length: u32) -> Marks {
        self.segment(time, from, Segment { sequence, acknowledgement, length, flags: ACK, window: 1000, ..DEFAULT })
    }

    fn ack(&mut self, time: u64, from: usize, sequence: u32, acknowledgement: u32) -> Marks {
        self.data(time, from, sequence, acknowledgement, 0)
    }

    fn window(&mut self, time: u64, from: usize, sequence: u32, acknowledgement: u32, window: u16) -> Marks {
        self.segment(time, from, Segment { sequence, acknowledgement, flags: ACK, window, ..DEFAULT })
    }
}

const DEFAULT: Segment = Segment {
    sequence: 0,
    acknowledgement: 0,
    length: 0,
    window: 0,
    id: 0,
    flags: 0,
    options: Options { window_scale: None, max_segment: None, timestamp: None, sack: None, second_sack: None },
};

fn scaled(shift: u8) -> Segment {
    Segment { options: Options { window_scale: Some(shift), ..Options::default() }, ..DEFAULT }
}

fn names(marks: Marks) -> Vec<&'static str> {
    Marks::NAMES.iter().filter(|(mark, _)| marks.contains(*mark)).map(|(_, name)| *name).collect()
}

#[test]
fn a_handshake_says_which_way_is_slow() {
    let report = Wire::established().connection.take_report(20 * MS);
    assert_eq!((report.syn_ack_us, report.handshake_us), (Some(10_000), Some(12_000)));
    assert_eq!((report.rtt_us, report.smoothed_rtt_us), ([Some(10_000), Some(2_000)], Some(12_000)));
    assert_eq!(report.counts, [Counts::default(); 2]);
}

#[test]
fn a_syn_that_is_sent_again_shows_how_its_sender_waits() {
    let mut wire = Wire::new();
    for time in [0, 1000, 3000, 7000] {
        wire.segment(time * MS, TX, Segment { flags: SYN, sequence: 99, ..scaled(2) });
    }
    let report = wire.connection.take_report(8000 * MS);
    assert_eq!(report.syn_waits_us, [1_000_000, 2_000_000, 4_000_000]);
    assert_eq!((report.counts[TX].syn_retransmits, report.counts[TX].retransmits), (3, 3));
    assert_eq!(report.syn_ack_us, None);
}

#[test]
fn a_loss_before_the_place_of_capture_is_a_gap_duplicate_acks_and_a_fast_retransmission() {
    let mut wire = Wire::established();
    assert!(wire.data(20 * MS, TX, 100, 500, 10).is_empty());
    assert_eq!(names(wire.data(21 * MS, TX, 120, 500, 10)), ["lost_segment"]);
    assert!(wire.ack(22 * MS, RX, 500, 110).is_empty());
    assert_eq!(names(wire.ack(22 * MS, RX, 500, 110)), ["duplicate_ack"]);
    assert_eq!(names(wire.ack(23 * MS, RX, 500, 110)), ["duplicate_ack"]);
    assert_eq!(names(wire.data(40 * MS, TX, 110, 500, 10)), ["retransmission", "fast_retransmission"]);
    assert!(wire.ack(41 * MS, RX, 500, 130).is_empty());
    let report = wire.connection.take_report(50 * MS);
    assert_eq!((report.counts[TX].retransmits, report.counts[TX].fast, report.counts[TX].lost_segments), (1, 1, 0));
    assert_eq!(report.counts[RX].duplicate_acks, 2);
}

#[test]
fn what_was_seen_before_is_never_out_of_order_however_soon_it_comes() {
    let mut wire = Wire::established();
    wire.data(20 * MS, TX, 100, 500, 10);
    wire.data(20 * MS, TX, 110, 500, 10);
    assert_eq!(names(wire.data(21 * MS, TX, 100, 500, 10)), ["retransmission"]);
    wire.ack(30 * MS, RX, 500, 120);
    assert_eq!(names(wire.data(31 * MS, TX, 110, 500, 10)), ["retransmission", "spurious_retransmission"]);
}

#[test]
fn what_comes_late_within_a_round_trip_is_out_of_order_unless_the_senders_clock_says_otherwise() {
    for (ticks, expected) in [(None, "out_of_order"), (Some(8), "out_of_order"), (Some(12), "retransmission")] {
        let mut wire = Wire::established();
        let at = |timestamp| Options { timestamp, ..Options::default() };
        wire.data(20 * MS, TX, 100, 500, 10);
        let high = Segment { sequence: 120, acknowledgement: 500, length: 10, flags: ACK, window: 9, ..DEFAULT };
        wire.segment(21 * MS, TX, Segment { options: at(Some(10)), ..high });
        let late = Segment { sequence: 110, options: at(ticks), ..high };
        assert_eq!(names(wire.segment(22 * MS, TX, late)), [expected], "{ticks:?}");
    }
}

#[test]
fn what_comes_before_its_sender_can_have_heard_that_it_is_missing_is_out_of_order() {
    let sack = |end| Options { sack: Some((120, end)), ..Options::default() };
    // The initiator is 10 ms away in the handshake, the responder is here: news of a gap are answered after about as long.
    for (late, ticks, expected) in [
        (1, None, &["out_of_order"][..]),
        (1, Some(8), &["out_of_order"]),
        (1, Some(12), &["retransmission", "fast_retransmission"]),
        (9, None, &["retransmission", "fast_retransmission"]),
        (9, Some(8), &["out_of_order"]),
    ] {
        let mut wire = Wire::new();
        wire.segment(0, TX, Segment { sequence: 99, flags: SYN, window: 9, ..DEFAULT });
        wire.segment(0, RX, Segment { sequence: 499, acknowledgement: 100, flags: SYN | ACK, window: 9, ..DEFAULT });
        wire.ack(10 * MS, TX, 100, 500);
        let at = |timestamp| Options { timestamp, ..Options::default() };
        let data = Segment { acknowledgement: 500, length: 10, flags: ACK, window: 9, ..DEFAULT };
        wire.segment(20 * MS, TX, Segment { sequence: 100, options: at(Some(10)), ..data });
        wire.segment(20 * MS, TX, Segment { sequence: 120, options: at(Some(10)), ..data });
        let asks =
            Segment { sequence: 500, acknowledgement: 110, flags: ACK, window: 9, options: sack(130), ..DEFAULT };
        wire.segment(20 * MS, RX, asks);
        let late_one = Segment { sequence: 110, options: at(ticks), ..data };
        assert_eq!(names(wire.segment((20 + late) * MS, TX, late_one)), expected, "{late} ms, {ticks:?}");
    }
}

#[test]
fn a_gap_that_is_acknowledged_was_lost_by_the_capture_once() {
    let mut wire = Wire::established();
    wire.data(20 * MS, TX, 100, 500, 10);
    wire.data(21 * MS, TX, 120, 500, 10);
    assert_eq!(names(wire.ack(30 * MS, RX, 500, 130)), ["ack_lost_segment"]);
    assert_eq!(names(wire.ack(31 * MS, RX, 500, 150)), ["ack_lost_segment"]);
    assert_eq!(names(wire.data(32 * MS, TX, 150, 500, 10)), ["lost_segment"]);
    assert!(wire.ack(33 * MS, RX, 500, 160).is_empty());
    assert_eq!(wire.connection.take_report(40 * MS).counts[TX].lost_segments, 2);
}

#[test]
fn a_closed_window_is_counted_with_its_probes_and_its_duration() {
    let mut wire = Wire::established();
    // The responder's windows are shifted by three.
    wire.data(20 * MS, TX, 100, 500, 900);
    wire.window(21 * MS, RX, 500, 1000, 10);
    assert_eq!(names(wire.data(22 * MS, TX, 1000, 500, 80)), ["window_full"]);
    assert_eq!(names(wire.window(30 * MS, RX, 500, 1080, 0)), ["zero_window"]);
    assert_eq!(names(wire.data(230 * MS, TX, 1080, 500, 1)), ["zero_window_probe"]);
    assert_eq!(names(wire.window(231 * MS, RX, 500, 1080, 0)), ["zero_window", "zero_window_probe_ack"]);
    let first = wire.connection.take_report(300 * MS);
    assert_eq!(names(wire.window(430 * MS, RX, 500, 1080, 100)), ["window_update"]);
    let second = wire.connection.take_report(500 * MS);
    assert_eq!((first.counts[RX].zero_windows, first.counts[RX].zero_window_us), (2, 270_000));
    assert_eq!((second.counts[RX].zero_windows, second.counts[RX].zero_window_us), (0, 130_000));
    assert_eq!((first.counts[TX].window_full, first.counts[TX].zero_window_probes), (1, 1));
}

#[test]
fn a_keep_alive_and_its_answer_are_no_retransmission_and_no_duplicate() {
    let mut wire = Wire::established();
    wire.data(20 * MS, TX, 100, 500, 10);
    wire.ack(21 * MS, RX, 500, 110);
    assert_eq!(names(wire.data(9000 * MS, TX, 109, 500, 1)), ["keep_alive"]);
    assert_eq!(names(wire.ack(9001 * MS, RX, 500, 110)), ["keep_alive_ack"]);
}

#[test]
fn the_same_packet_doubled_changes_nothing() {
    let mut wire = Wire::established();
    let data = Segment { sequence: 100, acknowledgement: 500, length: 10, flags: ACK, window: 1000, ..DEFAULT };
    assert!(wire.connection.segment(20 * MS, TX, &Segment { id: 7, ..data }).is_empty());
    assert_eq!(wire.connection.segment(20 * MS, TX, &Segment { id: 7, ..data }), Marks::DOUBLED);
    assert_eq!(names(wire.connection.segment(20 * MS, TX, &Segment { id: 8, ..data })), ["retransmission"]);
    let counts = wire.connection.take_report(30 * MS).counts[TX];
    assert_eq!((counts.doubled, counts.retransmits), (1, 1));
}

#[test]
fn turns_give_the_first_byte_and_the_median_answer() {
    let mut wire = Wire::established();
    wire.data(20 * MS, TX, 100, 500, 10);
    wire.data(25 * MS, TX, 110, 500, 10);
    wire.data(55 * MS, RX, 500, 120, 10);
    wire.data(60 * MS, RX, 510, 120, 10);
    wire.data(70 * MS, TX, 120, 520, 10);
    wire.data(80 * MS, RX, 520, 130, 10);
    let report = wire.connection.take_report(90 * MS);
    assert_eq!((report.first_byte_us, report.response_us), (Some(35_000), Some(10_000)));
    assert_eq!(report.max_in_flight, [Some(20), Some(20)]);
}

#[test]
fn a_reset_says_who_and_whether_there_was_data() {
    let mut wire = Wire::new();
    wire.segment(0, TX, Segment { flags: SYN, sequence: 99, ..DEFAULT });
    wire.segment(MS, RX, Segment { flags: RST | ACK, acknowledgement: 100, ..DEFAULT });
    assert_eq!(wire.connection.take_report(MS).reset, Some(Reset { by: RX, after_data: false }));
    wire.segment(2 * MS, RX, Segment { flags: RST, acknowledgement: 100, ..DEFAULT });
    assert_eq!(wire.connection.take_report(MS).reset, None, "the first one counts");
}

#[test]
fn bytes_reported_twice_are_seen() {
    let mut wire = Wire::established();
    wire.data(20 * MS, TX, 100, 500, 10);
    let options = Options { sack: Some((100, 110)), ..Options::default() };
    let ack = Segment { sequence: 500, acknowledgement: 110, flags: ACK, window: 1000, options, ..DEFAULT };
    assert_eq!(names(wire.segment(30 * MS, RX, ack)), ["duplicate_sack"]);
}

/// What a silence before this segment waited for, and of whom; `set` says what the flow table knows.
fn waited(wire: &mut Wire, time: u64, from: usize, segment: Segment, set: impl FnOnce(&mut Stand)) -> (Wait, usize) {
    let mut stand = wire.connection.stand();
    set(&mut stand);
    let marks = wire.segment(time, from, segment);
    stand.waited_for(from, &segment, marks)
}

fn bytes(sequence: u32, acknowledgement: u32, length: u32) -> Segment {
    Segment { sequence, acknowledgement, length, flags: ACK, window: 1000, ..DEFAULT }
}

#[test]
fn a_silence_with_bytes_under_way_waits_for_their_acknowledgement_unless_only_the_capture_lacks_it() {
    let ends: [(usize, Segment, (Wait, usize)); 5] = [
        (TX, bytes(100, 500, 10), (Wait::Acknowledgement, TX)),
        (RX, bytes(500, 110, 0), (Wait::Acknowledgement, TX)),
        // Nobody sends on for seconds without an acknowledgement, nor acknowledges so late with data of its own.
        (TX, bytes(110, 500, 10), (Wait::Nothing, TX)),
        (RX, bytes(500, 110, 10), (Wait::Answer, RX)),
        // Nor is to be done an acknowledgement.
        (RX, Segment { flags: FIN | ACK, ..bytes(500, 110, 0) }, (Wait::Nothing, RX)),
    ];
    for (from, end, expected) in ends {
        let mut wire = Wire::established();
        wire.data(20 * MS, TX, 100, 500, 10);
        assert_eq!(waited(&mut wire, 5000 * MS, from, end, |_| {}), expected, "{end:?}");
    }
    let mut wire = Wire::established();
    wire.segment(20 * MS, TX, Segment { flags: FIN | ACK, ..bytes(100, 500, 10) });
    let again = Segment { flags: FIN | ACK, ..bytes(100, 500, 10) };
    assert_eq!(waited(&mut wire, 5000 * MS, TX, again, |stand| stand.done = [true, false]).0, Wait::Nothing);
}

#[test]
fn a_silence_with_nothing_under_way_is_judged_by_who_had_the_word() {
    let answered = || {
        let mut wire = Wire::established();
        wire.data(20 * MS, TX, 100, 500, 10);
        wire.data(30 * MS, RX, 500, 110, 1000);
        wire.ack(31 * MS, TX, 110, 1500);
        wire
    };
    let more = bytes(1500, 110, 1000);
    let ask = bytes(110, 1500, 10);
    let farewell = bytes(1500, 110, 31);
    let streams = |stand: &mut Stand| stand.streams = [true; 2];
    let midway = |stand: &mut Stand| stand.midway = [false, true];
    assert_eq!(waited(&mut answered(), 5000 * MS, TX, ask, streams), (Wait::Nothing, TX), "the next request");
    assert_eq!(waited(&mut answered(), 5000 * MS, RX, more, |_| {}), (Wait::Nothing, RX), "an event");
    assert_eq!(waited(&mut answered(), 5000 * MS, RX, more, streams), (Wait::Transfer, RX));
    assert_eq!(waited(&mut answered(), 5000 * MS, RX, farewell, streams), (Wait::Nothing, RX));
    assert_eq!(waited(&mut answered(), 5000 * MS, RX, farewell, midway), (Wait::Message, RX));
    let mut asked = answered();
    asked.data(40 * MS, TX, 110, 1500, 10);
    asked.ack(41 * MS, RX, 1500, 120);
    assert_eq!(waited(&mut asked, 5000 * MS, RX, bytes(1500, 120, 1000), streams), (Wait::Answer, RX));
    let mut full = answered();
    full.window(40 * MS, TX, 110, 1500, 0);
    let open = Segment { window: 900, ..bytes(110, 1500, 0) };
    assert_eq!(waited(&mut full, 5000 * MS, TX, open, streams), (Wait::Window, TX));
    let keep_alive = bytes(1499, 110, 1);
    assert_eq!(waited(&mut answered(), 5000 * MS, RX, keep_alive, streams), (Wait::Nothing, RX));
}

#[test]
fn silences_add_up_over_intervals() {
    let mut wire = Wire::established();
    let mut all = Silences::default();
    for (number, length_us) in [(1, 2_000_000), (2, 5_000_000), (3, 1_000_000)] {
        let (stand, segment) = (wire.connection.stand(), bytes(90 + number * 10, 500, 10));
        let marks = wire.segment(u64::from(number) * 9000 * MS, TX, segment);
        wire.connection.silence(&stand, (length_us, u64::from(number)), TX, &segment, marks);
        all.merge(&wire.connection.take_report(0).silences.expect("a silence"));
        assert_eq!(wire.connection.take_report(0).silences, None);
    }
    let expected = Silence { count: 3, total_us: 8_000_000, longest_us: 5_000_000, frame: 2, of: TX };
    assert_eq!(all.of(Wait::Nothing), &expected);
}

fn segments() -> impl Strategy<Value = Vec<(u64, usize, Segment)>> {
    let flags = prop_oneof![8 => Just(ACK), 1 => Just(SYN), 1 => Just(SYN | ACK), 1 => Just(FIN | ACK), 1 => Just(RST)];
    let timestamp = proptest::option::of(0u32..50);
    let segment = (0u64..300_000, 0usize..2, 0u32..400, 0u32..400, 0u32..40, flags, 0u16..3, timestamp).prop_map(
        |(pause, from, sequence, acknowledgement, length, flags, window, timestamp)| {
            let options = Options { timestamp, window_scale: Some(2), ..Options::default() };
            let segment = Segment { sequence, acknowledgement, length, window, flags, options, id: 0 };
            (pause, from, segment)
        },
    );
    proptest::collection::vec(segment, 0..80)
}

fn run(segments: &[(u64, usize, Segment)], shift: [u32; 2], reports: usize) -> (Vec<Marks>, Vec<Report>) {
    let mut connection = Connection::default();
    let (mut time, mut marks, mut taken) = (0, Vec::new(), Vec::new());
    for (index, (pause, from, segment)) in segments.iter().enumerate() {
        time += pause;
        let shifted = Segment {
            sequence: segment.sequence.wrapping_add(shift[*from]),
            acknowledgement: segment.acknowledgement.wrapping_add(shift[1 - from]),
            ..*segment
        };
        marks.push(connection.segment(time, *from, &shifted));
        if reports > 0 && index % reports == 0 {
            taken.push(connection.take_report(time));
        }
    }
    taken.push(connection.take_report(time));
    (marks, taken)
}

fn total(reports: &[Report]) -> [u64; 8] {
    reports.iter().flat_map(|report| report.counts).fold([0; 8], |mut sums, counts| {
        let all = [
            u64::from(counts.retransmits),
            u64::from(counts.fast),
            u64::from(counts.spurious),
            u64::from(counts.out_of_order),
            u64::from(counts.duplicate_acks),
            u64::from(counts.lost_segments),
            u64::from(counts.zero_windows),
            counts.zero_window_us,
        ];
        sums.iter_mut().zip(all).for_each(|(sum, count)| *sum += count);
        sums
    })
}

proptest! {
    #[test]
    fn where_the_sequence_numbers_begin_changes_nothing(segments in segments(), shift: [u32; 2]) {
        prop_assert_eq!(run(&segments, [0, 0], 0), run(&segments, shift, 0));
        prop_assert_eq!(run(&segments, [0, 0], 0), run(&segments, [u32::MAX - 100, u32::MAX - 200], 0));
    }

    #[test]
    fn however_a_connection_is_cut_into_intervals_the_sums_are_the_same(segments in segments(), every in 1usize..20) {
        let (_, whole) = run(&segments, [0, 0], 0);
        let (_, parts) = run(&segments, [0, 0], every);
        prop_assert_eq!(total(&whole), total(&parts));
    }

    #[test]
    fn a_transfer_in_order_has_no_marks(
        isn: u32,
        lengths in proptest::collection::vec((1u32..3000, 0u64..100_000), 1..60),
    ) {
        let mut wire = Wire::new();
        let mut sequence = isn;
        let mut time = 0;
        for (length, pause) in lengths {
            time += pause;
            prop_assert_eq!(wire.data(time, TX, sequence, 7, length), Marks::default());
            sequence = sequence.wrapping_add(length);
            prop_assert_eq!(wire.ack(time + 5, RX, 7, sequence), Marks::default());
        }
        let report = wire.connection.take_report(time);
        prop_assert_eq!(report.counts, [Counts::default(); 2]);
        prop_assert_eq!(report.rtt_us[TX], Some(5));
    }

    #[test]
    fn hostile_segments_do_no_harm(
        segments in proptest::collection::vec(
            (any::<u64>(), 0usize..2, any::<[u32; 3]>(), any::<u8>(), any::<u16>(), any::<u16>(), any::<[u32; 4]>()),
            0..300,
        ),
    ) {
        let mut connection = Connection::default();
        for (time, from, [sequence, acknowledgement, length], flags, window, id, sack) in segments {
            let options = Options {
                sack: Some((sack[0], sack[1])),
                second_sack: Some((sack[2], sack[3])),
                window_scale: Some(14),
                ..Options::default()
            };
            connection.segment(time, from, &Segment { sequence, acknowledgement, length, window, id, flags, options });
            prop_assert!(connection.held_bytes() < 3000);
        }
        connection.take_report(u64::MAX);
    }
}
