//! Throwaway engines for tests: real servers in a temporary directory, gone when the value is dropped.
//!
//! ```no_run
//! # async fn example() -> Result<(), weir_engines::Error> {
//! use weir_engines::testing::{ClickHouse, Nats};
//!
//! let mut nats = Nats::start().await?;             // nats.url() has user and password in it
//! let clickhouse = ClickHouse::start().await?;     // the database `weir` exists; users weir_writer, weir_reader
//! clickhouse.write("CREATE TABLE weir.t (x UInt8) ENGINE = MergeTree ORDER BY x").await?;
//! assert_eq!(clickhouse.read("SELECT count() FROM weir.t").await?, "0\n");
//!
//! nats.kill().await;                               // SIGKILL
//! nats.restart().await?;                           // same data, same port
//! # Ok(())
//! # }
//! ```
//!
//! A test that can do without, where the engines are missing:
//! `let Some(nats) = Nats::start_or_skip().await else { return };`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::clickhouse::{Limits, READER, WRITER};
use crate::{Error, locate, process};

/// How long an engine may take to be ready; machines that build at the same time are slow.
const READY: Duration = Duration::from_mins(1);

/// How often it is asked.
const POLL: Duration = Duration::from_millis(20);

/// How often a start is tried anew with other ports: between choosing a port and using it another process can take it.
const STARTS: usize = 3;

/// A running NATS with `JetStream`.
#[derive(Debug)]
pub struct Nats {
    engine: crate::Nats,
    running: Running,
}

impl Nats {
    /// Starts one and waits until it is ready.
    pub async fn start() -> Result<Self, Error> {
        let program = locate::nats_server()?;
        let mut attempt = 1;
        loop {
            let dir = tempdir()?;
            let engine = crate::Nats::prepare(&program, dir.path())?;
            let mut running = Running::new(dir);
            match running.start("NATS", engine.command(), || engine.ready()).await {
                Ok(()) => return Ok(Self { engine, running }),
                Err(Error::Ended { .. }) if attempt < STARTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`Self::start`]; where there is no NATS it says `skipped: why` and gives nothing.
    ///
    /// # Panics
    /// When NATS is there and does not start.
    pub async fn start_or_skip() -> Option<Self> {
        or_skip(Self::start().await)
    }

    /// `nats://user:password@127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        self.engine.url()
    }

    /// The address of `/healthz`, `/varz`, `/jsz`.
    #[must_use]
    pub fn monitor_url(&self) -> String {
        self.engine.monitor_url()
    }

    /// Where its streams are.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.running.dir.path().join("jetstream")
    }

    /// Kills it with `SIGKILL`.
    pub async fn kill(&mut self) {
        self.running.kill().await;
    }

    /// Stops it as an operator does, with all that it has to note before.
    pub async fn stop(&mut self) {
        self.running.stop().await;
    }

    /// Starts it again with the same data on the same port (after [`Self::kill`], or killing it first) and waits until it is ready.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.kill().await;
        self.running.start("NATS", self.engine.command(), || self.engine.ready()).await
    }

    /// Stops it in its tracks with `SIGSTOP`, as a machine that hangs.
    pub fn pause(&self) {
        self.running.signal(Signal::SIGSTOP);
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) {
        self.running.signal(Signal::SIGCONT);
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.running.log()
    }
}

/// A running `ClickHouse` with the database `weir`.
#[derive(Debug)]
pub struct ClickHouse {
    engine: crate::ClickHouse,
    running: Running,
}

impl ClickHouse {
    /// Starts one and waits until it is ready.
    pub async fn start() -> Result<Self, Error> {
        Self::start_with(&Limits::for_this_machine()).await
    }

    /// Starts one with other limits for the reader.
    pub async fn start_with(limits: &Limits) -> Result<Self, Error> {
        let program = locate::clickhouse(&loader().await)?;
        let mut attempt = 1;
        loop {
            let dir = tempdir()?;
            let engine = crate::ClickHouse::prepare(program.clone(), dir.path(), limits)?;
            let mut running = Running::new(dir);
            match running.start("ClickHouse", engine.command(), || engine.ready()).await {
                Ok(()) => return Ok(Self { engine, running }),
                Err(Error::Ended { .. }) if attempt < STARTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// As [`Self::start`]; where there is no `ClickHouse` it says `skipped: why` and gives nothing.
    ///
    /// # Panics
    /// When `ClickHouse` is there and does not start.
    pub async fn start_or_skip() -> Option<Self> {
        or_skip(Self::start().await)
    }

    /// `http://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        self.engine.url()
    }

    /// The user with all rights on the database `weir`.
    #[must_use]
    pub fn writer_user(&self) -> &'static str {
        WRITER
    }

    /// The password of the writer.
    #[must_use]
    pub fn writer_password(&self) -> &str {
        self.engine.writer_password()
    }

    /// The user that can only read.
    #[must_use]
    pub fn reader_user(&self) -> &'static str {
        READER
    }

    /// The password of the reader.
    #[must_use]
    pub fn reader_password(&self) -> &str {
        self.engine.reader_password()
    }

    /// Where its data is, to measure it.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.running.dir.path().join("data")
    }

    /// Runs one statement as the writer; tab-separated unless it names a format.
    pub async fn write(&self, sql: &str) -> Result<String, Error> {
        self.engine.execute(WRITER, self.writer_password(), sql).await
    }

    /// Runs one statement as the reader; tab-separated unless it names a format.
    pub async fn read(&self, sql: &str) -> Result<String, Error> {
        self.engine.execute(READER, self.reader_password(), sql).await
    }

    /// Kills it with `SIGKILL`.
    pub async fn kill(&mut self) {
        self.running.kill().await;
    }

    /// Starts it again with the same data on the same ports (after [`Self::kill`], or killing it first) and waits until it is ready.
    pub async fn restart(&mut self) -> Result<(), Error> {
        self.kill().await;
        self.running.start("ClickHouse", self.engine.command(), || self.engine.ready()).await
    }

    /// Stops it in its tracks with `SIGSTOP`, as a machine that hangs.
    pub fn pause(&self) {
        self.running.signal(Signal::SIGSTOP);
    }

    /// Lets it go on after [`Self::pause`].
    pub fn resume(&self) {
        self.running.signal(Signal::SIGCONT);
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.running.log()
    }
}

/// A process with a directory of its own.
#[derive(Debug)]
struct Running {
    // Dropped in this order: the process first.
    child: Option<Child>,
    dir: TempDir,
}

impl Running {
    fn new(dir: TempDir) -> Self {
        Self { child: None, dir }
    }

    async fn start<F, R>(&mut self, engine: &'static str, mut command: Command, ready: F) -> Result<(), Error>
    where
        F: Fn() -> R,
        R: Future<Output = Result<(), Error>>,
    {
        let path = self.dir.path().join("log");
        let log = File::options().append(true).create(true).open(&path).map_err(Error::file(&path))?;
        let copy = log.try_clone().map_err(Error::file(&path))?;
        command.stdout(Stdio::from(log)).stderr(Stdio::from(copy));
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        let child = process::spawn(command).await.map_err(|source| Error::Spawn { program, source })?;
        let child = self.child.insert(child);
        let deadline = Instant::now() + READY;
        let mut poll = tokio::time::interval(POLL);
        loop {
            tokio::select! {
                status = child.wait() => {
                    let status = status.map_or_else(|error| error.to_string(), process::describe);
                    return Err(Error::Ended { engine, status, log: tail(&path) });
                }
                _ = poll.tick() => {}
            }
            match ready().await {
                Ok(()) => return Ok(()),
                Err(_) if Instant::now() < deadline => {}
                Err(_) => return Err(Error::Timeout { engine, seconds: READY.as_secs(), log: tail(&path) }),
            }
        }
    }

    async fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Paused or not, SIGKILL ends it; an error here means that it had ended before.
            let _ = child.kill().await;
        }
    }

    async fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        if let Some(mut child) = self.child.take() {
            // Err = it had ended before.
            let _ = child.wait().await;
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            process::signal(child, signal);
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

fn tempdir() -> Result<TempDir, Error> {
    tempfile::Builder::new().prefix("weir-engine-").tempdir().map_err(Error::file(std::env::temp_dir()))
}

fn or_skip<T>(started: Result<T, Error>) -> Option<T> {
    match started {
        Ok(engine) => Some(engine),
        Err(error @ Error::NotFound { .. }) => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The last lines of a log.
fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// `weir-clickhouse` beside the test. Cargo builds the programs of a package only for that package's own tests, so another
/// package's test run alone has to ask for it.
async fn loader() -> PathBuf {
    if let Some(found) = locate::clickhouse_loader() {
        return found;
    }
    let target =
        std::env::current_exe().ok().and_then(|test| Some(test.ancestors().nth(3)?.to_owned())).unwrap_or_default();
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build
        .args(["build", "--quiet", "--package", "weir-engines", "--bin", "weir-clickhouse", "--target-dir"])
        .arg(target);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    match build.status().await {
        Ok(status) if status.success() => {}
        failed => eprintln!("weir-clickhouse is missing and cannot be built: {failed:?}"),
    }
    locate::clickhouse_loader().unwrap_or_else(|| PathBuf::from("weir-clickhouse"))
}
