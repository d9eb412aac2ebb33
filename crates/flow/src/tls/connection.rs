//! Both directions of TLS over TCP.

use super::handshake::{Handshake, Session};
use super::{Carrier, Scanner};

/// Follows both directions until they are encrypted.
#[derive(Debug, Default)]
pub struct Connection {
    sides: [Scanner; 2],
    handshake: Handshake,
}

impl Connection {
    /// A connection that begins.
    #[must_use]
    pub fn new() -> Self {
        Self { sides: Default::default(), handshake: Handshake::new(Carrier::Tcp) }
    }

    /// Takes the next bytes of one direction, which came at this time (microseconds) and in this frame, and adds the sessions that they complete.
    pub fn push(&mut self, from_first: bool, at: (u64, u64), bytes: &[u8], out: &mut Vec<Session>) {
        let Self { sides, handshake } = self;
        sides[usize::from(!from_first)].push(bytes, &mut |message| handshake.message(from_first, at, message, out));
        self.settle(out);
    }

    /// Says that nothing more of one direction can be read.
    pub fn close(&mut self, from_first: bool, out: &mut Vec<Session>) {
        self.sides[usize::from(!from_first)].close();
        self.settle(out);
    }

    /// Adds a hello whose answer did not come: the connection is over.
    pub fn finish(&mut self, out: &mut Vec<Session>) {
        self.handshake.finish(out);
    }

    /// The name that a hello gives its server while it waits for its answer, and whether the hello went in the first direction.
    #[must_use]
    pub fn server_name(&self) -> Option<(bool, String)> {
        self.handshake.server_name()
    }

    /// Whether nothing more is to be learned of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.sides.iter().all(Scanner::is_done)
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.sides.iter().map(Scanner::held_bytes).sum::<usize>() + self.handshake.held_bytes()
    }

    fn settle(&mut self, out: &mut Vec<Session>) {
        if self.is_over() {
            self.handshake.finish(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::certificate::tests::message as certificate;
    use super::super::hello::tests::hello;
    use super::super::server::tests::server_hello;
    use super::*;

    fn record(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind, 3, 3][..], &(body.len() as u16).to_be_bytes(), body].concat()
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        record(22, &[&[kind][..], &(body.len() as u32).to_be_bytes()[1..], body].concat())
    }

    fn sessions(sent: &[(bool, Vec<u8>)]) -> Vec<Session> {
        let mut connection = Connection::new();
        let mut out = Vec::new();
        for (time, (from_client, bytes)) in sent.iter().enumerate() {
            connection.push(*from_client, (time as u64, 0), bytes, &mut out);
        }
        connection.finish(&mut out);
        out
    }

    #[test]
    fn what_the_server_chose_and_who_it_is_stand_beside_the_hello() {
        let mut connection = Connection::new();
        let mut out = Vec::new();
        connection.push(true, (1, 11), &message(1, &hello("weir.example")), &mut out);
        let answer =
            [message(2, &server_hello(b"\0\x10\0\x05\0\x03\x02h2")), message(11, &certificate()), message(14, &[])];
        connection.push(false, (2, 12), &answer.concat(), &mut out);
        connection.push(
            true,
            (3, 13),
            &[message(16, &[0; 33]), record(20, &[1]), record(22, &[0x55; 40])].concat(),
            &mut out,
        );
        assert_eq!(out, []);
        connection.push(false, (4, 14), &[record(20, &[1]), record(22, &[0xaa; 40])].concat(), &mut out);
        assert!(connection.is_over());
        let session = &out[0];
        assert_eq!((session.time, session.from_first, session.hello.sni.as_str()), (1, true, "weir.example"));
        let answer = &session.answer;
        assert_eq!((answer.version, answer.cipher, answer.alpn.as_str(), answer.alert), (0x0303, 0xc02f, "h2", 0));
        let (certificate, shown_at) = answer.certificate.as_ref().unwrap();
        assert_eq!((certificate.subject.as_str(), *shown_at), ("O=Weir, CN=weir.example", (2, 12)));
    }

    #[test]
    fn a_retry_request_makes_two_hellos_two_sessions() {
        let retry = server_hello(&[0, 43, 0, 2, 3, 4]);
        let rows = sessions(&[
            (true, message(1, &hello("one"))),
            (false, [message(2, &retry), record(20, &[1])].concat()),
            (true, [record(20, &[1]), message(1, &hello("two"))].concat()),
            (false, [message(2, &retry), record(23, &[0; 50])].concat()),
            (true, record(23, &[0; 50])),
        ]);
        let seen: Vec<_> = rows.iter().map(|row| (row.hello.sni.as_str(), row.answer.version)).collect();
        assert_eq!(seen, [("one", 0x0304), ("two", 0x0304)]);
    }

    #[test]
    fn an_alert_in_the_clear_is_kept_and_a_hello_without_an_answer_is_a_session() {
        let rows = sessions(&[(true, message(1, &hello("a"))), (false, record(21, &[2, 40]))]);
        assert_eq!((rows.len(), rows[0].answer.alert, rows[0].answer.version), (1, 0x0228, 0));
        assert_eq!(sessions(&[(true, message(1, &hello("a")))]).len(), 1);
        // Who gave up on an unknown certificate is the client.
        let rows = sessions(&[
            (true, message(1, &hello("a"))),
            (false, message(2, &server_hello(&[]))),
            (true, record(21, &[2, 48])),
        ]);
        assert_eq!((rows[0].answer.alert, rows[0].answer.cipher), (0x0230, 0xc02f));
    }

    #[test]
    fn an_answer_that_overtakes_its_hello_still_belongs_to_it() {
        let rows = sessions(&[(false, message(2, &server_hello(&[]))), (true, message(1, &hello("a")))]);
        assert_eq!((rows.len(), rows[0].answer.cipher), (1, 0xc02f));
    }

    #[test]
    fn a_handshake_cut_at_any_byte_ends_well() {
        let client = message(1, &hello("weir.example"));
        let server = [message(2, &server_hello(&[])), message(11, &certificate())].concat();
        for length in 0..client.len() + server.len() {
            let rows = sessions(&[
                (true, client[..length.min(client.len())].to_vec()),
                (false, server[..length.saturating_sub(client.len())].to_vec()),
            ]);
            assert_eq!(rows.len(), usize::from(length >= client.len()), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_within_the_bounds(
            pieces in proptest::collection::vec((any::<bool>(), 20u8..25, proptest::collection::vec(any::<u8>(), 0..300)), 0..40),
        ) {
            let mut connection = Connection::new();
            let mut out = Vec::new();
            for (from_first, kind, bytes) in pieces {
                connection.push(from_first, (1, 1), &record(kind, &bytes), &mut out);
                prop_assert!(connection.held_bytes() < 400 << 10);
            }
        }
    }
}
