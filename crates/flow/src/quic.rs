//! QUIC version 1 (RFC 9000) and 2 (RFC 9369): the hellos in Initial packets, whose keys follow from the connection id (RFC 9001 section 5).

mod crypto;
mod keys;
mod packet;

use crypto::Stream;
use keys::{Keys, Side};
pub use packet::looks_like_quic;
use packet::{Initial, Packet, Packets};

use crate::tls::{Carrier, ClientHello, Handshake, Message, Session};

/// Initial packets of one flow that are looked into: hellos with post-quantum key shares take two, retries and repetitions a few more.
const MAX_PACKETS: u8 = 32;
/// Largest payload of a datagram that is decrypted.
const MAX_DATAGRAM: usize = 4096;

/// Both directions of a flow, until the server has said its hello.
#[derive(Debug)]
pub struct Connection {
    keys: Option<Established>,
    streams: [Stream; 2],
    handshake: Handshake,
    left: u8,
}

/// Keys that fit, and the direction that is the client's.
#[derive(Debug)]
struct Established {
    client: Keys,
    server: Keys,
    client_is_first: bool,
}

impl Default for Connection {
    fn default() -> Self {
        Self { keys: None, streams: Default::default(), handshake: Handshake::new(Carrier::Quic), left: MAX_PACKETS }
    }
}

impl Connection {
    /// Takes a datagram and adds the sessions that it completes.
    pub fn push(&mut self, from_first: bool, time: u64, datagram: &[u8], out: &mut Vec<Session>) {
        if datagram.len() > MAX_DATAGRAM {
            return;
        }
        for packet in Packets::new(datagram) {
            let initial = match packet {
                Packet::Initial(initial) => initial,
                Packet::Retry if self.is_of_server(from_first) => {
                    self.handshake.retry();
                    continue;
                }
                Packet::Retry | Packet::Other => continue,
            };
            if self.is_over() {
                break;
            }
            self.left -= 1;
            let Some(plain) = self.open(from_first, &initial) else { continue };
            // The frame is that of a certificate, which QUIC encrypts.
            let Self { streams, handshake, .. } = self;
            streams[usize::from(!from_first)]
                .frames(&plain, &mut |message| handshake.message(from_first, (time, 0), message, out));
            if handshake.is_answered() {
                handshake.finish(out);
                if !handshake.asks_again() {
                    self.left = 0;
                }
            }
        }
        if self.is_over() {
            self.handshake.finish(out);
            (self.keys, self.streams) = (None, Default::default());
        }
    }

    fn is_of_server(&self, from_first: bool) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.client_is_first != from_first)
    }

    /// Adds a hello whose answer did not come: the flow is over.
    pub fn finish(&mut self, out: &mut Vec<Session>) {
        self.handshake.finish(out);
    }

    /// The name that a hello gives its server while it waits for its answer, and whether the hello went in the first direction.
    #[must_use]
    pub fn server_name(&self) -> Option<(bool, String)> {
        self.handshake.server_name()
    }

    /// Whether nothing more is to be learned.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.streams.iter().map(Stream::held_bytes).sum::<usize>() + self.handshake.held_bytes()
    }

    /// Decrypts a packet with the keys of the connection, or with those that its own connection id gives: then it is the first one of a
    /// client, or the first one after a retry.
    fn open(&mut self, from_first: bool, initial: &Initial<'_>) -> Option<Vec<u8>> {
        if let Some(established) = &self.keys {
            let of_client = established.client_is_first == from_first;
            let keys = if of_client { &established.client } else { &established.server };
            if let Some(plain) = keys.open(initial) {
                return Some(plain);
            }
            if !of_client {
                return None;
            }
        }
        let client = Keys::new(initial.version, initial.destination, Side::Client)?;
        let plain = client.open(initial)?;
        let server = Keys::new(initial.version, initial.destination, Side::Server)?;
        self.keys = Some(Established { client, server, client_is_first: from_first });
        // After a retry the hello begins anew.
        self.streams = Default::default();
        Some(plain)
    }
}

/// The client hello in one datagram alone, if it is all there.
#[must_use]
pub fn single(datagram: &[u8]) -> Option<ClientHello> {
    let mut out = Vec::new();
    let mut connection = Connection::default();
    connection.push(true, 0, datagram, &mut out);
    connection.finish(&mut out);
    out.pop().map(|session| session.hello)
}

#[cfg(test)]
mod tests;
