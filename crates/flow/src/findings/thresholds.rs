//! From where on something is a finding.

use serde::{Deserialize, Serialize};

/// One threshold, as documentation and checks name it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Its key in JSON.
    pub name: &'static str,
    /// What holds unless an upload says otherwise.
    pub default: f64,
    /// Smallest value.
    pub least: f64,
    /// Largest value.
    pub most: f64,
    /// What is counted.
    pub unit: &'static str,
    /// What it decides.
    pub meaning: &'static str,
}

/// Why thresholds were refused.
#[derive(Debug, thiserror::Error)]
pub enum ThresholdsError {
    /// Not an object of known names and numbers.
    #[error("thresholds are not an object of known names and numbers")]
    Form(#[source] serde_json::Error),
    /// A number out of its range.
    #[error("threshold {name} is {value}, but must be from {least} to {most}")]
    Range {
        /// The threshold.
        name: &'static str,
        /// What was given.
        value: f64,
        /// Smallest value.
        least: f64,
        /// Largest value.
        most: f64,
    },
}

macro_rules! thresholds {
    ($( #[doc = $doc:literal] $name:ident: $type:ty = $default:literal, $least:literal..=$most:literal, $unit:literal; )*) => {
        /// All thresholds. In JSON an object with any of the fields; the others keep their defaults, unknown ones are refused.
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Thresholds {
            $( #[doc = $doc] pub $name: $type, )*
        }

        impl Default for Thresholds {
            fn default() -> Self {
                Self { $( $name: $default, )* }
            }
        }

        impl Thresholds {
            /// Every threshold, in the order of the documentation.
            pub const TABLE: &[Threshold] = &[ $( Threshold {
                name: stringify!($name),
                default: $default as f64,
                least: $least as f64,
                most: $most as f64,
                unit: $unit,
                meaning: $doc.trim_ascii(),
            }, )* ];

            fn values(&self) -> Vec<f64> {
                vec![ $( self.$name as f64, )* ]
            }
        }
    };
}

thresholds! {
    /// Ports of a host that are tried without success by one source before it is a vertical port scan
    port_scan_ports: u64 = 20, 2..=5000, "ports";
    /// Hosts of which the same ports are tried without success by one source before it is a horizontal port scan
    port_scan_hosts: u64 = 20, 2..=5000, "hosts";
    /// Share of a source's connections that lead to nothing before they are a scan
    port_scan_failed_percent: f64 = 60.0, 0.0..=100.0, "%";
    /// Short connections of one client to one login service (ssh, ftp, telnet, rdp, vnc) before they are guesses of passwords
    brute_force_connections: u64 = 20, 2..=1_000_000, "connections";
    /// Such connections in a minute
    brute_force_per_minute: f64 = 6.0, 0.0..=1_000_000.0, "per minute";
    /// Refused logins of one client at one service, where the protocol shows them
    brute_force_failures: u64 = 5, 2..=1_000_000, "logins";
    /// SYNs to one port within one second that lead to no connection
    syn_flood_per_second: u64 = 200, 1..=100_000_000, "per second";
    /// UDP packets per second to one host that sends nothing back
    udp_flood_per_second: u64 = 5000, 1..=100_000_000, "per second";
    /// ICMP requests per second to one host
    icmp_flood_per_second: u64 = 100, 1..=100_000_000, "per second";
    /// Packets that a flood has at least
    flood_packets: u64 = 500, 1..=1_000_000_000, "packets";
    /// Bytes of answers per byte of requests of a service that is used for amplification
    amplification_ratio: f64 = 10.0, 1.0..=100_000.0, "times";
    /// Bytes of such answers to one host
    amplification_bytes: u64 = 100_000, 1..=1_000_000_000, "bytes";
    /// Different names below one registered domain before they may carry data
    dns_tunnel_names: u64 = 50, 5..=5000, "names";
    /// Mean length of what stands before the registered domain
    dns_tunnel_length: f64 = 24.0, 1.0..=255.0, "characters";
    /// Entropy of the characters before the registered domain
    dns_tunnel_entropy: f64 = 3.5, 0.0..=8.0, "bits per character";
    /// Connections between the same ends before their rhythm is looked at
    beacon_connections: u64 = 10, 4..=128, "connections";
    /// Spread of the intervals around their median (interquartile range)
    beacon_jitter_percent: f64 = 20.0, 0.0..=100.0, "%";
    /// Shortest interval of a beacon
    beacon_interval_s: f64 = 5.0, 0.001..=86_400.0, "s";
    /// Bytes from an internal to an external host before they may be exfiltration
    exfiltration_bytes: u64 = 50_000_000, 1000..=2_000_000_000, "bytes";
    /// Bytes out per byte in of such a transfer
    exfiltration_ratio: f64 = 10.0, 1.0..=100_000.0, "times";
    /// Bytes of ICMP echo requests and replies between two hosts beyond what ping sends, before they may carry data
    icmp_tunnel_bytes: u64 = 20_000, 100..=2_000_000_000, "bytes";
    /// Internal hosts whose administrative ports one internal host enters
    lateral_movement_hosts: u64 = 5, 2..=5000, "hosts";
    /// Different hardware addresses that claim one IP address
    address_conflict_macs: u64 = 2, 2..=8, "addresses";
    /// Share of segments that were sent again
    retransmission_percent: f64 = 2.0, 0.0..=100.0, "%";
    /// Packets of a conversation before shares of them are judged
    health_packets: u64 = 100, 1..=1_000_000_000, "packets";
    /// Zero windows of a conversation
    zero_windows: u64 = 3, 1..=1_000_000_000, "segments";
    /// Attempts to reach a port that were not answered, or refused, before they are reported
    failed_connections: u64 = 3, 1..=1_000_000_000, "attempts";
    /// Share of established connections that end with a reset
    reset_percent: f64 = 50.0, 0.0..=100.0, "%";
    /// Established connections before resets among them are judged
    reset_connections: u64 = 10, 1..=1_000_000_000, "connections";
    /// DNS queries to one server before its answers are judged
    dns_queries: u64 = 10, 1..=1_000_000_000, "queries";
    /// Share of queries without an answer
    dns_unanswered_percent: f64 = 10.0, 0.0..=100.0, "%";
    /// Share of answers that say that the server failed or refused
    dns_failed_percent: f64 = 10.0, 0.0..=100.0, "%";
    /// Share of answers that say that there is no such name
    dns_nxdomain_percent: f64 = 50.0, 0.0..=100.0, "%";
    /// Latency that one answer in twenty exceeds
    dns_slow_ms: f64 = 500.0, 1.0..=60_000.0, "ms";
    /// Silence within a steady stream of datagrams
    stream_gap_ms: f64 = 500.0, 1.0..=60_000.0, "ms";
    /// Such a silence in means of the time between its packets
    stream_gap_ratio: f64 = 20.0, 1.0..=100_000.0, "times";
    /// Silence of an open TCP connection before it is asked what it waited for
    silence_ms: u64 = 1000, 200..=300_000, "ms";
    /// Silences of the transfers between two ends, all together, before they are reported
    stalled_ms: u64 = 3000, 200..=3_600_000, "ms";
    /// Bytes of the busiest 100 ms in means of all 100 ms
    burst_ratio: f64 = 20.0, 1.0..=100_000.0, "times";
    /// Rate within the busiest 100 ms
    burst_megabits: f64 = 100.0, 0.0..=10_000_000.0, "Mbit/s";
    /// Share of TCP flows of which one direction is missing
    asymmetric_percent: f64 = 5.0, 0.0..=100.0, "%";
    /// Such flows
    asymmetric_flows: u64 = 3, 1..=1_000_000_000, "flows";
    /// Fragmented packets that never became whole
    incomplete_fragments: u64 = 3, 1..=1_000_000_000, "packets";
    /// ICMP errors of one kind from one sender about one destination
    icmp_errors: u64 = 3, 1..=1_000_000_000, "messages";
    /// Times that a large segment was sent again while smaller ones passed, before it is a black hole
    path_mtu_retransmissions: u64 = 3, 1..=1000, "segments";
    /// Days before the end of a certificate from which on it is reported
    certificate_days: u64 = 14, 0..=3650, "days";
    /// Findings of one kind that are listed; the others are counted
    findings_per_kind: u64 = 50, 1..=1000, "findings";
}

impl Thresholds {
    /// Reads a JSON object.
    pub fn from_json(json: &[u8]) -> Result<Self, ThresholdsError> {
        // A struct would be read from an array too.
        let object: serde_json::Map<_, _> = serde_json::from_slice(json).map_err(ThresholdsError::Form)?;
        let thresholds: Self = serde_json::from_value(object.into()).map_err(ThresholdsError::Form)?;
        thresholds.check()?;
        Ok(thresholds)
    }

    /// Whether each is within its range.
    pub fn check(&self) -> Result<(), ThresholdsError> {
        let outside =
            Self::TABLE.iter().zip(self.values()).find(|(row, value)| !(row.least..=row.most).contains(value));
        match outside {
            Some((&Threshold { name, least, most, .. }, value)) => {
                Err(ThresholdsError::Range { name, value, least, most })
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn some_thresholds_of_an_upload_replace_the_defaults() {
        let given = Thresholds::from_json(br#"{"port_scan_ports": 7, "beacon_jitter_percent": 2.5}"#).unwrap();
        assert_eq!((given.port_scan_ports, given.beacon_jitter_percent), (7, 2.5));
        assert_eq!(given.port_scan_hosts, Thresholds::default().port_scan_hosts);
        Thresholds::default().check().unwrap();
    }

    #[test]
    fn unknown_names_and_numbers_out_of_range_are_refused_by_name() {
        let refused = |json: &str| {
            let error = Thresholds::from_json(json.as_bytes()).unwrap_err();
            format!("{error}: {}", error.source().map(ToString::to_string).unwrap_or_default())
        };
        assert!(refused(r#"{"port_scan_prots": 7}"#).contains("port_scan_prots"));
        assert!(refused(r#"{"port_scan_ports": 1}"#).contains("threshold port_scan_ports is 1, but must be from 2"));
        assert!(refused(r#"{"port_scan_ports": -1}"#).contains("-1"));
        assert!(refused("[]").contains("thresholds are not an object"));
    }

    #[test]
    fn the_reference_has_every_threshold() {
        let reference = include_str!("../../../../docs/reference/findings.md");
        for Threshold { name, default, unit, meaning, least, most } in Thresholds::TABLE {
            let row = format!("| `{name}` | {default} | {unit} | {least} to {most} | {meaning} |");
            assert!(reference.contains(&row), "docs/reference/findings.md has no row\n{row}");
        }
    }
}
