//! Who is at a local end: processes that live for milliseconds, in cgroups as containers have them.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::mpsc::channel,
};

use nix::sys::socket::{Backlog, SockaddrIn, bind, connect, listen};

use crate::{
    exact::{pair, up, v4},
    support::{capturing::Capturing, host::Host, skipped, traffic},
};

/// A cgroup, as a container has one; it is removed at the end.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(name: &str) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?.split(' ').nth(1)?;
        let path = PathBuf::from(root).join(format!("weir-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn id(&self) -> u64 {
        fs::metadata(&self.0).unwrap().ino()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that has just ended may still be in it; what is left is empty and harmless.
        let _busy = fs::remove_dir(&self.0);
    }
}

/// Runs bash on a host, in a cgroup, and waits for its end; returns its process id.
fn bash(host: &Host, cgroup: &Cgroup, script: String) -> u32 {
    let procs = cgroup.0.join("cgroup.procs");
    host.run(move || {
        let mut command = Command::new("/bin/bash");
        command.args(["-c", &script]);
        // SAFETY: between fork and exec it only opens and writes a file.
        unsafe { command.pre_exec(move || fs::write(&procs, "0")) };
        let mut child = command.spawn().unwrap();
        assert!(child.wait().unwrap().success());
        child.id()
    })
}

#[test]
fn a_process_of_milliseconds_keeps_its_name() {
    if skipped() {
        return;
    }
    let Some(cgroup) = Cgroup::new("short") else {
        eprintln!("skipped: no cgroup v2 tree that can be written");
        return;
    };
    let (a, b) = pair();
    let (at_a, at_b) = (Capturing::on(&a, &["a0"], &[]), Capturing::on(&b, &["b0"], &[]));
    up(&a, &b);
    let (ready, port) = channel();
    let serving = b.spawn(move || {
        let listener = TcpListener::bind((v4(2), 0)).unwrap();
        let datagrams = UdpSocket::bind((v4(2), 0)).unwrap();
        ready.send([listener.local_addr().unwrap().port(), datagrams.local_addr().unwrap().port()]).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(datagrams.recv(&mut [0; 100]).unwrap(), 4);
    });
    let [tcp, udp] = port.recv().unwrap();
    // Bash closes the connection as it ends; the datagram gets no answer.
    let pid = bash(&a, &cgroup, format!("echo hello >/dev/tcp/10.77.0.2/{tcp}; echo one >/dev/udp/10.77.0.2/{udp}"));
    serving.join().unwrap();
    for (where_, result) in [("a", at_a.stop()), ("b", at_b.stop())] {
        for (protocol, port) in [(6, tcp), (17, udp)] {
            let flow = result.flows.iter().find(|flow| flow.protocol == protocol && flow.dst_port == u32::from(port));
            let flow = flow.unwrap_or_else(|| panic!("{where_}: {:#?}", result.flows));
            assert_eq!((flow.src_process.as_str(), flow.src_pid), ("bash", pid), "{where_}: {flow:#?}");
            assert_eq!(flow.src_executable, "/bin/bash", "{where_}");
            assert_eq!(flow.src_cgroup, cgroup.id(), "{where_}: {flow:#?}");
            // The server is this process.
            assert_eq!((flow.dst_pid, flow.dst_cgroup != 0), (std::process::id(), true), "{where_}: {flow:#?}");
        }
    }
}

#[test]
fn a_program_that_executes_itself_keeps_its_file() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let at_a = Capturing::on(&a, &["a0"], &[]);
    up(&a, &b);
    let receiver = b.run(|| UdpSocket::bind((v4(2), 0)).unwrap());
    let port = receiver.local_addr().unwrap().port();
    a.run(move || {
        // A shell that is many programs in one file starts them like this, some after a fork and some without.
        let again = format!("exec /proc/self/exe -c 'echo two >/dev/udp/10.77.0.2/{port}'");
        let script = format!("(exec /proc/self/exe -c 'echo one >/dev/udp/10.77.0.2/{port}'); {again}");
        assert!(Command::new("/bin/bash").args(["-c", &script]).status().unwrap().success());
    });
    b.run(move || {
        for _ in 0..2 {
            assert_eq!(receiver.recv(&mut [0; 100]).unwrap(), 4);
        }
    });
    let result = at_a.stop();
    let files: Vec<_> = (result.flows.iter())
        .filter(|flow| flow.protocol == 17 && flow.dst_port == u32::from(port))
        .map(|flow| flow.src_executable.as_str())
        .collect();
    assert_eq!(files, ["/bin/bash", "/bin/bash"]);
}

#[test]
fn loopback_addresses_of_other_namespaces_are_nobody_here() {
    if skipped() {
        return;
    }
    let (host, other) = (Host::new(), Host::new());
    let capturing = Capturing::on(&host, &["lo"], &[]);
    let local = "127.0.0.1".parse().unwrap();
    let sent = traffic::tcp_stream(&host, &host, local, 1000);
    traffic::tcp_stream(&other, &other, local, 1000);
    let result = capturing.stop();
    let flows: Vec<_> = result.flows.iter().filter(|flow| flow.protocol == 6).collect();
    assert!(flows.iter().all(|flow| flow.dst_port == u32::from(sent.port)), "{flows:#?}");
    assert!(flows.iter().all(|flow| flow.src_pid == std::process::id() && flow.dst_pid == flow.src_pid), "{flows:#?}");
}

/// An MPTCP socket (`IPPROTO_MPTCP`, RFC 8684); `None` = this kernel has none.
fn mptcp_socket() -> Option<OwnedFd> {
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 262) };
    // SAFETY: a descriptor that nobody else has.
    (socket >= 0).then(|| unsafe { OwnedFd::from_raw_fd(socket) })
}

#[test]
fn sockets_that_the_kernel_opens_for_mptcp_have_the_process_behind_them() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let Some(listener) = b.run(mptcp_socket) else {
        eprintln!("skipped: this kernel has no MPTCP");
        return;
    };
    let (at_a, at_b) = (Capturing::on(&a, &["a0"], &[]), Capturing::on(&b, &["b0"], &[]));
    up(&a, &b);
    // It was open before; the clients' sockets come later.
    let listener = b.run(move || {
        bind(listener.as_raw_fd(), &SockaddrIn::new(10, 77, 0, 2, 0)).unwrap();
        listen(&listener, Backlog::MAXCONN).unwrap();
        TcpListener::from(listener)
    });
    let port = listener.local_addr().unwrap().port();
    let serving = b.spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"hello").unwrap();
            stream.read_to_end(&mut Vec::new()).unwrap();
        }
    });
    let ports = a.run(move || {
        let plain = TcpStream::connect((v4(2), port)).unwrap();
        let several = mptcp_socket().unwrap();
        connect(several.as_raw_fd(), &SockaddrIn::new(10, 77, 0, 2, port)).unwrap();
        [plain, TcpStream::from(several)].map(|mut stream| {
            stream.read_exact(&mut [0; 5]).unwrap();
            stream.local_addr().unwrap().port()
        })
    });
    serving.join().unwrap();
    for (where_, result) in [("a", at_a.stop()), ("b", at_b.stop())] {
        for port in ports {
            let flow = result.flows.iter().find(|flow| flow.src_port == u32::from(port));
            let flow = flow.unwrap_or_else(|| panic!("{where_}: {:#?}", result.flows));
            let own = std::process::id();
            assert_eq!((flow.src_pid, flow.dst_pid), (own, own), "{where_}: {flow:#?}");
            assert!(!flow.src_process.is_empty() && !flow.dst_process.is_empty(), "{where_}: {flow:#?}");
        }
    }
}

#[test]
fn a_socket_that_speaks_with_both_families_at_once_is_known_in_both() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let at_a = Capturing::on(&a, &["a0"], &[]);
    up(&a, &b);
    let receiver = b.run(|| UdpSocket::bind("[::]:0").unwrap());
    let port = receiver.local_addr().unwrap().port();
    // The last bits of these addresses differ in the same way.
    a.run(move || {
        let socket = UdpSocket::bind("[::]:0").unwrap();
        for address in ["::ffff:10.77.0.2", "fd77::2"] {
            socket.send_to(b"hello", (address, port)).unwrap();
        }
    });
    b.run(move || (0..2).for_each(|_| assert_eq!(receiver.recv(&mut [0; 100]).unwrap(), 5)));
    let result = at_a.stop();
    let pids: Vec<_> =
        result.flows.iter().filter(|flow| flow.dst_port == u32::from(port)).map(|flow| flow.src_pid).collect();
    assert_eq!(pids, [std::process::id(); 2], "{:#?}", result.flows);
}

#[test]
fn sockets_that_were_open_before_have_their_process() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    up(&a, &b);
    let receiver = b.run(|| UdpSocket::bind((v4(2), 0)).unwrap());
    let listener = b.run(|| TcpListener::bind((v4(2), 0)).unwrap());
    let (udp, tcp) = (receiver.local_addr().unwrap().port(), listener.local_addr().unwrap().port());
    // A process with a socket that says nothing yet.
    let script = format!("exec 3<>/dev/udp/10.77.0.2/{udp}; echo open; read go; echo late >&3; read end");
    let mut child = a.run(move || {
        let mut command = Command::new("/bin/bash");
        command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    });
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "open\n");

    let (at_a, at_b) = (Capturing::on(&a, &["a0"], &[]), Capturing::on(&b, &["b0"], &[]));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"go\n").unwrap();
    let mut datagram = [0; 5];
    assert_eq!(b.run(move || receiver.recv(&mut datagram).unwrap()), 5);
    a.run(move || drop(TcpStream::connect((v4(2), tcp)).unwrap()));
    b.run(move || drop(listener.accept().unwrap()));
    let (pid, own) = (child.id(), std::process::id());
    for (where_, result) in [("a", at_a.stop()), ("b", at_b.stop())] {
        let of = |protocol: u32, port: u16| {
            let mut flows = result.flows.iter();
            let flow = flows.find(|flow| flow.protocol == protocol && flow.dst_port == u32::from(port));
            flow.unwrap_or_else(|| panic!("{where_}: {:#?}", result.flows))
        };
        let late = of(17, udp);
        assert_eq!((late.src_process.as_str(), late.src_pid), ("bash", pid), "{where_}: {late:#?}");
        assert_eq!(late.src_executable, fs::canonicalize("/bin/bash").unwrap().to_str().unwrap(), "{where_}");
        assert_eq!((late.dst_pid, late.dst_process.is_empty()), (own, false), "{where_}: {late:#?}");
        // Accepted after the start, from a listening socket of before.
        let accepted = of(6, tcp);
        assert_eq!(accepted.dst_pid, own, "{where_}: {accepted:#?}");
        assert_eq!(accepted.dst_executable, std::env::current_exe().unwrap().to_str().unwrap(), "{where_}");
    }
    drop(stdin);
    child.wait().unwrap();
}
