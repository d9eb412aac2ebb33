//! One event to one receiver.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::Timestamp;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use sha2::Sha256;

use super::Hook;
use crate::{captures::hex, feed::Row};

/// How long one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after the first attempt; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// What became of an event.
pub(super) enum Outcome {
    Delivered,
    /// For good.
    Refused(String),
}

/// How requests go out: to where the file says, and not on from there.
pub(super) type Poster = Client<HttpsConnector<HttpConnector>, Body>;

/// A client cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// Its TLS.
    #[error("TLS cannot be used")]
    Tls(#[from] rustls::Error),
    /// The authorities.
    #[error("cannot read the authorities in {path}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
}

/// Certificates are checked against the authorities of the file, else against Mozilla's roots.
pub(super) fn client(ca_file: Option<&Path>) -> Result<Poster, ClientError> {
    let provider = rustls::crypto::ring::default_provider();
    let builder = HttpsConnectorBuilder::new();
    let builder = match ca_file {
        None => builder.with_provider_and_webpki_roots(provider)?,
        Some(path) => builder.with_tls_config(
            ClientConfig::builder_with_provider(Arc::new(provider))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(authorities(path)?)
                .with_no_client_auth(),
        ),
    };
    let connector = builder.https_or_http().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

fn authorities(path: &Path) -> Result<RootCertStore, ClientError> {
    let unreadable = |source| ClientError::Authorities { path: path.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?)?;
    }
    if roots.is_empty() {
        return Err(unreadable(rustls::pki_types::pem::Error::NoItemsFound));
    }
    Ok(roots)
}

/// Why an attempt gave no answer.
#[derive(Debug, thiserror::Error)]
enum PostError {
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("the request cannot be made")]
    Request(#[from] axum::http::Error),
    #[error("the receiver cannot be asked")]
    Connection(#[from] hyper_util::client::legacy::Error),
}

/// A hook with what is needed to serve it.
pub(super) struct Delivery {
    client: Poster,
    hook: Hook,
}

impl Delivery {
    pub(super) fn new(hook: Hook) -> Result<Self, ClientError> {
        Ok(Self { client: client(hook.ca_file.as_deref())?, hook })
    }

    pub(super) fn name(&self) -> &str {
        &self.hook.name
    }

    pub(super) fn wants(&self, row: &Row) -> bool {
        self.hook.filter.fits(row)
    }

    /// The body of the request.
    pub(super) fn body(&self, id: &str, row: Row) -> Vec<u8> {
        let mut event = row.columns;
        event.insert("host".into(), row.host.into());
        event.insert("container_id".into(), row.container_id.into());
        json!({ "id": id, "webhook": self.hook.name, "event": Value::Object(event) }).to_string().into_bytes()
    }

    /// Posts until the receiver takes it, refuses it for good, or the attempts are used up.
    pub(super) async fn attempt(&self, id: &str, body: &[u8]) -> Outcome {
        let mut pause = FIRST_PAUSE;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let reason = match self.post(id, body).await {
                Ok(status) if status.is_success() => return Outcome::Delivered,
                Ok(status) if is_final(status) => return Outcome::Refused(format!("the receiver answers {status}")),
                Ok(status) => format!("the receiver answers {status}"),
                Err(error) => weir_service::chain(&error),
            };
            if attempts >= self.hook.attempts {
                return Outcome::Refused(format!("{attempts} attempts, the last: {reason}"));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn post(&self, id: &str, body: &[u8]) -> Result<StatusCode, PostError> {
        let timestamp = Timestamp::now().as_second().to_string();
        let signature = signature(&self.hook.secret, &timestamp, body);
        let request = Request::post(&self.hook.url)
            .header("Content-Type", "application/json")
            .header("User-Agent", concat!("weir/", env!("CARGO_PKG_VERSION")))
            .header("Weir-Delivery", id)
            .header("Weir-Timestamp", timestamp)
            .header("Weir-Signature", format!("sha256={signature}"))
            .body(Body::from(body.to_vec()))?;
        let response = tokio::time::timeout(TIMEOUT, self.client.request(request)).await;
        // What the receiver says beside the status is not read.
        Ok(response.map_err(|_| PostError::Timeout)??.status())
    }
}

/// Whether trying again would give the same.
fn is_final(status: StatusCode) -> bool {
    let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    !status.is_server_error() && !again.contains(&status)
}

/// HMAC-SHA256 of the time, a full stop and the body, hexadecimal.
fn signature(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key may have any length");
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    hex(&mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_that_of_other_programs() {
        // printf '1.{}' | openssl dgst -sha256 -hmac key
        assert_eq!(signature("key", "1", b"{}"), "1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224");
        assert!(is_final(StatusCode::NOT_FOUND) && is_final(StatusCode::FOUND));
        assert!(!is_final(StatusCode::BAD_GATEWAY) && !is_final(StatusCode::TOO_MANY_REQUESTS));
    }
}
