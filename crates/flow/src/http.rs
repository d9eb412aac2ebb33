//! HTTP in the clear: which response belongs to which request, and how long it took.
//!
//! [`Connection`] reads HTTP/1.x (RFC 9112) and HTTP/2 (RFC 9113, with prior knowledge or after an upgrade) from the bytes of both
//! directions. Bodies are passed over by their length and never held; of a head only what an [`Exchange`] says is kept.

mod head;
mod hpack;
mod huffman;
mod one;
mod two;

pub use head::{Request, Response, Start, start};

use one::One;
use two::Two;

/// One request with its response, or either without the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Of the first byte of the request; of the response where there was no request. Microseconds.
    pub time: u64,
    /// Empty = no request was seen.
    pub method: String,
    /// Host and port as the client gave them, without user information.
    pub authority: String,
    /// Path and query, cut where they are longer than [`MAX_PATH`].
    pub path: String,
    /// Name that the client gives itself.
    pub user_agent: String,
    /// `1.0`, `1.1` or `2`.
    pub version: &'static str,
    /// None = no response was seen.
    pub status: Option<u16>,
    /// From the last byte of the request to the first one of the response.
    pub latency_us: Option<u32>,
    /// The request had credentials, and the response says that they do not do (401).
    pub refused: bool,
}

/// Bytes of a path that are kept.
pub const MAX_PATH: usize = 2048;
/// Bytes of any other field that are kept.
const MAX_FIELD: usize = 512;
/// Requests of one connection that wait for their response.
const MAX_PENDING: usize = 256;

/// Both directions of a connection.
#[derive(Debug)]
pub struct Connection(Version);

#[derive(Debug)]
enum Version {
    One(Box<One>),
    Two(Box<Two>),
}

/// What a push left to be read by others.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Left<'a> {
    /// Nothing.
    #[default]
    Nothing,
    /// The connection is a tunnel from here on (CONNECT, or an upgrade to something else): the bytes of this push that are inside.
    Tunnel(&'a [u8]),
}

/// A request whose response has not come.
#[derive(Debug)]
struct Pending {
    exchange: Exchange,
    /// Time of its last byte so far.
    ended: u64,
    /// It has such as a server may refuse.
    credentials: bool,
}

impl Pending {
    /// `goes_on`: the response asks for the next step of a login.
    fn answered(self, time: u64, status: u16, goes_on: bool) -> Exchange {
        let refused = status == 401 && self.credentials && !goes_on;
        let latency = u32::try_from(time.saturating_sub(self.ended)).unwrap_or(u32::MAX);
        Exchange { status: Some(status), latency_us: Some(latency), refused, ..self.exchange }
    }

    fn held_bytes(&self) -> usize {
        let Exchange { method, authority, path, user_agent, .. } = &self.exchange;
        size_of::<Self>() + method.len() + authority.len() + path.len() + user_agent.len()
    }
}

impl Connection {
    /// A connection whose first bytes are `start`, which say its version.
    #[must_use]
    pub fn new(start: &Start) -> Self {
        Self(match start {
            Start::Two | Start::TwoServer => Version::Two(Box::default()),
            _ => Version::One(Box::default()),
        })
    }

    /// Takes the next bytes of one direction, which came at `time` (microseconds), and adds the exchanges that they finish.
    pub fn push<'a>(&mut self, from_client: bool, time: u64, bytes: &'a [u8], out: &mut Vec<Exchange>) -> Left<'a> {
        match &mut self.0 {
            Version::One(one) => match one.push(from_client, time, bytes, out) {
                one::Left::Nothing => Left::Nothing,
                one::Left::Tunnel(rest) => Left::Tunnel(rest),
                one::Left::Two(request, rest) => {
                    let mut two = Box::new(Two::upgraded(request));
                    two.push(from_client, time, rest, out);
                    self.0 = Version::Two(two);
                    Left::Nothing
                }
            },
            Version::Two(two) => {
                two.push(from_client, time, bytes, out);
                Left::Nothing
            }
        }
    }

    /// Says that `length` bytes of one direction are missing.
    pub fn gap(&mut self, from_client: bool, time: u64, length: u64, out: &mut Vec<Exchange>) {
        match &mut self.0 {
            Version::One(one) => one.gap(from_client, time, length, out),
            Version::Two(two) => two.gap(from_client, length),
        }
    }

    /// Adds the requests that had no response: the connection is over.
    pub fn finish(&mut self, out: &mut Vec<Exchange>) {
        match &mut self.0 {
            Version::One(one) => one.finish(out),
            Version::Two(two) => two.finish(out),
        }
    }

    /// Whether nothing more is to be learned of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match &self.0 {
            Version::One(one) => one.is_over(),
            Version::Two(two) => two.is_over(),
        }
    }

    /// Whether it is HTTP/2, whose requests wait for their responses side by side.
    #[must_use]
    pub const fn is_two(&self) -> bool {
        matches!(self.0, Version::Two(_))
    }

    /// Whether client and server are in the middle of a body or chunk whose length is known; of HTTP/2 that is not said.
    #[must_use]
    pub const fn midway(&self) -> [bool; 2] {
        match &self.0 {
            Version::One(one) => one.midway(),
            Version::Two(_) => [false; 2],
        }
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match &self.0 {
            Version::One(one) => one.held_bytes(),
            Version::Two(two) => two.held_bytes(),
        }
    }
}

/// What one packet alone says: a request or a response whose head begins with it.
#[must_use]
pub fn single(time: u64, payload: &[u8]) -> Option<Exchange> {
    match start(payload) {
        Start::Request => Some(Request::parse(payload)?.into_exchange(time)),
        Start::Response => Some(Response::parse(payload)?.into_exchange(time)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
