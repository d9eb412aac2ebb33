//! Numbers and times as people read them.

use serde_json::Value;

use crate::OneWayFlow;

/// 1 234 567
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            // No-break, so that a number stays in one line.
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// 1 request, 2 requests
pub(crate) fn counted(value: u64, what: &str) -> String {
    format!("{} {what}{}", count(value), if value == 1 { "" } else { "s" })
}

/// 1.5 MB; powers of 1000, as lines and disks are measured.
pub(crate) fn bytes(value: f64) -> String {
    scaled(value, &["B", "kB", "MB", "GB", "TB", "PB"])
}

/// 1.5 Mbit/s
pub(crate) fn bits_per_second(value: f64) -> String {
    scaled(value, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
}

fn scaled(mut value: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{}\u{a0}{}", short(value), units[unit])
}

/// Three digits at most.
pub(crate) fn short(value: f64) -> String {
    let digits = if value >= 99.95 || value == 0.0 || (value.fract() == 0.0 && value < 100.0) {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}

/// 12.3 ms
pub(crate) fn duration(us: u64) -> String {
    let us = us as f64;
    let (value, unit) = match us {
        _ if us < 999.5 => (us, "µs"),
        _ if us < 999_500.0 => (us / 1e3, "ms"),
        _ if us < 120e6 => (us / 1e6, "s"),
        _ if us < 7200e6 => (us / 60e6, "min"),
        _ if us < 172_800e6 => (us / 3600e6, "h"),
        _ => (us / 86_400e6, "days"),
    };
    format!("{}\u{a0}{unit}", short(value))
}

/// The name of an IP protocol, else its number.
pub(crate) fn protocol(number: u8) -> String {
    let name = match number {
        0 => "HOPOPT",
        1 => "ICMP",
        2 => "IGMP",
        4 => "IPIP",
        6 => "TCP",
        17 => "UDP",
        41 => "IPv6",
        47 => "GRE",
        50 => "ESP",
        51 => "AH",
        58 => "ICMPv6",
        88 => "EIGRP",
        89 => "OSPF",
        103 => "PIM",
        112 => "VRRP",
        115 => "L2TP",
        132 => "SCTP",
        _ => return number.to_string(),
    };
    name.to_owned()
}

/// A service: `ip/47` is called by the name of its protocol.
pub(crate) fn service(name: &str) -> String {
    let number = name.strip_prefix("ip/").and_then(|number| number.parse().ok());
    number.map(protocol).filter(|of| of.parse::<u8>().is_err()).unwrap_or_else(|| name.to_owned())
}

/// The name of a version of TLS or DTLS, else its number.
pub(crate) fn tls_version(number: &str) -> String {
    let name = match number {
        "0x0002" => "SSL 2",
        "0x0300" => "SSL 3",
        "0x0301" => "TLS 1.0",
        "0x0302" => "TLS 1.1",
        "0x0303" => "TLS 1.2",
        "0x0304" => "TLS 1.3",
        "0xfeff" => "DTLS 1.0",
        "0xfefd" => "DTLS 1.2",
        "0xfefc" => "DTLS 1.3",
        other => other,
    };
    name.to_owned()
}

/// The name of a cipher suite that is in wide use, with its number; else its number.
pub(crate) fn cipher(number: &str) -> String {
    const NAMES: [(&str, &str); 16] = [
        ("0x1301", "TLS_AES_128_GCM_SHA256"),
        ("0x1302", "TLS_AES_256_GCM_SHA384"),
        ("0x1303", "TLS_CHACHA20_POLY1305_SHA256"),
        ("0xc02b", "ECDHE_ECDSA_AES_128_GCM_SHA256"),
        ("0xc02c", "ECDHE_ECDSA_AES_256_GCM_SHA384"),
        ("0xc02f", "ECDHE_RSA_AES_128_GCM_SHA256"),
        ("0xc030", "ECDHE_RSA_AES_256_GCM_SHA384"),
        ("0xcca8", "ECDHE_RSA_CHACHA20_POLY1305_SHA256"),
        ("0xcca9", "ECDHE_ECDSA_CHACHA20_POLY1305_SHA256"),
        ("0xc013", "ECDHE_RSA_AES_128_CBC_SHA"),
        ("0xc014", "ECDHE_RSA_AES_256_CBC_SHA"),
        ("0x009c", "RSA_AES_128_GCM_SHA256"),
        ("0x009d", "RSA_AES_256_GCM_SHA384"),
        ("0x002f", "RSA_AES_128_CBC_SHA"),
        ("0x0035", "RSA_AES_256_CBC_SHA"),
        ("0x000a", "RSA_3DES_EDE_CBC_SHA"),
    ];
    let name = NAMES.iter().find(|(of, _)| *of == number);
    name.map_or_else(|| number.to_owned(), |(_, name)| format!("{name} ({number})"))
}

/// The name of a DNS response code (RFC 6895), else its number.
pub(crate) fn rcode(code: u16) -> String {
    let name = match code {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        6 => "YXDOMAIN",
        7 => "YXRRSET",
        8 => "NXRRSET",
        9 => "NOTAUTH",
        10 => "NOTZONE",
        _ => return code.to_string(),
    };
    name.to_owned()
}

/// What evidence is called and what it says, by the unit at the end of its name.
pub(crate) fn evidence(name: &str, value: &Value) -> (String, String) {
    /// Times of packets are moments; everything else in microseconds is shorter than thirty years.
    const MOMENTS: f64 = 1e15;
    let spoken = |name: &str| name.replace('_', " ");
    let shown = |name: &str, text: String| (spoken(name), text);
    let Some(number) = value.as_f64() else { return (spoken(name), json(value)) };
    if let Some(name) = name.strip_suffix("_us") {
        let moment = jiff::Timestamp::from_microsecond(number as i64).ok().filter(|_| number >= MOMENTS);
        return shown(name, moment.map_or_else(|| duration(number as u64), |time| self::moment(&time.to_string())));
    }
    if let Some(name) = name.strip_suffix("_ms") {
        return shown(name, duration((number * 1e3) as u64));
    }
    if let Some(name) = name.strip_suffix("_s") {
        return shown(name, duration((number * 1e6) as u64));
    }
    if let Some(name) = name.strip_suffix("_percent") {
        return shown(name, format!("{}\u{a0}%", short(number)));
    }
    match name {
        "percent" => shown("share", format!("{}\u{a0}%", short(number))),
        _ if name == "bytes" || name.ends_with("_bytes") => (spoken(name), bytes(number)),
        // The number of a port is no count.
        "port" => (spoken(name), json(value)),
        _ => (spoken(name), value.as_u64().map_or_else(|| json(value), count)),
    }
}

/// The text of a value of which only the report knows what it is.
pub(crate) fn json(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(json).collect::<Vec<_>>().join(", "),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}

/// A time without what nobody reads: to the millisecond, with a space.
pub(crate) fn moment(rfc3339: &str) -> String {
    let Ok(time) = rfc3339.parse::<jiff::Timestamp>() else { return rfc3339.to_owned() };
    time.strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string()
}

/// A figure of a comparison in its unit.
pub(crate) fn figure(value: f64, unit: &str) -> String {
    match unit {
        "B" => bytes(value),
        "bit/s" => bits_per_second(value),
        "" => count(value.round() as u64),
        unit => format!("{}\u{a0}{unit}", short(value)),
    }
}

/// A change in percent; of one that is many times what was, how many.
pub(crate) fn change(percent: f64) -> String {
    const TEN_TIMES: f64 = 900.0;
    if percent >= TEN_TIMES {
        format!("×\u{a0}{}", short(percent / 100.0 + 1.0))
    } else {
        format!("{percent:+.1}\u{a0}%")
    }
}

/// The direction that a flow lacks.
pub(crate) fn missing(flow: &OneWayFlow) -> String {
    let missing = if flow.seen == "answers" { "requests" } else { "answers" };
    if flow.certain { missing.to_owned() } else { format!("{missing}, if there were any") }
}

/// What a silent connection waited for.
pub(crate) fn waited_for(name: &str) -> &str {
    match name {
        "acknowledgement" => "an acknowledgement of what was under way",
        "window" => "a receiver that took nothing",
        "message" => "the rest of a message",
        "transfer" => "more of a transfer",
        "answer" => "an answer of the responder",
        "nothing" => "nothing: at rest",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_many_times_what_was_says_how_many() {
        let changes = [-100.0, 0.0, 24.2, 899.9, 900.0, 11_587.0].map(change);
        assert_eq!(
            changes,
            ["-100.0\u{a0}%", "+0.0\u{a0}%", "+24.2\u{a0}%", "+899.9\u{a0}%", "×\u{a0}10", "×\u{a0}117"]
        );
    }

    #[test]
    fn numbers_are_as_people_read_them() {
        assert_eq!(count(0), "0");
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(bytes(0.0), "0\u{a0}B");
        assert_eq!(bytes(999_999.0), "1.00\u{a0}MB");
        assert_eq!(bytes(1_534_000.0), "1.53\u{a0}MB");
        assert_eq!(duration(12_345), "12.3\u{a0}ms");
        assert_eq!(duration(61_000_000), "61\u{a0}s");
        assert_eq!(moment("2026-01-02T03:04:05.678901Z"), "2026-01-02 03:04:05.678 UTC");
        assert_eq!(moment("99999999999999999"), "99999999999999999");
    }

    #[test]
    fn evidence_is_told_with_its_unit() {
        let told = |name: &str, value: serde_json::Value| {
            let (name, text) = evidence(name, &value);
            format!("{name}: {text}")
        };
        assert_eq!(told("not_after_us", 1_621_175_451_000_000u64.into()), "not after: 2021-05-16 14:30:51.000 UTC");
        assert_eq!(told("interval_us", 60_000_000.into()), "interval: 60\u{a0}s");
        assert_eq!(told("failed_percent", 99.5.into()), "failed: 99.5\u{a0}%");
        assert_eq!(told("segment_bytes", 14464.into()), "segment bytes: 14.5\u{a0}kB");
        assert_eq!(told("ports", serde_json::json!([22, 2222])), "ports: 22, 2222");
        assert_eq!(told("attempts", 1994.into()), "attempts: 1\u{202f}994");
        assert_eq!(told("told", false.into()), "told: no");
    }
}
