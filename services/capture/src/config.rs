//! Options of `weir-capture`.

use std::time::Duration;

/// Counts flows in the kernel and publishes them
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "weir-capture", version)]
pub struct Config {
    /// Interface to capture on; repeatable, `*` and `?` stand for any characters. One that does not exist is waited for. Of a VLAN device and
    /// its parent name only one: a packet is another flow with and without its tag
    /// [default: the interfaces that carry the default routes]
    #[arg(long = "interface", env = "WEIR_CAPTURE_INTERFACE", value_name = "NAME", value_delimiter = ',', value_parser = interface_pattern)]
    pub interfaces: Vec<String>,
    /// Flows that the kernel's table has room for, about 330 bytes each
    #[arg(long, env = "WEIR_CAPTURE_MAX_FLOWS", value_name = "COUNT", default_value_t = 131_072, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    pub max_flows: u32,
    /// How often ended flows are reported
    #[arg(long, env = "WEIR_CAPTURE_DRAIN_ENDED", value_name = "DURATION", default_value = "1s", value_parser = drain_interval)]
    pub drain_ended: Duration,
    /// How often flows that go on are reported
    #[arg(long, env = "WEIR_CAPTURE_DRAIN_ACTIVE", value_name = "DURATION", default_value = "5s", value_parser = drain_interval)]
    pub drain_active: Duration,
    /// A TCP flow without packets for this long has ended
    #[arg(long, env = "WEIR_CAPTURE_IDLE_TCP", value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub idle_tcp: Duration,
    /// The same for UDP
    #[arg(long, env = "WEIR_CAPTURE_IDLE_UDP", value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub idle_udp: Duration,
    /// The same for ICMP, of IPv4 and IPv6
    #[arg(long, env = "WEIR_CAPTURE_IDLE_ICMP", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub idle_icmp: Duration,
    /// The same for other protocols
    #[arg(long, env = "WEIR_CAPTURE_IDLE_OTHER", value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub idle_other: Duration,
    /// Only say whether capturing can work here: exit code 0, or 69 with what is missing and how to get it
    #[arg(long)]
    pub check: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub service: weir_service::Options,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub bus: weir_bus::Options,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print them as the heading's help")]
    pub spool: weir_bus::SpoolOptions,
}

/// The longest interval between drains: no record may cover more than a minute.
const MAX_DRAIN: Duration = Duration::from_secs(30);
/// The shortest: a drain reads the whole table.
const MIN_DRAIN: Duration = Duration::from_millis(50);

fn drain_interval(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if (MIN_DRAIN..=MAX_DRAIN).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("must be between {MIN_DRAIN:?} and {MAX_DRAIN:?}"))
    }
}

/// A whole number with a unit: `500ms`, `5s`, `2m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let expected = || "expected a number with a unit: 500ms, 5s, 2m, 1h".to_owned();
    let digits = text.find(|character: char| !character.is_ascii_digit()).ok_or_else(expected)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(expected()),
    };
    let milliseconds = number.checked_mul(milliseconds).filter(|total| *total > 0).ok_or_else(expected)?;
    Ok(Duration::from_millis(milliseconds))
}

fn interface_pattern(text: &str) -> Result<String, String> {
    // IFNAMSIZ is 16 with the final zero; a pattern may be longer than what it matches, but not much.
    let plausible = !text.is_empty()
        && text.len() <= 64
        && !text.contains(|character: char| character == '/' || character.is_whitespace() || character.is_control());
    if plausible { Ok(text.to_owned()) } else { Err("is no name of an interface".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        for bad in ["", "5", "s", "-1s", "1.5s", "0s", "99999999999999999999s", "18446744073709551615h", "5d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_record_can_cover_more_than_a_minute() {
        assert!(Config::try_parse_from(["weir-capture", "--drain-active", "31s"]).is_err());
        assert!(Config::try_parse_from(["weir-capture", "--drain-active", "30s"]).is_ok());
    }

    #[test]
    fn interfaces_are_repeatable() {
        let config = Config::try_parse_from(["weir-capture", "--interface", "eth0", "--interface", "veth*"]).unwrap();
        assert_eq!(config.interfaces, ["eth0", "veth*"]);
        assert!(Config::try_parse_from(["weir-capture", "--interface", "a/b"]).is_err());
        assert!(Config::try_parse_from(["weir-capture", "--max-flows", "0"]).is_err());
    }
}
