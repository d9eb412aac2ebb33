//! Who began: src is the initiator, dst the responder.

use crate::{
    dissect::Headers,
    flow::Side,
    icmp::{self, Role},
};

/// IANA number of TCP.
pub const TCP: u8 = 6;

/// TCP flags as in the header's 14th byte (RFC 9293): FIN.
pub const FIN: u8 = 0x01;
/// SYN.
pub const SYN: u8 = 0x02;
/// RST.
pub const RST: u8 = 0x04;
/// ACK.
pub const ACK: u8 = 0x10;

/// The side that began the flow, as its first packet tells.
///
/// A SYN names its sender, a SYN with ACK its receiver; an ICMP request its sender, an answer its receiver. A TCP conversation that was
/// already going on is taken to run towards the well-known port. Otherwise who sends first has begun.
#[inline(always)]
#[must_use]
pub fn of_first_packet(headers: &Headers, sender: Side) -> Side {
    if sender_answers(headers) { sender.other() } else { sender }
}

#[inline(always)]
fn sender_answers(headers: &Headers) -> bool {
    match headers.protocol {
        TCP if headers.tcp_flags & SYN != 0 => headers.tcp_flags & ACK != 0,
        TCP => is_well_known(headers.src_port) && !is_well_known(headers.dst_port),
        icmp::ICMP | icmp::ICMPV6 => icmp::role(headers.protocol, headers.src_port as u8) == Role::Answers,
        _ => false,
    }
}

/// RFC 6335 section 6: system ports. 0 is not one: it stands for a fragment whose ports are not known.
#[inline(always)]
fn is_well_known(port: u16) -> bool {
    port != 0 && port < 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(src_port: u16, dst_port: u16, tcp_flags: u8) -> Headers {
        Headers { protocol: TCP, src_port, dst_port, tcp_flags, ..Headers::default() }
    }

    #[test]
    fn the_sender_of_a_syn_began() {
        assert_eq!(of_first_packet(&tcp(443, 50000, SYN), Side::B), Side::B);
    }

    #[test]
    fn the_receiver_of_a_syn_ack_began() {
        assert_eq!(of_first_packet(&tcp(50000, 50001, SYN | ACK), Side::B), Side::A);
    }

    #[test]
    fn a_conversation_that_was_going_on_runs_towards_the_well_known_port() {
        assert_eq!(of_first_packet(&tcp(443, 50000, ACK), Side::A), Side::B);
        assert_eq!(of_first_packet(&tcp(50000, 443, ACK), Side::A), Side::A);
        assert_eq!(of_first_packet(&tcp(8080, 50000, ACK), Side::A), Side::A);
        assert_eq!(of_first_packet(&tcp(22, 80, ACK), Side::A), Side::A);
    }

    #[test]
    fn who_answers_a_ping_did_not_begin() {
        let reply = Headers { protocol: icmp::ICMP, src_port: 0, dst_port: 8, ..Headers::default() };
        assert_eq!(of_first_packet(&reply, Side::A), Side::B);
    }

    #[test]
    fn the_first_udp_sender_began() {
        let answer = Headers { protocol: 17, src_port: 53, dst_port: 40000, ..Headers::default() };
        assert_eq!(of_first_packet(&answer, Side::A), Side::A);
    }
}
