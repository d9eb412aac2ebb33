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
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tempfile::TempDir;
use tokio::process::Child;

use super::eventually;

/// The image that every engine has: busybox, and nothing else.
pub(crate) const IMAGE: &str = "weir-test:busybox";
const APPLETS: [&str; 16] = [
    "sh", "dd", "cat", "nc", "ping", "sleep", "true", "false", "touch", "mkdir", "rm", "sync", "test", "kill", "env",
    "yes",
];

/// How many networks this process made: no two may overlap.
static NETWORKS: AtomicUsize = AtomicUsize::new(0);

/// A running engine.
pub(crate) struct Dockerd {
    directory: TempDir,
    daemon: Option<Child>,
    client: Docker,
    bridges: Vec<String>,
}

impl Dockerd {
    /// Starts one and gives it an image; where that cannot be it says `skipped: why` and gives nothing.
    pub(crate) async fn start_or_skip() -> Option<Self> {
        if let Some(why) = missing() {
            eprintln!("skipped: {why}");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("weir-dockerd-").tempdir().unwrap();
        let daemon = Some(spawn(directory.path()));
        let client = connect(directory.path()).await;
        let engine = Self { directory, daemon, client, bridges: Vec::new() };
        engine.import().await;
        Some(engine)
    }

    /// The value of `DOCKER_HOST`.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.directory.path().join("docker.sock").display())
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
        self.daemon = Some(spawn(self.directory.path()));
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
        let root = self.directory.path().join("image");
        for directory in ["bin", "tmp", "data"] {
            fs::create_dir_all(root.join(directory)).unwrap();
        }
        fs::copy(busybox().unwrap(), root.join("bin/busybox")).unwrap();
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let tar = Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).output().unwrap();
        let (repo, tag) = IMAGE.split_once(':').unwrap();
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(repo).tag(tag).build();
        let body = bollard::body_full(tar.stdout.into());
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
        // First the shims, so that nobody restarts anything; they and containerd have the directory in their command line.
        for process in processes_of(root) {
            let _gone = kill(process, Signal::SIGKILL);
        }
        let cgroups: Vec<_> = containers.iter().flat_map(|id| cgroups_of(id)).collect();
        for _ in 0..200 {
            let inside: Vec<_> = cgroups.iter().flat_map(|cgroup| members(cgroup)).collect();
            if inside.is_empty() {
                break;
            }
            for process in inside {
                let _gone = kill(process, Signal::SIGKILL);
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        for cgroup in cgroups {
            let _gone = fs::remove_dir(cgroup);
        }
        for mount in mounts_below(root) {
            let _gone = umount2(&mount, MntFlags::MNT_DETACH);
        }
        for bridge in &self.bridges {
            let _gone = Command::new("ip").args(["link", "delete", bridge]).stderr(Stdio::null()).status();
        }
    }
}

/// Why there can be no engine here.
fn missing() -> Option<String> {
    if !geteuid().is_root() {
        return Some("a Docker engine of its own needs root".to_owned());
    }
    for program in ["dockerd", "containerd", "runc", "tar", "ip"] {
        if on_path(program).is_none() {
            return Some(format!("there is no {program} here"));
        }
    }
    if busybox().is_none() {
        return Some("there is no static busybox here to make an image of (Debian: busybox-static)".to_owned());
    }
    None
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// A busybox without a dynamic loader, which a container would not have.
fn busybox() -> Option<PathBuf> {
    on_path("busybox").filter(|file| {
        fs::read(file)
            .is_ok_and(|bytes| !bytes.windows(10).any(|window| window == b"/ld-linux-" || window == b"/ld-musl-x"))
    })
}

fn spawn(directory: &Path) -> Child {
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

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn processes_of(root: &Path) -> Vec<Pid> {
    let needle = root.display().to_string();
    let own = std::process::id();
    names(Path::new("/proc"))
        .iter()
        .filter_map(|name| name.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&needle))
        })
        .map(|pid| Pid::from_raw(pid.cast_signed()))
        .collect()
}

/// The container's directory in every hierarchy.
fn cgroups_of(id: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    std::iter::once(root.to_owned())
        .chain(names(root).into_iter().map(|name| root.join(name)))
        .flat_map(|hierarchy| {
            [hierarchy.join("docker").join(id), hierarchy.join(format!("system.slice/docker-{id}.scope"))]
        })
        .filter(|directory| directory.is_dir())
        .collect()
}

fn members(cgroup: &Path) -> Vec<Pid> {
    let processes = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    processes.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1).map(Pid::from_raw).collect()
}

/// The innermost first.
fn mounts_below(root: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut below: Vec<_> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|mount| mount.starts_with(root))
        .collect();
    below.reverse();
    below
}
