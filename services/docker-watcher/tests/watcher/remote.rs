//! An engine that is not at the socket: TLS, contexts.

use std::{fs, path::Path};

use bollard::models::HostConfig;
use sha2::{Digest as _, Sha256};

use crate::support::{dockerd::Dockerd, eventually, watching::Watching};

/// Whether a container of the engine appears with a life, its events and a sample.
async fn is_watched(engine: &Dockerd, watching: &Watching, name: &str) {
    watching.ready().await;
    let id = engine.run(name, "sleep 1000", HostConfig::default()).await;
    let records = watching
        .records("life, start and sample", |records| {
            let all = !records.lives(&id).is_empty() && records.event(&id, "start").is_some();
            (all && !records.samples(&id).is_empty()).then(|| records.clone())
        })
        .await;
    let (life, sample) = (records.lives(&id)[0], records.samples(&id)[0]);
    assert_eq!((life.name.as_str(), life.runtime.as_str(), life.tier.as_str()), (name, "docker", "api"));
    assert_eq!((sample.runtime.as_str(), sample.tier.as_str()), ("docker", "api"));
    assert!(life.source.starts_with("docker tcp://127.0.0.1:"), "{}", life.source);
    assert_eq!(life.cgroup_id, 0, "a process of another host is nobody here");
}

/// Writes a context as `docker context create` does, and makes it the current one.
fn make_context(config: &Path, host: &str, certificates: &Path) {
    let directory = Sha256::digest(b"far").iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    let (meta, tls) =
        (config.join("contexts/meta").join(&directory), config.join("contexts/tls").join(&directory).join("docker"));
    fs::create_dir_all(&meta).unwrap();
    fs::create_dir_all(&tls).unwrap();
    let json = serde_json::json!({"Name": "far", "Metadata": {}, "Endpoints": {"docker": {"Host": host, "SkipTLSVerify": false}}});
    fs::write(meta.join("meta.json"), json.to_string()).unwrap();
    for file in ["ca.pem", "cert.pem", "key.pem"] {
        fs::copy(certificates.join(file), tls.join(file)).unwrap();
    }
    fs::write(config.join("config.json"), r#"{"currentContext":"far"}"#).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_is_watched_over_tls_by_its_address_and_by_a_context() {
    let Some(engine) = Dockerd::start_with_tls_or_skip().await else { return };
    let host = engine.tcp().await;
    let certificates = engine.certificates().display().to_string();
    let options = ["--docker-tls-verify", "1", "--docker-cert-path", &certificates, "--docker-api-version", "1.41"];
    let Some(watching) = Watching::start_or_skip(&host, &options).await else { return };
    is_watched(&engine, &watching, "by-address").await;
    drop(watching);

    let config = tempfile::tempdir().unwrap();
    make_context(config.path(), &host, &engine.certificates());
    let config = config.path().display().to_string();
    let Some(watching) = Watching::start_or_skip("", &["--docker-config", &config]).await else { return };
    is_watched(&engine, &watching, "by-context").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_cannot_prove_who_it_is_is_not_watched() {
    let Some(engine) = Dockerd::start_with_tls_or_skip().await else { return };
    let strangers = tempfile::tempdir().unwrap();
    crate::support::certificates::make(strangers.path());
    let certificates = strangers.path().display().to_string();
    let options = ["--docker-tls-verify", "1", "--docker-cert-path", &certificates];
    let Some(watching) = Watching::start_or_skip(&engine.tcp().await, &options).await else { return };
    eventually("word of the certificate", || watching.unmet("docker").filter(|reason| reason.contains("certificate")))
        .await;
}
