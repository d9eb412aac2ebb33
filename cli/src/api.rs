//! The HTTP client of query-api.

use anyhow::{Context, Result};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;

use crate::args;
use crate::instance::Instance;

/// Where the API is when nobody says.
const DEFAULT: &str = "http://127.0.0.1:8080";

/// A client of one API.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    client: Client,
    base: String,
    token: Option<String>,
}

/// RFC 9457.
#[derive(Debug, Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: Option<String>,
    title: Option<String>,
    detail: Option<String>,
}

impl Api {
    /// The API that the options name, else that of the running instance, else the default one.
    pub(crate) fn find(options: &args::Api) -> Result<Self> {
        let base = match &options.url {
            Some(url) => {
                reqwest::Url::parse(url).map_err(|error| args::Usage(format!("--api {url}: {error}")))?;
                url.trim_end_matches('/').to_owned()
            }
            // An instance of somebody else, which this user may not read, is not theirs to ask by default.
            None => Instance::find(&options.instance)
                .and_then(|instance| instance.state())
                .ok()
                .flatten()
                .map_or_else(|| DEFAULT.to_owned(), |state| state.api),
        };
        Ok(Self { client: Client::new(), base, token: options.token.clone() })
    }

    /// A GET of `/api/v1` + `path`.
    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.authorized(self.client.get(self.url(path)))
    }

    /// A POST to `/api/v1` + `path`.
    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.authorized(self.client.post(self.url(path)))
    }

    /// A DELETE of `/api/v1` + `path`.
    pub(crate) fn delete(&self, path: &str) -> RequestBuilder {
        self.authorized(self.client.delete(self.url(path)))
    }

    /// Sends a request; an answer other than 2xx becomes an error that says what the API says.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let answer = request.send().await.map_err(|error| self.explain(error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = answer.text().await.unwrap_or_default();
        anyhow::bail!("{}", problem(status, &body))
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.base)
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    fn explain(&self, error: reqwest::Error) -> anyhow::Error {
        let context = if error.is_connect() {
            format!("no API answers on {}: is `weir up` running? see `weir status`, or say --api URL", self.base)
        } else {
            format!("the API on {} did not answer", self.base)
        };
        anyhow::Error::from(error.without_url()).context(context)
    }
}

/// Reads an answer as JSON.
pub(crate) async fn json<T: serde::de::DeserializeOwned>(answer: Response) -> Result<T> {
    let body = answer.bytes().await.context("the answer broke off")?;
    serde_json::from_slice(&body).context("the answer is not what this version of weir understands")
}

/// Title and detail of a problem, and what to do about it; the start of the body when it is none.
fn problem(status: StatusCode, body: &str) -> String {
    let problem: Option<Problem> = serde_json::from_str(body).ok();
    let next = problem.as_ref().and_then(|problem| next_step(problem.kind.as_deref()?));
    let said = match problem {
        Some(Problem { title: Some(title), detail: Some(detail), .. }) if detail != title => {
            format!("{title}: {detail}")
        }
        Some(Problem { title: Some(text), .. } | Problem { detail: Some(text), .. }) => text,
        _ => {
            let start: String = body.trim().chars().take(300).collect();
            if start.is_empty() {
                format!("the API answered {status}")
            } else {
                format!("the API answered {status}: {start}")
            }
        }
    };
    match next {
        Some(next) => format!("{said} ({next})"),
        None => said,
    }
}

/// The command that helps, where there is one.
fn next_step(kind: &str) -> Option<&'static str> {
    Some(match kind.strip_prefix("urn:weir:problem:")? {
        "capture-not-ready" => "how far it is: weir captures show CAPTURE",
        "capture-expired" => "to have it again: weir upload FILE",
        "capture-in-hand" => "to end it: weir captures cancel CAPTURE",
        "capture-has-ended" => {
            "to analyse it again: weir captures analyse CAPTURE; to be rid of it: weir captures delete CAPTURE"
        }
        "capture-quota" | "no-room" => "what there is: weir captures list; to make room: weir captures delete CAPTURE",
        "report-version" => "weir captures analyse CAPTURE --wait",
        "no-worker" | "nats-away" | "clickhouse-away" => "what is not ready, and why: weir status",
        "unauthorized" => "weir takes it as --api-token or WEIR_API_TOKEN",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_by_title_and_detail() {
        let body = r#"{"type":"x","title":"bad filter","detail":"unknown column foo","status":400}"#;
        assert_eq!(problem(StatusCode::BAD_REQUEST, body), "bad filter: unknown column foo");
        assert_eq!(problem(StatusCode::BAD_GATEWAY, "<html>"), "the API answered 502 Bad Gateway: <html>");
        assert_eq!(problem(StatusCode::NOT_FOUND, ""), "the API answered 404 Not Found");
        let body = r#"{"type":"urn:weir:problem:capture-in-hand","title":"not at an end yet","status":409}"#;
        assert_eq!(problem(StatusCode::CONFLICT, body), "not at an end yet (to end it: weir captures cancel CAPTURE)");
    }
}
