//! DNS, multicast DNS and LLMNR: messages, and which answer belongs to which query.

mod exchange;
mod framer;
mod message;
mod name;
mod rdata;
mod resolved;

pub use exchange::{Answer, Exchanges, Limits, Match};
pub use framer::Framer;
pub use message::Message;
pub use resolved::Resolved;

/// RFC 1035.
pub const PORT: u16 = 53;
/// RFC 6762.
pub const MULTICAST_PORT: u16 = 5353;
/// RFC 4795.
pub const LLMNR_PORT: u16 = 5355;
/// RFC 1002: messages in the form of DNS about names that are not.
const NETBIOS_PORT: u16 = 137;

/// Whether a datagram between these ports holds a DNS message: by its port, or on another one beyond doubt.
#[must_use]
pub fn is_dns(src_port: u16, dst_port: u16, payload: &[u8]) -> bool {
    const PORTS: [u16; 3] = [PORT, MULTICAST_PORT, LLMNR_PORT];
    let on = |ports: &[u16]| ports.contains(&src_port) || ports.contains(&dst_port);
    on(&PORTS) || (!on(&[NETBIOS_PORT]) && Message::is_certain(payload))
}
