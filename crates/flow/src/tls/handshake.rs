//! Which answer of a server belongs to which hello, whatever carries them.

use super::{Carrier, Certificate, ClientHello, ServerHello};
use crate::bytes::{u8_at, u24_at};

/// Longest handshake message that is put together: a hello with post-quantum key shares and a large ticket is about 4 KiB, a chain of
/// certificates about 10.
pub(crate) const MAX_MESSAGE: usize = 64 << 10;

/// What Weir reads of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    ClientHello(Box<ClientHello>),
    ServerHello(ServerHello),
    /// Of a server or of a client.
    Certificate(Certificate),
    /// Level * 256 + description.
    Alert(u16),
}

/// What the server said to a hello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// As on the wire; 0 = its hello was not seen.
    pub version: u16,
    /// As on the wire.
    pub cipher: u16,
    /// Empty = none, or encrypted.
    pub alpn: String,
    /// With the time and the frame of its last byte; none = not seen, or encrypted.
    pub certificate: Option<(Certificate, (u64, u64))>,
    /// First alert of either side (level * 256 + description); 0 = none.
    pub alert: u16,
}

/// A client hello and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Of the last byte of the hello, microseconds.
    pub time: u64,
    /// What carried it.
    pub carrier: Carrier,
    /// Whether the hello went in the first one of the two directions of whoever reads them.
    pub from_first: bool,
    /// The hello.
    pub hello: ClientHello,
    /// The answer.
    pub answer: Answer,
}

/// Joins hellos and answers of one connection.
#[derive(Debug, Default)]
pub(crate) struct Handshake {
    carrier: Carrier,
    session: Option<Box<Session>>,
    /// What came of the server; it may overtake the hello in a capture.
    answer: Answer,
    /// The same hello comes once more.
    is_retried: bool,
    /// What the server said last was a request to try again.
    asks_again: bool,
}

impl Handshake {
    pub(crate) fn new(carrier: Carrier) -> Self {
        Self { carrier, ..Self::default() }
    }

    /// Takes a message of one direction, whose last byte came at the time and in the frame; a session that it completes goes to `out`.
    pub(crate) fn message(&mut self, from_first: bool, at: (u64, u64), message: Message, out: &mut Vec<Session>) {
        match message {
            Message::ClientHello(hello) => {
                let is_said = |session: &Session| session.from_first == from_first && session.hello == *hello;
                if std::mem::take(&mut self.is_retried) && self.session.as_deref().is_some_and(is_said) {
                    return;
                }
                self.finish(out);
                let (carrier, (time, _)) = (self.carrier, at);
                self.session =
                    Some(Box::new(Session { time, carrier, from_first, hello: *hello, answer: Answer::default() }));
            }
            Message::ServerHello(ServerHello { version, cipher, alpn, asks_again }) => {
                self.asks_again = asks_again;
                self.answer = Answer { version, cipher, alpn, ..std::mem::take(&mut self.answer) };
            }
            Message::Certificate(certificate) => {
                let of_client = self.session.as_ref().is_some_and(|session| session.from_first == from_first);
                if !of_client && self.answer.certificate.is_none() {
                    self.answer.certificate = Some((certificate, at));
                }
            }
            Message::Alert(alert) if self.answer.alert == 0 => self.answer.alert = alert,
            Message::Alert(_) => {}
        }
    }

    /// The server asked the client to begin again with the same hello, as Retry packets of QUIC do (RFC 9000 section 17.2.5.2).
    pub(crate) const fn retry(&mut self) {
        self.is_retried = true;
    }

    /// Gives the hello with what has come of its answer.
    pub(crate) fn finish(&mut self, out: &mut Vec<Session>) {
        if let Some(mut session) = self.session.take() {
            session.answer = std::mem::take(&mut self.answer);
            out.push(*session);
        }
    }

    /// The name that a waiting hello gives its server, and whether the hello went in the first direction.
    pub(crate) fn server_name(&self) -> Option<(bool, String)> {
        let session = self.session.as_ref().filter(|session| !session.hello.sni.is_empty())?;
        Some((session.from_first, session.hello.sni.clone()))
    }

    /// Whether a hello waits, and its server has chosen.
    pub(crate) fn is_answered(&self) -> bool {
        self.session.is_some() && self.answer.version != 0
    }

    /// Whether another hello comes.
    pub(crate) const fn asks_again(&self) -> bool {
        self.asks_again
    }

    /// Bytes on the heap, about.
    pub(crate) fn held_bytes(&self) -> usize {
        let certificate = &self.answer.certificate;
        let names =
            certificate.as_ref().map_or(0, |(certificate, _)| certificate.subject.len() + certificate.issuer.len());
        self.session.as_ref().map_or(0, |session| size_of::<Session>() + session.hello.held_bytes()) + names
    }
}

/// Reads the whole messages at the front; how many bytes they have, or none where what is there cannot be a handshake.
pub(crate) fn read_messages(buffer: &[u8], sink: &mut impl FnMut(Message)) -> Option<usize> {
    let mut start = 0;
    while let (Some(kind), Some(length)) = (u8_at(buffer, start), u24_at(buffer, start + 1)) {
        let length = length as usize;
        if length > MAX_MESSAGE {
            return None;
        }
        let Some(body) = buffer.get(start + 4..start + 4 + length) else { break };
        read_message(kind, body, sink)?;
        start += 4 + length;
    }
    Some(start)
}

/// Reads one message; none where it is none of the handshake.
pub(super) fn read_message(kind: u8, body: &[u8], sink: &mut impl FnMut(Message)) -> Option<()> {
    match kind {
        1 => sink(Message::ClientHello(Box::new(ClientHello::parse(body)?))),
        2 => sink(Message::ServerHello(ServerHello::parse(body)?)),
        11 => {
            if let Some(certificate) = Certificate::of_message(body) {
                sink(Message::Certificate(certificate));
            }
        }
        // The registry ends at 25 and 254; a hello request has no body.
        0 | 3..=25 | 254 => {}
        _ => return None,
    }
    Some(())
}
