//! NATS with `JetStream`.
//!
//! Under its directory: `nats.conf`, `password` (both 0600) and `jetstream/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use crate::Error;
use crate::{ports, secrets};

/// The one user of the embedded NATS.
const USER: &str = "weir";

/// How long one look at the health of the server may take.
const PROBE: Duration = Duration::from_secs(5);

/// An embedded NATS, configured but not necessarily running.
#[derive(Debug, Clone)]
pub struct Nats {
    program: PathBuf,
    config: PathBuf,
    port: u16,
    monitor_port: u16,
    password: String,
}

impl Nats {
    /// Writes the configuration of a server that keeps everything under `dir`, on ports that are free now.
    pub fn prepare(program: &Path, dir: &Path) -> Result<Self, Error> {
        let store = dir.join("jetstream");
        fs::create_dir_all(&store).map_err(Error::file(&store))?;
        let nats = Self {
            program: program.to_owned(),
            config: dir.join("nats.conf"),
            port: ports::free_port()?,
            monitor_port: ports::free_port()?,
            password: secrets::password(&dir.join("password"))?,
        };
        secrets::write_private(&nats.config, &nats.render(&store))?;
        Ok(nats)
    }

    /// How to start the server. It logs to standard error.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(&self.config).stdin(std::process::Stdio::null());
        command
    }

    /// `nats://user:password@127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{USER}:{}@127.0.0.1:{}", self.password, self.port)
    }

    /// The port for clients.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of the monitoring endpoints: `/healthz`, `/varz`, `/jsz`.
    #[must_use]
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor_port)
    }

    /// Whether the server and its `JetStream` answer.
    pub async fn ready(&self) -> Result<(), Error> {
        let address = format!("{}/healthz", self.monitor_url());
        let no_answer = |source| Error::NoAnswer { engine: "NATS", address: address.clone(), source };
        let answer = reqwest::Client::new().get(&address).timeout(PROBE).send().await.map_err(no_answer)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let body = answer.text().await.map_err(no_answer)?;
        Err(Error::Unwell { engine: "NATS", status: status.as_u16(), body: body.chars().take(200).collect() })
    }

    /// A batch is at most 1 MiB; an object's chunk and a record with its headers fit with room to spare. What bounds the disk are
    /// the limits of each stream: a limit of all would count what they may hold, not what they do, and refuse to make them.
    fn render(&self, store: &Path) -> String {
        format!(
            r#"# Written by weir at every start; changes are lost.
server_name: weir
host: "127.0.0.1"
port: {port}
http: "127.0.0.1:{monitor}"
max_payload: 8MB
authorization {{ user: {USER}, password: "{password}" }}
jetstream {{ store_dir: {store}, max_memory_store: 256MB, max_file_store: 1TB }}
"#,
            port = self.port,
            monitor = self.monitor_port,
            password = self.password,
            store = quoted(store),
        )
    }
}

/// A path as a string of the configuration language, where a backslash escapes.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_private_and_says_loopback_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("tempdir");
        let nats = Nats::prepare(Path::new("nats-server"), dir.path()).expect("prepared");
        let config = fs::read_to_string(&nats.config).expect("config");
        assert!(config.contains("host: \"127.0.0.1\""), "{config}");
        assert!(config.contains(&format!("http: \"127.0.0.1:{}\"", nats.monitor_port)), "{config}");
        assert_eq!(fs::metadata(&nats.config).expect("metadata").permissions().mode() & 0o777, 0o600);
        assert_eq!(nats.url(), format!("nats://weir:{}@127.0.0.1:{}", nats.password, nats.port));
    }
}
