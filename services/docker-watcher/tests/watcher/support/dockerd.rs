//! A throwaway Docker engine: the real daemon with its own roots and socket, gone with its containers, mounts and bridges when it is dropped.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    models::{ContainerCreateBody, HostConfig, Ipam, IpamConfig, NetworkCreateRequest},
    query_parameters::{
        CreateContainerOptionsBuilder, CreateImageOptionsBuilder, KillContainerOptions, RemoveContainerOptionsBuilder,
        StartContainerOptions,
    },
};
use futures::TryStreamExt as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::process::Child;

use super::{
    eventually,
    host::{image, in_hierarchies, missing, names, on_path, sweep},
};

/// The image that every engine has: busybox, and nothing else.
pub(crate) const IMAGE: &str = "weir-test:busybox";

/// What it takes to run one.
const PROGRAMS: [&str; 5] = ["dockerd", "containerd", "runc", "tar", "ip"];

/// How many networks this process made: no two may overlap.
static NETWORKS: AtomicUsize = AtomicUsize::new(0);

/// A running engine.
pub(crate) struct Dockerd {
    directory: TempDir,
    arguments: Vec<String>,
    daemon: Option<Child>,
    client: Docker,
    bridges: Vec<String>,
}

impl Dockerd {
    /// Starts one and gives it an image; where that cannot be it says `skipped: why` and gives nothing.
    pub(crate) async fn start_or_skip() -> Option<Self> {
        Self::start_with(|_| Vec::new()).await
    }

    /// The same, listening for TLS on loopback too; its certificates, and those of a client that it trusts, are in [`Self::certificates`].
    pub(crate) async fn start_with_tls_or_skip() -> Option<Self> {
        if on_path("openssl").is_none() {
            eprintln!("skipped: there is no openssl here");
            return None;
        }
        Self::start_with(|directory| {
            let certificates = directory.join("certificates");
            super::certificates::make(&certificates);
            let file = |name: &str| certificates.join(name).display().to_string();
            let listen = ["--host", "tcp://127.0.0.1:0", "--tlsverify"].map(str::to_owned);
            let files = ["--tlscacert", "--tlscert", "--tlskey"].into_iter().zip([
                "ca.pem",
                "server-cert.pem",
                "server-key.pem",
            ]);
            listen.into_iter().chain(files.flat_map(|(option, name)| [option.to_owned(), file(name)])).collect()
        })
        .await
    }

    async fn start_with(arguments: impl FnOnce(&Path) -> Vec<String>) -> Option<Self> {
        if let Some(why) = missing(&PROGRAMS) {
            eprintln!("skipped: {why}");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("weir-dockerd-").tempdir().unwrap();
        let arguments = arguments(directory.path());
        let daemon = Some(spawn(directory.path(), &arguments));
        let client = connect(directory.path()).await;
        let engine = Self { directory, arguments, daemon, client, bridges: Vec::new() };
        engine.import().await;
        Some(engine)
    }

    /// The value of `DOCKER_HOST`.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.directory.path().join("docker.sock").display())
    }

    /// The address for TLS: the log tells the port.
    pub(crate) async fn tcp(&self) -> String {
        let log = self.directory.path().join("log");
        let port = eventually("port in the log", || {
            let text = fs::read_to_string(&log).ok()?;
            let (_, after) = text.split_once("API listen on 127.0.0.1:")?;
            after.split(|character: char| !character.is_ascii_digit()).next().map(str::to_owned)
        });
        format!("tcp://127.0.0.1:{}", port.await)
    }

    /// `ca.pem`, `cert.pem` and `key.pem` of a client.
    pub(crate) fn certificates(&self) -> PathBuf {
        self.directory.path().join("certificates")
    }

    pub(crate) fn client(&self) -> &Docker {
        &self.client
    }

    /// A directory that containers may mount as `/out`.
    pub(crate) fn shared(&self) -> PathBuf {
        self.directory.path().join("out")
    }

    /// Kills the daemon; the containers go on.
    pub(crate) async fn kill(&mut self) {
        self.daemon.take().unwrap().kill().await.unwrap();
        // Its containerd dies with it, but not at once.
        let pid_file = self.directory.path().join("exec/containerd/containerd.pid");
        let pid: i32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
        let gone = || matches!(state_of(pid), None | Some('Z')).then_some(());
        eventually("end of containerd", gone).await;
        // Nobody may have reaped it yet, and a daemon takes what is not reaped for alive.
        fs::remove_file(pid_file).unwrap();
    }

    /// Starts the daemon again and waits until it answers.
    pub(crate) async fn restart(&mut self) {
        self.daemon = Some(spawn(self.directory.path(), &self.arguments));
        self.client = connect(self.directory.path()).await;
    }

    /// Stops the daemon in its tracks: it takes connections and answers none.
    pub(crate) fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = self.daemon.as_ref().and_then(Child::id).unwrap();
        kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
    }

    /// A bridge network with both families. Returns its id.
    pub(crate) async fn network(&mut self, name: &str) -> String {
        let unique = (std::process::id() as usize * 8 + NETWORKS.fetch_add(1, Ordering::Relaxed)) % (64 << 8);
        let (high, low) = (128 + (unique >> 8), unique & 255);
        let subnet = |subnet: String, gateway: String| IpamConfig {
            subnet: Some(subnet),
            gateway: Some(gateway),
            ..IpamConfig::default()
        };
        let config = vec![
            subnet(format!("10.{high}.{low}.0/24"), format!("10.{high}.{low}.1")),
            subnet(format!("fd00:77ee:{unique:x}::/64"), format!("fd00:77ee:{unique:x}::1")),
        ];
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            enable_ipv6: Some(true),
            ipam: Some(Ipam { config: Some(config), ..Ipam::default() }),
            ..NetworkCreateRequest::default()
        };
        let id = self.client.create_network(request).await.unwrap().id;
        self.bridges.push(format!("br-{}", &id[..12]));
        id
    }

    /// Creates a container that runs `script`. Returns its id.
    pub(crate) async fn create(&self, name: &str, script: &str, host: HostConfig) -> String {
        self.create_with(name, script, host, HashMap::new()).await
    }

    /// The same with labels.
    pub(crate) async fn create_with(
        &self,
        name: &str,
        script: &str,
        mut host: HostConfig,
        labels: HashMap<String, String>,
    ) -> String {
        host.binds = Some(vec![format!("{}:/out", self.shared().display())]);
        host.network_mode.get_or_insert("none".to_owned());
        let body = ContainerCreateBody {
            image: Some(IMAGE.to_owned()),
            cmd: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
            labels: Some(labels),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        self.client.create_container(Some(options), body).await.unwrap().id
    }

    pub(crate) async fn start(&self, id: &str) {
        self.client.start_container(id, None::<StartContainerOptions>).await.unwrap();
    }

    /// Creates and starts.
    pub(crate) async fn run(&self, name: &str, script: &str, host: HostConfig) -> String {
        let id = self.create(name, script, host).await;
        self.start(&id).await;
        id
    }

    /// Sends SIGKILL to a container.
    pub(crate) async fn kill_container(&self, id: &str) {
        self.client.kill_container(id, None::<KillContainerOptions>).await.unwrap();
    }

    pub(crate) async fn remove(&self, id: &str) {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        self.client.remove_container(id, Some(options)).await.unwrap();
    }

    /// Waits until a container has made a file in `/out`.
    pub(crate) async fn made(&self, file: &str) {
        let path = self.shared().join(file);
        eventually(&format!("{file} in /out"), || path.exists().then_some(())).await;
    }

    async fn import(&self) {
        fs::create_dir_all(self.shared()).unwrap();
        let tar = image(self.directory.path());
        let (repo, tag) = IMAGE.split_once(':').unwrap();
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(repo).tag(tag).build();
        let body = bollard::body_full(tar.into());
        self.client.create_image(Some(options), Some(body), None).try_collect::<Vec<_>>().await.unwrap();
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        let root = self.directory.path();
        if let Some(daemon) = self.daemon.as_ref().and_then(Child::id) {
            let _gone = kill(Pid::from_raw(daemon.cast_signed()), Signal::SIGKILL);
        }
        let containers = names(&root.join("data/containers"));
        let cgroups: Vec<_> = containers.iter().flat_map(|id| cgroups_of(id)).collect();
        sweep(root, &cgroups);
        for bridge in &self.bridges {
            let _gone = Command::new("ip").args(["link", "delete", bridge]).stderr(Stdio::null()).status();
        }
    }
}

fn spawn(directory: &Path, arguments: &[String]) -> Child {
    let log = fs::File::options().append(true).create(true).open(directory.join("log")).unwrap();
    tokio::process::Command::new(on_path("dockerd").unwrap())
        .arg("--data-root")
        .arg(directory.join("data"))
        .arg("--exec-root")
        .arg(directory.join("exec"))
        .arg("--pidfile")
        .arg(directory.join("pid"))
        .arg("--host")
        .arg(format!("unix://{}", directory.join("docker.sock").display()))
        // The host's own bridge, filters and forwarding are none of its business.
        .args(["--bridge", "none", "--iptables=false", "--ip-forward=false", "--ip-masq=false", "--live-restore"])
        .args(arguments)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

async fn connect(directory: &Path) -> Docker {
    let socket = directory.join("docker.sock").display().to_string();
    let mut poll = tokio::time::interval(Duration::from_millis(50));
    let deadline = tokio::time::Instant::now() + Duration::from_mins(1);
    loop {
        poll.tick().await;
        if let Ok(client) = Docker::connect_with_unix(&socket, 60, API_DEFAULT_VERSION)
            && let Ok(client) = client.negotiate_version().await
        {
            return client;
        }
        let log = || fs::read_to_string(directory.join("log")).unwrap_or_default();
        assert!(tokio::time::Instant::now() < deadline, "dockerd does not answer:\n{}", log());
    }
}

/// The state of a process, as one letter (proc(5)).
fn state_of(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The container's directory in every hierarchy.
fn cgroups_of(id: &str) -> Vec<PathBuf> {
    let scope = format!("system.slice/docker-{id}.scope");
    [format!("docker/{id}"), scope].iter().flat_map(|path| in_hierarchies(path)).collect()
}
