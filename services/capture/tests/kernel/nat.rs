//! A host that translates addresses for another behind it, as hosts do for their containers.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    sync::mpsc::channel,
};

use weir_proto::{Flow, Ip};

use crate::{
    names::{Reading, ask_udp, hello, say},
    support::{
        capturing::{Capturing, dst, src, total},
        host::Host,
        skipped,
        traffic::ping,
    },
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

/// Records of pings from one address to another on an interface.
fn pings(flows: &[Flow], from: &str, to: &str, interface: &str) -> Vec<Flow> {
    let [from, to] = [from, to].map(|address| address.parse::<IpAddr>().unwrap());
    let wanted = |flow: &&Flow| src(flow) == from && dst(flow) == to && flow.interface == interface;
    flows.iter().filter(wanted).filter(|flow| matches!(flow.src_port, 8 | 128)).cloned().collect()
}

#[test]
fn a_translated_ping_tells_who_is_behind_it_where_only_one_can_be() {
    const OTHER: &str = "10.78.1.2";
    const SECOND: &str = "10.77.0.3";
    const BOTH: &str = "10.77.0.4";
    const V6: [&str; 4] = ["fd78::2", "fd78::1", "fd77::1", "fd77::2"];
    if skipped() {
        return;
    }
    let Some(network) = Network::new_or_skip() else { return };
    let Network { container, host, server } = &network;
    let other = Host::new();
    other.wire("c1", host, "in1");
    for (at, name, address) in
        [(&other, "c1", OTHER), (host, "in1", "10.78.1.1"), (server, "s0", SECOND), (server, "s0", BOTH)]
    {
        at.address(name, &format!("{address}/24"));
        at.up(name);
    }
    other.default_route("10.78.1.1");
    // The kernel forgets a ping after half a minute, and a slow machine may take as long for this test.
    host.sysctl("netfilter/nf_conntrack_icmp_timeout", "600");
    let has_v6 = network
        .rules("table ip6 weir { chain out { type nat hook postrouting priority 100; oifname out0 masquerade; }; }");
    if has_v6 {
        for ((at, name), address) in [(container, "c0"), (host, "in0"), (host, "out0"), (server, "s0")].iter().zip(V6) {
            at.address(name, &format!("{address}/64"));
        }
        container.default_route(V6[1]);
        host.sysctl("ipv6/conf/all/forwarding", "1");
    }
    let to = |address: &str| address.parse::<IpAddr>().unwrap();
    let capturing =
        Capturing::on(host, &["in0", "in1", "out0"], &["--drain-ended", "100ms", "--drain-active", "100ms"]);
    ping(container, to(SERVER), 3, 10);
    ping(&other, to(SECOND), 2, 20);
    if has_v6 {
        ping(container, to(V6[3]), 4, 30);
    }
    // Both of them, with one identifier: outside it is one flow.
    ping(container, to(BOTH), 5, 40);
    ping(&other, to(BOTH), 6, 50);
    // The other way.
    assert!(network.rules("table ip weir { chain in { type nat hook prerouting priority -100; iifname out0 icmp type echo-request dnat to 10.78.0.2; }; }"));
    ping(server, to(OUTSIDE), 7, 60);

    let flows = capturing.stop().flows;
    let nobody: IpAddr = Ipv6Addr::UNSPECIFIED.into();
    let mut expected = vec![(CONTAINER, "in0", OUTSIDE, SERVER, 3), (OTHER, "in1", OUTSIDE, SECOND, 2)];
    if has_v6 {
        expected.push((V6[0], "in0", V6[2], V6[3], 4));
    }
    for (behind, inner, outer, server, packets) in expected {
        for (from, interface, is) in [(behind, inner, nobody), (outer, "out0", to(behind))] {
            let records = pings(&flows, from, server, interface);
            let sums = total(records.iter());
            assert_eq!((sums.tx_packets, sums.rx_packets), (packets, packets), "{from} {server}: {flows:#?}");
            for record in records {
                assert_eq!((src_is(&record).0, dst_is(&record).0), (is, nobody), "{record:#?}");
            }
        }
    }
    let inside = [(CONTAINER, "in0"), (OTHER, "in1")].map(|(from, interface)| pings(&flows, from, BOTH, interface));
    assert_eq!(inside.map(|records| total(records.iter()).tx_packets), [5, 6]);
    let (named, unnamed): (Vec<_>, Vec<_>) =
        pings(&flows, OUTSIDE, BOTH, "out0").into_iter().partition(|record| src_is(record).0 != nobody);
    // What was reported before the second one began can only be of the first.
    assert!(named.iter().all(|record| src_is(record).0 == to(CONTAINER)), "{named:#?}");
    let [named, unnamed] = [named, unnamed].map(|records| total(records.iter()).tx_packets);
    assert!(unnamed >= 6 && named + unnamed == 11, "{named} and {unnamed}");
    let records = pings(&flows, SERVER, OUTSIDE, "out0");
    assert_eq!(total(records.iter()).rx_packets, 7);
    for record in records {
        assert_eq!((src_is(&record).0, dst_is(&record).0), (nobody, to(CONTAINER)), "{record:#?}");
    }
}

#[test]
fn rows_from_the_outer_side_of_a_translation_tell_who_is_behind_it() {
    if skipped() {
        return;
    }
    let Some(Network { container, host, server }) = &Network::new_or_skip() else { return };
    let reading = Reading::on(host, "out0");
    let address: IpAddr = SERVER.parse().unwrap();
    ask_udp(container, server, address, "four.example");
    say(container, server, address, 0, vec![hello("tls.example", 10)], vec![]);
    let request = b"GET /x HTTP/1.1\r\nHost: h.example\r\n\r\n".to_vec();
    say(container, server, address, 0, vec![request], b"HTTP/1.1 204 No Content\r\n\r\n".to_vec());
    // The host's own is not translated.
    ask_udp(host, server, address, "host.example");
    let (_, rows) = reading.stop();
    let [dns, own] = &rows.dns[..] else { panic!("{:#?}", rows.dns) };
    let ([tls], [http]) = (&rows.tls[..], &rows.http[..]) else { panic!("{:#?} {:#?}", rows.tls, rows.http) };
    let told = [
        ("dns", dns.src_ip_high, dns.src_ip_low, dns.src_nat_ip_high, dns.src_nat_ip_low, dns.dst_nat_ip_low),
        ("tls", tls.src_ip_high, tls.src_ip_low, tls.src_nat_ip_high, tls.src_nat_ip_low, tls.dst_nat_ip_low),
        ("http", http.src_ip_high, http.src_ip_low, http.src_nat_ip_high, http.src_nat_ip_low, http.dst_nat_ip_low),
    ];
    let ip = |high, low| Ipv6Addr::from(Ip::new(high, low)).to_canonical().to_string();
    for (table, src_high, src_low, nat_high, nat_low, dst_nat) in told {
        assert_eq!(
            (table, ip(src_high, src_low).as_str(), ip(nat_high, nat_low).as_str(), dst_nat),
            (table, OUTSIDE, CONTAINER, 0)
        );
    }
    assert_eq!((own.qname.as_str(), own.src_nat_ip_low, own.dst_nat_ip_low), ("host.example", 0, 0));
}
