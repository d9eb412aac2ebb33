//! Translated connections by either of their sides. Pure; times are `CLOCK_BOOTTIME` in nanoseconds.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use weir_proto::Ip;

/// How long a connection is kept after its end, for records that are not made yet.
pub(super) const KEPT_NS: u64 = 300_000_000_000;

/// Address and port. For ICMP as in a flow: who asks has the type of the request, who answers 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Endpoint {
    pub(super) address: Ip,
    pub(super) port: u16,
}

/// One side of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Tuple {
    pub(super) protocol: u8,
    pub(super) src: Endpoint,
    pub(super) dst: Endpoint,
}

impl Tuple {
    fn reversed(self) -> Self {
        Self { protocol: self.protocol, src: self.dst, dst: self.src }
    }
}

/// As conntrack has it: the packets of who began, before translation, and the answers to them, before theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) original: Tuple,
    pub(super) reply: Tuple,
    /// The identifiers of an ICMP conversation, in both tuples; translation may change them. 0 = it has none.
    pub(super) ids: [u16; 2],
}

impl Connection {
    fn is_translated(&self) -> bool {
        self.original != self.reply.reversed()
    }

    /// How its packets look before and after the translation, as who began sends them.
    pub(super) fn views(&self) -> [Tuple; 2] {
        [self.original, self.reply.reversed()]
    }

    /// Who began and who answers, each as it is on its own side.
    pub(super) fn ends(&self) -> [Endpoint; 2] {
        [self.original.src, self.reply.src]
    }
}

#[derive(Debug)]
struct Binding {
    connection: Connection,
    /// It began at this time or later.
    since: u64,
    /// The reading of the table that found it last.
    table: AtomicU64,
    has_ended: AtomicBool,
}

impl Binding {
    fn has_ended(&self) -> bool {
        self.has_ended.load(Relaxed)
    }
}

/// Who shows a view: now, and before.
#[derive(Debug)]
struct Holders {
    newest: Arc<Binding>,
    before: Option<Arc<Binding>>,
}

/// What is known.
#[derive(Debug)]
pub(super) struct Bindings {
    most: usize,
    by_view: HashMap<Tuple, Holders>,
    /// Oldest end first.
    ended: VecDeque<(u64, Arc<Binding>)>,
    count: usize,
    lost: u64,
    table: u64,
}

impl Bindings {
    /// None yet, and never more than `most`.
    pub(super) fn new(most: usize) -> Self {
        Self { most, by_view: HashMap::new(), ended: VecDeque::new(), count: 0, lost: 0, table: 0 }
    }

    /// How many connections are kept.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Connections that found no room.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// A connection is there; it began at `since` or later.
    pub(super) fn begin(&mut self, connection: Connection, since: u64, now: u64) {
        if let Some(known) = self.living(&connection) {
            known.table.store(self.table, Relaxed);
            return;
        }
        // One without translation matters only where it takes the place of one that had it.
        if !connection.is_translated() && !self.by_view.contains_key(&connection.original) {
            return;
        }
        if self.count == self.most && !self.forget_oldest() {
            self.lost += 1;
            return;
        }
        // Whoever had its tuples before has them no more, whether that was told or not.
        for view in connection.views() {
            if let Some(before) = self.by_view.get(&view).map(|holders| Arc::clone(&holders.newest)) {
                self.mark_ended(&before, now);
            }
        }
        let binding = Arc::new(Binding { connection, since, table: self.table.into(), has_ended: false.into() });
        let [first, second] = connection.views();
        self.hold(first, &binding);
        if second != first {
            self.hold(second, &binding);
        }
        self.count += 1;
    }

    /// A connection is gone.
    pub(super) fn end(&mut self, connection: &Connection, now: u64) {
        if let Some(known) = self.living(connection).map(Arc::clone) {
            self.mark_ended(&known, now);
        }
    }

    /// The table is read from its beginning.
    pub(super) fn begin_table(&mut self) {
        self.table += 1;
    }

    /// The table was read to its end: what it did not have is gone.
    pub(super) fn end_table(&mut self, now: u64) {
        let of_now = |binding: &Binding| binding.table.load(Relaxed) == self.table || binding.has_ended();
        let gone: Vec<_> =
            self.by_view.values().map(|holders| &holders.newest).filter(|newest| !of_now(newest)).cloned().collect();
        for binding in gone {
            self.mark_ended(&binding, now);
        }
    }

    /// Forgets what ended long ago.
    pub(super) fn forget_old(&mut self, now: u64) {
        while self.ended.front().is_some_and(|(at, _)| at.saturating_add(KEPT_NS) < now) {
            self.forget_oldest();
        }
    }

    /// What the ends of a flow are that was last seen at a time: of its src and of its dst.
    pub(super) fn ends(&self, flow: Tuple, at: u64) -> Option<[Endpoint; 2]> {
        if let Some(binding) = self.holder(&flow, at) {
            return Some(binding.connection.ends());
        }
        // Who began was not seen, and the flow guesses.
        let [began, answers] = self.holder(&flow.reversed(), at)?.connection.ends();
        Some([answers, began])
    }

    fn holder(&self, view: &Tuple, at: u64) -> Option<&Binding> {
        let Holders { newest, before } = self.by_view.get(view)?;
        if newest.since <= at { Some(newest) } else { before.as_deref() }
    }

    fn living(&self, connection: &Connection) -> Option<&Arc<Binding>> {
        let newest = &self.by_view.get(&connection.original)?.newest;
        (newest.connection == *connection && !newest.has_ended()).then_some(newest)
    }

    fn hold(&mut self, view: Tuple, binding: &Arc<Binding>) {
        let before = self.by_view.remove(&view).map(|holders| holders.newest);
        self.by_view.insert(view, Holders { newest: Arc::clone(binding), before });
    }

    fn mark_ended(&mut self, binding: &Arc<Binding>, now: u64) {
        if !binding.has_ended.swap(true, Relaxed) {
            self.ended.push_back((now, Arc::clone(binding)));
        }
    }

    /// Returns whether there was one.
    fn forget_oldest(&mut self) -> bool {
        let Some((_, oldest)) = self.ended.pop_front() else { return false };
        for view in oldest.connection.views() {
            let Some(holders) = self.by_view.get_mut(&view) else { continue };
            if !Arc::ptr_eq(&holders.newest, &oldest) {
                holders.before.take_if(|before| Arc::ptr_eq(before, &oldest));
            } else if let Some(before) = holders.before.take() {
                holders.newest = before;
            } else {
                self.by_view.remove(&view);
            }
        }
        self.count -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINER: &str = "172.17.0.2:40000";
    const OTHER: &str = "172.17.0.3:40000";
    const HOST: &str = "192.0.2.1:40000";
    const SERVER: &str = "198.51.100.1:443";

    fn end(text: &str) -> Endpoint {
        let socket: std::net::SocketAddr = text.parse().unwrap();
        Endpoint { address: socket.ip().into(), port: socket.port() }
    }

    fn tuple(src: &str, dst: &str) -> Tuple {
        Tuple { protocol: 6, src: end(src), dst: end(dst) }
    }

    /// From behind the address of the host.
    fn masqueraded(container: &str) -> Connection {
        Connection { original: tuple(container, SERVER), reply: tuple(SERVER, HOST), ..Connection::default() }
    }

    fn outside(bindings: &Bindings, at: u64) -> Option<[Endpoint; 2]> {
        bindings.ends(tuple(HOST, SERVER), at)
    }

    #[test]
    fn both_sides_of_a_translation_lead_to_the_same_two_ends() {
        let mut bindings = Bindings::new(100);
        bindings.begin(masqueraded(CONTAINER), 10, 20);
        // Published: the client asks the host, and the container answers.
        let published = Connection {
            original: tuple("203.0.113.5:50000", "192.0.2.1:8080"),
            reply: tuple("172.17.0.2:80", "203.0.113.5:50000"),
            ..Connection::default()
        };
        bindings.begin(published, 10, 20);
        let inside = [end(CONTAINER), end(SERVER)];
        assert_eq!(outside(&bindings, 15), Some(inside));
        assert_eq!(bindings.ends(tuple(CONTAINER, SERVER), 15), Some(inside));
        assert_eq!(bindings.ends(tuple(SERVER, HOST), 15), Some([end(SERVER), end(CONTAINER)]), "src was guessed");
        let client = [end("203.0.113.5:50000"), end("172.17.0.2:80")];
        assert_eq!(bindings.ends(tuple("203.0.113.5:50000", "192.0.2.1:8080"), 15), Some(client));
        assert_eq!(bindings.ends(tuple("203.0.113.5:50000", "172.17.0.2:80"), 15), Some(client));
        assert_eq!(bindings.ends(tuple("203.0.113.5:50001", "192.0.2.1:8080"), 15), None);
        // What is not translated is not kept.
        bindings.begin(
            Connection {
                original: tuple(HOST, "198.51.100.2:80"),
                reply: tuple("198.51.100.2:80", HOST),
                ..Connection::default()
            },
            10,
            20,
        );
        assert_eq!(bindings.len(), 2);
    }

    #[test]
    fn a_port_that_is_used_again_belongs_to_who_had_it_then() {
        let mut bindings = Bindings::new(100);
        bindings.begin(masqueraded(CONTAINER), 10, 20);
        bindings.end(&masqueraded(CONTAINER), 30);
        bindings.begin(masqueraded(OTHER), 30, 40);
        assert_eq!(outside(&bindings, 25), Some([end(CONTAINER), end(SERVER)]));
        assert_eq!(outside(&bindings, 35), Some([end(OTHER), end(SERVER)]));
        // Then a process of the host itself has it.
        bindings.end(&masqueraded(OTHER), 50);
        let own = Connection { original: tuple(HOST, SERVER), reply: tuple(SERVER, HOST), ..Connection::default() };
        bindings.begin(own, 50, 60);
        assert_eq!(outside(&bindings, 55), Some([end(HOST), end(SERVER)]));
        assert_eq!(outside(&bindings, 45), Some([end(OTHER), end(SERVER)]));
        bindings.forget_old(50 + 2 * KEPT_NS);
        assert_eq!(outside(&bindings, 45), None);
        assert_eq!(bindings.len(), 1);
    }

    #[test]
    fn what_the_table_no_longer_has_has_ended() {
        let mut bindings = Bindings::new(100);
        let other = Connection {
            original: tuple(OTHER, SERVER),
            reply: tuple(SERVER, "192.0.2.1:40001"),
            ..Connection::default()
        };
        bindings.begin(masqueraded(CONTAINER), 10, 20);
        bindings.begin(other, 10, 20);
        bindings.begin_table();
        bindings.begin(other, 20, 30);
        bindings.end_table(30);
        assert_eq!((bindings.len(), bindings.ended.len()), (2, 1));
        bindings.forget_old(30 + 2 * KEPT_NS);
        assert_eq!((bindings.len(), outside(&bindings, 15)), (1, None));
        assert!(bindings.ends(other.original, 15).is_some(), "it is not younger than it was");
    }

    #[test]
    fn memory_is_bounded_and_what_ended_makes_room() {
        let mut bindings = Bindings::new(100);
        let server = end(SERVER);
        let connection = |number: u32| {
            let at = |high| Endpoint { address: Ip::new(high, number.into()), port: 1 };
            let original = Tuple { protocol: 6, src: at(1), dst: server };
            Connection { original, reply: Tuple { protocol: 6, src: server, dst: at(2) }, ..Connection::default() }
        };
        for number in 0..100 {
            bindings.begin(connection(number), 1, 2);
        }
        bindings.begin(connection(500), 1, 2);
        assert_eq!((bindings.len(), bindings.lost()), (100, 1));
        bindings.end(&connection(7), 3);
        bindings.begin(connection(500), 1, 2);
        assert_eq!((bindings.len(), bindings.lost()), (100, 1));
        assert_eq!(bindings.ends(connection(7).original, 2), None);
    }
}
