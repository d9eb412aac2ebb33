//! Protocols over TCP.

use super::{MOST, Verdict};
use crate::bytes::{array_at, u8_at, u16_at, u24_at, u32_at, up_to};

/// A protocol and what says that a direction which begins so is of it.
struct Form {
    name: &'static str,
    is: fn(&[u8]) -> bool,
}

const fn form(name: &'static str, is: fn(&[u8]) -> bool) -> Form {
    Form { name, is }
}

const FORMS: [Form; 34] = [
    // RFC 4253 section 4.2.
    form("ssh", |b| b.starts_with(b"SSH-2.0-") || b.starts_with(b"SSH-1.")),
    // RFC 5321: greeting and first commands. A greeting of FTP is told from it by its words.
    form("smtp", |b| starts(b, &["EHLO ", "HELO ", "LHLO "]) || (greets(b, "220") && says(b, "SMTP"))),
    form("ftp", |b| (greets(b, "220") && says(b, "FTP")) || starts(b, &["AUTH TLS\r\n", "AUTH SSL\r\n"])),
    // RFC 1939: a greeting, of which the words are the server's own, and commands. The answers of Redis are no such lines.
    form("pop3", |b| is_greeting(b, b"+OK ") || b == b"CAPA\r\n"),
    // RFC 9051: a greeting, likewise.
    form("imap", |b| is_greeting(b, b"* OK ") || is_greeting(b, b"* PREAUTH ")),
    // RFC 959 and 1939 share it.
    form("ftp", |b| b.starts_with(b"USER anonymous")),
    // RFC 3261, RFC 7826.
    form("sip", |b| has_line_end(b, b" SIP/2.0") || b.starts_with(b"SIP/2.0 ")),
    form("rtsp", |b| has_line_end(b, b" RTSP/1.0") || has_line_end(b, b" RTSP/2.0") || b.starts_with(b"RTSP/1.0 ")),
    // NATS: the server greets with its description, the client answers with its own.
    form("nats", |b| b.starts_with(b"INFO {") || b.starts_with(b"CONNECT {")),
    // RESP: a command is an array of bulk strings.
    form("redis", is_redis),
    form("memcached", is_memcached),
    // AMQP 0-9-1 and 1.0.
    form("amqp", |b| b.starts_with(b"AMQP") && b.len() >= 8),
    form("mqtt", is_mqtt),
    form("postgres", is_postgres),
    form("mysql", is_mysql),
    form("mongodb", is_mongodb),
    form("kafka", is_kafka),
    // [MS-SMB2] over TCP: a length, then the magic number of version 1, 2 or 3.
    form("smb", |b| matches!(b, [0, _, _, _, 0xfd..=0xff, b'S', b'M', b'B', ..])),
    // NetBIOS session request (RFC 1002 section 4.3.2): two encoded names.
    form("smb", |b| matches!(b, [0x81, 0, 0, 68, 32, ..])),
    form("rdp", is_rdp),
    form("ldap", is_ldap),
    // RFC 4271 section 4.1: a marker of ones, a length, a type.
    form("bgp", |b| b.len() >= 19 && b[..16] == [0xff; 16] && matches!(b[18], 1..=5)),
    form("bittorrent", |b| b.starts_with(b"\x13BitTorrent protocol")),
    // RFC 6455 and others begin as HTTP. RFC 1928 section 3: methods as many as are counted, and nothing else.
    form("socks", |b| matches!(b, [5, count @ 1..=9, rest @ ..] if rest.len() == usize::from(*count) && rest[0] < 10)),
    // Version 4: connect or bind, port and address, and texts that end with a zero.
    form(
        "socks",
        |b| matches!(b, [4, 1 | 2, _, _, _, _, _, _, texts @ .., 0] if texts.iter().all(|b| matches!(b, 0 | b' '..=b'~'))),
    ),
    // RFC 6120.
    form("xmpp", |b| {
        starts(b, &["<?xml version='1.0'?><stream:stream", "<?xml version=\"1.0\"?><stream:stream", "<stream:stream"])
    }),
    form("irc", |b| starts(b, &["NICK ", "CAP LS", "CAP REQ "]) && has_line_end(b, b"")),
    // RFC 8490 and others aside: STUN over TCP (RFC 8489).
    form("stun", super::datagrams::is_stun),
    // PPTP (RFC 2637): a control message with its magic cookie.
    form("pptp", |b| array_at(b, 4) == Some([0x1a, 0x2b, 0x3c, 0x4d]) && u16_at(b, 2) == Some(1)),
    // ZMTP 3: a signature, its version.
    form("zmtp", |b| matches!(b, [0xff, 0, 0, 0, 0, 0, 0, 0, _, 0x7f, ..])),
    form("modbus", is_modbus),
    // OpenVPN over TCP: a length and the reset of a client or server.
    form("openvpn", |b| {
        u16_at(b, 0).is_some_and(|length| usize::from(length) + 2 == b.len()) && super::datagrams::is_openvpn(&b[2..])
    }),
    form("clickhouse", is_clickhouse),
    form("cassandra", is_cassandra),
];

/// Text whose first line is not there yet, and anything shorter than a length and a kind, may still become something.
pub(super) fn verdict(start: &[u8]) -> Verdict {
    let start = up_to(start, MOST);
    if let Some(form) = FORMS.iter().find(|form| (form.is)(start)) {
        return Verdict::Known(form.name);
    }
    let text = start.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r'));
    if start.len() < 8 || (text && start.len() < MOST) { Verdict::Undecided } else { Verdict::Unknown }
}

fn starts(bytes: &[u8], any: &[&str]) -> bool {
    any.iter().any(|text| bytes.starts_with(text.as_bytes()))
}

/// A reply with this code.
fn greets(bytes: &[u8], code: &str) -> bool {
    bytes.starts_with(code.as_bytes()) && matches!(bytes.get(3), Some(b' ' | b'-'))
}

/// Whether a text is in there, in upper or lower case.
fn says(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text.as_bytes()))
}

/// Whether there is a first line, and it ends so.
fn has_line_end(bytes: &[u8], end: &[u8]) -> bool {
    let line = bytes.iter().position(|byte| *byte == b'\n').map(|at| &bytes[..at]);
    line.is_some_and(|line| line.strip_suffix(b"\r").unwrap_or(line).ends_with(end))
}

/// A line that begins so, or as much of it as is looked at.
fn is_greeting(bytes: &[u8], word: &[u8]) -> bool {
    bytes.starts_with(word) && (has_line_end(bytes, b"") || bytes.len() == MOST)
}

/// `*2\r\n$4\r\nPING\r\n`, or one of the commands that people type.
fn is_redis(bytes: &[u8]) -> bool {
    let array = bytes.strip_prefix(b"*").and_then(|rest| {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        rest.get(digits..digits + 3).filter(|_| (1..5).contains(&digits))
    });
    array == Some(b"\r\n$") || starts(bytes, &["PING\r\n", "+PONG\r\n", "-NOAUTH ", "-ERR unknown command"])
}

fn is_memcached(bytes: &[u8]) -> bool {
    // Binary: request and reply, an operation, and the type 0 of raw data. A request that stores has eight bytes beside its key and value,
    // one that counts twenty.
    let binary = bytes.len() >= 24
        && match bytes {
            [0x80, 1..=3 | 0x11..=0x13, _, _, extras, 0, ..] => *extras == 8,
            [0x80, 5 | 6 | 0x15 | 0x16, _, _, extras, 0, ..] => *extras == 20,
            [0x80, 0..=0x24, _, _, extras, 0, ..] => matches!(extras, 0 | 4),
            _ => matches!(bytes, [0x81, 0..=0x24, _, _, _, 0, ..]),
        };
    let command =
        starts(bytes, &["get ", "gets ", "set ", "add ", "mg ", "ms ", "stats\r\n", "version\r\n", "VERSION "]);
    // The line of a command that stores ends with three numbers, that of one that reads with a key.
    (command && has_line_end(bytes, b"")) || (binary && u32_at(bytes, 8).is_some_and(|length| length < 1 << 20))
}

/// MQTT 3.1, 3.1.1, 5: CONNECT with the protocol's name.
fn is_mqtt(bytes: &[u8]) -> bool {
    let length = bytes.iter().skip(1).take(4).position(|byte| byte & 0x80 == 0);
    let Some(at) = length.map(|length| length + 2) else { return false };
    bytes.first() == Some(&0x10) && bytes.get(at..).is_some_and(|rest| starts(rest, &["\0\x04MQTT", "\0\x06MQIsdp"]))
}

/// Version 3: a startup message or a request for encryption; what a server says first follows those.
fn is_postgres(bytes: &[u8]) -> bool {
    const ENCRYPTION: [u32; 3] = [80_877_103, 80_877_104, 80_877_102];
    let (Some(length), Some(code)) = (u32_at(bytes, 0), u32_at(bytes, 4)) else { return false };
    let asks = ENCRYPTION.contains(&code) && matches!(length, 8 | 16);
    asks || (matches!(code, 0x0003_0000 | 0x0003_0002) && (8..10_000).contains(&length) && says(bytes, "user\0"))
}

/// Protocol 10: the greeting of a server, which names its version.
fn is_mysql(bytes: &[u8]) -> bool {
    // The length counts from the least byte on.
    let length = array_at(bytes, 0).map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]));
    let version = matches!(bytes, [_, _, _, 0, 10, b'1'..=b'9', rest @ ..] if rest.first().is_some_and(|byte| *byte == b'.' || byte.is_ascii_digit()));
    let refused = matches!(bytes, [_, _, _, 0, 0xff, _, _, rest @ ..] if starts(rest, &["Host ", "Too many", "#08"]));
    (version || refused) && length.is_some_and(|length| (10..1000).contains(&length))
}

/// A header whose operation is a message or, of old, a query; or a reply, to something, with its four flags.
fn is_mongodb(bytes: &[u8]) -> bool {
    let field = |at| array_at(bytes, at).map(u32::from_le_bytes);
    let (Some(length), Some(operation)) = (field(0), field(12)) else { return false };
    let replies = || field(8) != Some(0) && field(16).is_some_and(|flags| flags < 16);
    match operation {
        1 => (36..48 << 20).contains(&length) && replies(),
        2004 | 2012 | 2013 => (16..48 << 20).contains(&length),
        _ => false,
    }
}

/// A request: length, a key of the API with a version that it has, a correlation number, the client's name.
fn is_kafka(bytes: &[u8]) -> bool {
    let (Some(length), Some(key), Some(version)) = (u32_at(bytes, 0), u16_at(bytes, 4), u16_at(bytes, 6)) else {
        return false;
    };
    let Some(name) = u16_at(bytes, 12).map(usize::from) else { return false };
    let printable = bytes.get(14..14 + name).is_some_and(|name| name.iter().all(u8::is_ascii_graphic));
    // What a client asks first: versions of the API, metadata, or to authenticate.
    matches!(key, 3 | 17 | 18) && version <= 13 && (14..4096).contains(&length) && (1..200).contains(&name) && printable
}

/// TPKT and X.224 (RFC 905): a connection request or confirmation as long as the packet. What follows its fixed part is a cookie or a
/// negotiation, or nothing; other users of X.224 (RFC 1006: S7, MMS) have its own parameters there.
fn is_rdp(bytes: &[u8]) -> bool {
    let ([3, 0, high, low, indicator, 0xe0 | 0xd0, ..], Some(rest)) = (bytes, bytes.get(11..)) else { return false };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    length == usize::from(*indicator) + 5 && !matches!(rest, [0x80..=0xff, ..])
}

/// RFC 4511: a message whose first operation is to bind, or an extended one; definite lengths.
fn is_ldap(bytes: &[u8]) -> bool {
    let ([0x30, 0..=0x7f, inside @ ..]
    | [0x30, 0x81, _, inside @ ..]
    | [0x30, 0x82, _, _, inside @ ..]
    | [0x30, 0x84, _, _, _, _, inside @ ..]) = bytes
    else {
        return false;
    };
    // Bind with version 2 or 3, its response, an extended request with a name.
    matches!(
        inside,
        [2, 1, _, 0x60, _, 2, 1, 2 | 3, ..]
            | [2, 1, _, 0x60, 0x84, _, _, _, _, 2, 1, 2 | 3, ..]
            | [2, 1, _, 0x61, _, 10, 1, ..]
            | [2, 1, _, 0x77, _, 0x80, ..]
    )
}

/// Modbus over TCP: protocol 0, and a length that is that of the segment; functions that are in use.
fn is_modbus(bytes: &[u8]) -> bool {
    let [_, _, 0, 0, 0, length, _, function, ..] = *bytes else { return false };
    let whole = usize::from(length) + 6 == bytes.len() && length >= 4;
    whole && matches!(function & 0x7f, 1..=8 | 11 | 12 | 15..=17 | 20..=24 | 43)
}

/// The native protocol: a client's hello is kind 0 and its name, which is a string after its length.
fn is_clickhouse(bytes: &[u8]) -> bool {
    matches!(bytes, [0, length @ 10..=40, name @ ..] if up_to(name, usize::from(*length)).starts_with(b"ClickHouse"))
}

/// Versions 3 to 5: a frame that asks for options or starts.
fn is_cassandra(bytes: &[u8]) -> bool {
    let [3..=5, 0, ..] = *bytes else { return false };
    let operation = u8_at(bytes, 4);
    let length = u24_at(bytes, 6);
    (operation == Some(5) && bytes.len() == 9 && length == Some(0))
        || (operation == Some(1) && says(bytes, "CQL_VERSION"))
}
