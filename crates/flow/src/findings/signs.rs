//! What a payload gives away at its first look: secrets that are sent in clear, and logins that are refused. The secrets themselves are
//! neither kept nor passed on.

use crate::bytes::{after, array_at, u8_at};

/// What was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Sign {
    /// The client sent a secret that anyone on the way can read; the name of the method.
    Secret(&'static str),
    /// The server refused a login; the name of the protocol.
    Refused(&'static str),
    /// The server asked for a name or password that the client will send in clear.
    Prompt(&'static str),
}

impl Sign {
    /// Whether the client sent the packet that shows it.
    pub(crate) const fn is_of_client(self) -> bool {
        matches!(self, Self::Secret(_))
    }
}

/// Bytes of a request that are searched for its credentials.
const MAX_HEADERS: usize = 8192;

/// Looks at a segment by the ports of the protocols that send secrets in clear; HTTP is known on any port by its first word.
pub(crate) fn in_tcp(src_port: u16, dst_port: u16, payload: &[u8]) -> Option<Sign> {
    let first = *payload.first()?;
    match dst_port {
        21 | 2121 => return is_command(payload, b"PASS ").then_some(Sign::Secret("ftp password")),
        25 | 465 | 587 | 2525 => return mail_login(payload).then_some(Sign::Secret("smtp login")),
        110 => {
            let login = is_command(payload, b"PASS ") || mail_login(payload);
            return login.then_some(Sign::Secret("pop3 password"));
        }
        143 => return imap_login(payload).then_some(Sign::Secret("imap login")),
        389 | 3268 => return ldap_bind(payload).then_some(Sign::Secret("ldap simple bind")),
        6379 => return redis_auth(payload).then_some(Sign::Secret("redis password")),
        1883 => return mqtt_password(payload).then_some(Sign::Secret("mqtt password")),
        _ => {}
    }
    match src_port {
        // Not what is said to whoever has not tried yet.
        21 | 2121 => {
            let is_refusal = payload.starts_with(b"530") && !contains(payload, b"please log");
            return is_refusal.then_some(Sign::Refused("ftp"));
        }
        23 | 2323 => return telnet_prompt(payload),
        25 | 465 | 587 | 2525 if asks_password(payload, b"334 ") => return Some(Sign::Prompt("smtp login")),
        110 if asks_password(payload, b"+ ") => return Some(Sign::Prompt("pop3 password")),
        143 if asks_password(payload, b"+ ") => return Some(Sign::Prompt("imap login")),
        25 | 465 | 587 | 2525 => return payload.starts_with(b"535").then_some(Sign::Refused("smtp")),
        110 => return mail_refusal(payload).then_some(Sign::Refused("pop3")),
        143 => return imap_refusal(payload).then_some(Sign::Refused("imap")),
        _ => {}
    }
    // Whether HTTP refuses one is seen where its requests meet their responses.
    let is_secret = matches!(first, b'G' | b'P' | b'H' | b'D' | b'O') && has_basic_credentials(payload);
    is_secret.then_some(Sign::Secret("http basic authentication"))
}

/// SNMP v1 and v2c carry their community in clear: a sequence, the version 0 or 1, and a string.
pub(crate) fn in_udp(dst_port: u16, payload: &[u8]) -> Option<Sign> {
    if !matches!(dst_port, 161 | 162) || u8_at(payload, 0)? != 0x30 {
        return None;
    }
    let body = after(payload, 1 + ber_length(after(payload, 1))?);
    let is_old = matches!(array_at(body, 0)?, [0x02u8, 0x01, 0x00 | 0x01, 0x04]);
    is_old.then_some(Sign::Secret("snmp community"))
}

fn is_command(payload: &[u8], command: &[u8]) -> bool {
    payload.get(..command.len()).is_some_and(|start| start.eq_ignore_ascii_case(command))
        && payload.len() > command.len() + 2
}

fn contains(payload: &[u8], what: &[u8]) -> bool {
    payload.windows(what.len()).any(|window| window.eq_ignore_ascii_case(what))
}

fn mail_login(payload: &[u8]) -> bool {
    is_command(payload, b"AUTH PLAIN") || is_command(payload, b"AUTH LOGIN")
}

/// `AUTH LOGIN` in steps: the server asks for `Password:`, in base64, and the client sends nothing else.
fn asks_password(payload: &[u8], start: &[u8]) -> bool {
    let asked = payload.strip_prefix(start).unwrap_or_default();
    asked.starts_with(b"UGFzc3dvcmQ6") || asked.starts_with(b"cGFzc3dvcmQ6")
}

/// A tag before the command.
fn imap_login(payload: &[u8]) -> bool {
    let Some(space) = payload.iter().take(32).position(|byte| *byte == b' ') else { return false };
    let command = &payload[space + 1..];
    is_command(command, b"LOGIN ")
        || is_command(command, b"AUTHENTICATE PLAIN")
        || is_command(command, b"AUTHENTICATE LOGIN")
}

fn imap_refusal(payload: &[u8]) -> bool {
    let Some(space) = payload.iter().take(32).position(|byte| *byte == b' ') else { return false };
    is_command(&payload[space + 1..], b"NO ") && (contains(payload, b"authenticat") || contains(payload, b"login"))
}

fn mail_refusal(payload: &[u8]) -> bool {
    payload.starts_with(b"-ERR")
        && (contains(payload, b"auth") || contains(payload, b"password") || contains(payload, b"login"))
}

fn telnet_prompt(payload: &[u8]) -> Option<Sign> {
    if payload.len() > 4096 {
        return None;
    }
    let end = payload.trim_ascii_end();
    let says = |what: &[u8]| end.len() >= what.len() && end[end.len() - what.len()..].eq_ignore_ascii_case(what);
    if contains(payload, b"login incorrect") || contains(payload, b"login failed") {
        Some(Sign::Refused("telnet"))
    } else {
        (says(b"password:") || says(b"login:") || says(b"username:")).then_some(Sign::Prompt("telnet login"))
    }
}

/// RFC 7617 in the header fields of a request.
fn has_basic_credentials(payload: &[u8]) -> bool {
    const METHODS: [&[u8]; 7] = [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELETE ", b"OPTIONS ", b"PATCH "];
    const FIELD: &[u8] = b"authorization:";
    if !METHODS.iter().any(|method| payload.starts_with(method)) {
        return false;
    }
    let headers = &payload[..payload.len().min(MAX_HEADERS)];
    headers
        .split(|byte| *byte == b'\n')
        .take_while(|line| line.len() > 1)
        .filter(|line| line.get(..FIELD.len()).is_some_and(|name| name.eq_ignore_ascii_case(FIELD)))
        .any(|line| is_command(line[FIELD.len()..].trim_ascii_start(), b"basic "))
}

/// RFC 4511: a bind request of version 3 with a password that is not empty.
fn ldap_bind(payload: &[u8]) -> bool {
    let find = || {
        let body = after(payload, 1 + ber_length(after(payload, 1))?);
        // The id of the message, then the request.
        let request = after(body, 2 + usize::from(u8_at(body, 1)?));
        let fields = after(request, 1 + ber_length(after(request, 1))?);
        let is_bind =
            u8_at(payload, 0)? == 0x30 && u8_at(request, 0)? == 0x60 && array_at(fields, 0)? == [2u8, 1, 3, 4];
        let name = ber_value(after(fields, 4))?;
        let secret = after(fields, 4 + name);
        Some(is_bind && u8_at(secret, 0)? == 0x80 && u8_at(secret, 1)? > 0)
    };
    find().unwrap_or(false)
}

/// Bytes that a length takes (X.690 section 8.1.3).
fn ber_length(data: &[u8]) -> Option<usize> {
    match u8_at(data, 0)? {
        short @ 0..=0x7f => Some(usize::from(short > 0x7f) + 1),
        long @ 0x81..=0x84 => Some(1 + usize::from(long & 0x7f)),
        _ => None,
    }
}

/// Bytes of a short length and its value.
fn ber_value(data: &[u8]) -> Option<usize> {
    let length = u8_at(data, 0)?;
    (length < 0x80).then_some(1 + usize::from(length))
}

fn redis_auth(payload: &[u8]) -> bool {
    is_command(payload, b"AUTH ")
        || (payload.starts_with(b"*") && contains(&payload[..payload.len().min(32)], b"\r\nAUTH\r\n"))
}

/// A connect packet whose flags announce a password.
fn mqtt_password(payload: &[u8]) -> bool {
    let name = if payload.get(4..8) == Some(b"MQTT") { 4 } else { 5 };
    payload.first() == Some(&0x10)
        && payload.get(name..name + 4) == Some(b"MQTT")
        && payload.get(name + 5).is_some_and(|flags| flags & 0x40 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_recognised_by_protocol() {
        let ldap = [&[0x30, 0x1a, 2, 1, 1, 0x60, 0x15, 2, 1, 3, 4, 8][..], b"cn=admin", &[0x80, 6], b"secret"].concat();
        let mqtt = [&[0x10, 20, 0, 4][..], b"MQTT", &[4, 0xc2, 0, 60]].concat();
        for (port, payload, name) in [
            (21, &b"PASS hunter2\r\n"[..], "ftp password"),
            (110, b"pass hunter2\r\n", "pop3 password"),
            (587, b"AUTH PLAIN AGEAYg==\r\n", "smtp login"),
            (143, b"a1 LOGIN me hunter2\r\n", "imap login"),
            (80, b"GET / HTTP/1.1\r\nHost: a\r\nauthorization: Basic YTpi\r\n\r\n", "http basic authentication"),
            (6379, b"*2\r\n$4\r\nAUTH\r\n$3\r\nabc\r\n", "redis password"),
            (389, &ldap, "ldap simple bind"),
            (1883, &mqtt, "mqtt password"),
        ] {
            assert_eq!(in_tcp(40000, port, payload), Some(Sign::Secret(name)));
        }
        assert_eq!(in_udp(161, b"\x30\x29\x02\x01\x01\x04\x06public"), Some(Sign::Secret("snmp community")));
        assert_eq!(in_tcp(23, 40000, b"\r\nPassword: "), Some(Sign::Prompt("telnet login")));
        assert_eq!(in_tcp(587, 40000, b"334 UGFzc3dvcmQ6\r\n"), Some(Sign::Prompt("smtp login")));
        assert_eq!(in_tcp(143, 40000, b"+ cGFzc3dvcmQ6\r\n"), Some(Sign::Prompt("imap login")));
    }

    #[test]
    fn what_is_encrypted_or_not_a_secret_is_none() {
        for (src, dst, payload) in [
            (40000, 80, &b"GET / HTTP/1.1\r\nHost: a\r\n\r\nAuthorization: Basic YTpi\r\n"[..]),
            (40000, 80, b"GET / HTTP/1.1\r\nAuthorization: Bearer abcdef\r\n\r\n"),
            (40000, 21, b"USER me\r\n"),
            (40000, 587, b"EHLO me\r\n"),
            (40000, 143, b"a1 CAPABILITY\r\n"),
            (40000, 443, b"\x16\x03\x01\x02\x00"),
            (23, 40000, b"Last login: Fri\r\n$ "),
            (21, 40000, b"530 Please login with USER and PASS.\r\n"),
            (587, 40000, b"334 VXNlcm5hbWU6\r\n"),
            (143, 40000, b"+ idling\r\n"),
            (80, 40000, b"HTTP/1.1 200 OK\r\n\r\n401"),
            (40000, 389, b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00"),
        ] {
            assert_eq!(in_tcp(src, dst, payload), None, "{}", String::from_utf8_lossy(payload));
        }
        assert_eq!(in_udp(161, b"\x30\x3a\x02\x01\x03\x30\x0f"), None);
    }

    #[test]
    fn refused_logins_are_recognised() {
        for (port, payload, name) in [
            (21, &b"530 Login incorrect.\r\n"[..], "ftp"),
            (25, b"535 5.7.8 Authentication failed\r\n", "smtp"),
            (110, b"-ERR [AUTH] bad password\r\n", "pop3"),
            (143, b"a1 NO [AUTHENTICATIONFAILED] Authentication failed.\r\n", "imap"),
            (23, b"\r\nLogin incorrect\r\nlogin: ", "telnet"),
        ] {
            assert_eq!(in_tcp(port, 40000, payload), Some(Sign::Refused(name)));
        }
    }
}
