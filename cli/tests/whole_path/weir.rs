//! A running instance, asked with `weir` as people ask it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const DEADLINE: Duration = Duration::from_mins(2);
const PROGRAMS: [&str; 6] =
    ["weir-clickhouse", "weir-ingester", "weir-query-api", "weir-pcap-worker", "weir-docker-watcher", "weir-capture"];

/// A running instance in a directory of its own.
pub(crate) struct Weir {
    dir: TempDir,
    environment: Vec<(&'static str, String)>,
}

impl Weir {
    /// `weir up --detach`; `None` where a program or an engine is missing, and it says so.
    pub(crate) fn up_or_skip(interface: &str) -> Option<Self> {
        Self::up_in_or_skip(&std::env::temp_dir(), interface)
    }

    /// The same, with further options and with these variables.
    pub(crate) fn up_with_or_skip(
        interface: &str,
        options: &[&str],
        environment: &[(&'static str, &str)],
    ) -> Option<Self> {
        let environment = environment.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self::start_or_skip(&std::env::temp_dir(), interface, options, environment)
    }

    /// The same, in a directory below `parent`.
    pub(crate) fn up_in_or_skip(parent: &Path, interface: &str) -> Option<Self> {
        Self::start_or_skip(parent, interface, &[], Vec::new())
    }

    fn start_or_skip(
        parent: &Path,
        interface: &str,
        options: &[&str],
        environment: Vec<(&'static str, String)>,
    ) -> Option<Self> {
        for name in PROGRAMS {
            let program = Path::new(env!("CARGO_BIN_EXE_weir")).with_file_name(name);
            if !program.is_file() {
                eprintln!("skipped: {} is not built", program.display());
                return None;
            }
        }
        let loader = Path::new(env!("CARGO_BIN_EXE_weir")).with_file_name("weir-clickhouse");
        if let Err(error) = weir_engines::locate::nats_server().and(weir_engines::locate::clickhouse(&loader)) {
            eprintln!("skipped: {error}");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("weir-whole-").tempdir_in(parent).expect("tempdir");
        let weir = Self { dir, environment };
        let up = weir.up_with(interface, options);
        assert!(up.status.success(), "{}\n{}", text(&up.stdout), text(&up.stderr));
        Some(weir)
    }

    pub(crate) fn up(&self, interface: &str) -> Output {
        self.up_with(interface, &[])
    }

    fn up_with(&self, interface: &str, options: &[&str]) -> Output {
        self.run(&[&["up", "--detach", "--listen", "127.0.0.1:0", "--interface", interface], options].concat())
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("run weir")
    }

    /// Starts a command that takes its time.
    pub(crate) fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start weir")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command
            .args(arguments)
            .env("WEIR_DATA_DIR", self.dir.path())
            .env_remove("WEIR_API")
            .env_remove("WEIR_API_TOKEN")
            .env_remove("WEIR_NATS_URL")
            .env_remove("WEIR_CLICKHOUSE_URL")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// What a command says that must succeed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}\n{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// The same as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--json"]].concat())).expect("JSON")
    }

    /// Kills a part with SIGKILL and waits until it was started again and all are ready.
    pub(crate) fn kill(&self, part: &str) {
        self.kill_and(part, || ());
        eventually(|| self.run(&["status"]).status.success(), || format!("{part} is not ready: {}", self.part(part)));
    }

    /// Kills a part with SIGKILL, does something, and waits until it was started again.
    pub(crate) fn kill_and(&self, part: &str, meanwhile: impl FnOnce()) {
        let before = self.part(part);
        let pid = i32::try_from(before["pid"].as_i64().expect("pid")).expect("pid");
        nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).expect("kill");
        meanwhile();
        eventually(
            || self.part(part)["restarts"].as_u64() > before["restarts"].as_u64(),
            || format!("{part} is not started again: {}", self.part(part)),
        );
    }

    /// The rows of a query, as `weir query --format ndjson` prints them; `None` while the system cannot answer.
    pub(crate) fn rows(&self, sql: &str) -> Option<Vec<Value>> {
        let output = self.run(&["query", sql, "--format", "ndjson"]);
        let lines = text(&output.stdout);
        output.status.success().then(|| lines.lines().map(|line| serde_json::from_str(line).expect(line)).collect())
    }

    /// Waits until a query has the rows that it should have.
    pub(crate) fn eventually(&self, sql: &str, expected: &Value) {
        let mut last = None;
        eventually(
            || {
                last = self.rows(sql);
                last.as_ref().is_some_and(|rows| rows.as_slice() == std::slice::from_ref(expected))
            },
            || format!("{sql}\nexpected {expected}\nlast saw {:?}", self.rows(sql)),
        );
    }

    /// The answer to a GET of the API.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let state = fs::read_to_string(self.dir.path().join("run/state.json")).expect("state.json");
        let state: Value = serde_json::from_str(&state).expect("JSON");
        let address = state["api"].as_str().expect("the API's address");
        let response = reqwest::get(format!("{address}{path}")).await.expect("an answer");
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.expect("JSON")
    }

    pub(crate) fn part(&self, name: &str) -> Value {
        let status: Value = serde_json::from_slice(&self.run(&["status", "--json"]).stdout).expect("status is JSON");
        let parts = status["parts"].as_array().expect("parts");
        parts.iter().find(|part| part["name"] == name).cloned().unwrap_or_else(|| panic!("no {name} in {status}"))
    }

    /// A file that belongs to this instance's directory, and goes with it.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).expect("write");
        path
    }

    pub(crate) fn nats_url(&self) -> String {
        let config = fs::read_to_string(self.dir.path().join("nats/nats.conf")).expect("nats.conf");
        let port = config.lines().find_map(|line| line.strip_prefix("port: ")).expect("port");
        let password = fs::read_to_string(self.dir.path().join("nats/password")).expect("password");
        format!("nats://weir:{}@127.0.0.1:{port}", password.trim())
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        let down = self.run(&["down"]);
        if std::thread::panicking() {
            eprintln!("{}", text(&down.stdout));
            for log in fs::read_dir(self.dir.path().join("logs")).into_iter().flatten().flatten() {
                let lines = fs::read_to_string(log.path()).unwrap_or_default();
                let tail: Vec<_> = lines.lines().rev().take(30).collect();
                eprintln!("--- {}", log.path().display());
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
    }
}

pub(crate) fn eventually(mut holds: impl FnMut() -> bool, otherwise: impl FnOnce() -> String) {
    let deadline = Instant::now() + DEADLINE;
    let (_never, pause) = channel::<()>();
    while !holds() {
        assert!(Instant::now() <= deadline, "not within {} s: {}", DEADLINE.as_secs(), otherwise());
        assert_eq!(pause.recv_timeout(Duration::from_millis(200)), Err(RecvTimeoutError::Timeout));
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
