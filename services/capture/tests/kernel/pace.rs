//! How often a flow that goes on is reported.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::mpsc::{RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use weir_proto::Flow;

use crate::{
    exact::{pair, up, v4},
    support::{capturing::Capturing, skipped},
};

#[test]
fn a_flow_that_goes_on_is_told_every_second_unless_somebody_says_how_often() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let started = Instant::now();
    let mut by_default = Capturing::on(&a, &["a0"], &[]);
    let as_told = Capturing::on(&b, &["b0"], &["--drain-active", "5s"]);
    up(&a, &b);
    let (enough, going_on) = channel::<()>();
    let sending = a.spawn(move || {
        let socket = UdpSocket::bind((v4(1), 0)).unwrap();
        while going_on.recv_timeout(Duration::from_millis(5)) == Err(RecvTimeoutError::Timeout) {
            // Nobody listens, and the answer that says so is an error of the next one.
            let _refused = socket.send_to(b"tick", SocketAddr::new(v4(2), 9));
        }
    });
    let of_flow = |flow: &&Flow| flow.protocol == 17 && flow.dst_port == 9;
    // Every 5 s it would take longer than is waited.
    by_default.wait_for("five records of one flow", |flows| flows.iter().filter(of_flow).count() >= 5);
    drop(enough);
    sending.join().unwrap();
    let (by_default, as_told) = (by_default.stop(), as_told.stop());
    // The first after a second, others every 5 s, and one at the end.
    let most = 2 + started.elapsed().as_secs() / Duration::from_secs(5).as_secs();
    let told = as_told.flows.iter().filter(of_flow).count() as u64;
    assert!((2..=most).contains(&told), "{told} of {most}");
    let sent = |flows: &[Flow]| flows.iter().filter(of_flow).map(|flow| flow.tx_packets).sum::<u64>();
    assert_eq!(sent(&by_default.flows), sent(&as_told.flows), "however often it is told");
}
