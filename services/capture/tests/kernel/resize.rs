//! The flow table gets another size while packets come.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::channel,
    },
};

use weir_capture::{
    drain::Table as _,
    kernel::{Kernel, KernelTable, Room},
    select::Plan,
};
use weir_capture_common::ledger::Kind;

use crate::{
    exact::{assert_equals_interface, down, pair, up, v4, v6},
    support::{
        capturing::{Capturing, dst, src},
        host::Host,
        service::{Service, metric, wait_for_metric},
        skipped, traffic,
    },
};

/// Connections between two sizes.
const CONNECTIONS: usize = 60;

/// Connections one after the other to a server on the other host, and a datagram to nowhere beside each.
fn connect(from: &Host, to: SocketAddr, count: usize) {
    from.run(move || {
        let datagrams = UdpSocket::bind("[::]:0").unwrap();
        for _ in 0..count {
            let mut stream = TcpStream::connect(to).unwrap();
            stream.write_all(&[2; 100]).unwrap();
            stream.read_exact(&mut [0; 3000]).unwrap();
            drop(stream);
            datagrams.send_to(&[3; 50], SocketAddr::new(v6(2), 9)).unwrap();
        }
    });
}

/// Answers that many connections.
fn serve(host: &Host, count: usize) -> (SocketAddr, std::thread::JoinHandle<()>) {
    let (ready, address) = channel();
    let serving = host.spawn(move || {
        let listener = TcpListener::bind((v6(2), 0)).unwrap();
        ready.send(listener.local_addr().unwrap()).unwrap();
        for _ in 0..count {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 100];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&[1; 3000]).unwrap();
            assert_eq!(stream.read(&mut request).unwrap(), 0);
        }
    });
    (address.recv().unwrap(), serving)
}

#[test]
fn counts_are_exact_over_many_sizes_and_a_flow_that_goes_on_stays_one() {
    const SIZES: [u32; 8] = [3000, 9000, 300, 20_000, 5000, 100, 8192, 1000];
    if skipped() {
        return;
    }
    let (a, b) = pair();
    a.segment_before_wire("a0");
    b.segment_before_wire("b0");
    let options = ["--max-flows", "600", "--drain-ended", "50ms", "--drain-active", "100ms", "--idle-udp", "1s"];
    let (at_a, at_b) = (Capturing::on(&a, &["a0"], &options), Capturing::on(&b, &["b0"], &options));
    up(&a, &b);
    let (address, serving) = serve(&b, SIZES.len() * CONNECTIONS);
    // One connection is there all the time, and says something all the time.
    let (stop, port) = (Arc::new(AtomicBool::new(false)), channel());
    let (stopping, telling) = (Arc::clone(&stop), port.0);
    let listening = b.spawn(move || {
        let listener = TcpListener::bind((v4(2), 0)).unwrap();
        telling.send(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = 0;
        let mut buffer = [0; 1000];
        loop {
            match stream.read(&mut buffer).unwrap() {
                0 => break received,
                count => received += count,
            }
        }
    });
    let long = port.1.recv().unwrap();
    let sending = a.spawn(move || {
        let mut stream = TcpStream::connect(long).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut sent = 0;
        while !stopping.load(Ordering::Relaxed) {
            stream.write_all(&[5; 100]).unwrap();
            sent += 100;
            std::thread::yield_now();
        }
        sent
    });
    for size in SIZES {
        at_a.resize(size);
        at_b.resize(size);
        connect(&a, address, CONNECTIONS);
    }
    serving.join().unwrap();
    stop.store(true, Ordering::Relaxed);
    assert_eq!(sending.join().unwrap(), listening.join().unwrap());
    down(&a, &b);
    let (counted_a, counted_b) = (a.counters("a0"), b.counters("b0"));
    for (what, result, counted) in [("a", at_a.stop(), counted_a), ("b", at_b.stop(), counted_b)] {
        assert_equals_interface(what, &result, counted);
        assert_eq!(result.totals.ledger.sum(Kind::Lost).packets, 0, "{what}: {:?}", result.totals.ledger);
        let of_long = |flow: &&weir_proto::Flow| flow.protocol == 6 && flow.dst_port == u32::from(long.port());
        let ids: std::collections::BTreeSet<_> = result.flows.iter().filter(of_long).map(|flow| flow.flow_id).collect();
        assert_eq!(ids.len(), 1, "{what}: the connection is one flow over all sizes");
        assert!(result.flows.iter().filter(of_long).all(|flow| (src(flow), dst(flow)) == (v4(1), v4(2))), "{what}");
        let handshakes = result.flows.iter().filter(of_long).filter(|flow| flow.handshake_us.is_some_and(|us| us > 0));
        assert_eq!(handshakes.count(), 1, "{what}: its handshake is told once");
        // A connection is one flow, also where the table was full.
        let of_short = |flow: &&weir_proto::Flow| flow.protocol == 6 && flow.dst_port == u32::from(address.port());
        let total = result.total(|flow| of_short(&flow));
        assert!(total.tx_packets >= (SIZES.len() * CONNECTIONS * 5) as u64, "{what}: {total:?}");
        assert!(result.flows.iter().filter(of_short).all(|flow| (src(flow), dst(flow)) == (v6(1), v6(2))), "{what}");
    }
}

#[test]
fn a_table_that_fills_up_grows_to_its_limit_and_no_further() {
    const FLOWS: u16 = 800;
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let directory = tempfile::tempdir().unwrap();
    let options = ["--max-flows", "64", "--max-flows-limit", "500", "--drain-active", "200ms"];
    let (service, address) = Service::start_with(&a, directory.path(), &options);
    up(&a, &b);
    traffic::ping(&a, v4(2), 1, 56);
    let round = || {
        a.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for port in 1000..1000 + FLOWS {
                socket.send_to(b"hello", SocketAddr::new(v4(2), port)).unwrap();
            }
        });
    };
    let value = |name| metric(&a, &address, name).unwrap_or(0);
    wait_for_metric(&a, &address, "weir_capture_flows_capacity ", |capacity| {
        round();
        capacity == 8 + 500
    });
    // Where there was no room before there is room now.
    wait_for_metric(&a, &address, "weir_capture_flows_opened_total ", |opened| {
        round();
        opened >= 400
    });
    wait_for_metric(&a, &address, "weir_capture_packets_seen_total ", |seen| {
        let (rx, tx) = a.counters("a0");
        seen >= rx.packets + tx.packets
    });
    wait_for_metric(&a, &address, "weir_capture_packets_pending ", |pending| pending == 0);
    // A small table, its buffer and its sums may have been full before there was more; that is counted.
    let lost = value("weir_capture_packets_lost_total{reason=\"table_full\"} ");
    let ignored = value("weir_capture_packets_ignored_total{reason=\"not_ip\"} ");
    let (seen, accounted) = (value("weir_capture_packets_seen_total "), value("weir_capture_packets_accounted_total "));
    assert_eq!((seen, value("weir_capture_packets_reported_total ")), (accounted + ignored + lost, accounted));
    assert_eq!(value("weir_capture_flows_capacity "), 8 + 500, "no further");
    assert!(value("weir_capture_table_resizes_total ") >= 3);
    service.end();
}

#[test]
fn a_file_that_has_changed_takes_effect_when_it_is_told_and_a_kill_loses_nothing() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let (bpf, directory) = (crate::pin::BpfFs::new(), tempfile::tempdir().unwrap());
    let file = directory.path().join("capture.yaml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let pins = bpf.pins();
    write("max-flows: 100\n");
    let options = ["--config", file.to_str().unwrap(), "--pin", pins.to_str().unwrap(), "--drain-active", "100ms"];
    let (first, address) = Service::start_with(&a, directory.path(), &options);
    up(&a, &b);
    let room = |host: &Host, address: &str, flows: u64| {
        wait_for_metric(host, address, "weir_capture_flows_capacity ", |capacity| capacity == 8 + flows);
    };
    room(&a, &address, 100);
    traffic::ping(&a, v4(2), 10, 56);
    write("max-flows: 9000\n");
    first.reread();
    room(&a, &address, 9000);
    write("max-flows: many\n");
    first.reread();
    first.wait_for("all stays as it is");
    room(&a, &address, 9000);
    traffic::udp_to_nowhere(&a, SocketAddr::new(v4(2), 9), 500);
    first.kill();
    traffic::udp_to_nowhere(&a, SocketAddr::new(v4(2), 10), 500);

    // The next life begins with the size that its options say, whatever the one before had.
    write("max-flows: 5000\n");
    let (second, address) = Service::start_with(&a, directory.path(), &options);
    room(&a, &address, 5000);
    traffic::udp_to_nowhere(&a, SocketAddr::new(v4(2), 11), 500);
    wait_for_metric(&a, &address, "weir_capture_packets_pending ", |pending| pending == 0);
    let (rx, tx) = a.counters("a0");
    wait_for_metric(&a, &address, "weir_capture_packets_seen_total ", |seen| seen >= rx.packets + tx.packets);
    assert!(rx.packets + tx.packets >= 1520);
    wait_for_metric(&a, &address, "weir_capture_packets_pending ", |pending| pending == 0);
    assert_eq!(metric(&a, &address, "weir_capture_packets_unseen_total ").unwrap_or(0), 0);
    let lost = metric(&a, &address, "weir_capture_packets_lost_total{reason=\"table_full\"} ");
    assert_eq!(lost.unwrap_or(0), 0);
    second.end();
    assert_eq!(std::fs::read_dir(&pins).unwrap().count(), 0, "a life that ends in order leaves nothing");
}

#[test]
fn a_table_that_became_smaller_gives_its_memory_back() {
    if skipped() {
        return;
    }
    let host = Host::new();
    host.run(|| {
        let room = Room { max_flows: 1000, ..Room::default() };
        let (_kernel, mut table) = Kernel::load(room, &Plan::default()).unwrap();
        let resize = |table: &mut KernelTable, max_flows| {
            let next = table.prepare(max_flows).unwrap();
            table.change(next, &mut || {}).unwrap();
            assert_eq!(table.max_flows(), max_flows);
        };
        let reserved = table.capacity() - 1000;
        resize(&mut table, 20_000);
        assert_eq!(table.capacity(), reserved + 20_000);
        assert!(!table.give_back().unwrap(), "all of it is wanted");
        resize(&mut table, 50);
        assert_eq!(table.capacity(), reserved + 20_000, "flows may still have what is above");
        while table.give_back().unwrap() {}
        assert_eq!((table.capacity(), table.room()), (reserved + 50, reserved + 50));
        resize(&mut table, 6000);
        assert_eq!((table.capacity(), table.room()), (reserved + 6000, reserved + 6000));
    });
}
