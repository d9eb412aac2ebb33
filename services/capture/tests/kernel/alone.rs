//! `weir-capture` without the rest of Weir: options, output, and its own HTTP port.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt as _,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::channel,
    time::Instant,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use weir_engines::testing::ClickHouse;

use crate::{
    exact::{pair, up, v4},
    support::{capturing::DEADLINE, host::Host, skipped, traffic},
};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-capture"));
    command.env_clear();
    command
}

fn printed(command: &mut Command) -> String {
    let output = command.arg("--print-config").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn flags_weigh_more_than_the_environment_and_that_more_than_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("capture.yaml");
    std::fs::write(&file, "sample: 2\nidle-udp: 2s\nidle-tcp: 2m\ninterface: [x0, x1]\n").unwrap();
    let mut command = program();
    command.env("WEIR_CAPTURE_CONFIG", &file).env("WEIR_CAPTURE_SAMPLE", "3").env("WEIR_CAPTURE_IDLE_UDP", "3s");
    let text = printed(command.args(["--sample", "4"]));
    for line in [
        "sample: \"4\" # flag",
        "idle-udp: \"3s\" # environment",
        "idle-tcp: \"2m\" # file",
        "interface: [\"x0\",\"x1\"] # file",
        "idle-icmp: \"30s\" # default",
    ] {
        assert!(text.lines().any(|printed| printed == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_bad_value_ends_it_with_64_and_the_name_of_the_option_wherever_it_stands() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("capture.yaml");
    std::fs::write(&file, "drain-active: 5\n").unwrap();
    let bad = |command: &mut Command, name: &str| {
        let Output { status, stderr, .. } = command.output().unwrap();
        let message = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(64), "{message}");
        assert!(message.contains(name), "{message}");
    };
    bad(program().args(["--allow", "10.0.0.0/99"]), "--allow");
    bad(program().env("WEIR_CAPTURE_MAX_FLOWS", "many"), "--max-flows");
    bad(program().arg("--config").arg(&file), "--drain-active");
    bad(program().args(["--exclude", "container = web"]), "--exclude");
}

/// The running program; it ends with the test, however that ends.
struct Running(Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// The program on a host, with what it writes; it captures.
fn start(host: &Host, options: &[&str]) -> (Running, SocketAddr) {
    start_until(host, &[&["--interface", "a0"], options].concat(), "attached")
}

/// As [`start`], until the log says this.
fn start_until(host: &Host, options: &[&str], until: &'static str) -> (Running, SocketAddr) {
    let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
    let mut child = host.run(move || {
        let fixed = ["--drain-ended", "50ms", "--drain-active", "200ms"];
        program().args(fixed).args(options).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let stderr = child.stderr.take().unwrap();
    let running = Running(Some(child));
    let (line, log) = channel();
    std::thread::spawn(move || {
        for text in BufReader::new(stderr).lines().map_while(Result::ok) {
            // After the test has what it waits for nobody listens, and the pipe must not fill up.
            let _nobody = line.send(text);
        }
    });
    let mut address = None;
    loop {
        let text = log.recv_timeout(DEADLINE).expect("the program starts");
        if let Some((_, found)) = text.split_once("address=") {
            address = Some(found.trim().parse().unwrap());
        }
        if text.contains(until) {
            return (running, address.expect("the address comes first"));
        }
    }
}

fn stop(mut running: Running) -> String {
    let child = running.0.take().unwrap();
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn get(host: &Host, address: SocketAddr, request: &'static str) -> String {
    host.run(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {request} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
}

#[test]
fn without_nats_it_writes_one_json_object_for_each_record() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    up(&a, &b);
    let (running, address) = start(&a, &["--output", "ndjson", "--host", "this-host"]);
    traffic::udp_to_nowhere(&a, SocketAddr::new(v4(2), 4000), 7);
    let deadline = Instant::now() + DEADLINE;
    while !get(&a, address, "/api/health").starts_with("HTTP/1.0 200") {
        assert!(Instant::now() < deadline, "it does not become ready");
    }
    for (path, wanted) in [
        ("/healthz", "ok"),
        ("/api/health", "\"status\":\"ok\""),
        ("/metrics", "weir_capture_"),
        ("/api/stats", "\"accounted\""),
    ] {
        let answer = get(&a, address, path);
        assert!(answer.starts_with("HTTP/1.0 200") && answer.contains(wanted), "{path}: {answer}");
    }
    assert!(get(&a, address, "/api/live?filter=nonsense").starts_with("HTTP/1.0 400"));
    let text = stop(running);
    let flows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sent = flows.iter().filter(|flow| flow["dst_port"] == 4000 && flow["dst_ip"] == "10.77.0.2");
    assert_eq!(sent.map(|flow| flow["tx_packets"].as_u64().unwrap()).sum::<u64>(), 7, "{text}");
    assert!(flows.iter().all(|flow| flow["host"] == "this-host"));
}

#[test]
fn a_sample_is_scaled_and_a_listener_hears_what_it_asked_for() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    up(&a, &b);
    let (running, address) = start(&a, &["--output", "lines", "--sample", "2"]);
    let (ready, heard) = (channel(), channel());
    let listening = a.spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET /api/live?filter=dst_port%3D4000 HTTP/1.0\r\nHost: {address}\r\nAccept: application/x-ndjson\r\n\r\n"
        )
        .unwrap();
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        assert!(lines.next().unwrap().contains("200"));
        ready.0.send(()).unwrap();
        let flow = lines.find(|line| line.starts_with('{')).unwrap();
        heard.0.send(flow).unwrap();
    });
    ready.1.recv().unwrap();
    for port in [4001, 4000] {
        traffic::udp_to_nowhere(&a, SocketAddr::new(v4(2), port), 40);
    }
    let flow: serde_json::Value = serde_json::from_str(&heard.1.recv_timeout(DEADLINE).unwrap()).unwrap();
    assert_eq!((&flow["dst_port"], &flow["sampling"], &flow["tx_packets"]), (&4000.into(), &2.into(), &2.into()));
    listening.join().unwrap();
    let text = stop(running);
    assert!(text.lines().any(|line| line.contains("10.77.0.2:4000")), "{text}");
}

#[test]
fn health_is_a_503_that_says_why_as_long_as_nothing_is_captured_on() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    let options = ["--interface", "later0", "--output", "lines"];
    let (running, address) = start_until(&a, &options, "it is waited for");
    for path in ["/api/health", "/readyz"] {
        let answer = get(&a, address, path);
        assert!(answer.starts_with("HTTP/1.0 503"), "{path}: {answer}");
    }
    let answer = get(&a, address, "/api/health");
    assert!(answer.contains("\"status\":\"degraded\"") && answer.contains("waiting for later0"), "{answer}");
    assert!(get(&a, address, "/healthz").starts_with("HTTP/1.0 200"), "the process itself is well");
    a.wire("later0", &b, "later1");
    let deadline = Instant::now() + DEADLINE;
    while !get(&a, address, "/api/health").starts_with("HTTP/1.0 200") {
        assert!(Instant::now() < deadline, "it does not become ready");
    }
    a.delete("later0");
    let deadline = Instant::now() + DEADLINE;
    while !get(&a, address, "/api/health").starts_with("HTTP/1.0 503") {
        assert!(Instant::now() < deadline, "it stays ready with nothing to capture on");
    }
    stop(running);
}

/// Sends a statement with its data.
fn post(clickhouse: &ClickHouse, statement: &str, body: &[u8]) {
    let url = clickhouse.url();
    let address = url.strip_prefix("http://").unwrap();
    let (user, password) = (clickhouse.writer_user(), clickhouse.writer_password());
    let head = format!(
        "POST /?query={statement} HTTP/1.0\r\nHost: {address}\r\nX-ClickHouse-User: {user}\r\nX-ClickHouse-Key: {password}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.lines().next().unwrap().contains(" 200 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parquet_file_is_read_by_others() {
    if skipped() {
        return;
    }
    let Some(clickhouse) = ClickHouse::start_or_skip().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("flows.parquet");
    let path = file.to_str().unwrap().to_owned();
    let sums = tokio::task::spawn_blocking(move || {
        let (a, b) = pair();
        up(&a, &b);
        let (running, _) = start(&a, &["--output", "parquet", "--file", &path, "--host", "this-host"]);
        traffic::udp_to_nowhere(&a, SocketAddr::new(v4(2), 4000), 7);
        let sent = traffic::tcp_stream(&a, &b, v4(2), 100_000);
        stop(running);
        (sent.port, sent.client.segs_out)
    });
    let (port, segments) = sums.await.unwrap();
    let columns = "host String, dst_ip String, dst_port UInt16, protocol UInt8, tx_packets UInt64, rx_packets UInt64";
    let table = format!("CREATE TABLE weir.from_parquet ({columns}) ENGINE = MergeTree ORDER BY dst_port");
    clickhouse.write(&table).await.unwrap();
    let body = std::fs::read(&file).unwrap();
    post(&clickhouse, "INSERT%20INTO%20weir.from_parquet%20FORMAT%20Parquet", &body);
    let question = format!(
        "SELECT sumIf(tx_packets, dst_port = 4000 AND protocol = 17), sumIf(tx_packets, dst_port = {port}), \
         groupUniqArray(host), groupUniqArrayIf(dst_ip, dst_port = {port}) FROM weir.from_parquet"
    );
    let answer = clickhouse.read(&question).await.unwrap();
    assert_eq!(answer, format!("7\t{segments}\t['this-host']\t['10.77.0.2']\n"));
}

#[test]
fn a_kernel_without_types_is_captured_on_and_named() {
    if skipped() {
        return;
    }
    let (a, b) = pair();
    up(&a, &b);
    let mut child = a.run(|| {
        let mut command = program();
        command.args(["--interface", "a0", "--output", "ndjson", "--drain-ended", "50ms", "--drain-active", "200ms"]);
        // SAFETY: only system calls between fork and exec. An empty directory takes the place of the kernel's types, for this process alone.
        unsafe {
            command.pre_exec(|| {
                unshare(CloneFlags::CLONE_NEWNS)?;
                mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
                mount(Some("none"), "/sys/kernel/btf", Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
                Ok(())
            });
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let running = Running(Some(child));
    let missing: Vec<String> =
        log.by_ref().take_while(|line| !line.contains("attached")).filter(|line| line.contains("BTF")).collect();
    for feature in ["executable", "drops"] {
        let line = missing.iter().find(|line| line.contains(feature));
        let line = line.unwrap_or_else(|| panic!("nobody says what {feature} lacks: {missing:#?}"));
        assert!(line.contains("/sys/kernel/btf/vmlinux") && line.contains("CONFIG_DEBUG_INFO_BTF"), "{line}");
    }
    std::thread::spawn(move || log.for_each(drop));
    traffic::udp_to_nowhere(&a, SocketAddr::new(v4(2), 4000), 7);
    let text = stop(running);
    let flows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sent: Vec<_> = flows.iter().filter(|flow| flow["dst_port"] == 4000).collect();
    assert_eq!(sent.iter().map(|flow| flow["tx_packets"].as_u64().unwrap()).sum::<u64>(), 7, "{text}");
    assert!(sent.iter().all(|flow| flow["drops"].is_null()), "absent, not guessed: {text}");
}
