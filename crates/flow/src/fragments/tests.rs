use proptest::prelude::*;

use super::*;
use crate::key::Endpoint;

const DATAGRAM: Datagram = Datagram { src: [1; 16], dst: [2; 16], protocol: 17, id: 7, vlan: 0, tunnel: 0 };

fn named() -> Belonging {
    let (key, direction) = Key::new(Endpoint { ip: [1; 16], port: 5 }, Endpoint { ip: [2; 16], port: 53 }, 17, 0, 0);
    (key, direction, (5, 53))
}

fn waiting(time: u64) -> Waiting {
    Waiting { time, length: 100, protocol: 17, interface: 0, tunnel_ends: 0 }
}

fn piece(offset: usize, more: bool) -> Fragment {
    Fragment { id: 7, offset: offset as u32, more }
}

#[test]
fn fragments_before_the_first_one_wait_for_its_name() {
    let mut table = Fragments::new(Limits::default());
    assert_eq!(table.find(1, DATAGRAM, waiting(1)), None);
    assert_eq!(table.name(2, DATAGRAM, named()), [waiting(1)]);
    assert_eq!(table.find(3, DATAGRAM, waiting(3)), Some(named()));
    while table.finish_some() {}
    assert_eq!(table.take_orphans(), []);
}

#[test]
fn fragments_without_a_first_one_become_orphans_after_the_timeout() {
    let mut table = Fragments::new(Limits { timeout_us: 10, ..Limits::default() });
    table.find(1, DATAGRAM, waiting(1));
    table.expire(10);
    assert_eq!(table.take_orphans(), []);
    table.expire(11);
    assert_eq!(table.take_orphans(), [Orphan { datagram: DATAGRAM, packet: waiting(1) }]);
}

#[test]
fn what_never_became_whole_names_its_flow_and_the_fragment_that_came_first() {
    let mut table = Fragments::new(Limits { timeout_us: 10, ..Limits::default() });
    table.begin(7);
    table.name(1, DATAGRAM, named());
    table.push(1, DATAGRAM, piece(0, true), &[1; 8], false, 17);
    table.begin(8);
    table.find(2, DATAGRAM, waiting(2));
    assert_eq!(table.flow_of(&DATAGRAM), Some(named().0));
    table.expire(11);
    let expected = Incomplete { time: 1, frame: 7, datagram: DATAGRAM, key: Some(named().0), protocol: 17 };
    assert_eq!(table.take_incomplete(), [expected]);
    // Only a later one: the protocol is what it says.
    table.begin(9);
    table.find(20, DATAGRAM, waiting(20));
    table.expire(30);
    let expected = Incomplete { time: 20, frame: 9, datagram: DATAGRAM, key: None, protocol: 17 };
    assert_eq!(table.take_incomplete(), [expected]);
}

#[test]
fn fragments_that_come_twice_keep_their_name_and_the_next_packet_with_their_number_is_another() {
    let mut table = Fragments::new(Limits::default());
    for ports in [(5, 53), (6, 54)] {
        let named = (named().0, named().1, ports);
        assert_eq!(table.name(1, DATAGRAM, named), []);
        assert_eq!(table.push(1, DATAGRAM, piece(0, true), &[1; 8], false, 17), None);
        assert_eq!(table.find(1, DATAGRAM, waiting(1)), Some(named));
        let whole = table.push(1, DATAGRAM, piece(8, false), &[2; 8], false, 17).unwrap();
        assert_eq!(whole.bytes, [[1; 8], [2; 8]].concat());
        assert_eq!(table.find(2, DATAGRAM, waiting(2)), Some(named));
        assert_eq!(table.push(2, DATAGRAM, piece(8, false), &[2; 8], false, 17), None);
    }
    while table.finish_some() {}
    assert_eq!(table.take_orphans(), []);
}

#[test]
fn a_cut_fragment_spoils_the_payload_but_not_the_name() {
    let mut table = Fragments::new(Limits::default());
    table.name(1, DATAGRAM, named());
    assert_eq!(table.push(1, DATAGRAM, piece(0, true), &[0; 8], true, 17), None);
    assert_eq!(table.push(1, DATAGRAM, piece(8, false), &[0; 8], false, 17), None);
    assert_eq!(table.find(2, DATAGRAM, waiting(2)), Some(named()));
}

proptest! {
    #[test]
    fn any_order_of_the_pieces_gives_the_payload(
        payload in proptest::collection::vec(any::<u8>(), 1..600),
        order in Just((0..80usize).collect::<Vec<_>>()).prop_shuffle(),
        twice: bool,
    ) {
        let mut table = Fragments::new(Limits::default());
        table.name(0, DATAGRAM, named());
        let pieces: Vec<_> = payload.chunks(8).enumerate().collect();
        let mut whole = None;
        for index in order.into_iter().filter(|index| *index < pieces.len()) {
            let (number, bytes) = pieces[index];
            let more = number + 1 < pieces.len();
            if twice && whole.is_none() && pieces.len() > 1 {
                prop_assert!(table.push(0, DATAGRAM, piece(number * 8, true), &bytes[..bytes.len() / 2], false, 17).is_none());
            }
            whole = whole.or(table.push(0, DATAGRAM, piece(number * 8, more), bytes, false, 17));
        }
        prop_assert_eq!(whole, Some(Whole { protocol: 17, bytes: payload }));
    }

    #[test]
    fn hostile_pieces_stay_within_the_bounds(
        pieces in proptest::collection::vec((0u32..40, 0u32..8192, any::<bool>(), 0usize..2000, any::<bool>(), any::<bool>(), 0u64..100), 0..400),
    ) {
        let limits = Limits { entries: 8, bytes: 10_000, timeout_us: 50 };
        let mut table = Fragments::new(limits);
        let (mut given, mut back) = (0usize, 0usize);
        for (id, units, more, length, first, cut, now) in pieces {
            let datagram = Datagram { id, ..DATAGRAM };
            table.expire(now);
            if first {
                back += table.name(now, datagram, named()).len();
            } else {
                given += 1;
                back += usize::from(table.find(now, datagram, waiting(now)).is_some());
            }
            table.push(now, datagram, Fragment { id, offset: units * 8, more }, &vec![1; length], cut, 17);
            back += table.take_orphans().len();
            prop_assert!(table.entries.len() <= limits.entries && table.order.len() <= limits.entries);
            let held: usize = table.entries.values().map(|entry| entry.data.len()).sum();
            prop_assert_eq!(held, table.bytes);
            prop_assert!(held <= limits.bytes);
        }
        while table.finish_some() {}
        back += table.take_orphans().len();
        prop_assert_eq!(given, back, "each fragment is counted once");
    }
}
