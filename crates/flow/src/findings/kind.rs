//! What can be found.

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Something does not work as it should, or may be an attack.
    Warning,
    /// Users notice, or an attack is under way.
    Critical,
}

impl Severity {
    /// As in the table of findings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// Someone may do harm.
    Security,
    /// Something does not work well.
    Health,
}

macro_rules! kinds {
    ($( $variant:ident $name:literal $category:ident $next:literal; )*) => {
        /// The kinds of findings; their evidence and thresholds are in `docs/reference/findings.md`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $( #[doc = concat!("`", $name, "`")] $variant, )*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &[Self] = &[ $( Self::$variant, )* ];

            /// As in the table of findings.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// What it is about.
            #[must_use]
            pub const fn category(self) -> Category {
                match self { $( Self::$variant => Category::$category, )* }
            }

            /// What a person should look at next.
            #[must_use]
            pub const fn next(self) -> &'static str {
                match self { $( Self::$variant => $next, )* }
            }
        }
    };
}

kinds! {
    VerticalScan "port_scan_vertical" Security "See which of the ports answered, and whether the source is a scanner of your own.";
    HorizontalScan "port_scan_horizontal" Security "See which hosts answered on the port, and what the source did with them afterwards.";
    BruteForce "brute_force" Security "Look in the log of the service for a success after the failures, and block the client.";
    SynFlood "syn_flood" Security "See whether the service still answered others; look at SYN cookies and the backlog.";
    UdpFlood "udp_flood" Security "Find out who sends, and whether the service on this port is known to its owner.";
    IcmpFlood "icmp_flood" Security "Find out whether this is a measurement of your own; else limit the rate of ICMP.";
    Amplification "amplification" Security "Close or limit the servers named here to strangers, and see whether the source address is forged.";
    DnsTunnel "dns_tunnel" Security "Look at the names below the domain and at the process that asks for them.";
    Beacon "beacon" Security "Find the process that connects, and what the destination is known for.";
    Exfiltration "exfiltration" Security "Ask the owner of the source whether this transfer (a backup, an upload) is known.";
    IcmpTunnel "icmp_tunnel" Security "Look at the payload of the echo packets.";
    LateralMovement "lateral_movement" Security "Find out whether the source administers these hosts; look at their logins at this time.";
    AddressConflict "address_conflict" Security "Compare the hardware addresses with the switch's table; a failover pair or a new network card is harmless.";
    CleartextCredentials "cleartext_credentials" Security "Change the secret, and use the encrypted form of the protocol.";
    Retransmissions "retransmissions" Health "Compare both directions and other conversations of these hosts to find the link that loses packets.";
    ZeroWindow "zero_window" Health "Look at the host that closed its window: its process does not read fast enough.";
    Unanswered "connection_unanswered" Health "See whether the host is up and whether a firewall drops the packets.";
    Refused "connection_refused" Health "See whether the service runs and listens on this port.";
    Reset "connection_reset" Health "Look in the log of the side that resets, and at timeouts of what stands between.";
    DnsFailed "dns_failures" Health "Look at the log of the server and of those that it asks.";
    DnsUnanswered "dns_unanswered" Health "See whether the server is reachable and whether its answers are lost or too large.";
    DnsNxdomain "dns_nxdomain" Health "Look at the names: search lists and typing errors are harmless, many random names are not.";
    DnsSlow "dns_slow" Health "Compare with another resolver, and look at the servers that it asks.";
    PathMtu "path_mtu" Health "Look for the tunnel or link with the smaller packets, and clamp the segment size before it.";
    PathMtuBlackHole "path_mtu_black_hole" Health "Let ICMP `fragmentation needed` and `packet too big` pass, or clamp the segment size.";
    Unreachable "unreachable" Health "Look at the route, or at the service, that the message names.";
    TimeExceeded "time_exceeded" Health "A traceroute is harmless; else look for a routing loop at the sender of the message.";
    FragmentsIncomplete "fragments_incomplete" Health "See whether a firewall drops fragments, and let the senders use smaller packets.";
    FragmentsOverlap "fragments_overlap" Security "Overlapping fragments with other content are made to deceive; look at the packets.";
    AsymmetricPath "asymmetric_path" Health "Capture at a place that sees both directions, or look at the routes.";
    CertificateExpired "certificate_expired" Health "Renew the certificate of this server.";
    CertificateExpiring "certificate_expiring" Health "Renew the certificate of this server.";
    CertificateSelfSigned "certificate_self_signed" Security "See whether clients know this certificate; else it protects from nobody who stands between.";
    StreamGap "stream_gap" Health "Look at what else happened at this time: loss, a route that changed, a sender that stopped.";
    TransferStalled "transfer_stalled" Health "See which side stood still: loss and routes at this time if nothing was acknowledged, else the process that sends, and what it waits for.";
    Burst "burst" Health "See which flows made the burst, and whether queues on the way overflow (drops, retransmissions).";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_has_every_kind() {
        let reference = include_str!("../../../../docs/reference/findings.md");
        for kind in Kind::ALL {
            assert!(
                reference.contains(&format!("| `{}` |", kind.name())),
                "docs/reference/findings.md has no row for {kind:?}"
            );
        }
    }
}
