//! A host that translates addresses for another behind it, as hosts do for their containers.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    sync::mpsc::channel,
};

use weir_proto::{Flow, Ip};

use crate::support::{
    capturing::{Capturing, dst, src},
    host::Host,
    skipped,
};

const CONTAINER: &str = "10.78.0.2";
const OUTSIDE: &str = "10.77.0.1";
const SERVER: &str = "10.77.0.2";

/// A container, the host that it runs on, and a server elsewhere.
struct Network {
    container: Host,
    host: Host,
    server: Host,
}

impl Network {
    /// `None` where the rules cannot be made, and it says so.
    fn new_or_skip() -> Option<Self> {
        let network = Self { container: Host::new(), host: Host::new(), server: Host::new() };
        let Self { container, host, server } = &network;
        container.wire("c0", host, "in0");
        host.wire("out0", server, "s0");
        for (at, name, address) in
            [(container, "c0", CONTAINER), (host, "in0", "10.78.0.1"), (host, "out0", OUTSIDE), (server, "s0", SERVER)]
        {
            at.address(name, &format!("{address}/24"));
            at.up(name);
        }
        container.default_route("10.78.0.1");
        host.sysctl("ipv4/ip_forward", "1");
        network
            .rules("table ip weir { chain out { type nat hook postrouting priority 100; oifname out0 masquerade; }; }")
            .then_some(network)
    }

    fn rules(&self, rules: &'static str) -> bool {
        let made = self.host.run(move || {
            let mut nft =
                Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
            nft.stdin.take()?.write_all(rules.as_bytes()).ok()?;
            nft.wait().ok().filter(std::process::ExitStatus::success)
        });
        if made.is_none() {
            eprintln!("skipped: nft is not there, or this kernel has no NAT");
        }
        made.is_some()
    }
}

/// Opens a connection that is answered, and returns its two ends with the port of who began.
fn connect(
    client: &Host,
    server: &Host,
    listen: SocketAddr,
    to: impl FnOnce(u16) -> SocketAddr,
) -> (TcpStream, TcpStream, u16) {
    let (ready, port) = channel();
    let accepting = server.spawn(move || {
        let listener = TcpListener::bind(listen).unwrap();
        ready.send(listener.local_addr().unwrap().port()).unwrap();
        listener.accept().unwrap().0
    });
    let to = to(port.recv().unwrap());
    let here = client.run(move || TcpStream::connect(to).unwrap());
    let port = here.local_addr().unwrap().port();
    (here, accepting.join().unwrap(), port)
}

fn talk((mut here, mut there, _): (TcpStream, TcpStream, u16)) {
    here.write_all(b"question").unwrap();
    there.read_exact(&mut [0; 8]).unwrap();
    there.write_all(b"answer").unwrap();
    here.read_exact(&mut [0; 6]).unwrap();
}

fn src_is(flow: &Flow) -> (IpAddr, u32) {
    let address = Ipv6Addr::from(Ip::new(flow.src_nat_ip_high, flow.src_nat_ip_low));
    (address.to_canonical(), flow.src_nat_port)
}

fn dst_is(flow: &Flow) -> (IpAddr, u32) {
    let address = Ipv6Addr::from(Ip::new(flow.dst_nat_ip_high, flow.dst_nat_ip_low));
    (address.to_canonical(), flow.dst_nat_port)
}

#[test]
fn a_translated_flow_tells_who_is_behind_it() {
    if skipped() {
        return;
    }
    let Some(network) = Network::new_or_skip() else { return };
    let Network { container, host, server } = &network;
    let nobody: (IpAddr, u32) = (Ipv6Addr::UNSPECIFIED.into(), 0);
    let any = |address: &str, port: u16| SocketAddr::new(address.parse().unwrap(), port);
    let behind: IpAddr = CONTAINER.parse().unwrap();
    // It is there before anybody captures.
    let old = connect(container, server, any(SERVER, 0), |port| any(SERVER, port));
    let mut capturing = Capturing::on(host, &["in0", "out0"], &["--drain-ended", "100ms", "--drain-active", "100ms"]);
    let mut ports = vec![old.2];
    talk(old);
    let new = connect(container, server, any(SERVER, 0), |port| any(SERVER, port));
    ports.push(new.2);
    talk(new);
    // One datagram, and nobody answers.
    let alone = container.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"alone", (SERVER, 9)).unwrap();
        socket.local_addr().unwrap().port()
    });
    ports.push(alone);
    // The other way: a port of the host that leads to the container.
    assert!(network.rules("table ip weir { chain in { type nat hook prerouting priority -100; iifname out0 tcp dport 8080 dnat to 10.78.0.2:80; }; }"));
    let published = connect(server, container, any(CONTAINER, 80), |_| any(OUTSIDE, 8080));
    let client = published.2;
    talk(published);

    // No port was taken, so masquerading has kept them.
    let has = |flows: &[Flow], port: u16, from: &str, interface: &str| {
        flows
            .iter()
            .find(|flow| {
                let same = flow.src_port == u32::from(port);
                same && src(flow) == from.parse::<IpAddr>().unwrap() && flow.interface == interface
            })
            .cloned()
    };
    let (wanted, sides) = (ports.clone(), [(CONTAINER, "in0"), (OUTSIDE, "out0")]);
    capturing.wait_for("flows on both sides", move |flows| {
        wanted.iter().all(|port| sides.iter().all(|(from, interface)| has(flows, *port, from, interface).is_some()))
            && ["in0", "out0"].iter().all(|interface| has(flows, client, SERVER, interface).is_some())
    });
    let flows = capturing.stop().flows;
    for port in ports {
        let inside = has(&flows, port, CONTAINER, "in0").unwrap();
        assert_eq!((src_is(&inside), dst_is(&inside)), (nobody, nobody), "{inside:#?}");
        let outside = has(&flows, port, OUTSIDE, "out0").unwrap();
        assert_eq!((src_is(&outside), dst_is(&outside)), ((behind, port.into()), nobody), "{outside:#?}");
        assert_eq!(dst(&outside), SERVER.parse::<IpAddr>().unwrap());
    }
    let outside = has(&flows, client, SERVER, "out0").unwrap();
    assert_eq!((src_is(&outside), dst_is(&outside)), (nobody, (behind, 80)), "{outside:#?}");
    let inside = has(&flows, client, SERVER, "in0").unwrap();
    assert_eq!((src_is(&inside), dst_is(&inside)), (nobody, nobody), "{inside:#?}");
}
