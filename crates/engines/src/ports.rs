//! Free ports on loopback for what is internal.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use crate::Error;
use crate::secrets;

/// How many random ports are tried before giving up.
const ATTEMPTS: usize = 200;

/// Where ports for servers begin: below are the well-known ones.
const FIRST: u16 = 10_000;

/// A TCP port on 127.0.0.1 that nobody listens on now, outside the range from which the kernel serves outgoing connections:
/// a server that crashed must find its port free when it comes back, and an ephemeral one may be some client's by then.
pub fn free_port() -> Result<u16, Error> {
    let last = ephemeral_start().unwrap_or(32_768);
    let mut refused = io::Error::other("not one was tried");
    for _ in 0..ATTEMPTS {
        let port = if last > FIRST + 1_000 { FIRST + secrets::random_u16() % (last - FIRST) } else { 0 };
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
        match free.and_then(|address| reserve(address.port())) {
            Ok(port) => return Ok(port),
            Err(error) => refused = error,
        }
    }
    Err(Error::NoPort(refused))
}

/// Keeps other instances from choosing it before somebody listens there: a name that goes with this process, in the network namespace in
/// which ports are, too.
fn reserve(port: u16) -> io::Result<u16> {
    static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let name = UnixAddress::from_abstract_name(format!("weir-port-{port}"))?;
    let reservation = UnixListener::bind_addr(&name)?;
    RESERVED.lock().unwrap_or_else(PoisonError::into_inner).push(reservation);
    Ok(port)
}

/// The first port that the kernel gives to outgoing connections.
fn ephemeral_start() -> Option<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_bound_and_lies_outside_the_ephemeral_range() {
        let port = free_port().expect("a port");
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("bind");
        assert!(port < ephemeral_start().expect("range"));
    }
}
