//! Traffic of a known kind between the ends of a wire.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    sync::mpsc::channel,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket};

use super::network::{A, B, Wire, spawn};

/// Nobody listens there.
const NOWHERE: u16 = 9;
/// So much payload makes a frame of 64 bytes with its checksum.
const SMALL: usize = 18;

/// An Ethernet frame with a TCP segment that has timestamps.
pub(crate) fn segment(payload: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0]);
    frame.extend((52 + payload as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 99, 0, 1, 10, 99, 0, 2]);
    frame.extend([0xc0, 0, 1, 0xbb, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1]);
    frame.resize(frame.len() + payload, 7);
    frame
}

/// Small datagrams, one system call each, to a socket that reads them; returns how many.
pub(crate) fn flood(wire: &Wire, duration: Duration) -> anyhow::Result<u64> {
    let (ready, port) = channel();
    let reading = spawn(&wire.b, move || -> anyhow::Result<()> {
        let socket = UdpSocket::bind((address(B), 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        ready.send(socket.local_addr()?.port())?;
        let mut buffer = [0; 64];
        while socket.recv(&mut buffer).is_ok() {}
        Ok(())
    });
    let port = port.recv().context("no receiver")?;
    let sending = spawn(&wire.a, move || -> anyhow::Result<u64> {
        let socket = UdpSocket::bind((address(A), 0))?;
        socket.connect((address(B), port))?;
        let (end, mut sent) = (Instant::now() + duration, 0);
        while Instant::now() < end {
            for _ in 0..64 {
                // Err = the port is closed again, or there is no buffer: it was not sent.
                sent += u64::from(socket.send(&[7; SMALL]).is_ok());
            }
        }
        Ok(sent)
    });
    let sent = join(sending)??;
    join(reading)??;
    Ok(sent)
}

/// Opens flows at a steady rate: a datagram each; returns how many.
pub(crate) fn new_flows(wire: &Wire, duration: Duration, rate: u32) -> anyhow::Result<u64> {
    let total = (duration.as_secs_f64() * f64::from(rate)) as u32;
    paced(wire, total, f64::from(rate)).map(u64::from)
}

/// Sends to so many flows in turn until the time is over; returns how often.
pub(crate) fn many_flows(wire: &Wire, duration: Duration, flows: u32) -> anyhow::Result<u32> {
    let (started, mut rounds) = (Instant::now(), 0);
    while started.elapsed() < duration {
        paced(wire, flows, f64::INFINITY)?;
        rounds += 1;
    }
    Ok(rounds)
}

/// One packet to each of `flows`, by a raw socket: ports and the last bytes of addresses make the flows.
fn paced(wire: &Wire, flows: u32, rate: f64) -> anyhow::Result<u32> {
    let sending = spawn(&wire.a, move || -> anyhow::Result<u32> {
        let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?;
        let (started, mut sent) = (Instant::now(), 0);
        for flow in 0..flows {
            if rate.is_finite() {
                let due = started + Duration::from_secs_f64(f64::from(flow) / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
            let packet = datagram(flow);
            let to = SockaddrIn::from(std::net::SocketAddrV4::new(B.parse()?, 0));
            sent += u32::from(sendto(raw.as_raw_fd(), &packet, &to, MsgFlags::empty()).is_ok());
        }
        Ok(sent)
    });
    join(sending)?
}

fn datagram(flow: u32) -> Vec<u8> {
    let (port, host) = ((flow % 60_000) as u16 + 1024, (flow / 60_000) as u8);
    let mut packet = vec![0x45, 0, 0, 28 + SMALL as u8, 0, 0, 0, 0, 64, 17, 0, 0, 10, 99, 1, host, 10, 99, 0, 2];
    packet.extend(port.to_be_bytes());
    packet.extend(NOWHERE.to_be_bytes());
    packet.extend([0, 8 + SMALL as u8, 0, 0]);
    packet.resize(28 + SMALL, 7);
    packet
}

/// A stream of TCP; returns bits a second.
pub(crate) fn stream(wire: &Wire, duration: Duration) -> anyhow::Result<f64> {
    wire.up()?;
    let (ready, port) = channel();
    let reading = spawn(&wire.b, move || -> anyhow::Result<f64> {
        let listener = TcpListener::bind((address(B), 0))?;
        ready.send(listener.local_addr()?)?;
        let (mut stream, _) = listener.accept()?;
        let (started, mut bytes, mut buffer) = (Instant::now(), 0, vec![0; 1 << 17]);
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                count => bytes += count,
            }
        }
        Ok(bytes as f64 * 8.0 / started.elapsed().as_secs_f64())
    });
    let to: SocketAddr = port.recv().context("no receiver")?;
    let sending = spawn(&wire.a, move || -> anyhow::Result<()> {
        let mut stream = TcpStream::connect(to)?;
        let (end, buffer) = (Instant::now() + duration, vec![7; 1 << 17]);
        while Instant::now() < end {
            stream.write_all(&buffer)?;
        }
        Ok(())
    });
    join(sending)??;
    join(reading)?
}

/// One byte there and one back, again and again; returns the time that 99 of 100 turns take at most.
pub(crate) fn turns(wire: &Wire, duration: Duration) -> anyhow::Result<Duration> {
    let (ready, port) = channel();
    let answering = spawn(&wire.b, move || -> anyhow::Result<()> {
        let listener = TcpListener::bind((address(B), 0))?;
        ready.send(listener.local_addr()?)?;
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        while stream.read(&mut byte)? > 0 {
            stream.write_all(&byte)?;
        }
        Ok(())
    });
    let to: SocketAddr = port.recv().context("no receiver")?;
    let asking = spawn(&wire.a, move || -> anyhow::Result<Vec<Duration>> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        let (end, mut took, mut byte) = (Instant::now() + duration, Vec::new(), [1]);
        while Instant::now() < end {
            let started = Instant::now();
            stream.write_all(&byte)?;
            stream.read_exact(&mut byte)?;
            took.push(started.elapsed());
        }
        Ok(took)
    });
    let mut took = join(asking)??;
    join(answering)??;
    took.sort_unstable();
    took.get(took.len() * 99 / 100).copied().context("no turn was completed")
}

fn join<T>(thread: std::thread::JoinHandle<anyhow::Result<T>>) -> anyhow::Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("the traffic's thread has panicked"))?
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("a constant address")
}
