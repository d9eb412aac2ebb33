//! What one segment is.

/// A set of marks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Marks(u32);

impl Marks {
    /// Carries bytes that were sent before. Fast and spurious ones have this mark too.
    pub const RETRANSMISSION: Self = Self(1);
    /// A retransmission that duplicate acknowledgements asked for.
    pub const FAST: Self = Self(1 << 1);
    /// A retransmission of what the receiver had acknowledged.
    pub const SPURIOUS: Self = Self(1 << 2);
    /// Carries bytes that were sent earlier than others that came before it.
    pub const OUT_OF_ORDER: Self = Self(1 << 3);
    /// Begins beyond the next expected byte: what is between is late, lost, or was not captured.
    pub const GAP: Self = Self(1 << 4);
    /// Acknowledges bytes that the capture does not have.
    pub const ACKED_UNSEEN: Self = Self(1 << 5);
    /// Says once more what the acknowledgement before it said.
    pub const DUPLICATE_ACK: Self = Self(1 << 6);
    /// Asks whether the other side is still there.
    pub const KEEP_ALIVE: Self = Self(1 << 7);
    /// Answers a keep-alive.
    pub const KEEP_ALIVE_ACK: Self = Self(1 << 8);
    /// Says that its sender takes nothing more.
    pub const ZERO_WINDOW: Self = Self(1 << 9);
    /// One byte into a window of zero.
    pub const ZERO_WINDOW_PROBE: Self = Self(1 << 10);
    /// Answers a probe: the window is still zero.
    pub const ZERO_WINDOW_PROBE_ACK: Self = Self(1 << 11);
    /// Changes nothing but the window.
    pub const WINDOW_UPDATE: Self = Self(1 << 12);
    /// Fills the window of the receiver to its last byte.
    pub const WINDOW_FULL: Self = Self(1 << 13);
    /// The same packet for a second time: the network doubled it, or the capture did (a mirror port, several interfaces). Its sender sent it
    /// once, so nothing else was looked at.
    pub const DOUBLED: Self = Self(1 << 14);
    /// Reports with SACK that bytes arrived twice (RFC 2883).
    pub const DUPLICATE_SACK: Self = Self(1 << 15);
    /// A SYN on ports whose connection before has another sequence number.
    pub const PORTS_REUSED: Self = Self(1 << 16);

    /// The names by which people know the marks.
    pub const NAMES: [(Self, &'static str); 17] = [
        (Self::RETRANSMISSION, "retransmission"),
        (Self::FAST, "fast_retransmission"),
        (Self::SPURIOUS, "spurious_retransmission"),
        (Self::OUT_OF_ORDER, "out_of_order"),
        (Self::GAP, "lost_segment"),
        (Self::ACKED_UNSEEN, "ack_lost_segment"),
        (Self::DUPLICATE_ACK, "duplicate_ack"),
        (Self::KEEP_ALIVE, "keep_alive"),
        (Self::KEEP_ALIVE_ACK, "keep_alive_ack"),
        (Self::ZERO_WINDOW, "zero_window"),
        (Self::ZERO_WINDOW_PROBE, "zero_window_probe"),
        (Self::ZERO_WINDOW_PROBE_ACK, "zero_window_probe_ack"),
        (Self::WINDOW_UPDATE, "window_update"),
        (Self::WINDOW_FULL, "window_full"),
        (Self::DOUBLED, "doubled"),
        (Self::DUPLICATE_SACK, "duplicate_sack"),
        (Self::PORTS_REUSED, "reused_ports"),
    ];

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of `other` are here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Adds all of `other`.
    pub const fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) const fn insert_if(&mut self, condition: bool, other: Self) {
        if condition {
            self.insert(other);
        }
    }
}
