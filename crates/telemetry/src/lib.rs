//! Logs, metrics, traces and their propagation: set up in one place, in one way, for every service.
//!
//! - logs go to standard error, as text or JSON lines, and carry the trace id of the span they were written in
//! - metrics are recorded with the macros of the `metrics` crate and rendered by [`Telemetry::render_metrics`] in the Prometheus text format
//! - traces are exported over OTLP/gRPC when `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) is set; the other standard
//!   variables (`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`, `OTEL_SDK_DISABLED`) hold too
//!
//! Nobody else in Weir depends on `opentelemetry`.

mod chain;
mod format;
pub mod propagation;
#[cfg(test)]
mod testing;

use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

pub use chain::chain;
pub use format::LogFormat;

/// Buckets for durations in seconds: from a local queue to a stuck peer.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// How a service logs.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Logging")]
#[group(id = "telemetry-options")]
pub struct Options {
    /// What to log: a level, or directives such as `info,weir_bus=debug`
    #[arg(
        long = "log",
        env = "WEIR_LOG",
        default_value = "info,async_nats=warn",
        value_name = "FILTER",
        global = true
    )]
    pub filter: String,
    /// Form of a log line
    #[arg(long, env = "WEIR_LOG_FORMAT", default_value = "text", value_name = "FORMAT", global = true)]
    pub log_format: LogFormat,
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter of `--log` does not parse.
    #[error("--log is not a valid filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Somebody installed a logger or a recorder before.
    #[error("telemetry is set up already")]
    Twice,
    /// The OTLP exporter cannot be built, for example for a malformed endpoint.
    #[error("cannot export traces")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The recorder refused its configuration.
    #[error("cannot record metrics")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// What [`init`] set up. Keep it until the service ends; [`Telemetry::shutdown`] sends the last spans.
#[derive(Clone)]
pub struct Telemetry {
    metrics: PrometheusHandle,
    traces: Option<SdkTracerProvider>,
}

/// Sets up logs, metrics and traces for the process. `service` is the default of `OTEL_SERVICE_NAME`, for example `weir-ingester`.
pub fn init(service: &'static str, options: &Options) -> Result<Telemetry, Error> {
    let traces = if wants_traces() { Some(tracer_provider(service)?) } else { None };
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());

    let to_otel = traces.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("weir"))
            .with_location(false)
            .with_threads(false)
            // The exporter's own client must not trace its exports.
            .with_filter(EnvFilter::new("info,h2=off,hyper=off,tonic=off,tower=off,opentelemetry=off,clickhouse=off"))
    });
    let to_stderr = tracing_subscriber::fmt::layer()
        .event_format(options.log_format)
        .with_writer(std::io::stderr)
        .with_filter(EnvFilter::try_new(&options.filter)?);
    tracing_subscriber::registry().with(to_otel).with(to_stderr).try_init().map_err(|_| Error::Twice)?;

    let metrics = PrometheusBuilder::new().set_buckets(&SECONDS)?.install_recorder().map_err(|_| Error::Twice)?;
    Ok(Telemetry { metrics, traces })
}

impl Telemetry {
    /// All metrics of this process in the Prometheus text exposition format.
    #[must_use]
    pub fn render_metrics(&self) -> String {
        self.metrics.render()
    }

    /// Drops what the recorder keeps only for rendering. Call it every few seconds when nobody scrapes.
    pub fn upkeep(&self) {
        self.metrics.run_upkeep();
    }

    /// Sends the spans that are still waiting, for at most five seconds.
    pub fn shutdown(&self) {
        if let Some(traces) = &self.traces
            && let Err(error) = traces.shutdown_with_timeout(Duration::from_secs(5))
        {
            eprintln!("weir: the last spans were not exported: {error}");
        }
    }
}

/// TCP ports of the receivers of traces that the environment names; for a process that confines itself before [`init`].
#[must_use]
pub fn ports() -> Vec<u16> {
    /// Of OTLP/gRPC.
    const DEFAULT: u16 = 4317;
    let endpoints = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
    let endpoints = endpoints.iter().filter_map(|name| std::env::var(name).ok());
    endpoints
        .filter(|endpoint| !endpoint.trim().is_empty())
        .map(|endpoint| port(&endpoint).unwrap_or(DEFAULT))
        .collect()
}

/// The port of a URL, if it names one.
fn port(url: &str) -> Option<u16> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    authority.rsplit_once(':')?.1.trim().parse().ok()
}

fn wants_traces() -> bool {
    let set = |name| std::env::var(name).is_ok_and(|value: String| !value.trim().is_empty());
    let disabled = std::env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    let none = std::env::var("OTEL_TRACES_EXPORTER").is_ok_and(|value| value == "none");
    !disabled && !none && (set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"))
}

fn tracer_provider(service: &'static str) -> Result<SdkTracerProvider, Error> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_protocol(opentelemetry_otlp::Protocol::Grpc)
        .build()?;
    // The builder reads both variables; what it is given wins over them, and ours is only the default.
    let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty())
        || std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|attributes| attributes.contains("service.name="));
    let resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    let resource = if named { resource } else { resource.with_service_name(service) }.build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_an_endpoint_is_the_one_that_it_names() {
        assert_eq!(port("http://collector:4317"), Some(4317));
        assert_eq!(port("https://user@[::1]:14317/v1?x=1:2"), Some(14317));
        assert_eq!(port("collector:99/"), Some(99));
        assert_eq!(port("http://collector/path:1"), None);
        assert_eq!(port("http://[::1]"), None);
    }
}
