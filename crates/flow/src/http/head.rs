//! The first line and the fields of a request or a response (RFC 9112 sections 2 to 5).

use super::{Exchange, MAX_FIELD, MAX_PATH};
use crate::bytes::up_to;

/// What bytes at the start of a stream may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// A request of HTTP/1.x.
    Request,
    /// A response of HTTP/1.x.
    Response,
    /// The preface of an HTTP/2 client.
    Two,
    /// The settings with which an HTTP/2 server begins.
    TwoServer,
    /// Too short to tell.
    Undecided,
    /// Not HTTP.
    Other,
}

/// The preface of an HTTP/2 client (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Methods of the IANA registry that are seen in practice, and those of `UPnP`. RTSP and SIP share some: the version tells them apart.
const METHODS: [&str; 26] = [
    "GET",
    "POST",
    "HEAD",
    "PUT",
    "DELETE",
    "OPTIONS",
    "PATCH",
    "CONNECT",
    "TRACE",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
    "QUERY",
    "PURGE",
    "M-SEARCH",
    "NOTIFY",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "RPC_IN_DATA",
    "RPC_OUT_DATA",
];
/// Longest of the methods with its space.
const MAX_METHOD: usize = 13;

/// Says what the bytes at the start of a message are.
#[must_use]
pub fn start(bytes: &[u8]) -> Start {
    if let Some(kind) = known_start(bytes, b"HTTP/1.", Start::Response) {
        return kind;
    }
    if let Some(kind) = known_start(bytes, &PREFACE[..16], Start::Two) {
        return kind;
    }
    if is_settings(bytes) {
        return Start::TwoServer;
    }
    let Some(space) = up_to(bytes, MAX_METHOD).iter().position(|byte| *byte == b' ') else {
        let may_grow = !bytes.is_empty() && METHODS.iter().any(|method| method.as_bytes().starts_with(bytes));
        return if may_grow { Start::Undecided } else { Start::Other };
    };
    if !METHODS.iter().any(|method| method.as_bytes() == &bytes[..space]) {
        return Start::Other;
    }
    let target = &bytes[space + 1..];
    match target.iter().position(|byte| *byte == b'\n') {
        Some(end) if version(trimmed(&target[..end])).is_some() => Start::Request,
        Some(_) => Start::Other,
        None if target.is_empty() => Start::Undecided,
        // A long target goes on in the next segment; those of RTSP and SIP name their scheme.
        None if [&b"rtsp"[..], b"sip:", b"sips:"].iter().any(|scheme| target.starts_with(scheme)) => Start::Other,
        None => Start::Request,
    }
}

fn known_start(bytes: &[u8], expected: &[u8], kind: Start) -> Option<Start> {
    match bytes {
        [] => Some(Start::Undecided),
        _ if bytes.starts_with(expected) => Some(kind),
        // One letter alone says nothing, and is all that some probes send.
        _ if expected.starts_with(bytes) => Some(Start::Undecided),
        _ => None,
    }
}

/// RFC 9113 section 6.5: the first frame of a server, on stream 0, without the flag of an acknowledgement.
fn is_settings(bytes: &[u8]) -> bool {
    matches!(bytes, [0, 0, length, 4, 0, 0, 0, 0, 0, ..] if length % 6 == 0 && *length <= 60)
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Body {
    #[default]
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// What Weir keeps of a request's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// As sent.
    pub method: String,
    /// Host and port without user information.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// As sent.
    pub user_agent: String,
    /// `1.0` or `1.1`; empty where the line was cut before it.
    pub version: &'static str,
    pub(super) body: Body,
    pub(super) credentials: bool,
}

/// What Weir keeps of a response's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Three digits.
    pub status: u16,
    /// `1.0` or `1.1`.
    pub version: &'static str,
    pub(super) body: Body,
    pub(super) upgrades_to_two: bool,
    /// A login takes several steps, and this asks for the next one.
    pub(super) goes_on: bool,
}

impl Request {
    /// Reads a head, or what there is of one; none where not even method and target can be read.
    #[must_use]
    pub fn parse(head: &[u8]) -> Option<Self> {
        let (line, fields) = first_line(head);
        let space = line.iter().position(|byte| *byte == b' ')?;
        let method = up_to(&line[..space], MAX_METHOD);
        if space == 0 || method.len() != space || !method.iter().all(|byte| is_token(*byte)) {
            return None;
        }
        let rest = &line[space + 1..];
        let (target, version) = match version(rest) {
            Some((target, version)) => (target, version),
            // Only a line that was cut may end before its version.
            None if fields.is_none() && !rest.is_empty() => (rest, ""),
            None => return None,
        };
        let mut request = Self { method: text(method, MAX_FIELD), version, ..Self::default() };
        request.read_target(target);
        let mut framing = Framing::default();
        for (name, value) in Fields(fields.unwrap_or_default()) {
            if name.eq_ignore_ascii_case(b"host") && request.authority.is_empty() {
                request.authority = text(without_user(value), MAX_FIELD);
            } else if name.eq_ignore_ascii_case(b"user-agent") {
                request.user_agent = text(value, MAX_FIELD);
            } else if name.eq_ignore_ascii_case(b"authorization") {
                request.credentials = true;
            } else {
                framing.field(name, value);
            }
        }
        request.body = framing.body().unwrap_or_default();
        Some(request)
    }

    /// Bytes of its body, where its head says it.
    #[must_use]
    pub const fn body_length(&self) -> Option<u64> {
        match self.body {
            Body::None => Some(0),
            Body::Length(length) => Some(length),
            Body::Chunked | Body::UntilClose => None,
        }
    }

    /// The row that it makes before its response comes.
    #[must_use]
    pub fn into_exchange(self, time: u64) -> Exchange {
        let Self { method, authority, path, user_agent, version, .. } = self;
        Exchange { time, method, authority, path, user_agent, version, ..Exchange::default() }
    }

    /// RFC 9112 section 3.2: origin, absolute, authority or asterisk form.
    fn read_target(&mut self, target: &[u8]) {
        if self.method == "CONNECT" {
            self.authority = text(without_user(target), MAX_FIELD);
        } else if let Some(rest) = target.windows(3).position(|window| window == b"://").filter(|at| *at < 8) {
            let rest = &target[rest + 3..];
            let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
            self.authority = text(without_user(&rest[..end]), MAX_FIELD);
            self.path = text(&rest[end..], MAX_PATH);
        } else {
            self.path = text(target, MAX_PATH);
        }
    }
}

impl Response {
    /// Reads a head, or what there is of one; none where not even the status can be read.
    #[must_use]
    pub fn parse(head: &[u8]) -> Option<Self> {
        let (line, fields) = first_line(head);
        let version = version_name(line.get(..8)?)?;
        let digits = line.get(8..12)?;
        if digits[0] != b' ' || !digits[1..].iter().all(u8::is_ascii_digit) {
            return None;
        }
        let status = digits[1..].iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        let mut response = Self { status, version, ..Self::default() };
        let mut framing = Framing::default();
        for (name, value) in Fields(fields.unwrap_or_default()) {
            if name.eq_ignore_ascii_case(b"upgrade") {
                response.upgrades_to_two |= value.eq_ignore_ascii_case(b"h2c");
            } else if name.eq_ignore_ascii_case(b"www-authenticate") {
                response.goes_on |= goes_on(value);
            } else {
                framing.field(name, value);
            }
        }
        response.body = match (status, framing.body()) {
            (100..200 | 204 | 304, _) => Body::None,
            (_, body) => body.unwrap_or(Body::UntilClose),
        };
        Some(response)
    }

    /// The row that it makes without a request.
    #[must_use]
    pub fn into_exchange(self, time: u64) -> Exchange {
        Exchange { time, version: self.version, status: Some(self.status), ..Exchange::default() }
    }
}

/// Whether a challenge belongs to a login that goes on: it has a token (RFC 4559, and NTLM likewise), or asks for the same again with
/// another number (RFC 7616 section 3.3).
fn goes_on(challenge: &[u8]) -> bool {
    const STALE: &[u8] = b"stale=true";
    let has_token = |scheme: &[u8]| {
        challenge
            .split_at_checked(scheme.len())
            .is_some_and(|(name, token)| name.eq_ignore_ascii_case(scheme) && !token.trim_ascii().is_empty())
    };
    has_token(b"NTLM ")
        || has_token(b"Negotiate ")
        || challenge.windows(STALE.len()).any(|window| window.eq_ignore_ascii_case(STALE))
}

/// Where the head at the front of `bytes` ends, looking from `from` on: behind the first empty line.
pub(super) fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| *byte == b'\n')? + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
}

/// The fields that say where a body ends (RFC 9112 section 6.3).
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        if name.eq_ignore_ascii_case(b"content-length") {
            self.length = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let last = value.rsplit(|byte| *byte == b',').next().unwrap_or_default();
            self.chunked = last.trim_ascii().eq_ignore_ascii_case(b"chunked");
        }
    }

    fn body(&self) -> Option<Body> {
        if self.chunked { Some(Body::Chunked) } else { self.length.map(Body::Length) }
    }
}

/// Names and values; a field that is cut at the end is given as far as it goes.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            let (line, rest) = first_line(self.0);
            self.0 = rest.unwrap_or_default();
            if line.is_empty() {
                self.0 = &[];
            }
            if let Some(colon) = line.iter().position(|byte| *byte == b':') {
                return Some((&line[..colon], line[colon + 1..].trim_ascii()));
            }
        }
        None
    }
}

/// The line at the front without its end, and what follows it; none where the line is cut.
fn first_line(bytes: &[u8]) -> (&[u8], Option<&[u8]>) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (trimmed(&bytes[..end]), Some(&bytes[end + 1..])),
        None => (trimmed(bytes), None),
    }
}

fn trimmed(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// What stands before the version at the end of a request line, and the version.
fn version(line: &[u8]) -> Option<(&[u8], &'static str)> {
    let line = line.trim_ascii_end();
    let (target, version) = line.split_at_checked(line.len().checked_sub(8)?)?;
    let target = target.strip_suffix(b" ")?;
    Some((target.trim_ascii_end(), version_name(version)?))
}

fn version_name(version: &[u8]) -> Option<&'static str> {
    match version {
        b"HTTP/1.0" => Some("1.0"),
        b"HTTP/1.1" => Some("1.1"),
        _ => None,
    }
}

/// RFC 3986 section 3.2.1: what stands before the last `@` may be a password.
pub(super) fn without_user(authority: &[u8]) -> &[u8] {
    authority.rsplit(|byte| *byte == b'@').next().unwrap_or_default()
}

/// RFC 9110 section 5.6.2, as far as methods use it.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'!' | b'.')
}

/// Valid UTF-8 of at most so many bytes.
pub(super) fn text(bytes: &[u8], most: usize) -> String {
    let mut text = String::from_utf8_lossy(up_to(bytes, most)).into_owned();
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
    }
    text
}
