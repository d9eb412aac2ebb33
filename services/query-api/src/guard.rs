//! Who may ask.
//!
//! Without a token everybody on this host may, and nobody else: the API then listens on a loopback address. A web page that the user
//! looks at also runs on this host, so requests must be meant for us by name (a page that rebinds its own name to 127.0.0.1 keeps its
//! name in `Host`), and what changes something must not come from a page of another origin.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, Uri, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use sha2::{Digest as _, Sha256};

use crate::{App, Error};

pub(crate) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match allowed(&app, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn allowed(app: &App, request: &Request) -> Result<(), Error> {
    let headers = request.headers();
    let host = host(request.uri(), headers);
    match app.config.token() {
        // With a token any name will do: a page that took the name does not know the token.
        Some(token) if request.uri().path().starts_with("/api") && !carries(headers, token) => {
            return Err(Error::Unauthorized);
        }
        None if !is_ours(app, host.as_deref()) => return Err(Error::Host(host.unwrap_or_default())),
        _ => {}
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    match headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("")) {
        Some(origin) if !reads && !same_origin(origin, host.as_deref()) => Err(Error::Origin(origin.to_owned())),
        _ => Ok(()),
    }
}

/// The authority that the request names: in its target (HTTP/2) or its Host header.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let named = uri.authority().map(Authority::as_str);
    named.or_else(|| headers.get(header::HOST)?.to_str().ok()).map(str::to_ascii_lowercase)
}

fn is_ours(app: &App, host: Option<&str>) -> bool {
    let Some(host) = host else { return false };
    let name = without_port(host);
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    name == "localhost"
        || address.is_some_and(|address| address.is_loopback() || address == app.address.ip())
        || app.config.allowed_host.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

fn same_origin(origin: &str, host: Option<&str>) -> bool {
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| host.is_some_and(|host| authority.eq_ignore_ascii_case(host)))
}

fn carries(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given =
        given.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    // Comparing hashes takes a time that tells nothing about the token.
    given.is_some_and(|(_, given)| Sha256::digest(given.trim()) == Sha256::digest(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_no_part_of_the_name() {
        for (host, name) in
            [("localhost:8080", "localhost"), ("[::1]:8080", "[::1]"), ("[::1]", "[::1]"), ("a.example", "a.example")]
        {
            assert_eq!(without_port(host), name);
        }
    }

    #[test]
    fn an_origin_is_ours_when_it_is_where_the_request_went() {
        assert!(same_origin("http://localhost:8080", Some("localhost:8080")));
        for origin in ["http://localhost:9090", "http://evil.example", "null", "", "file://localhost:8080"] {
            assert!(!same_origin(origin, Some("localhost:8080")), "{origin}");
        }
        assert!(!same_origin("http://localhost:8080", None));
    }
}
