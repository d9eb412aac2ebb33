//! A throwaway Docker engine with containers that sleep.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::process::Command;
use weir_engines::process::terminate;

use crate::ingest::Part;

const IMAGE: &str = "weir-loadtest:busybox";
/// How many containers are started beside each other.
const AT_ONCE: usize = 4;
/// How long the engine may take to be ready, and to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// The engine.
pub(crate) struct Engine {
    directory: PathBuf,
    pub(crate) part: Part,
}

impl Engine {
    /// Starts one, with an image of busybox.
    pub(crate) async fn start(directory: &Path) -> anyhow::Result<Self> {
        let directory = directory.join("docker");
        fs::create_dir_all(&directory).context("no directory for the engine")?;
        let mut command = Command::new("dockerd");
        for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")] {
            command.arg(option).arg(directory.join(name));
        }
        command.arg("--host").arg(format!("unix://{}", directory.join("docker.sock").display()));
        // The host's own bridge, filters and forwarding are none of its business.
        command.args(["--bridge", "none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]);
        // A Ctrl-C is for this program, which stops the containers first.
        command.process_group(0);
        let part = Part::start("dockerd", command, &directory).await?;
        let engine = Self { directory, part };
        let started = tokio::time::Instant::now();
        let mut poll = tokio::time::interval(Duration::from_millis(100));
        while !engine.docker(&["version"]).await?.status.success() {
            ensure!(started.elapsed() < PATIENCE, "dockerd does not answer: is this root?");
            poll.tick().await;
        }
        engine.import().await?;
        Ok(engine)
    }

    /// What `DOCKER_HOST` says.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.directory.join("docker.sock").display())
    }

    /// Starts containers that sleep. Returns their names.
    pub(crate) async fn run(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let names: Vec<_> = (0..count).map(|number| format!("bench-{number}")).collect();
        stream::iter(&names)
            .map(|name| async move {
                let labels =
                    ["--label", "com.docker.compose.project=bench", "--label", "com.docker.compose.service=sleeper"];
                let run = ["run", "--detach", "--network", "none", "--name", name];
                let all: Vec<_> = run.into_iter().chain(labels).chain([IMAGE, "sleep", "100000"]).collect();
                self.docker_or_fail(&all).await
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        Ok(names)
    }

    /// Runs the client; its output is not looked at.
    pub(crate) async fn docker_or_fail(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = self.docker(arguments).await?;
        if !output.status.success() {
            bail!("docker {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    async fn docker(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new("docker");
        command.env("DOCKER_HOST", self.host()).env_remove("DOCKER_CONTEXT").args(arguments).stdin(Stdio::null());
        command.output().await.context("cannot run docker")
    }

    async fn import(&self) -> anyhow::Result<()> {
        let root = self.directory.join("image");
        fs::create_dir_all(root.join("bin"))?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let busybox =
            std::env::split_paths(&path).map(|directory| directory.join("busybox")).find(|file| file.is_file());
        fs::copy(busybox.context("there is no busybox here (Debian: busybox-static)")?, root.join("bin/busybox"))?;
        symlink("busybox", root.join("bin/sleep"))?;
        let archive = self.directory.join("image.tar");
        let tar = Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".").status().await?;
        ensure!(tar.success(), "tar failed");
        self.docker_or_fail(&["import", &archive.display().to_string(), IMAGE]).await
    }

    /// Removes the containers and ends the engine.
    pub(crate) async fn end(mut self, names: &[String]) -> anyhow::Result<()> {
        if !names.is_empty() {
            let remove: Vec<_> = ["rm", "--force"].into_iter().chain(names.iter().map(String::as_str)).collect();
            self.docker_or_fail(&remove).await?;
        }
        terminate(&mut self.part.child, PATIENCE).await.context("dockerd does not end")?;
        Ok(())
    }
}
