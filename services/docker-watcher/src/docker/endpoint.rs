//! Where the Docker engine is, found as `docker` finds it: `DOCKER_HOST`, else `DOCKER_CONTEXT` or the current context of
//! `~/.docker/config.json`, else the usual socket (docker/cli, `cli/command/cli.go`).

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use bollard::ClientVersion;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// Options of `docker` itself.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Options {
    /// Address of the engine: `unix:///path` or `tcp://host:port`; without it the context says, and then the usual socket
    #[arg(long, env = "DOCKER_HOST", value_name = "URL", default_value = "", hide_default_value = true)]
    pub docker_host: OptionalHost,
    /// Speak TLS with a `tcp://` engine, and check its certificate; any value but the empty one means yes, as for `docker`
    #[arg(long, env = "DOCKER_TLS_VERIFY", value_name = "1", default_value = "", hide_default_value = true)]
    pub docker_tls_verify: String,
    /// Directory of `ca.pem`, `cert.pem` and `key.pem`; without it the directory of `config.json`
    #[arg(long, env = "DOCKER_CERT_PATH", value_name = "DIRECTORY")]
    pub docker_cert_path: Option<PathBuf>,
    /// Version of the engine's API, for example `1.41`; without it the newest that both know
    #[arg(long, env = "DOCKER_API_VERSION", value_name = "VERSION", default_value = "", hide_default_value = true)]
    pub docker_api_version: String,
    /// Name of the context that says where the engine is; an address takes precedence
    #[arg(long, env = "DOCKER_CONTEXT", value_name = "NAME", default_value = "", hide_default_value = true)]
    pub docker_context: String,
    /// Directory of `docker`'s `config.json` and contexts; without it `~/.docker`
    #[arg(long, env = "DOCKER_CONFIG", value_name = "DIRECTORY")]
    pub docker_config: Option<PathBuf>,
}

impl Options {
    /// Whether somebody said where the engine is.
    #[must_use]
    pub fn is_explicit(&self) -> bool {
        self.docker_host.0.is_some() || !self.docker_context.is_empty()
    }

    /// Where the engine is.
    pub fn endpoint(&self) -> Result<Endpoint, EndpointError> {
        let version = match self.docker_api_version.as_str() {
            "" => None,
            text => Some(version(text).ok_or_else(|| EndpointError::Version(text.to_owned()))?),
        };
        let config = self.docker_config.clone().or_else(|| Some(std::env::home_dir()?.join(".docker")));
        let host = match (&self.docker_host.0, &config) {
            (Some(host), _) => host.clone(),
            (None, Some(config)) => match context(&self.docker_context, config)? {
                Some(context) => return Ok(Endpoint { version, ..context }),
                None => DockerHost::default(),
            },
            (None, None) => DockerHost::default(),
        };
        let has_tls = matches!(host, DockerHost::Tcp(_)) && !self.docker_tls_verify.is_empty();
        let tls = match self.docker_cert_path.clone().filter(|path| !path.as_os_str().is_empty()).or(config) {
            Some(directory) if has_tls => Some(Tls::in_directory(&directory)?),
            _ => None,
        };
        Ok(Endpoint { host, tls, version })
    }
}

/// Why the engine's address cannot be known.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// A file that must be there cannot be read.
    #[error("cannot read {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of `docker` is not what it should be.
    #[error("{path} is not what docker writes")]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// There is no such context.
    #[error("there is no docker context {name:?}: `docker context ls` lists them")]
    NoContext {
        /// Its name.
        name: String,
    },
    /// A context without an engine that Weir can reach.
    #[error("the docker context {name:?} says {host:?}, which is not unix:///path or tcp://host:port")]
    Host {
        /// Its name.
        name: String,
        /// Its address.
        host: String,
    },
    /// A context that does not want to know whom it talks to.
    #[error(
        "the docker context {name:?} skips the check of the engine's certificate: give it the certificate's authority instead"
    )]
    Unverified {
        /// Its name.
        name: String,
    },
    /// Not a version.
    #[error("DOCKER_API_VERSION {0:?} is not like 1.41")]
    Version(String),
}

/// An engine's address and how to speak with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub host: DockerHost,
    /// With which certificates; `None` = without TLS.
    pub tls: Option<Tls>,
    /// In which version, major and minor; `None` = the newest that both know.
    pub version: Option<(usize, usize)>,
}

impl Endpoint {
    /// The engine at an address, without TLS.
    #[must_use]
    pub fn new(host: DockerHost) -> Self {
        Self { host, tls: None, version: None }
    }

    pub(super) fn client_version(&self) -> Option<ClientVersion> {
        self.version.map(|(major_version, minor_version)| ClientVersion { major_version, minor_version })
    }
}

/// Files with certificates in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Who may sign the engine's certificate.
    pub authority: PathBuf,
    /// This client's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Tls {
    fn in_directory(directory: &Path) -> Result<Self, EndpointError> {
        let file = |name| {
            let path = directory.join(name);
            match fs::metadata(&path) {
                Ok(_) => Ok(path),
                Err(source) => Err(EndpointError::File { path, source }),
            }
        };
        Ok(Self { authority: file("ca.pem")?, certificate: file("cert.pem")?, key: file("key.pem")? })
    }
}

fn version(text: &str) -> Option<(usize, usize)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[derive(Default, Deserialize)]
struct ConfigFile {
    #[serde(rename = "currentContext", default)]
    current_context: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Meta {
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: Option<ContextEndpoint>,
}

#[derive(Deserialize)]
struct ContextEndpoint {
    #[serde(rename = "Host", default)]
    host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    skip_tls_verify: bool,
}

/// The engine of a context; `None` = the context is the default one, which says nothing. A context lies in the directories that the SHA-256
/// of its name names (docker/cli, `cli/context/store`).
fn context(name: &str, config: &Path) -> Result<Option<Endpoint>, EndpointError> {
    let name = if name.is_empty() { current_context(config)? } else { name.to_owned() };
    if name.is_empty() || name == "default" {
        return Ok(None);
    }
    let directory = directory_of(&name);
    let meta: Option<Meta> = json(&config.join("contexts/meta").join(&directory).join("meta.json"))?;
    let endpoint = meta.ok_or_else(|| EndpointError::NoContext { name: name.clone() })?.endpoints.docker;
    let ContextEndpoint { host, skip_tls_verify } =
        endpoint.ok_or_else(|| EndpointError::Host { name: name.clone(), host: String::new() })?;
    let address = host.parse().map_err(|NoHost| EndpointError::Host { name: name.clone(), host: host.clone() })?;
    let certificates = config.join("contexts/tls").join(directory).join("docker");
    let is_tcp = matches!(address, DockerHost::Tcp(_));
    if is_tcp && skip_tls_verify {
        return Err(EndpointError::Unverified { name });
    }
    let tls = if is_tcp && certificates.is_dir() { Some(Tls::in_directory(&certificates)?) } else { None };
    Ok(Some(Endpoint { host: address, tls, version: None }))
}

/// The directory of a context.
fn directory_of(name: &str) -> String {
    use fmt::Write as _;
    Sha256::digest(name.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

fn current_context(config: &Path) -> Result<String, EndpointError> {
    Ok(json::<ConfigFile>(&config.join("config.json"))?.unwrap_or_default().current_context)
}

/// Reads a file; `None` = there is none.
fn json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>, EndpointError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(EndpointError::File { path: path.to_owned(), source }),
    };
    serde_json::from_slice(&text).map(Some).map_err(|source| EndpointError::Json { path: path.to_owned(), source })
}

/// Where the engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerHost {
    /// A socket on this host.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// The socket of an engine that was installed in the usual way.
impl Default for DockerHost {
    fn default() -> Self {
        Self::Unix("/var/run/docker.sock".into())
    }
}

/// An address of the engine that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("not unix:///path or tcp://host:port")]
pub struct NoHost;

impl FromStr for DockerHost {
    type Err = NoHost;

    fn from_str(text: &str) -> Result<Self, NoHost> {
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(NoHost) };
        }
        let schemes = ["tcp://", "http://", "https://"];
        let address = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)).ok_or(NoHost)?;
        let address = address.trim_end_matches('/');
        if address.is_empty() || address.contains('/') { Err(NoHost) } else { Ok(Self::Tcp(address.to_owned())) }
    }
}

impl fmt::Display for DockerHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// An address, or the empty text: nobody said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptionalHost(pub Option<DockerHost>);

impl FromStr for OptionalHost {
    type Err = NoHost;

    fn from_str(text: &str) -> Result<Self, NoHost> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(|host| Self(Some(host))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(config: &Path) -> Options {
        Options { docker_config: Some(config.to_owned()), ..Options::default() }
    }

    /// Writes a context as `docker context create` does.
    fn create(config: &Path, name: &str, endpoint: &str) -> PathBuf {
        let directory = directory_of(name);
        let meta = config.join("contexts/meta").join(&directory);
        fs::create_dir_all(&meta).unwrap();
        let json = format!(r#"{{"Name":"{name}","Metadata":{{}},"Endpoints":{{"docker":{endpoint}}}}}"#);
        fs::write(meta.join("meta.json"), json).unwrap();
        config.join("contexts/tls").join(directory).join("docker")
    }

    fn certificates(directory: &Path) {
        fs::create_dir_all(directory).unwrap();
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            fs::write(directory.join(name), "").unwrap();
        }
    }

    #[test]
    fn an_address_is_a_socket_or_host_and_port() {
        let parse = |text: &str| text.parse::<DockerHost>().ok();
        assert_eq!(parse("unix:///run/x.sock"), Some(DockerHost::Unix("/run/x.sock".into())));
        assert_eq!(parse("tcp://127.0.0.1:2375"), Some(DockerHost::Tcp("127.0.0.1:2375".into())));
        for bad in ["", "x", "ssh://host", "unix://relative", "tcp://", "tcp://h/path"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn without_address_and_context_it_is_the_usual_socket() {
        let config = tempfile::tempdir().unwrap();
        let endpoint = options(config.path()).endpoint().unwrap();
        assert_eq!(endpoint, Endpoint::new(DockerHost::default()));
        fs::write(config.path().join("config.json"), r#"{"auths":{},"currentContext":"default"}"#).unwrap();
        assert_eq!(options(config.path()).endpoint().unwrap(), endpoint);
    }

    #[test]
    fn a_context_says_where_the_engine_is_and_an_address_takes_precedence() {
        let config = tempfile::tempdir().unwrap();
        fs::write(config.path().join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
        let tls = create(config.path(), "far", r#"{"Host":"tcp://192.0.2.1:2376","SkipTLSVerify":false}"#);
        certificates(&tls);
        create(config.path(), "near", r#"{"Host":"unix:///run/near.sock"}"#);

        let far = options(config.path()).endpoint().unwrap();
        assert_eq!(far.host, DockerHost::Tcp("192.0.2.1:2376".into()));
        assert_eq!(far.tls.unwrap().authority, tls.join("ca.pem"));
        let near = Options { docker_context: "near".into(), ..options(config.path()) };
        assert_eq!(near.endpoint().unwrap(), Endpoint::new(DockerHost::Unix("/run/near.sock".into())));
        let said = Options { docker_host: "unix:///run/said.sock".parse().unwrap(), ..near };
        assert_eq!(said.endpoint().unwrap().host, DockerHost::Unix("/run/said.sock".into()));
    }

    #[test]
    fn a_context_that_is_not_there_or_cannot_be_used_says_so() {
        let config = tempfile::tempdir().unwrap();
        create(config.path(), "ssh", r#"{"Host":"ssh://host"}"#);
        create(config.path(), "blind", r#"{"Host":"tcp://h:1","SkipTLSVerify":true}"#);
        create(config.path(), "broken", "7");
        let said = |name: &str| {
            let options = Options { docker_context: name.into(), ..options(config.path()) };
            options.endpoint().unwrap_err().to_string()
        };
        assert!(said("nowhere").contains("no docker context \"nowhere\""));
        assert!(said("ssh").contains("ssh://host"));
        assert!(said("blind").contains("skips the check"));
        assert!(said("broken").contains("meta.json"));
    }

    #[test]
    fn tls_needs_its_files_and_a_version_is_two_numbers() {
        let config = tempfile::tempdir().unwrap();
        let tcp = Options {
            docker_host: "tcp://192.0.2.1:2376".parse().unwrap(),
            docker_tls_verify: "1".into(),
            ..options(config.path())
        };
        assert!(tcp.endpoint().unwrap_err().to_string().contains("ca.pem"));
        let elsewhere = tempfile::tempdir().unwrap();
        certificates(elsewhere.path());
        let found = Options { docker_cert_path: Some(elsewhere.path().to_owned()), ..tcp.clone() }.endpoint().unwrap();
        assert_eq!(found.tls.unwrap().key, elsewhere.path().join("key.pem"));
        certificates(config.path());
        assert!(tcp.endpoint().unwrap().tls.is_some());
        let versioned = Options { docker_api_version: "1.41".into(), ..tcp.clone() };
        assert_eq!(versioned.endpoint().unwrap().version, Some((1, 41)));
        assert!(Options { docker_api_version: "new".into(), ..tcp }.endpoint().is_err());
    }
}
