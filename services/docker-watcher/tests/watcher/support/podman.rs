//! A throwaway Podman service: the real one with its own roots and socket.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use bollard::{API_DEFAULT_VERSION, Docker};
use tempfile::TempDir;
use tokio::process::Child;

use super::host::{image, in_hierarchies, missing, sweep};

/// The image that it has.
pub(crate) const IMAGE: &str = "localhost/weir-test:busybox";

/// A running service.
pub(crate) struct Podman {
    directory: TempDir,
    client: Docker,
    _service: Child,
}

impl Podman {
    /// Starts one and gives it an image; where that cannot be it says `skipped: why` and gives nothing.
    pub(crate) async fn start_or_skip() -> Option<Self> {
        if let Some(why) = missing(&["podman", "conmon", "runc", "tar"]) {
            eprintln!("skipped: {why}");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("weir-podman-").tempdir().unwrap();
        let service = tokio::process::Command::from(podman(directory.path()))
            .args(["system", "service", "--time=0"])
            .arg(format!("unix://{}", socket(directory.path())))
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.path().join("log")).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let client = connect(directory.path()).await;
        let archive = directory.path().join("image.tar");
        fs::write(&archive, image(directory.path())).unwrap();
        let output = podman(directory.path()).arg("import").arg(&archive).arg(IMAGE).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(Self { directory, client, _service: service })
    }

    /// The path of its socket.
    pub(crate) fn socket(&self) -> String {
        socket(self.directory.path())
    }

    /// Runs a script in a container. Returns its id.
    pub(crate) fn run(&self, name: &str, script: &str) -> String {
        // Without `--ulimit` it asks for more open files than a test may have.
        // Its own limits are higher than a test may set.
        let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];
        let options = ["run", "--detach", "--network=none", "--label", "tier=web", "--name", name];
        let options = options.into_iter().chain(limits).chain([IMAGE, "sh", "-c", script]);
        let output = podman(self.directory.path()).args(options).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn client(&self) -> &Docker {
        &self.client
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let remove = ["rm", "--all", "--force", "--time=0"];
        let _gone = podman(self.directory.path()).args(remove).stdout(Stdio::null()).stderr(Stdio::null()).status();
        sweep(self.directory.path(), &in_hierarchies("libpod_parent/none"));
    }
}

fn socket(directory: &Path) -> String {
    directory.join("podman.sock").display().to_string()
}

/// The client with the roots of this service, and of no other.
fn podman(directory: &Path) -> Command {
    let mut command = Command::new("podman");
    for (option, name) in
        [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp"), ("--network-config-dir", "networks")]
    {
        command.arg(option).arg(directory.join(name));
    }
    command.args(["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime=runc", "--events-backend=file"]);
    command
}

async fn connect(directory: &Path) -> Docker {
    let mut poll = tokio::time::interval(Duration::from_millis(50));
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    loop {
        poll.tick().await;
        if let Ok(client) = Docker::connect_with_unix(&socket(directory), 60, API_DEFAULT_VERSION)
            && let Ok(client) = client.negotiate_version().await
        {
            return client;
        }
        let log = || fs::read_to_string(directory.join("log")).unwrap_or_default();
        assert!(tokio::time::Instant::now() < deadline, "podman does not answer:\n{}", log());
    }
}
