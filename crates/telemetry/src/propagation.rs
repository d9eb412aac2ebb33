//! W3C trace context across process borders: into the headers of a message or request, and out of them.

use opentelemetry::{
    Context,
    propagation::{Extractor, Injector},
    trace::TraceContextExt as _,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The headers to send along, so that what the receiver does continues the trace of `span`. Empty when nothing is traced.
#[must_use]
pub fn headers_of(span: &Span) -> Vec<(String, String)> {
    let mut headers = Headers(Vec::new());
    opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.inject_context(&span.context(), &mut headers);
    });
    headers.0
}

/// Makes `span` a child of what the sender described in its headers; `get` looks one header up. Without a valid header the span starts
/// a trace of its own.
pub fn continue_from<'a>(span: &Span, get: impl Fn(&str) -> Option<&'a str>) {
    let remote = extract(get);
    if remote.span().span_context().is_valid() {
        // It fails only for a span that nobody records; there is nothing to continue then.
        let _unrecorded = span.set_parent(remote);
    }
}

/// Says that `span` also came from what the sender described: for work that serves several traces at once.
pub fn link_to<'a>(span: &Span, get: impl Fn(&str) -> Option<&'a str>) {
    span.add_link(extract(get).span().span_context().clone());
}

/// The trace id of `span` as 32 hexadecimal digits, where it is traced.
#[must_use]
pub fn trace_id(span: &Span) -> Option<String> {
    let context = span.context();
    let span_context = context.span().span_context().clone();
    span_context.is_valid().then(|| span_context.trace_id().to_string())
}

/// The headers of the W3C trace context.
const NAMES: [&str; 2] = ["traceparent", "tracestate"];

fn extract<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Context {
    let headers = Headers(NAMES.iter().filter_map(|name| Some(((*name).to_owned(), get(name)?.to_owned()))).collect());
    opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &headers)
    })
}

struct Headers(Vec<(String, String)>);

impl Injector for Headers {
    fn set(&mut self, key: &str, value: String) {
        if !value.is_empty() {
            self.0.push((key.to_owned(), value));
        }
    }
}

impl Extractor for Headers {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use tracing::info_span;

    use super::*;
    use crate::testing::recorded;

    const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
    const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn header<'a>(headers: &'a [(String, String)]) -> impl Fn(&str) -> Option<&'a str> {
        |name| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    fn traceparent(value: &str) -> Vec<(String, String)> {
        vec![("traceparent".to_owned(), value.to_owned())]
    }

    #[test]
    fn what_the_receiver_does_continues_the_trace_of_the_sender() {
        let recorded = recorded();
        {
            let sender = info_span!("send");
            let headers = headers_of(&sender);
            let receiver = info_span!("receive");
            continue_from(&receiver, header(&headers));
            assert_eq!(trace_id(&receiver), trace_id(&sender));
        }
        let (sent, received) = (recorded.span("send").unwrap(), recorded.span("receive").unwrap());
        assert_eq!(received.span_context.trace_id(), sent.span_context.trace_id());
        assert_eq!(received.parent_span_id, sent.span_context.span_id());
        assert!(received.parent_span_is_remote);
    }

    #[test]
    fn a_traceparent_from_outside_is_continued_and_its_state_passed_on() {
        recorded();
        let mut headers = traceparent(TRACEPARENT);
        headers.push(("tracestate".to_owned(), "vendor=1".to_owned()));
        let span = info_span!("continued");
        continue_from(&span, header(&headers));
        assert_eq!(trace_id(&span).as_deref(), Some(TRACE_ID));
        let onward = headers_of(&span);
        assert!(header(&onward)("traceparent").unwrap().starts_with(&format!("00-{TRACE_ID}-")), "{onward:?}");
        assert_eq!(header(&onward)("tracestate"), Some("vendor=1"));
    }

    #[test]
    fn a_broken_header_starts_a_trace_of_its_own() {
        recorded();
        for broken in ["", "00-0-0-01", "garbage", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
            let span = info_span!("broken");
            continue_from(&span, header(&traceparent(broken)));
            assert!(trace_id(&span).is_some(), "{broken}");
        }
    }

    #[test]
    fn a_trace_that_its_sender_does_not_sample_is_not_exported_but_passed_on() {
        let recorded = recorded();
        {
            let span = info_span!("unsampled");
            continue_from(&span, header(&traceparent(&TRACEPARENT.replace("-01", "-00"))));
            let onward = headers_of(&span);
            assert!(header(&onward)("traceparent").unwrap().ends_with("-00"), "{onward:?}");
        }
        assert!(recorded.span("unsampled").is_none());
    }

    #[test]
    fn a_span_links_to_the_other_traces_that_it_serves() {
        let recorded = recorded();
        {
            let span = info_span!("linked");
            link_to(&span, header(&traceparent(TRACEPARENT)));
            link_to(&span, header(&[]));
        }
        let span = recorded.span("linked").unwrap();
        let links: Vec<_> = span.links.iter().map(|link| link.span_context.trace_id().to_string()).collect();
        assert_eq!(links, [TRACE_ID]);
        assert_ne!(span.span_context.trace_id().to_string(), TRACE_ID);
    }

    #[test]
    fn nothing_is_sent_along_where_nothing_is_traced() {
        recorded();
        assert_eq!(headers_of(&tracing::Span::none()), []);
        assert_eq!(trace_id(&tracing::Span::none()), None);
    }
}
