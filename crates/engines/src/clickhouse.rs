//! `ClickHouse`, the genuine server or the same server as a library.
//!
//! Under its directory: `config.xml` and `users.xml` (which hold only hashes), `writer.password` and `reader.password` (0600),
//! and `data/`. The server can reach `config/` and `data/` only; the passwords stand outside of both.

mod config;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

pub use config::Limits;

use crate::locate::ClickHouseProgram;
use crate::{Error, ports, secrets};

/// The user with all rights on the database `weir`.
pub const WRITER: &str = "weir_writer";

/// The user that can only read the database `weir`, within limits.
pub const READER: &str = "weir_reader";

/// The database of all tables.
pub const DATABASE: &str = "weir";

/// How long one look at the health of the server may take.
const PROBE: Duration = Duration::from_secs(10);

/// What keeps the library running once it listens. It is never meant to end: at its exit the library can abort.
const SERVE: &str = "SYSTEM START LISTEN HTTP; SELECT sleep(3) FROM system.numbers FORMAT Null \
    SETTINGS max_block_size=1, function_sleep_max_microseconds_per_block=0";

/// An embedded `ClickHouse`, configured but not necessarily running.
#[derive(Debug, Clone)]
pub struct ClickHouse {
    program: ClickHouseProgram,
    config: PathBuf,
    data: PathBuf,
    http_port: u16,
    writer_password: String,
    reader_password: String,
}

impl ClickHouse {
    /// Writes the configuration of a server that keeps everything under `dir`, on ports that are free now.
    pub fn prepare(program: ClickHouseProgram, dir: &Path, limits: &Limits) -> Result<Self, Error> {
        let config_dir = dir.join("config");
        let data = dir.join("data");
        for dir in [&config_dir, &data] {
            fs::create_dir_all(dir).map_err(Error::file(dir))?;
        }
        let local_session = matches!(program, ClickHouseProgram::Library { .. });
        let clickhouse = Self {
            program,
            config: config_dir.join("config.xml"),
            data,
            http_port: ports::free_port()?,
            writer_password: secrets::password(&dir.join("writer.password"))?,
            reader_password: secrets::password(&dir.join("reader.password"))?,
        };
        let users = config_dir.join("users.xml");
        secrets::write_private(
            &users,
            &config::users(
                &secrets::sha256_hex(&clickhouse.writer_password),
                &secrets::sha256_hex(&clickhouse.reader_password),
                local_session,
                limits,
            ),
        )?;
        secrets::write_private(
            &clickhouse.config,
            &config::server(&clickhouse.data, &users, clickhouse.http_port, limits),
        )?;
        Ok(clickhouse)
    }

    /// How to start the server. It logs to standard error; it gets no variables, for it could be asked to tell them.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = match &self.program {
            ClickHouseProgram::Server(program) => self.server_command(program),
            ClickHouseProgram::Library { loader, library } => self.library_command(loader, library),
        };
        command.env_clear().env("TZ", "UTC").current_dir(&self.data).stdin(Stdio::null());
        command
    }

    /// `http://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http_port)
    }

    /// The password of [`WRITER`].
    #[must_use]
    pub fn writer_password(&self) -> &str {
        &self.writer_password
    }

    /// The password of [`READER`].
    #[must_use]
    pub fn reader_password(&self) -> &str {
        &self.reader_password
    }

    /// Whether the server takes statements of the writer; makes the database when it is not there yet.
    pub async fn ready(&self) -> Result<(), Error> {
        self.execute(WRITER, &self.writer_password, &format!("CREATE DATABASE IF NOT EXISTS {DATABASE}"))
            .await
            .map(drop)
    }

    /// Runs one statement as a user and returns what the server said. For start-up and tests; everything else goes
    /// through a client of its own.
    pub async fn execute(&self, user: &str, password: &str, sql: &str) -> Result<String, Error> {
        let no_answer = |source| Error::NoAnswer { engine: "ClickHouse", address: self.url(), source };
        let answer = reqwest::Client::new()
            .post(self.url())
            .header("X-ClickHouse-User", user)
            .header("X-ClickHouse-Key", password)
            .timeout(PROBE)
            .body(sql.to_owned())
            .send()
            .await
            .map_err(no_answer)?;
        let status = answer.status();
        let body = answer.text().await.map_err(no_answer)?;
        if status.is_success() {
            return Ok(body);
        }
        Err(Error::Unwell { engine: "ClickHouse", status: status.as_u16(), body: body.chars().take(500).collect() })
    }

    fn server_command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        // The one program is many by name; `clickhouse-server` is a link to it.
        if program.file_name().is_some_and(|name| name == "clickhouse") {
            command.arg("server");
        }
        command.arg(format!("--config-file={}", self.config.display()));
        command
    }

    fn library_command(&self, loader: &Path, library: &Path) -> Command {
        let mut command = Command::new(loader);
        command.arg("--library").arg(library).arg("--config").arg(&self.config).arg("--data").arg(&self.data);
        command.arg("--http-port").arg(self.http_port.to_string());
        command.arg("--query").arg(SERVE);
        command
    }
}
