//! Traffic of known size.

use std::{
    io::{IoSlice, Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::mpsc::channel,
};

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recv, sendmsg, sendto,
    socket,
};

use super::host::Host;

/// What the two ends of a TCP connection say that they have sent.
pub(crate) struct Sent {
    pub(crate) client: libc_tcp::Info,
    pub(crate) server: libc_tcp::Info,
    pub(crate) port: u16,
}

/// Sends `bytes` from a client to a server, in writes of 64 KB, and waits until both have closed.
pub(crate) fn tcp_stream(client: &Host, server: &Host, server_address: IpAddr, bytes: usize) -> Sent {
    let (ready, port) = channel();
    let serving = server.spawn(move || {
        let listener = TcpListener::bind((server_address, 0)).unwrap();
        ready.send(listener.local_addr().unwrap().port()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 1 << 16];
        let mut received = 0;
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => break,
                count => received += count,
            }
        }
        assert_eq!(received, bytes);
        stream.shutdown(Shutdown::Write).unwrap();
        libc_tcp::wait_until_closed(&stream);
        libc_tcp::info(&stream)
    });
    let port = port.recv().unwrap();
    let client = client.run(move || {
        let mut stream = TcpStream::connect((server_address, port)).unwrap();
        let chunk = vec![0x5a; 1 << 16];
        let mut left = bytes;
        while left > 0 {
            let now = left.min(chunk.len());
            stream.write_all(&chunk[..now]).unwrap();
            left -= now;
        }
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
        libc_tcp::wait_until_closed(&stream);
        libc_tcp::info(&stream)
    });
    Sent { client, server: serving.join().unwrap(), port }
}

/// Sends datagrams of these sizes to an echo server on the other host, each after the answer to the one before.
pub(crate) fn udp_echo(client: &Host, server: &Host, server_address: IpAddr, sizes: Vec<usize>) -> (u16, u16) {
    let (ready, port) = channel();
    let count = sizes.len();
    let serving = server.spawn(move || {
        let socket = UdpSocket::bind((server_address, 0)).unwrap();
        ready.send(socket.local_addr().unwrap().port()).unwrap();
        let mut buffer = vec![0; 1 << 16];
        for _ in 0..count {
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&buffer[..length], from).unwrap();
        }
    });
    let server_port = port.recv().unwrap();
    let client_port = client.run(move || {
        let socket = UdpSocket::bind(any(server_address)).unwrap();
        socket.connect((server_address, server_port)).unwrap();
        let mut buffer = vec![0; 1 << 16];
        for size in sizes {
            socket.send(&vec![7; size]).unwrap();
            assert_eq!(socket.recv(&mut buffer).unwrap(), size);
        }
        socket.local_addr().unwrap().port()
    });
    serving.join().unwrap();
    (client_port, server_port)
}

/// Sends datagrams to a port where nobody answers but the kernel; `from` = local ports.
pub(crate) fn udp_to_nowhere(client: &Host, to: SocketAddr, sources: usize) {
    client.run(move || {
        for _ in 0..sources {
            UdpSocket::bind(any(to.ip())).unwrap().send_to(b"hello", to).unwrap();
        }
    });
}

/// One system call, many datagrams (`UDP_SEGMENT`); the last is shorter.
pub(crate) fn udp_super_packets(
    client: &Host,
    server: &Host,
    server_address: IpAddr,
    segment: u16,
    total: usize,
) -> u16 {
    let (ready, port) = channel();
    let serving = server.spawn(move || {
        let socket = UdpSocket::bind((server_address, 0)).unwrap();
        ready.send(socket.local_addr().unwrap().port()).unwrap();
        let mut buffer = vec![0; 1 << 16];
        let mut received = 0;
        while received < total {
            received += socket.recv(&mut buffer).unwrap();
        }
    });
    let port = port.recv().unwrap();
    client.run(move || {
        let socket = UdpSocket::bind(any(server_address)).unwrap();
        socket.connect((server_address, port)).unwrap();
        let payload = vec![1; total];
        sendmsg::<()>(
            socket.as_raw_fd(),
            &[IoSlice::new(&payload)],
            &[ControlMessage::UdpGsoSegments(&segment)],
            MsgFlags::empty(),
            None,
        )
        .unwrap();
    });
    serving.join().unwrap();
    port
}

/// Pings and waits for each answer; `payload` bytes beside the 8 of the header.
pub(crate) fn ping(client: &Host, to: IpAddr, count: u16, payload: usize) {
    client.run(move || {
        let socket = raw_socket(to);
        let destination = SockaddrStorage::from(SocketAddr::new(to, 0));
        for sequence in 1..=count {
            let message = echo_request(to, sequence, payload);
            sendto(socket.as_raw_fd(), &message, &destination, MsgFlags::empty()).unwrap();
            wait_for_echo_reply(&socket, to, sequence);
        }
    });
}

fn raw_socket(to: IpAddr) -> OwnedFd {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap()
}

fn echo_request(to: IpAddr, sequence: u16, payload: usize) -> Vec<u8> {
    let kind = if to.is_ipv4() { 8 } else { 128 };
    let mut message = vec![kind, 0, 0, 0, 0x12, 0x34];
    message.extend(sequence.to_be_bytes());
    message.resize(8 + payload, 0x42);
    if to.is_ipv4() {
        // The kernel does it for ICMPv6.
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

fn wait_for_echo_reply(socket: &OwnedFd, to: IpAddr, sequence: u16) {
    let (kind, header) = if to.is_ipv4() { (0, 20) } else { (129, 0) };
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
        let message = &buffer[header..length];
        if message[0] == kind && message[6..8] == sequence.to_be_bytes() {
            return;
        }
    }
}

fn checksum(message: &[u8]) -> u16 {
    let mut sum: u32 =
        message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0))).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn any(like: IpAddr) -> SocketAddr {
    if like.is_ipv4() { "0.0.0.0:0".parse().unwrap() } else { "[::]:0".parse().unwrap() }
}

/// `TCP_INFO`.
pub(crate) mod libc_tcp {
    use std::{net::TcpStream, os::fd::AsRawFd as _};

    /// The head of `struct tcp_info` (`linux/tcp.h`), as far as it is needed.
    #[derive(Clone, Copy, Debug, Default)]
    #[repr(C)]
    pub(crate) struct Info {
        pub(crate) state: u8,
        bits: [u8; 7],
        words: [u32; 23],
        pub(crate) total_retrans: u32,
        pacing_rate: u64,
        max_pacing_rate: u64,
        pub(crate) bytes_acked: u64,
        pub(crate) bytes_received: u64,
        pub(crate) segs_out: u32,
        pub(crate) segs_in: u32,
        notsent_bytes: u32,
        min_rtt: u32,
        data_segs_in: u32,
        pub(crate) data_segs_out: u32,
        delivery_rate: u64,
        busy_time: u64,
        rwnd_limited: u64,
        sndbuf_limited: u64,
        delivered: u32,
        delivered_ce: u32,
        pub(crate) bytes_sent: u64,
        pub(crate) bytes_retrans: u64,
    }

    const CLOSE: u8 = 7;

    pub(crate) fn info(stream: &TcpStream) -> Info {
        let mut info = Info::default();
        let mut length = size_of::<Info>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes; any bytes are an Info.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            )
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        info
    }

    /// Both ends have sent and acknowledged their FIN.
    pub(crate) fn wait_until_closed(stream: &TcpStream) {
        let deadline = std::time::Instant::now() + super::super::capturing::DEADLINE;
        while info(stream).state != CLOSE {
            assert!(std::time::Instant::now() < deadline, "the connection does not close: {:?}", info(stream));
            std::thread::yield_now();
        }
    }
}
