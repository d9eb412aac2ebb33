//! Handshakes of TLS over TCP, and of DTLS.

use weir_flow::tls::{self, Certificate, ClientHello, Connection, Datagrams, Session};

use crate::script::{Step, steps};

/// Bytes that one connection may hold: a message of the greatest length for each side, and what was read of both.
const MOST_HELD: usize = 1 << 20;

/// Steps of a connection; with bit 7 of the choice the direction can be read no further after its bytes.
pub(crate) fn stream(data: &[u8]) {
    let _ = tls::looks_like_tls(data);
    if let Some(hello) = tls::single(data) {
        check(&hello);
    }
    if let Some(certificate) = Certificate::parse(data) {
        assert_eq!(Certificate::parse(data), Some(certificate));
    }
    let all: Vec<Step<'_>> = steps(data).collect();
    let whole = sessions(&all, usize::MAX);
    assert_eq!(sessions(&all, 1), whole, "however a stream is cut, it says the same");
    check_all(&whole);
    assert!(sessions(&all[..all.len() / 2], usize::MAX).len() <= whole.len(), "less of a stream has more sessions");
}

fn sessions(steps: &[Step<'_>], cut: usize) -> Vec<Session> {
    let mut connection = Connection::new();
    let mut out = Vec::new();
    for (step, time) in steps.iter().zip(1..) {
        let from_first = step.choice & 1 == 0;
        for piece in step.bytes.chunks(cut) {
            connection.push(from_first, (time, 0), piece, &mut out);
            assert!(connection.held_bytes() <= MOST_HELD);
        }
        if step.choice & 0x80 != 0 {
            connection.close(from_first, &mut out);
        }
    }
    connection.finish(&mut out);
    out
}

/// Steps of a flow of datagrams.
pub(crate) fn datagrams(data: &[u8]) {
    if let Some(hello) = tls::single_datagram(data) {
        check(&hello);
    }
    let run = || {
        let mut flow = Datagrams::default();
        let mut out = Vec::new();
        for (step, time) in steps(data).zip(1..) {
            let _ = tls::looks_like_dtls(step.bytes);
            flow.push(step.choice & 1 == 0, (time, 0), step.bytes, &mut out);
            assert!(flow.held_bytes() <= MOST_HELD);
        }
        flow.finish(&mut out);
        out
    };
    let sessions = run();
    assert_eq!(sessions, run());
    check_all(&sessions);
}

pub(crate) fn check_all(sessions: &[Session]) {
    for session in sessions {
        check(&session.hello);
    }
}

/// A fingerprint has the form that its publication gives it, whatever the hello.
pub(crate) fn check(hello: &ClientHello) {
    let fingerprint = tls::ja4(hello, tls::Carrier::Tcp);
    let parts: Vec<usize> = fingerprint.split('_').map(str::len).collect();
    assert_eq!(parts, [10, 12, 12], "{fingerprint}");
    assert!(hello.held_bytes() <= MOST_HELD);
}
