//! What is checked before anything starts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};
use weir_engines::ports;

use crate::args::{Up, Usage};

/// The address that the API will have: allowed, free now, and with a real port.
pub(super) fn listen(options: &Up) -> Result<SocketAddr> {
    let address = options.listen;
    if !address.ip().is_loopback() && options.api_token.as_ref().is_none_or(String::is_empty) {
        return Err(Usage(format!(
            "--listen {address} is reachable from other hosts: set WEIR_API_TOKEN to a secret, or listen on 127.0.0.1"
        ))
        .into());
    }
    if address.port() == 0 && address.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
        return Ok(SocketAddr::new(address.ip(), ports::free_port()?));
    }
    TcpListener::bind(address)
        .and_then(|listener| listener.local_addr())
        .with_context(|| format!("cannot listen on {address}: choose another address with --listen"))
}

/// The URL under which this machine reaches a listener.
pub(super) fn url(address: SocketAddr) -> String {
    let ip = if address.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address.ip() };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use crate::args::{Cli, Command};

    use clap::Parser;

    use super::*;

    fn up(arguments: &[&str]) -> Up {
        let cli = Cli::try_parse_from([&["weir", "up"], arguments].concat()).expect("parsed");
        let Command::Up(up) = cli.command else { panic!("not up") };
        up
    }

    #[test]
    fn an_address_that_others_reach_needs_a_token() {
        let error = listen(&up(&["--listen", "0.0.0.0:0"])).expect_err("refused");
        assert!(error.is::<Usage>(), "{error}");
        assert!(listen(&up(&["--listen", "0.0.0.0:0", "--api-token", "secret"])).is_ok());
        assert!(listen(&up(&["--listen", "0.0.0.0:0", "--api-token", ""])).is_err());
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = taken.local_addr().expect("address").to_string();
        let error = listen(&up(&["--listen", &address])).expect_err("taken");
        assert!(format!("{error:#}").starts_with(&format!("cannot listen on {address}")), "{error:#}");
    }

    #[test]
    fn every_interface_is_reached_over_loopback() {
        assert_eq!(url("0.0.0.0:80".parse().expect("address")), "http://127.0.0.1:80");
        assert_eq!(url("[::1]:80".parse().expect("address")), "http://[::1]:80");
    }
}
