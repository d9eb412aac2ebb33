//! A throwaway containerd with CRI: the real one with its own roots and socket.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::process::Child;
use tonic::{client::Grpc, codegen::http::uri::PathAndQuery, transport::Endpoint};
use tonic_prost::ProstCodec;

use super::{
    eventually,
    host::{image, in_hierarchies, missing, on_path, sweep},
};

/// The image that it has in every namespace; pods are made of it, too.
pub(crate) const IMAGE: &str = "weir.test/busybox:1";

/// A running containerd.
pub(crate) struct Containerd {
    directory: TempDir,
    daemon: Child,
}

impl Containerd {
    /// Starts one and gives it an image; where that cannot be it says `skipped: why` and gives nothing.
    pub(crate) async fn start_or_skip() -> Option<Self> {
        if let Some(why) = missing(&["containerd", "containerd-shim-runc-v2", "ctr", "runc", "tar"]) {
            eprintln!("skipped: {why}");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("weir-containerd-").tempdir().unwrap();
        let root = directory.path();
        fs::write(root.join("config.toml"), config(root)).unwrap();
        let log = fs::File::create(root.join("log")).unwrap();
        let daemon = tokio::process::Command::new(on_path("containerd").unwrap())
            .arg("--config")
            .arg(root.join("config.toml"))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let containerd = Self { directory, daemon };
        eventually("containerd that answers", || {
            let output = containerd.ctr("default", &["version"]);
            output.status.success().then_some(())
        })
        .await;
        let archive = archive(containerd.directory.path());
        for namespace in ["default", "k8s.io"] {
            containerd
                .run_ctr(namespace, &["images", "import", "--snapshotter", "native", &archive.display().to_string()]);
        }
        Some(containerd)
    }

    /// The path of its socket.
    pub(crate) fn socket(&self) -> String {
        self.directory.path().join("containerd.sock").display().to_string()
    }

    /// Runs a container in the namespace `default`.
    pub(crate) fn run(&self, id: &str, script: &str) {
        let options =
            ["run", "--detach", "--snapshotter", "native", "--label", "tier=web", IMAGE, id, "sh", "-c", script];
        self.run_ctr("default", &options);
    }

    /// Kills a container and removes it.
    pub(crate) async fn remove(&self, id: &str) {
        self.run_ctr("default", &["tasks", "kill", "--signal", "KILL", id]);
        eventually("end of the task", || self.ctr("default", &["tasks", "delete", id]).status.success().then_some(()))
            .await;
        self.run_ctr("default", &["containers", "delete", id]);
    }

    fn run_ctr(&self, namespace: &str, arguments: &[&str]) {
        let output = self.ctr(namespace, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn ctr(&self, namespace: &str, arguments: &[&str]) -> std::process::Output {
        Command::new("ctr")
            .args(["--address", &self.socket(), "--namespace", namespace])
            .args(arguments)
            .output()
            .unwrap()
    }

    /// Runs a pod on the host's network with one container. Returns the container's id.
    pub(crate) async fn pod(&self, name: &str, script: &str) -> String {
        let host = NamespaceOptions { network: 2, pid: 0, ipc: 0 };
        let config = PodConfig {
            metadata: Some(PodMetadata { name: name.to_owned(), uid: "u-1".to_owned(), namespace: "shop".to_owned() }),
            log_directory: self.directory.path().join("logs").display().to_string(),
            linux: Some(PodLinux {
                cgroup_parent: self.cgroup_parent(),
                security: Some(PodSecurity { namespaces: Some(host) }),
            }),
        };
        let pod: Id = self.cri("RunPodSandbox", RunPod { config: Some(config.clone()) }).await;
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "till".to_owned(), attempt: 3 }),
            image: Some(Image { image: IMAGE.to_owned() }),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            labels: [("tier".to_owned(), "web".to_owned())].into(),
        };
        let create = CreateContainer { pod: pod.id, config: Some(container), pod_config: Some(config) };
        let container: Id = self.cri("CreateContainer", create).await;
        let _started: Nothing = self.cri("StartContainer", container.clone()).await;
        container.id
    }

    /// Stops a container of a pod.
    pub(crate) async fn stop(&self, id: &str) {
        let _stopped: Nothing = self.cri("StopContainer", Id { id: id.to_owned() }).await;
    }

    /// Removes it.
    pub(crate) async fn delete(&self, id: &str) {
        let _removed: Nothing = self.cri("RemoveContainer", Id { id: id.to_owned() }).await;
    }

    fn cgroup_parent(&self) -> String {
        format!("/kubepods-{}", self.directory.path().file_name().unwrap().display())
    }

    async fn cri<Q, A>(&self, method: &str, question: Q) -> A
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let endpoint = Endpoint::from_shared(format!("unix://{}", self.socket())).unwrap();
        let mut grpc = Grpc::new(endpoint.connect().await.unwrap());
        grpc.ready().await.unwrap();
        let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}")).unwrap();
        let answer = grpc.unary(tonic::Request::new(question), path, ProstCodec::<Q, A>::default()).await;
        answer.unwrap_or_else(|status| panic!("{method}: {status}")).into_inner()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for namespace in ["default", "k8s.io"] {
            let listed = self.ctr(namespace, &["tasks", "list", "--quiet"]);
            for id in String::from_utf8_lossy(&listed.stdout).lines() {
                let _gone = self.ctr(namespace, &["tasks", "kill", "--all", "--signal", "KILL", id]);
            }
        }
        if let Some(pid) = self.daemon.id() {
            let _gone = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        let parent = in_hierarchies(self.cgroup_parent().trim_start_matches('/'));
        let below =
            |cgroup: &PathBuf| super::host::names(cgroup).into_iter().map(|name| cgroup.join(name)).collect::<Vec<_>>();
        let mut cgroups: Vec<_> = parent.iter().flat_map(below).filter(|path| path.is_dir()).collect();
        cgroups.extend(parent);
        sweep(self.directory.path(), &cgroups);
    }
}

fn config(root: &Path) -> String {
    let root = root.display();
    format!(
        r#"version = 2
root = "{root}/root"
state = "{root}/state"
[grpc]
  address = "{root}/containerd.sock"
[ttrpc]
  address = "{root}/ttrpc.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{root}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{root}/cni"
    conf_dir = "{root}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
"#
    )
}

/// An archive as `docker save` writes it, of an image that sleeps.
fn archive(directory: &Path) -> PathBuf {
    let layer = image(directory);
    let digest = Sha256::digest(&layer).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Cmd": ["sh", "-c", "sleep 1000"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]}
    });
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    let files = directory.join("archive");
    fs::create_dir_all(&files).unwrap();
    fs::write(files.join("layer.tar"), layer).unwrap();
    fs::write(files.join("config.json"), config.to_string()).unwrap();
    fs::write(files.join("manifest.json"), manifest.to_string()).unwrap();
    let archive = directory.join("image.tar");
    let mut tar = Command::new("tar");
    let tar = tar.arg("-C").arg(&files).arg("-cf").arg(&archive).args(["manifest.json", "config.json", "layer.tar"]);
    assert!(tar.stdout(Stdio::null()).status().unwrap().success());
    archive
}

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RunPod {
    #[prost(message, optional, tag = "1")]
    config: Option<PodConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<PodMetadata>,
    #[prost(string, tag = "3")]
    log_directory: String,
    #[prost(message, optional, tag = "8")]
    linux: Option<PodLinux>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodLinux {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    security: Option<PodSecurity>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodSecurity {
    #[prost(message, optional, tag = "1")]
    namespaces: Option<NamespaceOptions>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NamespaceOptions {
    #[prost(int32, tag = "1")]
    network: i32,
    #[prost(int32, tag = "2")]
    pid: i32,
    #[prost(int32, tag = "3")]
    ipc: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    pod: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    pod_config: Option<PodConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    image: Option<Image>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(btree_map = "string, string", tag = "9")]
    labels: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    attempt: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Image {
    #[prost(string, tag = "1")]
    image: String,
}
