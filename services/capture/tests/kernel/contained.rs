//! In the network namespaces of containers: what nobody sees from outside.

use std::{
    fs,
    net::UdpSocket,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};

use aya::programs::{SchedClassifier, TcAttachType};
use weir_proto::{Flow, ledger_entry::Outcome};

use crate::support::{
    capturing::{Capturing, DEADLINE, dst, src},
    host::Host,
    skipped, traffic,
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

    /// Programs on what goes out of an interface: they come after those on what comes in.
    fn programs(&self, name: &str) -> usize {
        let name = name.to_owned();
        self.host().run(move || {
            SchedClassifier::query_tcx(name.as_str(), TcAttachType::Egress).map_or(0, |(_, programs)| programs.len())
        })
    }

    fn wait_for_programs(&self, name: &str, count: usize) {
        wait_until(&format!("{count} programs at {name}"), || self.programs(name) == count);
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
    one.wait_for_programs("lo", 1);
    two.wait_for_programs("lo", 1);
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
    assert!([&one, &two].iter().all(|container| container.programs("lo") == 0), "nothing is left");
}

#[test]
fn a_process_in_a_container_that_talks_to_itself_has_its_name_and_its_cgroup() {
    if skipped() {
        return;
    }
    let Some(container) = Container::new() else { return };
    let home = Host::new();
    let capturing = Capturing::on(&home, &["lo"], &["--container-namespaces"]);
    container.wait_for_programs("lo", 1);
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
    assert_eq!(container.programs("lo"), 0);
    let result = capturing.stop();
    assert!(result.flows.iter().all(|flow| flow.src_port != 47001 && flow.network_namespace == 0));
}
