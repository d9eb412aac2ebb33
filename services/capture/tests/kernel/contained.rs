//! In the network namespaces of containers: what nobody sees from outside.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::channel,
    time::Instant,
};

use aya::programs::{SchedClassifier, TcAttachType};
use weir_proto::{Flow, ledger_entry::Outcome};

use crate::{
    exact::{pair, up},
    names::Reading,
    support::{
        capturing::{Capturing, DEADLINE, Result, dst, src},
        host::Host,
        service::{Service, wait_for_metric},
        skipped, traffic,
    },
};

/// A process that does nothing, in a network namespace of its own and in a cgroup as engines make them for containers.
struct Container {
    host: Option<Host>,
    process: Child,
    cgroup: PathBuf,
    namespace: u64,
}

impl Container {
    fn new() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?.split(' ').nth(1)?;
        let id = format!("{:032x}{:032x}", uuid::Uuid::new_v4().as_u128(), uuid::Uuid::new_v4().as_u128());
        let cgroup = PathBuf::from(root).join(id);
        if let Err(error) = fs::create_dir(&cgroup) {
            eprintln!("skipped: no cgroup can be made: {error}");
            return None;
        }
        let host = Host::new();
        let procs = cgroup.join("cgroup.procs");
        let process = host.run(move || {
            let mut command = Command::new("sleep");
            command.arg("infinity").stdin(Stdio::null());
            // SAFETY: between fork and exec it only opens and writes a file.
            unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
            command.spawn().unwrap()
        });
        let namespace = host.run(|| fs::metadata("/proc/thread-self/ns/net").unwrap().ino());
        Some(Self { host: Some(host), process, cgroup, namespace })
    }

    fn host(&self) -> &Host {
        self.host.as_ref().expect("it is there until the end")
    }

    fn interface(&self, name: &str) -> String {
        format!("{name}@{}", self.namespace)
    }

    fn cgroup_id(&self) -> u64 {
        fs::metadata(&self.cgroup).unwrap().ino()
    }

    /// Programs on what goes out of an interface: they come after those on what comes in. Other captures of this machine have theirs there, too.
    fn programs(&self, name: &str) -> BTreeSet<u32> {
        let name = name.to_owned();
        self.host().run(move || {
            let found = SchedClassifier::query_tcx(name.as_str(), TcAttachType::Egress);
            found.map(|(_, programs)| programs.iter().map(aya::programs::ProgramInfo::id).collect()).unwrap_or_default()
        })
    }

    /// Waits until a process has attached to an interface; returns its programs there.
    fn wait_for_programs_of(&self, pid: u32, name: &str) -> BTreeSet<u32> {
        let mut found = BTreeSet::new();
        wait_until(&format!("programs at {name}"), || {
            found = self.programs(name).intersection(&programs_of(pid)).copied().collect();
            !found.is_empty()
        });
        assert_eq!(found.len(), 1, "it is attached to once");
        found
    }

    fn wait_for_programs(&self, name: &str) -> BTreeSet<u32> {
        self.wait_for_programs_of(std::process::id(), name)
    }

    /// Runs bash in it, and waits for its end.
    fn bash(&self, script: String) {
        let procs = self.cgroup.join("cgroup.procs");
        self.host().run(move || {
            let mut command = Command::new("/bin/bash");
            command.args(["-c", &script]);
            // SAFETY: as above.
            unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
            assert!(command.status().unwrap().success());
        });
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // The namespace goes with the last of its processes.
        let _ended = self.process.kill();
        let _waited = self.process.wait();
        self.host = None;
        let _busy = fs::remove_dir(&self.cgroup);
    }
}

/// Programs that a process has attached with TCX.
fn programs_of(pid: u32) -> BTreeSet<u32> {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return BTreeSet::new() };
    let program = |file: fs::DirEntry| {
        let text = fs::read_to_string(file.path()).ok()?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        if field("link_type:") == Some("tcx") { field("prog_id:")?.parse().ok() } else { None }
    };
    files.flatten().filter_map(program).collect()
}

fn wait_until(what: &str, mut satisfied: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !satisfied() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// Sends datagrams over the loopback interface, always from and to the same ports.
fn say(container: &Container, count: usize) {
    container.host().run(move || {
        let (server, client) =
            (UdpSocket::bind("127.0.0.1:47002").unwrap(), UdpSocket::bind("127.0.0.1:47001").unwrap());
        for _ in 0..count {
            client.send_to(b"seven b", server.local_addr().unwrap()).unwrap();
            assert_eq!(server.recv(&mut [0; 10]).unwrap(), 7);
        }
    });
}

#[test]
fn the_same_conversation_in_two_containers_and_here_is_three_flows() {
    if skipped() {
        return;
    }
    let (Some(one), Some(two)) = (Container::new(), Container::new()) else { return };
    let home = Host::new();
    let capturing = Capturing::on(&home, &["lo"], &["--container-namespaces"]);
    let attached = [&one, &two].map(|container| container.wait_for_programs("lo"));
    say(&one, 3);
    say(&two, 50);
    traffic::udp_to_nowhere(&home, "127.0.0.1:47002".parse().unwrap(), 1);
    let counters = [&one, &two].map(|container| container.host().counters("lo"));
    let result = capturing.stop();
    let mut ids = Vec::new();
    for (container, count) in [(&one, 3), (&two, 50)] {
        let interface = container.interface("lo");
        let of = |flow: &Flow| flow.interface == interface && flow.src_port == 47001 && flow.dst_port == 47002;
        let total = result.total(of);
        assert_eq!((total.tx_packets, total.tx_bytes, total.rx_packets), (count, count * 35, 0), "{:#?}", result.flows);
        let flow = result.flows.iter().find(|flow| of(flow)).unwrap();
        assert_eq!((src(flow).to_string(), dst(flow).to_string()), ("127.0.0.1".into(), "127.0.0.1".into()));
        assert_eq!(flow.network_namespace, container.namespace);
        assert_eq!((flow.src_pid, flow.dst_pid), (std::process::id(), std::process::id()), "{flow:#?}");
        ids.push(flow.flow_id);
    }
    assert_ne!(ids[0], ids[1]);
    for (container, (rx, tx)) in [&one, &two].into_iter().zip(counters) {
        let seen = result.told(&container.interface("lo"), Outcome::Seen);
        assert_eq!(seen.0, rx.packets + tx.packets);
        let accounted = result.told(&container.interface("lo"), Outcome::Accounted);
        assert_eq!(accounted.0, rx.packets);
    }
    assert_eq!(result.sums().packets, result.totals.reported.packets);
    for (container, attached) in [&one, &two].into_iter().zip(attached) {
        assert!(container.programs("lo").is_disjoint(&attached), "nothing is left");
    }
}

#[test]
fn a_process_in_a_container_that_talks_to_itself_has_its_name_and_its_cgroup() {
    if skipped() {
        return;
    }
    let Some(container) = Container::new() else { return };
    let home = Host::new();
    let capturing = Capturing::on(&home, &["lo"], &["--container-namespaces"]);
    container.wait_for_programs("lo");
    let server = container.host().run(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    let port = server.local_addr().unwrap().port();
    container.bash(format!("echo hello >/dev/udp/127.0.0.1/{port}"));
    let result = capturing.stop();
    let flow = result.flows.iter().find(|flow| flow.dst_port == u32::from(port)).unwrap();
    assert_eq!((flow.interface.as_str(), flow.src_process.as_str()), (container.interface("lo").as_str(), "bash"));
    assert_eq!(flow.src_cgroup, container.cgroup_id(), "{flow:#?}");
}

#[test]
fn nobody_is_entered_unless_it_is_asked_for() {
    if skipped() {
        return;
    }
    let Some(container) = Container::new() else { return };
    let home = Host::new();
    let capturing = Capturing::on(&home, &["lo"], &[]);
    say(&container, 3);
    traffic::udp_to_nowhere(&home, "127.0.0.1:9".parse().unwrap(), 1);
    let own = programs_of(std::process::id());
    assert_eq!(
        (own.len(), own.is_disjoint(&container.programs("lo"))),
        (2, true),
        "both directions of the own loopback"
    );
    let result = capturing.stop();
    assert!(result.flows.iter().all(|flow| flow.src_port != 47001 && flow.network_namespace == 0));
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Pings to an address, there and back.
fn pings(result: &Result, to: &str) -> (u64, u64) {
    let to = ip(to);
    let total = result.total(|flow| (flow.protocol, flow.src_port) == (1, 8) && dst(flow) == to);
    (total.tx_packets, total.rx_packets)
}

/// Two containers with devices of their own on a0, and b0 at its other end.
fn with_devices_on_a0() -> Option<(Host, Host, [Container; 2])> {
    let containers = [Container::new()?, Container::new()?];
    let (a, b) = pair();
    up(&a, &b);
    for (number, container) in containers.iter().enumerate() {
        let name = format!("m{number}");
        a.macvlan(&name, "a0", container.host());
        container.host().address(&name, &format!("10.77.0.{}/24", 10 + number));
        container.host().up(&name);
    }
    Some((a, b, containers))
}

/// Pings from one of two containers with such devices, out and to the other one, captured on this interface here and inside.
fn pinged_over_devices(interface: &str) -> Option<([Container; 2], Result)> {
    let (a, _b, containers) = with_devices_on_a0()?;
    let capturing = Capturing::on(&a, &[interface], &["--container-namespaces"]);
    containers[0].wait_for_programs("m0");
    containers[1].wait_for_programs("m1");
    traffic::ping(containers[0].host(), ip("10.77.0.2"), 3, 56);
    // One flow, although two containers see it: they are on one wire.
    traffic::ping(containers[0].host(), ip("10.77.0.11"), 4, 56);
    let result = capturing.stop();
    assert_eq!((pings(&result, "10.77.0.2"), pings(&result, "10.77.0.11")), ((3, 3), (4, 4)), "{:#?}", result.flows);
    Some((containers, result))
}

#[test]
fn a_device_on_an_interface_that_is_captured_on_counts_once_and_both_are_named() {
    if skipped() {
        return;
    }
    let Some((containers, result)) = pinged_over_devices("a0") else { return };
    for (to, also) in [("10.77.0.2", "a0".to_owned()), ("10.77.0.11", containers[1].interface("m1"))] {
        let flow = result.flows.iter().find(|flow| flow.protocol == 1 && dst(flow) == ip(to)).unwrap();
        assert_eq!((flow.interface.clone(), flow.network_namespace), (containers[0].interface("m0"), 0), "{flow:#?}");
        assert!(flow.interfaces.contains(&also), "{flow:#?}");
    }
}

#[test]
fn a_device_on_an_interface_that_is_not_captured_on_is_seen_inside_alone() {
    if skipped() {
        return;
    }
    let Some((containers, result)) = pinged_over_devices("lo") else { return };
    let flow = result.flows.iter().find(|flow| flow.protocol == 1 && dst(flow) == ip("10.77.0.11")).unwrap();
    assert_eq!(
        (flow.interface.clone(), flow.network_namespace),
        (containers[0].interface("m0"), containers[0].namespace)
    );
    assert_eq!(flow.interfaces, [containers[1].interface("m1")]);
}

#[test]
fn a_device_that_was_moved_inside_is_seen_and_the_end_of_a_pair_is_left_to_the_other_end() {
    if skipped() {
        return;
    }
    let (Some(one), Some(two)) = (Container::new(), Container::new()) else { return };
    let (home, far) = (Host::new(), Host::new());
    home.wire("h0", one.host(), "eth0");
    one.host().up("eth0");
    home.up("h0");
    // Wires to elsewhere, with the same addresses on both.
    for (container, name) in [(&one, "f1"), (&two, "f2")] {
        container.host().wire("w0", &far, name);
        container.host().address("w0", "10.90.0.1/24");
        container.host().up("w0");
        far.up(name);
    }
    let capturing = Capturing::on(&home, &["h0"], &["--container-namespaces"]);
    one.wait_for_programs("w0");
    two.wait_for_programs("w0");
    assert!(one.programs("eth0").is_disjoint(&programs_of(std::process::id())));
    // Nobody answers, and neighbours need no question.
    for (container, count) in [(&one, 2), (&two, 7)] {
        container.host().run(move || {
            let socket = UdpSocket::bind("10.90.0.1:47001").unwrap();
            socket.set_broadcast(true).unwrap();
            for _ in 0..count {
                socket.send_to(b"seven b", "10.90.0.255:47002").unwrap();
            }
        });
    }
    let result = capturing.stop();
    for (container, count) in [(&one, 2), (&two, 7)] {
        let total = result.total(|flow| flow.interface == container.interface("w0") && flow.dst_port == 47002);
        assert_eq!((total.tx_packets, total.tx_bytes), (count, count * 35), "{:#?}", result.flows);
    }
}

#[test]
fn a_container_that_ends_takes_its_namespace_along_and_its_last_packets_are_told() {
    if skipped() {
        return;
    }
    // The first host in a process keeps its namespace: the runtime that asks netlink has sockets of its own there.
    let home = Host::new();
    let Some(first) = Container::new() else { return };
    home.wire("h0", first.host(), "eth0");
    let mut capturing = Capturing::on(&home, &["lo"], &["--container-namespaces", "--drain-ended", "50ms"]);
    first.wait_for_programs("lo");
    say(&first, 5);
    let name = first.interface("lo");
    drop(first);
    // Had anybody kept the namespace, the pair would still be there.
    wait_until("the end of the namespace", || home.run(|| nix::net::if_::if_nametoindex("h0").is_err()));
    let of = move |flow: &Flow| flow.interface == name && flow.src_port == 47001;
    capturing.wait_for("flow of the container that has ended", |flows| {
        flows.iter().filter(|flow| of(flow)).map(|flow| flow.tx_packets).sum::<u64>() == 5
    });
    let Some(next) = Container::new() else { return };
    next.wait_for_programs("lo");
    say(&next, 6);
    let result = capturing.stop();
    let total = result.total(|flow| flow.interface == next.interface("lo") && flow.src_port == 47001);
    // Numbers of namespaces come again: the first one's may be in it.
    assert!([6, 11].contains(&total.tx_packets), "{:#?}", result.flows);
    assert_eq!(result.sums().packets, result.totals.reported.packets);
}

#[test]
fn several_containers_in_one_namespace_are_captured_once() {
    if skipped() {
        return;
    }
    let (Some(pod), Some(mut sidecar)) = (Container::new(), Container::new()) else { return };
    let procs = sidecar.cgroup.join("cgroup.procs");
    let second = pod.host().run(move || {
        let mut command = Command::new("sleep");
        command.arg("infinity").stdin(Stdio::null());
        // SAFETY: between fork and exec it only opens and writes a file.
        unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
        command.spawn().unwrap()
    });
    let mut own = std::mem::replace(&mut sidecar.process, second);
    own.kill().unwrap();
    own.wait().unwrap();
    let home = Host::new();
    let capturing = Capturing::on(&home, &["lo"], &["--container-namespaces"]);
    pod.wait_for_programs("lo");
    let server = pod.host().run(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    let port = server.local_addr().unwrap().port();
    // From one container of the pod to another.
    let procs = sidecar.cgroup.join("cgroup.procs");
    pod.host().run(move || {
        let mut command = Command::new("/bin/bash");
        command.args(["-c", &format!("echo hello >/dev/udp/127.0.0.1/{port}")]);
        // SAFETY: as above.
        unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
        assert!(command.status().unwrap().success());
    });
    let result = capturing.stop();
    let flows: Vec<_> = result.flows.iter().filter(|flow| flow.dst_port == u32::from(port)).collect();
    assert_eq!(flows.iter().map(|flow| flow.tx_packets).sum::<u64>(), 1, "{flows:#?}");
    assert_eq!((flows[0].interface.as_str(), flows[0].src_cgroup), (pod.interface("lo").as_str(), sidecar.cgroup_id()));
}

/// Asks a web server that is never the same for a path, always from and to the same ports.
fn ask(container: &Container, path: &'static str) {
    let (ready, go) = channel();
    let serving = container.host().spawn(move || {
        let listener = TcpListener::bind("127.0.0.1:47080").unwrap();
        ready.send(()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 512];
        let length = stream.read(&mut request).unwrap();
        assert!(request[..length].ends_with(b"\r\n\r\n"));
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        // The client ends first.
        assert_eq!(stream.read(&mut request).unwrap(), 0);
    });
    go.recv().unwrap();
    container.host().run(move || {
        let mut stream = TcpStream::connect("127.0.0.1:47080").unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: sidecar\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = [0; 512];
        assert!(stream.read(&mut response).unwrap() > 0);
    });
    serving.join().unwrap();
}

#[test]
fn requests_between_the_containers_of_a_pod_are_rows_of_their_own_flows() {
    if skipped() {
        return;
    }
    let (Some(one), Some(two)) = (Container::new(), Container::new()) else { return };
    let home = Host::new();
    let reading = Reading::on_with(&home, "lo", &["--container-namespaces"]);
    one.wait_for_programs("lo");
    two.wait_for_programs("lo");
    ask(&one, "/one");
    ask(&two, "/two");
    let (flows, rows) = reading.stop();
    for (container, path) in [(&one, "/one"), (&two, "/two")] {
        let row = rows.http.iter().find(|row| row.path == path).unwrap_or_else(|| panic!("{:#?}", rows.http));
        assert_eq!((row.status, row.authority.as_str()), (Some(204), "sidecar"));
        let flow = flows.iter().find(|flow| flow.flow_id == row.flow_id).unwrap_or_else(|| panic!("{flows:#?}"));
        assert_eq!((flow.interface.clone(), flow.app.as_str()), (container.interface("lo"), "http"));
    }
}

#[test]
fn a_filter_asks_for_interfaces_of_containers_by_their_names() {
    if skipped() {
        return;
    }
    let (Some(one), Some(two)) = (Container::new(), Container::new()) else { return };
    let home = Host::new();
    let exclude = format!("interface = \"{}\"", one.interface("lo"));
    let capturing = Capturing::on(&home, &["lo"], &["--container-namespaces", "--exclude", &exclude]);
    one.wait_for_programs("lo");
    two.wait_for_programs("lo");
    say(&one, 3);
    say(&two, 4);
    let result = capturing.stop();
    let of = |container: &Container| {
        let interface = container.interface("lo");
        result.total(|flow| flow.interface == interface).tx_packets
    };
    assert_eq!((of(&one), of(&two)), (0, 4), "{:#?}", result.flows);
    assert_eq!(result.told(&one.interface("lo"), Outcome::Ignored).0, 6);
}

#[test]
fn what_a_killed_capture_has_attached_inside_dies_with_it() {
    if skipped() {
        return;
    }
    let Some(container) = Container::new() else { return };
    let (a, _b) = pair();
    let directory = tempfile::tempdir().unwrap();
    let (service, address) = Service::start_with(&a, directory.path(), &["--container-namespaces"]);
    let attached = container.wait_for_programs_of(service.pid(), "lo");
    wait_for_metric(&a, &address, "weir_capture_container_namespaces ", |namespaces| namespaces >= 1);
    service.kill();
    // A process that is killed still closes its files for a while.
    wait_until("the end of what was attached", || container.programs("lo").is_disjoint(&attached));
}
