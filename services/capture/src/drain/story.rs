//! What happened in an interval beside its sums, and who was at its ends: differences of what the classifier and the sockets have counted.
//!
//! Of two counts the sender's own is the truth: its TCP knows what it has sent again, the classifier sees what passes. Where the sender is not on
//! this host, what passes is all there is.

use weir_capture_common::{
    facts::{Facts, Local, OTHERS, TCP_STATE, Tunnel},
    flow::Side,
    initiator::TCP,
    sequence::Progress,
    slot::Slot,
};

/// What happened, and who it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Story {
    /// `None` = not TCP.
    pub tcp: Option<Tcp>,
    /// What the kernel dropped of the flow.
    pub drops: u64,
    /// Why, the last time in the flow's life; meaningful if there were any.
    pub drop_reason: u32,
    /// Which TCP of this host has sent or taken a reset ([`weir_capture_common::facts::reset`]), in the flow's life.
    pub reset_marks: u32,
    /// Why one has sent it; meaningful if one has.
    pub reset_reason: u32,
    /// At the initiator's end.
    pub src: Local,
    /// At the responder's end.
    pub dst: Local,
    /// Indexes of interfaces that saw what another one counted; 0 = none.
    pub others: [u32; OTHERS],
    /// What the flow was wrapped in.
    pub tunnel: Tunnel,
}

/// What TCP went through. Absent = not measured, or told before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// From the SYN that was answered to the acknowledgement of the answer.
    pub handshake_us: Option<u32>,
    /// Of the handshake, from the place of capture to the responder and back.
    pub tx_rtt_us: Option<u32>,
    /// Of the handshake, from the place of capture to the initiator and back.
    pub rx_rtt_us: Option<u32>,
    /// Smoothed, as the initiator's TCP has it, or else the responder's.
    pub rtt_us: Option<u32>,
    /// SYNs that were sent again.
    pub syn_retransmits: Option<u64>,
    /// Of what the initiator sends.
    pub tx: Stream,
    /// Of what the responder sends.
    pub rx: Stream,
}

/// What happened to the segments of one direction; absent = nothing was ever seen of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field says what it is")]
pub struct Stream {
    pub retransmits: Option<u64>,
    pub out_of_order: Option<u64>,
    pub zero_windows: Option<u64>,
}

/// What of a flow has been told in earlier records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    handshake: bool,
    syns: u32,
    drops: u32,
    a: ToldSide,
    b: ToldSide,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ToldSide {
    /// Of the socket, when it was first heard of; the connection may be older than the capture.
    base: Option<u32>,
    retransmits: u32,
    out_of_order: u32,
    zero_windows: u32,
}

impl Told {
    /// For [`super::Table::remember`].
    pub(super) fn words(&self) -> [u64; 8] {
        let pair = |high: u32, low: u32| u64::from(high) << 32 | u64::from(low);
        let side = |side: &ToldSide| {
            [pair(u32::from(side.base.is_some()), side.base.unwrap_or(0)), pair(side.retransmits, side.out_of_order)]
        };
        let ([a, a_sums], [b, b_sums]) = (side(&self.a), side(&self.b));
        let windows = pair(self.a.zero_windows, self.b.zero_windows);
        [pair(u32::from(self.handshake), self.syns), u64::from(self.drops), a, a_sums, b, b_sums, windows, 0]
    }

    /// Back again.
    pub(super) fn from_words([first, drops, a, a_sums, b, b_sums, windows, _]: [u64; 8]) -> Self {
        let (high, low) = (|word: u64| (word >> 32) as u32, |word: u64| word as u32);
        let side = |base: u64, sums: u64, zero_windows| ToldSide {
            base: (high(base) != 0).then_some(low(base)),
            retransmits: high(sums),
            out_of_order: low(sums),
            zero_windows,
        };
        Self {
            handshake: high(first) != 0,
            syns: low(first),
            drops: low(drops),
            a: side(a, a_sums, high(windows)),
            b: side(b, b_sums, low(windows)),
        }
    }

    /// What is new since the last record.
    pub(super) fn advance(&mut self, slot: &Slot, facts: &Facts) -> Story {
        let initiator = slot.initiator();
        let drops = facts.drops.wrapping_sub(self.drops);
        self.drops = facts.drops;
        Story {
            tcp: (slot.key.protocol() == TCP).then(|| self.tcp(slot, facts, initiator)),
            drops: u64::from(drops),
            drop_reason: facts.drop_reason,
            reset_marks: facts.reset_marks,
            reset_reason: facts.reset_reason,
            src: *facts.at(initiator),
            dst: *facts.at(initiator.other()),
            others: facts.others,
            tunnel: facts.tunnel,
        }
    }

    fn tcp(&mut self, slot: &Slot, facts: &Facts, initiator: Side) -> Tcp {
        let syns = slot.from_side(initiator).syns;
        let repeated = syns.saturating_sub(self.syns.max(1));
        let syn_retransmits = (syns > 0).then_some(u64::from(repeated));
        self.syns = syns;
        let old = facts.syn == 0;
        let a = self.a.advance(&slot.from_a.progress, &facts.at_a, slot.from_a.packets, old);
        let b = self.b.advance(&slot.from_b.progress, &facts.at_b, slot.from_b.packets, old);
        let (tx, rx) = if initiator == Side::A { (a, b) } else { (b, a) };
        let rtt_us = [facts.at(initiator), facts.at(initiator.other())]
            .into_iter()
            .find_map(|local| (local.marks & TCP_STATE != 0 && local.srtt_us != 0).then_some(local.srtt_us));
        let mut tcp = Tcp { rtt_us, syn_retransmits, tx, rx, ..Tcp::default() };
        let complete = facts.syn != 0 && facts.syn <= facts.syn_ack && facts.syn_ack <= facts.ack;
        if complete && !self.handshake {
            self.handshake = true;
            tcp.handshake_us = Some(microseconds(facts.ack - facts.syn));
            tcp.tx_rtt_us = Some(microseconds(facts.syn_ack - facts.syn));
            tcp.rx_rtt_us = Some(microseconds(facts.ack - facts.syn_ack));
        }
        tcp
    }
}

impl ToldSide {
    fn advance(&mut self, progress: &Progress, local: &Local, packets: u64, old: bool) -> Stream {
        if packets == 0 {
            return Stream::default();
        }
        let late = progress.retransmits.wrapping_add(progress.out_of_order);
        let (retransmits, out_of_order) = if local.marks & TCP_STATE == 0 {
            (progress.retransmits, progress.out_of_order)
        } else {
            let base = *self.base.get_or_insert(if old { local.retransmits } else { 0 });
            let retransmits = local.retransmits.wrapping_sub(base);
            (retransmits, late.saturating_sub(retransmits))
        };
        Stream {
            retransmits: Some(difference(&mut self.retransmits, retransmits)),
            out_of_order: Some(difference(&mut self.out_of_order, out_of_order)),
            zero_windows: Some(difference(&mut self.zero_windows, progress.zero_windows)),
        }
    }
}

/// How far a count has come; one that falls, because a better one took its place, waits until it is back.
fn difference(told: &mut u32, now: u32) -> u64 {
    let new = now.saturating_sub(*told);
    *told = now.max(*told);
    u64::from(new)
}

fn microseconds(nanoseconds: u64) -> u32 {
    u32::try_from(nanoseconds / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use weir_capture_common::{
        dissect::Headers,
        flow::{Address, FlowKey},
        slot::Counters,
    };

    use proptest::prelude::*;

    use super::*;

    fn slot(progress: Progress) -> Slot {
        let headers = Headers {
            src: Address { high: 0, low: 1 },
            dst: Address { high: 0, low: 2 },
            protocol: TCP,
            ..Headers::default()
        };
        let from_a = Counters { packets: 9, syns: 3, progress, ..Counters::default() };
        Slot { key: FlowKey::new(&headers).0, from_a, ..Slot::default() }
    }

    #[test]
    fn what_was_told_can_be_handed_on() {
        let a = ToldSide { base: Some(7), retransmits: 1, out_of_order: 2, zero_windows: 3 };
        let b = ToldSide { base: None, retransmits: 4, out_of_order: 5, zero_windows: 6 };
        let told = Told { handshake: true, syns: 8, drops: 9, a, b };
        assert_eq!(Told::from_words(told.words()), told);
        assert_eq!(Told::from_words([0; 8]), Told::default());
    }

    #[test]
    fn a_handshake_is_told_once_and_only_when_it_is_whole() {
        let (mut told, slot) = (Told::default(), slot(Progress::default()));
        let half = Facts { syn: 1_000_000, syn_ack: 3_000_000, ..Facts::default() };
        assert_eq!(told.advance(&slot, &half).tcp.unwrap().handshake_us, None);
        let whole = Facts { ack: 4_000_000, ..half };
        let tcp = told.advance(&slot, &whole).tcp.unwrap();
        assert_eq!((tcp.handshake_us, tcp.tx_rtt_us, tcp.rx_rtt_us), (Some(3000), Some(2000), Some(1000)));
        assert_eq!(told.advance(&slot, &whole).tcp.unwrap().handshake_us, None);
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        let mut told = Told::default();
        let progress = Progress { retransmits: 4, out_of_order: 2, zero_windows: 1, ..Progress::default() };
        let first = told.advance(&slot(progress), &Facts::default()).tcp.unwrap();
        let all = Stream { retransmits: Some(4), out_of_order: Some(2), zero_windows: Some(1) };
        assert_eq!((first.tx, first.rx, first.syn_retransmits), (all, Stream::default(), Some(2)));
        let second = told.advance(&slot(Progress { retransmits: 5, ..progress }), &Facts::default()).tcp.unwrap();
        let new = Stream { retransmits: Some(1), out_of_order: Some(0), zero_windows: Some(0) };
        assert_eq!((second.tx, second.syn_retransmits), (new, Some(0)));
    }

    #[test]
    fn the_sender_knows_best_what_it_has_sent_again() {
        let progress = Progress { retransmits: 1, out_of_order: 4, ..Progress::default() };
        let at_a = Local { retransmits: 5, marks: TCP_STATE, ..Local::default() };
        let facts = Facts { syn: 1, at_a, ..Facts::default() };
        let tcp = Told::default().advance(&slot(progress), &facts).tcp.unwrap();
        assert_eq!((tcp.tx.retransmits, tcp.tx.out_of_order), (Some(5), Some(0)));
        // What it sent before anybody looked is not part of the flow.
        let tcp = Told::default().advance(&slot(progress), &Facts { syn: 0, ..facts }).tcp.unwrap();
        assert_eq!(tcp.tx.retransmits, Some(0));
    }

    proptest! {
        /// What happened between two readings, and what the socket says then, if anybody has asked it.
        #[test]
        fn whenever_it_is_read_everything_is_told_once(
            steps in proptest::collection::vec((0..4u32, 0..4u32, 0..2u32, 0..3u32, any::<bool>(), any::<bool>()), 1..40),
        ) {
            let (mut told, mut facts) = (Told::default(), Facts { syn: 1, ..Facts::default() });
            let mut progress = Progress::default();
            let (mut retransmits, mut zero_windows, mut drops, mut socket) = (0, 0, 0, 0);
            let mut tell = |told: &mut Told, progress: Progress, facts: &Facts| {
                let story = told.advance(&slot(progress), facts);
                let tx = story.tcp.unwrap().tx;
                retransmits += tx.retransmits.unwrap();
                zero_windows += tx.zero_windows.unwrap();
                drops += story.drops;
            };
            for (again, late, zero, dropped, asked, read) in steps {
                progress.retransmits += again;
                progress.out_of_order += late;
                progress.zero_windows += zero;
                facts.drops += dropped;
                socket += again + late;
                if asked {
                    facts.at_a = Local { retransmits: socket, marks: TCP_STATE, ..Local::default() };
                }
                if read {
                    tell(&mut told, progress, &facts);
                }
            }
            tell(&mut told, progress, &facts);
            let own = u64::from(facts.at_a.retransmits);
            let passed = u64::from(progress.retransmits);
            let expected = if facts.at_a.marks == 0 { passed..=passed } else { own..=own.max(passed) };
            prop_assert!(expected.contains(&retransmits), "{retransmits} {expected:?}");
            prop_assert_eq!((zero_windows, drops), (u64::from(progress.zero_windows), u64::from(facts.drops)));
        }
    }

    #[test]
    fn other_protocols_have_no_tcp() {
        assert_eq!(Told::default().advance(&Slot::default(), &Facts::default()).tcp, None);
    }
}
