//! The listener, and what every request passes.

use std::{
    io,
    sync::{Arc, LazyLock},
    time::Instant,
};

use anyhow::Context as _;
use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse as _, Response},
};
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{Instrument as _, Span, debug, field::Empty, info, info_span};
use utoipa::openapi::{
    ContentBuilder, OpenApi, Ref, RefOr, ResponseBuilder,
    schema::Schema,
    security::{Http, HttpAuthScheme, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;
use weir_service::{Shutdown, http};

use crate::{App, Config, Error, PROBLEM_JSON, Problem, extract::MAX_JSON_BYTES, guard, lingering, metrics, routes};

/// Listens, unless that would let other hosts ask without a token.
pub(crate) async fn listen(config: &Config) -> anyhow::Result<TcpListener> {
    anyhow::ensure!(
        config.listen.ip().is_loopback() || config.token().is_some(),
        "--listen {} is reachable from other hosts: set WEIR_API_TOKEN, or listen on 127.0.0.1",
        config.listen
    );
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on --listen {}", config.listen))?;
    info!(address = %listener.local_addr()?, "the API is up");
    Ok(listener)
}

/// Answers until told to stop, and then until what is in hand is answered, for a bounded time.
pub(crate) async fn serve(app: Arc<App>, listener: TcpListener, shutdown: Shutdown) {
    http::serve(listener, router(app), http::Limits::default(), shutdown).await;
}

/// All routes with all that requests pass.
fn router(app: Arc<App>) -> Router {
    let (router, _) = routes::all().split_for_parts();
    router
        .fallback(|| async { Error::NoRoute })
        .layer(DefaultBodyLimit::max(MAX_JSON_BYTES))
        .layer(from_fn_with_state(Arc::clone(&app), guard::check))
        .layer(from_fn_with_state(Arc::clone(&app), take_place))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(only_problems))
        .layer(from_fn_with_state(Arc::clone(&app), lingering::read_on))
        .layer(from_fn(observe))
        .with_state(app)
}

/// The description of the API, as `/api/v1/openapi.json` gives it.
#[must_use]
pub fn document() -> &'static str {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
        let mut document = describe(routes::all()).to_pretty_json().expect("the description has only strings as keys");
        document.push('\n');
        document
    });
    &DOCUMENT
}

fn describe(routes: OpenApiRouter<Arc<App>>) -> OpenApi {
    let (_, mut api) = routes.split_for_parts();
    let components = api.components.get_or_insert_default();
    let token = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let problem: RefOr<Schema> = <Problem as utoipa::PartialSchema>::schema();
    components.schemas.insert("Problem".into(), problem);
    components.security_schemes.insert("token".into(), RefOr::T(token));
    let problem = ResponseBuilder::new()
        .description("What went wrong")
        .content(PROBLEM_JSON, ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build())
        .build();
    for path in api.paths.paths.values_mut() {
        let operations = [&mut path.get, &mut path.post, &mut path.delete];
        for operation in operations.into_iter().flatten() {
            // The functions' names are unique with that of their resource alone.
            let tag = operation.tags.iter().flatten().next().cloned().unwrap_or_default();
            operation.operation_id = operation.operation_id.take().map(|name| format!("{tag}_{name}"));
            operation.responses.responses.insert("default".into(), RefOr::T(problem.clone()));
        }
    }
    api
}

/// A span that continues the caller's trace, and the metrics.
async fn observe(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| "other".to_owned(), |path| path.as_str().into());
    let span = info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = %method,
        http.route = route,
        url.path = request.uri().path(),
        http.response.status_code = Empty,
        otel.status_code = Empty,
    );
    let headers = request.headers();
    weir_telemetry::propagation::continue_from(&span, |name| headers.get(name)?.to_str().ok());
    let mut response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    span.in_scope(|| debug!(%method, route, status = status.as_u16(), "answered"));
    metrics::request(method.as_str(), &route, status.as_u16(), started.elapsed());
    // What strangers sent comes back in answers: no browser shall guess that it is a page.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Errors that were not made here (no such method, a body over the limit) as problems.
async fn only_problems(request: Request, next: Next) -> Response {
    let below_api = request.uri().path().starts_with("/api");
    let response = next.run(request).await;
    let status = response.status();
    let is_problem = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM_JSON);
    // `/readyz` answers 503 with its conditions, as it does on the service's own port.
    if is_problem || !(status.is_client_error() || status.is_server_error()) || (status.is_server_error() && !below_api)
    {
        return response;
    }
    let error = match status {
        StatusCode::METHOD_NOT_ALLOWED => Error::Method,
        StatusCode::NOT_FOUND => Error::NoRoute,
        StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge { what: "the body", limit: MAX_JSON_BYTES as u64 },
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Error::MediaType("the media type is not one that this takes".into()),
        status if status.is_client_error() => Error::Body(status.to_string()),
        status => Error::internal(status.to_string()),
    };
    let allow = response.headers().get(header::ALLOW).cloned();
    let mut problem = error.into_response();
    if let Some(allow) = allow {
        problem.headers_mut().insert(header::ALLOW, allow);
    }
    problem
}

async fn take_place(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match app.request_place() {
        Ok(_place) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the layer's signature")]
fn panicked(panic: Box<dyn std::any::Any + Send + 'static>) -> Response<Body> {
    let message = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Span::current().record("otel.status_code", "ERROR");
    Error::internal(io::Error::other(message.unwrap_or("a panic").to_owned())).into_response()
}
