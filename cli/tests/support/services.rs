//! The services as processes, on engines of their own.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use weir_engines::{
    ports, process,
    testing::{ClickHouse, Nats},
};

/// How long a service may take to be ready on a machine that builds at the same time.
const READY: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);

/// NATS, `ClickHouse`, and services that use them.
pub(crate) struct System {
    // Dropped in this order: the services before what they need.
    services: Vec<Service>,
    pub(crate) nats: Nats,
    pub(crate) clickhouse: ClickHouse,
    otlp: String,
    dir: TempDir,
    http: reqwest::Client,
}

struct Service {
    name: &'static str,
    child: Child,
}

/// The program of a service, where it was built: beside the tests.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().ok()?;
    test.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file())
}

impl System {
    /// Starts the engines; where they are missing it says `skipped: why` and gives nothing.
    pub(crate) async fn start_or_skip(otlp: &str) -> anyhow::Result<Option<Self>> {
        let (Some(nats), Some(clickhouse)) = (Nats::start_or_skip().await, ClickHouse::start_or_skip().await) else {
            return Ok(None);
        };
        let (dir, http) = (tempfile::tempdir()?, reqwest::Client::new());
        Ok(Some(Self { services: Vec::new(), nats, clickhouse, otlp: otlp.to_owned(), dir, http }))
    }

    /// Starts a service and waits until it is ready. `reader` = it asks `ClickHouse` as the user that can only read.
    pub(crate) async fn run(
        &mut self,
        name: &'static str,
        program: &Path,
        reader: bool,
        arguments: &[&str],
    ) -> anyhow::Result<()> {
        let health = format!("127.0.0.1:{}", ports::free_port()?);
        let (user, password) = if reader {
            (self.clickhouse.reader_user(), self.clickhouse.reader_password())
        } else {
            (self.clickhouse.writer_user(), self.clickhouse.writer_password())
        };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("WEIR_DATA_DIR", self.dir.path().join(name))
            .env("WEIR_HEALTH_LISTEN", &health)
            .env("WEIR_HOST", "trace-test")
            .env("WEIR_NATS_URL", self.nats.url())
            .env("WEIR_CLICKHOUSE_URL", self.clickhouse.url())
            .env("WEIR_CLICKHOUSE_USER", user)
            .env("WEIR_CLICKHOUSE_PASSWORD", password)
            .env("WEIR_LOG", "info,weir=debug")
            .env("WEIR_LOG_FORMAT", "json")
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &self.otlp)
            .env("OTEL_BSP_SCHEDULE_DELAY", "200")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::from(File::create(self.log_file(name))?));
        let child = process::spawn(command).await.with_context(|| format!("cannot start {}", program.display()))?;
        self.services.push(Service { name, child });
        self.until_ready(&health).await
    }

    /// What a service logged.
    pub(crate) fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.log_file(name)).unwrap_or_default()
    }

    /// Stops all services as an operator would; each sends its last spans.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        for Service { name, child } in &mut self.services {
            anyhow::ensure!(process::terminate(child, READY).await?, "{name} did not stop when it was asked to");
        }
        Ok(())
    }

    async fn until_ready(&mut self, health: &str) -> anyhow::Result<()> {
        let deadline = tokio::time::Instant::now() + READY;
        let mut poll = tokio::time::interval(POLL);
        let url = format!("http://{health}/readyz");
        loop {
            poll.tick().await;
            let answer = match self.http.get(&url).send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(error) => error.to_string(),
            };
            let Service { name, child } = self.services.last_mut().context("a service was started")?;
            if let Some(status) = child.try_wait()? {
                anyhow::bail!(
                    "{name} ended ({status}): {}",
                    std::fs::read_to_string(self.dir.path().join(format!("{name}.log")))?
                );
            }
            if tokio::time::Instant::now() > deadline {
                let name = *name;
                anyhow::bail!("{name} is not ready: {answer}\n{}", self.log(name));
            }
        }
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }
}
