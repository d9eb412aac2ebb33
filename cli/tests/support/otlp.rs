//! An OTLP receiver: a real gRPC server that keeps the spans it is sent.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{ResourceSpans, Span as ProtoSpan},
};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// How long spans may take to arrive on a machine that builds at the same time.
const DEADLINE: Duration = Duration::from_secs(90);

/// A span as far as the tests look at it. Ids are lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// `service.name` of the process that made it.
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty = a root.
    pub(crate) parent: String,
    /// Traces that it is linked to.
    pub(crate) links: Vec<String>,
}

/// The spans of all processes, in the order in which they arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spans(Vec<Span>);

/// The receiver; it ends with the test's runtime.
pub(crate) struct Receiver {
    endpoint: String,
    spans: watch::Receiver<Spans>,
}

impl Receiver {
    /// Listens on loopback.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let (sender, spans) = watch::channel(Spans::default());
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Collector(sender)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(async move { server.await.expect("the receiver serves") });
        Ok(Self { endpoint, spans })
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Waits until `find` finds what it looks for among the spans that arrived.
    ///
    /// # Panics
    /// When that is not there in time; says which spans are.
    pub(crate) async fn wait_for<T>(&self, what: &str, mut find: impl FnMut(&Spans) -> Option<T>) -> T {
        let mut found = None;
        let mut spans = self.spans.clone();
        let arrived = spans.wait_for(|spans| {
            found = find(spans);
            found.is_some()
        });
        let in_time = tokio::time::timeout(DEADLINE, arrived).await.is_ok();
        found.unwrap_or_else(|| panic!("no {what} (waited: {}); there are {}", !in_time, self.spans.borrow().tree()))
    }
}

impl Spans {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Span> {
        self.0.iter()
    }

    /// The spans of one trace.
    pub(crate) fn of_trace(&self, trace_id: &str) -> impl Iterator<Item = &Span> {
        self.iter().filter(move |span| span.trace == trace_id)
    }

    /// The span, its parent, and so on, as far as they have arrived.
    pub(crate) fn ancestry<'a>(&'a self, span: &'a Span) -> Vec<&'a Span> {
        let mut seen = HashSet::new();
        std::iter::successors(Some(span), |span| self.of_trace(&span.trace).find(|parent| parent.id == span.parent))
            .take_while(|span| seen.insert(span.id.clone()))
            .collect()
    }

    /// For people: one line a span, traces together.
    fn tree(&self) -> String {
        let mut by_trace: HashMap<_, Vec<String>> = HashMap::new();
        for Span { service, name, trace, id, parent, links } in &self.0 {
            by_trace
                .entry(trace)
                .or_default()
                .push(format!("\n  trace {trace} span {id} parent {parent:16} {service}: {name} links {links:?}"));
        }
        by_trace.into_values().flatten().collect()
    }
}

struct Collector(watch::Sender<Spans>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let arrived: Vec<_> = request.into_inner().resource_spans.into_iter().flat_map(spans).collect();
        self.0.send_modify(|spans| spans.0.extend(arrived));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn spans(of_process: ResourceSpans) -> Vec<Span> {
    let attributes = of_process.resource.map(|resource| resource.attributes).unwrap_or_default();
    let service = text(&attributes, "service.name");
    let spans = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
    spans.map(|span| convert(&service, &span)).collect()
}

fn convert(service: &str, span: &ProtoSpan) -> Span {
    Span {
        service: service.to_owned(),
        name: span.name.clone(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        links: span.links.iter().map(|link| hex(&link.trace_id)).collect(),
    }
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let value = attributes.iter().find(|attribute| attribute.key == key).and_then(|found| found.value.as_ref());
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}
