//! What happened to a flow: what is told equals what was done to it, and what the sockets say of themselves.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::mpsc::channel,
    time::Instant,
};

use nix::sys::socket::{setsockopt, sockopt};
use weir_proto::{EndReason, Flow, ResetBy};

use crate::{
    exact::{pair, up, v4, v6},
    frames::send,
    support::{
        capturing::{Capturing, DEADLINE, src},
        skipped,
        traffic::{self, libc_tcp},
    },
};

/// Has a socket refuse whatever comes, or take it again.
fn deaf(stream: &TcpStream, deaf: bool) {
    let mut program = [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    let option = if deaf { libc::SO_ATTACH_FILTER } else { libc::SO_DETACH_FILTER };
    // SAFETY: a filter of one instruction, alive during the call.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as u32,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn sum(flows: &[Flow], port: u16, pick: fn(&Flow) -> Option<u64>) -> Option<u64> {
    let found: Vec<_> =
        flows.iter().filter(|flow| flow.protocol == 6 && flow.dst_port == u32::from(port)).filter_map(pick).collect();
    (!found.is_empty()).then(|| found.iter().sum())
}

#[test]
fn retransmits_drops_and_the_handshake_are_what_the_sockets_say() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let (at_a, at_b) = (Capturing::on(&a, &["a0"], &[]), Capturing::on(&b, &["b0"], &[]));
    up(&a, &b);
    let (ready, port) = channel();
    let (lost, hear) = channel();
    let serving = b.spawn(move || {
        let listener = TcpListener::bind((v4(2), 0)).unwrap();
        ready.send(listener.local_addr().unwrap().port()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        deaf(&stream, true);
        ready.send(0).unwrap();
        hear.recv().unwrap();
        deaf(&stream, false);
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).unwrap() > 0 {}
    });
    let port_number = port.recv().unwrap();
    let client = a.run(move || {
        let started = Instant::now();
        let mut stream = TcpStream::connect((v4(2), port_number)).unwrap();
        let connected = started.elapsed();
        port.recv().unwrap();
        stream.write_all(&[1; 1000]).unwrap();
        while libc_tcp::info(&stream).total_retrans < 2 {
            assert!(started.elapsed() < DEADLINE);
            std::thread::yield_now();
        }
        lost.send(()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
        libc_tcp::wait_until_closed(&stream);
        (libc_tcp::info(&stream), connected)
    });
    serving.join().unwrap();
    let (info, connected) = client;
    for (where_, result) in [("a", at_a.stop()), ("b", at_b.stop())] {
        let flows = &result.flows;
        let retransmits = sum(flows, port_number, |flow| flow.tx_retransmits);
        assert_eq!(retransmits, Some(u64::from(info.total_retrans)), "{where_}: {flows:#?}");
        assert_eq!(sum(flows, port_number, |flow| flow.tx_out_of_order), Some(0), "{where_}");
        assert_eq!(sum(flows, port_number, |flow| flow.rx_retransmits), Some(0), "{where_}");
        assert_eq!(sum(flows, port_number, |flow| flow.syn_retransmits), Some(0), "{where_}");
        // The first segment and all that repeated it until the server listened again.
        let drops = sum(flows, port_number, |flow| flow.drops).unwrap();
        assert!((2..=u64::from(info.total_retrans)).contains(&drops), "{where_}: {drops} {flows:#?}");
        let of_flow = || flows.iter().filter(|flow| flow.dst_port == u32::from(port_number));
        assert!(of_flow().any(|flow| flow.drop_reason == "SOCKET_FILTER"), "{where_}: {flows:#?}");
        let handshake = of_flow().find_map(|flow| flow.handshake_us).expect("there was a handshake");
        assert!(u128::from(handshake) <= connected.as_micros().max(1) + 200_000, "{where_}: {handshake} {connected:?}");
        assert_eq!(of_flow().filter(|flow| flow.handshake_us.is_some()).count(), 1, "{where_}");
        assert!(of_flow().all(|flow| flow.rtt_us.is_some_and(|rtt| rtt > 0)), "{where_}: {flows:#?}");
    }
}

/// Listens to all interfaces, with room for next to nothing, and does not read.
fn too_slow_listener() -> OwnedFd {
    let protocol = i32::from((libc::ETH_P_ALL as u16).to_be());
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, protocol) };
    assert!(socket >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: a descriptor that nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    setsockopt(&socket, sockopt::RcvBuf, &1).unwrap();
    socket
}

/// Packets for which it had no room (`PACKET_STATISTICS`).
fn missed(listener: &OwnedFd) -> u32 {
    let mut statistics = [0u32; 2];
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: `struct tpacket_stats` is two words, alive during the call.
    let result = unsafe {
        libc::getsockopt(
            listener.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            statistics.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    statistics[1]
}

#[test]
fn a_connection_that_ends_in_order_has_lost_nothing() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let (at_a, at_b) = (Capturing::on(&a, &["a0"], &[]), Capturing::on(&b, &["b0"], &[]));
    up(&a, &b);
    let listener = b.run(|| TcpListener::bind((v4(2), 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let overhears = b.run(too_slow_listener);
    // Each end is the first to close once; the FIN of the other one comes when nobody reads any more.
    for client_first in [true, false] {
        let listener = listener.try_clone().unwrap();
        let (closed, wait) = channel();
        let close = closed.clone();
        let serving = b.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&vec![7; 100_000]).unwrap();
            if client_first {
                assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
            } else {
                drop(stream);
                close.send(()).unwrap();
            }
        });
        a.run(move || {
            let mut stream = TcpStream::connect((v4(2), port)).unwrap();
            stream.read_exact(&mut vec![0; 100_000]).unwrap();
            if !client_first {
                wait.recv().unwrap();
                assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
            }
        });
        serving.join().unwrap();
        drop(closed);
    }
    assert!(missed(&overhears) > 0);
    for (where_, mut capturing) in [("a", at_a), ("b", at_b)] {
        let ended = |flow: &&Flow| flow.dst_port == u32::from(port) && flow.end_reason() == EndReason::Fin;
        capturing.wait_for("end of both", |flows| flows.iter().filter(ended).count() == 2);
        let flows = capturing.stop().flows;
        let drops = sum(&flows, port, |flow| flow.drops);
        assert!(matches!(drops, None | Some(0)), "{where_}: {flows:#?}");
    }
}

#[test]
fn answers_to_pings_and_keep_alives_are_no_drops() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let mut at_a = Capturing::on(&a, &["a0"], &["--drain-ended", "50ms", "--drain-active", "100ms"]);
    up(&a, &b);
    for address in [v4(2), v6(2)] {
        traffic::ping(&a, address, 3, 56);
    }
    let listener = b.run(|| TcpListener::bind((v4(2), 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let stream = a.run(move || {
        let stream = TcpStream::connect((v4(2), port)).unwrap();
        setsockopt(&stream, sockopt::TcpKeepIdle, &1).unwrap();
        setsockopt(&stream, sockopt::TcpKeepInterval, &1).unwrap();
        setsockopt(&stream, sockopt::KeepAlive, &true).unwrap();
        stream
    });
    let count = |flows: &[Flow], pick: fn(&Flow) -> u64| {
        flows.iter().filter(|flow| flow.dst_port == u32::from(port)).map(pick).sum::<u64>()
    };
    // Behind the three packets of the handshake.
    at_a.wait_for("a keep-alive and its answer", |flows| {
        count(flows, |flow| flow.tx_packets) >= 3 && count(flows, |flow| flow.rx_packets) >= 2
    });
    let flows = at_a.stop().flows;
    drop((stream, listener));
    let is_ping = |flow: &Flow| matches!((flow.protocol, flow.src_port), (1, 8) | (58, 128));
    assert_eq!(flows.iter().filter(|flow| is_ping(flow)).map(|flow| flow.rx_packets).sum::<u64>(), 6);
    let dropped: Vec<_> = (flows.iter())
        .filter(|flow| (is_ping(flow) || flow.dst_port == u32::from(port)) && flow.drops.is_some_and(|drops| drops > 0))
        .collect();
    assert!(dropped.is_empty(), "{dropped:#?}");
}

const SYN: u8 = 2;
const ACK: u8 = 16;

/// A TCP segment from 192.0.2.1 port 1000 to 192.0.2.2 port 2000, or back.
fn segment(back: bool, flags: u8, sequence: u32, acknowledgement: u32, window: u16, payload: usize) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((40 + payload as u16).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 6, 0, 0, 192, 0, 2, 1 + u8::from(back), 192, 0, 2, 2 - u8::from(back)]);
    let ports: [u16; 2] = if back { [2000, 1000] } else { [1000, 2000] };
    packet.extend(ports.into_iter().flat_map(u16::to_be_bytes));
    packet.extend(sequence.to_be_bytes());
    packet.extend(acknowledgement.to_be_bytes());
    packet.extend([0x50, flags]);
    packet.extend(window.to_be_bytes());
    packet.extend([0; 4]);
    packet.resize(packet.len() + payload, 7);
    packet
}

#[test]
fn a_conversation_of_strangers_is_told_from_its_sequence_numbers() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let at_b = Capturing::on(&b, &["b0"], &["--drain-active", "30s"]);
    up(&a, &b);
    let frames = [
        segment(false, SYN, 100, 0, 500, 0),
        segment(false, SYN, 100, 0, 500, 0),
        segment(true, SYN | ACK, 900, 101, 500, 0),
        segment(false, ACK, 101, 901, 500, 0),
        segment(false, ACK, 101, 901, 500, 50),
        // Overtakes the next one.
        segment(false, ACK, 201, 901, 500, 50),
        segment(false, ACK, 151, 901, 500, 50),
        // No room, still none, room again, none.
        segment(true, ACK, 901, 101, 0, 0),
        segment(true, ACK, 901, 101, 0, 0),
        segment(true, ACK, 901, 251, 9, 0),
        segment(true, ACK, 901, 251, 0, 0),
    ];
    for frame in &frames {
        send(&a, "a0", 0x0800, frame);
    }
    let result = at_b.stop();
    let flow = result.flows.iter().find(|flow| flow.dst_port == 2000).expect("the flow is there");
    assert_eq!((src(flow).to_string(), flow.tx_packets, flow.rx_packets), ("192.0.2.1".to_owned(), 6, 5));
    assert_eq!(flow.syn_retransmits, Some(1));
    // The frames are for none of the stacks that see them.
    assert!(matches!(flow.drops, None | Some(0)), "{flow:#?}");
    // The SYN was sent again. The other one came late, unless this machine took more than 3 ms to send it.
    assert!(
        matches!((flow.tx_retransmits, flow.tx_out_of_order), (Some(1), Some(1)) | (Some(2), Some(0))),
        "{flow:#?}"
    );
    assert_eq!((flow.tx_zero_windows, flow.rx_zero_windows), (Some(0), Some(2)));
    assert!(flow.handshake_us.is_some());
    // Each is cut to whole microseconds.
    assert!(flow.handshake_us.unwrap() - (flow.tx_rtt_us.unwrap() + flow.rx_rtt_us.unwrap()) <= 1);
    // Nobody on this host is at either end.
    assert_eq!((flow.rtt_us, flow.src_process.as_str(), flow.src_cgroup), (None, "", 0));
}

const RST: u8 = 4;

#[test]
fn a_reset_is_told_with_who_sent_it_and_why() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let (at_a, at_b) = (Capturing::on(&a, &["a0"], &[]), Capturing::on(&b, &["b0"], &[]));
    up(&a, &b);
    let (ready, port) = channel();
    let (connected, wait) = channel();
    let serving = b.spawn(move || {
        let listener = TcpListener::bind((v4(2), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        ready.send(port).unwrap();
        let (stream, _) = listener.accept().unwrap();
        // A reset that comes before connect(2) has returned would be its error.
        wait.recv().unwrap();
        // Given up instead of closed.
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let size = size_of::<libc::linger>() as u32;
        // SAFETY: an option of that size, alive during the call.
        let result = unsafe {
            libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), size)
        };
        assert_eq!(result, 0);
    });
    let given_up = port.recv().unwrap();
    let nobody = a.run(move || {
        let mut stream = TcpStream::connect((v4(2), given_up)).unwrap();
        connected.send(()).unwrap();
        let error = stream.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        let refused = TcpStream::connect((v4(2), 9)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        9
    });
    serving.join().unwrap();
    // Of strangers: nobody here knows whether it is real.
    for frame in [segment(false, SYN, 100, 0, 500, 0), segment(false, RST, 101, 0, 0, 0)] {
        send(&a, "a0", 0x0800, &frame);
    }
    let reset_of = |flows: &[Flow], port: u16| {
        let found = flows.iter().find(|flow| flow.dst_port == u32::from(port) && flow.reset_by != 0);
        let flow = found.unwrap_or_else(|| panic!("{port}: {flows:#?}"));
        (flow.reset_by(), flow.reset_confirmed, flow.reset_reason.clone())
    };
    let (at_a, at_b) = (at_a.stop(), at_b.stop());
    for (where_, result) in [("a", &at_a), ("b", &at_b)] {
        let (by, confirmed, why) = reset_of(&result.flows, given_up);
        assert_eq!((by, confirmed), (ResetBy::Dst, true), "{where_}");
        assert!(!why.is_empty(), "{where_}");
        assert_eq!(reset_of(&result.flows, nobody), (ResetBy::Dst, true, "NO_SOCKET".to_owned()), "{where_}");
    }
    assert_eq!(reset_of(&at_b.flows, 2000), (ResetBy::Src, false, String::new()));
}
