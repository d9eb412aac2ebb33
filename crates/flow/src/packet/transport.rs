//! The transport layer.

use super::ip::protocol;
use crate::bytes::{after, u8_at, u16_at, u32_at, up_to};

/// What the transport header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport<'a> {
    /// RFC 9293.
    Tcp(Tcp<'a>),
    /// RFC 768.
    Udp {
        /// Source port.
        src_port: u16,
        /// Destination port.
        dst_port: u16,
        /// What was captured of the datagram.
        payload: &'a [u8],
    },
    /// Another protocol whose first four bytes are ports (SCTP, DCCP, UDP-Lite), or a TCP header of which no more can be read.
    Ports {
        /// Source port.
        src_port: u16,
        /// Destination port.
        dst_port: u16,
    },
    /// ICMP and `ICMPv6`.
    Icmp {
        /// Message type.
        kind: u8,
        /// Message code.
        code: u8,
    },
    /// A protocol without ports, or a header that was cut off before them.
    Other,
}

/// The header of a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp<'a> {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number of the first byte (or of the SYN).
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// FIN = 1 ... CWR = 128.
    pub flags: u8,
    /// The window field as it is on the wire; 0 where it was cut off.
    pub window: u16,
    /// What was captured of the options.
    pub options: &'a [u8],
    /// What was captured of the segment's data.
    pub payload: &'a [u8],
    /// Bytes of data on the wire.
    pub payload_length: u32,
}

/// TCP flags in the order of RFC 9293.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 2;
    /// Reset the connection.
    pub const RST: u8 = 4;
    /// The acknowledgement field is significant.
    pub const ACK: u8 = 16;
}

/// Reads the transport header at the start of `payload`, of which `wire_length` bytes were sent.
#[must_use]
pub fn parse(protocol: u8, payload: &[u8], wire_length: u32) -> Transport<'_> {
    match protocol {
        protocol::TCP => tcp(payload, wire_length).map(Transport::Tcp).or_else(|| ports(payload)),
        protocol::UDP => udp(payload),
        protocol::SCTP | protocol::DCCP | protocol::UDP_LITE => ports(payload),
        protocol::ICMP | protocol::ICMPV6 => icmp(payload),
        _ => None,
    }
    .unwrap_or(Transport::Other)
}

/// None where the header is cut before the flags, or says that it is shorter than a header can be.
fn tcp(data: &[u8], wire_length: u32) -> Option<Tcp<'_>> {
    let header_length = usize::from(u8_at(data, 12)? >> 4) * 4;
    if header_length < 20 {
        return None;
    }
    Some(Tcp {
        src_port: u16_at(data, 0)?,
        dst_port: u16_at(data, 2)?,
        sequence: u32_at(data, 4)?,
        acknowledgement: u32_at(data, 8)?,
        flags: u8_at(data, 13)?,
        window: u16_at(data, 14).unwrap_or(0),
        options: after(up_to(data, header_length), 20),
        payload: after(data, header_length),
        payload_length: wire_length.saturating_sub(header_length as u32),
    })
}

fn udp(data: &[u8]) -> Option<Transport<'_>> {
    let payload = match usize::from(u16_at(data, 4).unwrap_or(0)) {
        // Segmentation offload, or a header that was cut.
        0 => after(data, 8),
        length => after(up_to(data, length), 8),
    };
    Some(Transport::Udp { src_port: u16_at(data, 0)?, dst_port: u16_at(data, 2)?, payload })
}

fn ports(data: &[u8]) -> Option<Transport<'_>> {
    Some(Transport::Ports { src_port: u16_at(data, 0)?, dst_port: u16_at(data, 2)? })
}

fn icmp(data: &[u8]) -> Option<Transport<'_>> {
    Some(Transport::Icmp { kind: u8_at(data, 0)?, code: u8_at(data, 1)? })
}
