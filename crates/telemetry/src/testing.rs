//! Logs and spans of the tests of this crate. One subscriber for the whole process: only such a one is seen from within the writing of a
//! line.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, OnceLock},
};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt as _, registry::LookupSpan};

use crate::LogFormat;

/// What was logged in three forms, and the spans that ended.
#[derive(Default)]
pub(crate) struct Recorded {
    pub(crate) text: Log,
    pub(crate) json: Log,
    /// Text, warnings only.
    pub(crate) quiet: Log,
    spans: Spans,
}

/// The one log of this process.
pub(crate) fn recorded() -> &'static Recorded {
    static RECORDED: OnceLock<Recorded> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let recorded = Recorded::default();
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        let traces = SdkTracerProvider::builder().with_simple_exporter(recorded.spans.clone()).build();
        let to_otel = tracing_opentelemetry::layer().with_tracer(traces.tracer("test"));
        let subscriber = tracing_subscriber::registry()
            .with(to_otel.with_filter(EnvFilter::new("info")))
            .with(recorded.text.layer(LogFormat::Text, "debug"))
            .with(recorded.json.layer(LogFormat::Json, "debug"))
            .with(recorded.quiet.layer(LogFormat::Text, "warn"));
        tracing::subscriber::set_global_default(subscriber).unwrap();
        recorded
    })
}

impl Recorded {
    /// The ended span of that name, if it was sampled.
    pub(crate) fn span(&self, name: &str) -> Option<SpanData> {
        self.spans.0.lock().unwrap().iter().find(|span| span.name == name).cloned()
    }
}

/// Lines.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The one line that holds `part`.
    pub(crate) fn line_with(&self, part: &str) -> String {
        let log = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let mut lines = log.lines().filter(|line| line.contains(part));
        let line = lines.next().unwrap_or_else(|| panic!("no line with {part} in {log}")).to_owned();
        assert_eq!(lines.next(), None);
        line
    }

    fn layer<S>(&self, format: LogFormat, filter: &str) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let log = self.clone();
        tracing_subscriber::fmt::layer()
            .event_format(format)
            .with_writer(move || log.clone())
            .with_filter(EnvFilter::new(filter))
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}
