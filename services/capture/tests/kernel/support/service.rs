//! The program itself, as a process on a host.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Instant,
};

use super::{capturing::DEADLINE, host::Host};

pub(crate) struct Service {
    child: Child,
    log: Receiver<String>,
}

impl Service {
    /// Starts the program on a host, for the interface a0; NATS is away. Returns it with the address of its health endpoints.
    pub(crate) fn start(host: &Host, directory: &std::path::Path) -> (Self, String) {
        Self::start_with(host, directory, &[])
    }

    /// As [`Self::start`], with more options.
    pub(crate) fn start_with(host: &Host, directory: &std::path::Path, options: &[&str]) -> (Self, String) {
        let directory = directory.to_owned();
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let mut child = host.run(move || {
            Command::new(env!("CARGO_BIN_EXE_weir-capture"))
                .args(["--interface", "a0", "--nats-url", "nats://127.0.0.1:1", "--drain-ended", "50ms"])
                .arg("--data-dir")
                .arg(directory)
                .args(options)
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        });
        let stderr = child.stderr.take().unwrap();
        let (line, log) = channel();
        std::thread::spawn(move || {
            for text in BufReader::new(stderr).lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    break;
                }
            }
        });
        let service = Self { child, log };
        let up = service.wait_for("health endpoints are up");
        let address = up.split("address=").nth(1).unwrap().trim().to_owned();
        service.wait_for("attached");
        (service, address)
    }

    pub(crate) fn wait_for(&self, text: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.log.recv_timeout(left).unwrap_or_else(|_| panic!("the log does not say {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it read its file of options again.
    pub(crate) fn reread(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
    }

    /// Ends it in order.
    pub(crate) fn end(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The value of a metric without labels.
pub(crate) fn metric(host: &Host, address: &str, name: &'static str) -> Option<u64> {
    let address = address.to_owned();
    host.run(move || {
        let mut stream = TcpStream::connect(&address).unwrap();
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    })
}

pub(crate) fn wait_for_metric(host: &Host, address: &str, name: &'static str, satisfied: impl Fn(u64) -> bool) -> u64 {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let value = metric(host, address, name);
        if let Some(value) = value.filter(|value| satisfied(*value)) {
            return value;
        }
        assert!(Instant::now() < deadline, "{name} is {value:?}");
        std::thread::yield_now();
    }
}
