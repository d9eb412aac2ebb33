use weir_proto::{Address, ContainerNetwork, PublishedPort};

use super::*;

const NOW: u64 = 1_000_000;

fn ip(text: &str) -> Ip {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

fn container(name: &str, address: &str, started_at: u64, finished_at: u64) -> Container {
    let Ip { high, low } = ip(address);
    Container {
        host: "h".into(),
        container_id: name.into(),
        name: name.into(),
        networks: vec![ContainerNetwork { ip_high: high, ip_low: low, ..ContainerNetwork::default() }],
        started_at,
        finished_at,
        ..Container::default()
    }
}

fn set(known: &mut Known, container: Container) {
    let key = format!("{}.{}", container.host, container.container_id);
    known.apply(Change { key, value: Some(container), revision: 1 }, NOW);
}

fn forget(known: &mut Known, name: &str, now: u64) {
    known.apply(Change { key: format!("h.{name}"), value: None, revision: 2 }, now);
}

fn seen(src: &str, dst: &str, from: u64, to: u64) -> Seen<'static> {
    let end = |address| End { address: ip(address), ..End::default() };
    let (src, dst) = (end(src), end(dst));
    Seen { host: Some("h"), interface: "eth0", interfaces: &[], protocol: 6, from, to, apart: false, src, dst }
}

fn names<'a>(known: &'a Known, seen: &Seen<'_>) -> [&'a str; 2] {
    known.find(seen).map(|found| found.map_or("", |names| names.name.as_str()))
}

fn name<'a>(known: &'a Known, address: &str, from: u64, to: u64) -> &'a str {
    names(known, &seen(address, "192.0.2.1", from, to))[0]
}

#[test]
fn an_address_belongs_to_the_container_that_held_it_at_the_time() {
    let mut known = Known::default();
    set(&mut known, container("old", "10.0.0.1", 100, 200));
    set(&mut known, container("new", "10.0.0.1", 300, 0));
    for (from, to, expected) in [
        (50, 90, ""),
        (90, 110, "old"),
        (210, 290, ""),
        // It began with the container that held the address then.
        (150, 350, "old"),
        (250, 350, "new"),
        (400, 500, "new"),
    ] {
        assert_eq!(name(&known, "10.0.0.1", from, to), expected, "{from} to {to}");
    }
    assert_eq!(name(&known, "10.0.0.2", 400, 500), "");
    assert_eq!(names(&known, &Seen { host: Some("other"), ..seen("10.0.0.1", "10.0.0.2", 400, 500) }), ["", ""]);
}

#[test]
fn an_address_that_a_container_got_later_or_gave_up_was_its_own_only_then() {
    const SECOND: u64 = 1_000_000;
    let mut known = Known::default();
    let moves = |addresses: &[&str], observed_at: u64| {
        let networks = addresses.iter().map(|address| container("", address, 0, 0).networks.remove(0)).collect();
        Container { networks, observed_at, ..container("moves", "10.0.0.1", 100 * SECOND, 0) }
    };
    let apply = |known: &mut Known, container: Container, now| {
        known.apply(Change { key: "h.moves".into(), value: Some(container), revision: 1 }, now);
    };
    // The other one was there before it, and had the address that it gets later.
    set(&mut known, container("other", "10.0.1.1", 50 * SECOND, 200 * SECOND));
    apply(&mut known, moves(&["10.0.0.1"], 100 * SECOND), 100 * SECOND);
    apply(&mut known, moves(&["10.0.0.1", "10.0.1.1"], 300 * SECOND), 300 * SECOND);
    apply(&mut known, moves(&["10.0.1.1"], 400 * SECOND), 400 * SECOND);
    for (address, at, expected) in [
        ("10.0.0.1", 150, "moves"),
        ("10.0.1.1", 150, "other"),
        ("10.0.1.1", 250, ""),
        ("10.0.1.1", 350, "moves"),
        ("10.0.0.1", 390, "moves"),
        ("10.0.0.1", 410, ""),
        ("10.0.1.1", 410, "moves"),
    ] {
        assert_eq!(name(&known, address, at * SECOND, (at + 1) * SECOND), expected, "{address} at {at}");
    }
    // Another one gets what it gave up.
    set(&mut known, container("next", "10.0.0.1", 500 * SECOND, 0));
    assert_eq!(name(&known, "10.0.0.1", 390 * SECOND, 391 * SECOND), "moves");
    assert_eq!(name(&known, "10.0.0.1", 510 * SECOND, 511 * SECOND), "next");
}

#[test]
fn a_container_with_the_hosts_network_is_known_by_its_cgroup_alone() {
    let mut known = Known::default();
    set(&mut known, container("created", "10.0.0.1", 0, 0));
    let interfaces = vec!["eth0".to_owned()];
    let host = Container { host_network: true, cgroup_id: 102, interfaces, ..container("host", "10.0.0.2", 100, 0) };
    set(&mut known, host);
    assert_eq!(names(&known, &seen("10.0.0.1", "10.0.0.2", 400, 500)), ["", ""]);
    let mut by_cgroup = seen("10.0.0.2", "10.0.0.3", 400, 500);
    by_cgroup.src.cgroup = 102;
    assert_eq!(names(&known, &by_cgroup), ["host", ""]);
}

#[test]
fn the_cgroup_goes_before_the_interface_and_the_interface_before_the_address() {
    let mut known = Known::default();
    for (name, cgroup_id, interface) in [("a", 1, "veth1"), ("b", 2, "veth2")] {
        let interfaces = vec![interface.to_owned()];
        set(&mut known, Container { cgroup_id, interfaces, ..container(name, "10.0.0.1", 100, 0) });
    }
    let mut record = seen("10.0.0.1", "192.0.2.1", 400, 500);
    for (interface, expected) in [("veth1", "a"), ("veth2", "b")] {
        record.interface = interface;
        assert_eq!(names(&known, &record), [expected, ""]);
    }
    let others = vec!["veth1".to_owned()];
    let record = Seen { interface: "br0", interfaces: &others, ..record };
    assert_eq!(names(&known, &record), ["a", ""]);
    let mut record = record;
    record.src.cgroup = 2;
    assert_eq!(names(&known, &record), ["b", ""]);
}

#[test]
fn a_container_whose_addresses_nobody_knows_is_named_by_its_interface() {
    let mut known = Known::default();
    let interfaces = vec!["veth1".to_owned()];
    set(&mut known, Container { interfaces, networks: Vec::new(), ..container("dark", "10.0.0.1", 100, 0) });
    set(&mut known, container("web", "10.0.0.2", 100, 0));
    let on_veth = |src, dst| Seen { interface: "veth1", ..seen(src, dst, 400, 500) };
    assert_eq!(names(&known, &on_veth("10.0.0.9", "10.0.0.2")), ["dark", "web"]);
    assert_eq!(names(&known, &on_veth("192.0.2.1", "10.0.0.9")), ["", "dark"]);
    // Either could be it, and a multicast comes to everybody.
    assert_eq!(names(&known, &on_veth("10.0.0.8", "10.0.0.9")), ["", ""]);
    assert_eq!(names(&known, &on_veth("10.0.0.2", "224.0.0.251")), ["web", ""]);
}

#[test]
fn inside_of_a_container_addresses_are_its_own_and_only_cgroups_tell() {
    let mut known = Known::default();
    let port = PublishedPort { host_port: 8080, container_port: 80, protocol: 6, ..PublishedPort::default() };
    set(&mut known, Container { ports: vec![port], ..container("web", "10.0.0.1", 100, 0) });
    set(&mut known, Container { cgroup_id: 102, ..container("sidecar", "10.0.0.2", 100, 0) });
    let mut record = seen("10.0.0.1", "127.0.0.1", 400, 500);
    record.dst.port = 8080;
    assert_eq!(names(&known, &record), ["web", "web"], "on the host");
    record.apart = true;
    assert_eq!(names(&known, &record), ["", ""]);
    record.src.cgroup = 102;
    assert_eq!(names(&known, &record), ["sidecar", ""]);
}

#[test]
fn a_published_port_leads_to_its_container() {
    let mut known = Known::default();
    let any = ip("0.0.0.0");
    let fixed = ip("192.0.2.9");
    let port = |host: Ip, host_port, protocol| PublishedPort {
        host_ip_high: host.high,
        host_ip_low: host.low,
        host_port,
        container_port: 80,
        protocol,
    };
    let Ip { high, low } = ip("192.0.2.7");
    let web = Container {
        ports: vec![port(any, 8080, 6), port(fixed, 9090, 6)],
        host_addresses: vec![Address { high, low }],
        ..container("web", "10.0.0.1", 100, 200)
    };
    set(&mut known, web);
    let to = |address: &str, port, protocol, time| {
        let mut record = Seen { protocol, ..seen("198.51.100.1", address, time, time) };
        record.dst.port = port;
        names(&known, &record)[1].to_owned()
    };
    for (address, port, protocol, time, expected) in [
        ("192.0.2.7", 8080, 6, 150, "web"),
        ("127.0.0.1", 8080, 6, 150, "web"),
        ("192.0.2.9", 9090, 6, 150, "web"),
        ("192.0.2.7", 9090, 6, 150, ""),
        ("192.0.2.7", 8080, 17, 150, ""),
        // Another host's port, and a time at which the container did not run.
        ("198.51.100.2", 8080, 6, 150, ""),
        ("192.0.2.7", 8080, 6, 250, ""),
    ] {
        assert_eq!(to(address, port, protocol, time), expected, "{address} {port} {protocol} {time}");
    }
}

#[test]
fn a_translated_end_is_who_is_behind_it_at_the_time() {
    let mut known = Known::default();
    set(&mut known, container("old", "10.0.0.1", 100, 200));
    set(&mut known, container("new", "10.0.0.1", 300, 0));
    set(&mut known, container("db", "10.0.0.2", 100, 0));
    let mut record = seen("192.0.2.7", "198.51.100.1", 150, 160);
    record.src.nat = ip("10.0.0.1");
    assert_eq!(names(&known, &record), ["old", ""]);
    assert_eq!(names(&known, &Seen { from: 350, to: 360, ..record }), ["new", ""]);
    assert_eq!(names(&known, &Seen { from: 250, to: 260, ..record }), ["", ""]);
    // Its own address goes before what is behind another.
    record.src.address = ip("10.0.0.2");
    assert_eq!(names(&known, &record), ["db", ""]);
    let mut published = seen("198.51.100.1", "192.0.2.7", 350, 360);
    published.dst.nat = ip("10.0.0.2");
    assert_eq!(names(&known, &published), ["", "db"]);
}

#[test]
fn an_uploaded_capture_is_named_where_only_one_container_fits() {
    let mut known = Known::default();
    set(&mut known, container("web", "10.0.0.1", 100, 200));
    set(&mut known, container("db", "10.0.0.2", 100, 200));
    set(&mut known, Container { host: "other".into(), ..container("db", "10.0.0.2", 150, 0) });
    let uploaded = |from, to| Seen { host: None, ..seen("10.0.0.1", "10.0.0.2", from, to) };
    assert_eq!(names(&known, &uploaded(110, 120)), ["web", "db"]);
    assert_eq!(names(&known, &uploaded(160, 170)), ["web", ""]);
    assert_eq!(names(&known, &uploaded(50, 60)), ["", ""]);
}

#[test]
fn a_removed_container_is_known_for_the_flows_that_are_on_their_way() {
    let mut known = Known::default();
    set(&mut known, container("web", "10.0.0.1", 100, 0));
    set(&mut known, container("web", "10.0.0.1", 100, 200));
    forget(&mut known, "web", 250);
    assert_eq!((name(&known, "10.0.0.1", 150, 160), name(&known, "10.0.0.1", 210, 220)), ("web", ""));
    // Its end was not told: it lived at most until it was gone.
    set(&mut known, container("short", "10.0.0.3", 100, 0));
    forget(&mut known, "short", 250);
    assert_eq!((name(&known, "10.0.0.3", 240, 245), name(&known, "10.0.0.3", 260, 270)), ("short", ""));
    for n in 0..MAX_GONE {
        set(&mut known, container(&format!("c{n}"), "10.0.0.2", 100, 200));
        forget(&mut known, &format!("c{n}"), 250);
    }
    assert_eq!(name(&known, "10.0.0.1", 150, 160), "");
    assert_eq!((known.gone.len(), known.keys.len()), (MAX_GONE, 0));
    assert_eq!(known.anywhere.lives.len(), 1);
}

#[test]
fn a_restart_is_another_life_and_a_change_of_address_is_the_same() {
    let mut known = Known::default();
    set(&mut known, container("web", "10.0.0.1", 100, 0));
    set(&mut known, container("web", "10.0.0.2", 100, 0));
    assert_eq!((name(&known, "10.0.0.1", 150, 160), name(&known, "10.0.0.2", 150, 160)), ("", "web"));
    set(&mut known, container("web", "10.0.0.2", 100, 200));
    set(&mut known, container("web", "10.0.0.3", 300, 0));
    assert_eq!((name(&known, "10.0.0.2", 150, 160), name(&known, "10.0.0.3", 350, 360)), ("web", "web"));
}
