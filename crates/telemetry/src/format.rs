//! The form of a log line: time, level, target, fields, and the trace that it belongs to.

use std::fmt::{self, Write as _};

use opentelemetry::trace::TraceContextExt as _;
use serde_json::{Map, Value};
use tracing::{Dispatch, Event, Subscriber, dispatcher, field::Visit};
use tracing_subscriber::{
    Registry,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer, time::FormatTime, time::SystemTime},
    registry::LookupSpan,
};

/// Form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line, for programs
    Json,
}

impl<S, N> FormatEvent<S, N> for LogFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields(Map::new());
        event.record(&mut fields);
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let trace = dispatcher::get_default(|dispatch| trace_of(event, dispatch));
        let line = Line { time, event, fields: fields.0, trace };
        match self {
            Self::Text => line.write_text(&mut writer),
            Self::Json => line.write_json(&mut writer),
        }
    }
}

struct Line<'a, 'b> {
    time: String,
    event: &'a Event<'b>,
    fields: Map<String, Value>,
    trace: Option<(String, String)>,
}

impl Line<'_, '_> {
    fn write_text(mut self, writer: &mut Writer<'_>) -> fmt::Result {
        let metadata = self.event.metadata();
        let message = self.fields.remove("message");
        write!(writer, "{} {:>5} {}:", self.time, metadata.level(), metadata.target())?;
        if let Some(message) = message {
            write!(writer, " {}", one_line(message.as_str().unwrap_or_default()))?;
        }
        for (name, value) in &self.fields {
            match value {
                Value::String(text) => write!(writer, " {name}={}", one_line(text))?,
                other => write!(writer, " {name}={other}")?,
            }
        }
        if let Some((trace_id, _)) = &self.trace {
            write!(writer, " trace_id={trace_id}")?;
        }
        writeln!(writer)
    }

    fn write_json(self, writer: &mut Writer<'_>) -> fmt::Result {
        let metadata = self.event.metadata();
        let mut object = Map::new();
        object.insert("timestamp".into(), self.time.into());
        object.insert("level".into(), metadata.level().as_str().into());
        object.insert("target".into(), metadata.target().into());
        object.extend(self.fields);
        if let Some((trace_id, span_id)) = self.trace {
            object.insert("trace_id".into(), trace_id.into());
            object.insert("span_id".into(), span_id.into());
        }
        writeln!(writer, "{}", Value::Object(object))
    }
}

/// Control characters come from strangers' names too; a log line stays one line.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// Trace and span of the innermost span around the event that is traced. The registry is asked and not the log layer's context, which
/// knows no spans below the level that is logged.
fn trace_of(event: &Event<'_>, dispatch: &Dispatch) -> Option<(String, String)> {
    let around = match event.parent() {
        Some(parent) => parent.clone(),
        None if event.is_contextual() => dispatch.current_span().id()?.clone(),
        None => return None,
    };
    let innermost = dispatch.downcast_ref::<Registry>()?.span(&around)?;
    let otel = innermost.scope().find_map(|span| tracing_opentelemetry::get_otel_context(&span.id(), dispatch))?;
    let span_context = otel.span().span_context().clone();
    span_context.is_valid().then(|| (span_context.trace_id().to_string(), span_context.span_id().to_string()))
}

struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a String cannot fail; a Debug that does leaves what it wrote.
        let _written = write!(text, "{value:?}");
        self.0.insert(field.name().to_owned(), text.into());
    }

    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &tracing::field::Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_f64(&mut self, field: &tracing::field::Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &tracing::field::Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_error(&mut self, field: &tracing::field::Field, value: &(dyn std::error::Error + 'static)) {
        self.0.insert(field.name().to_owned(), crate::chain(value).into());
    }
}

#[cfg(test)]
mod tests {
    use tracing::{debug_span, info, info_span, warn};
    use tracing_subscriber::EnvFilter;

    use super::*;
    use crate::testing::recorded;

    #[test]
    fn a_text_line_holds_message_fields_and_trace_id() {
        let logs = recorded();
        let span = info_span!("work");
        let trace_id = crate::propagation::trace_id(&span).unwrap();
        span.in_scope(|| info!(rows = 3, name = "a b", "inserted text"));
        let line = logs.text.line_with("inserted text");
        assert!(line.contains("  INFO weir_telemetry::format::tests: inserted text"), "{line}");
        assert!(line.ends_with(&format!(" name=a b rows=3 trace_id={trace_id}")), "{line}");
    }

    #[test]
    fn a_json_line_is_one_object_with_trace_and_span_id() {
        let logs = recorded();
        let span = info_span!("work");
        let trace_id = crate::propagation::trace_id(&span).unwrap();
        span.in_scope(|| info!(rows = 3, ready = true, "inserted json"));
        let line: Value = serde_json::from_str(&logs.json.line_with("inserted json")).unwrap();
        assert_eq!(line["message"], "inserted json");
        assert_eq!(line["level"], "INFO");
        assert_eq!((&line["rows"], &line["ready"]), (&Value::from(3), &Value::from(true)));
        assert_eq!(line["trace_id"], trace_id);
        assert_eq!(line["span_id"].as_str().unwrap().len(), 16);
    }

    #[test]
    fn a_line_outside_of_any_span_has_no_trace_id() {
        let logs = recorded();
        info!("lonely");
        assert!(!logs.text.line_with("lonely").contains("trace_id"));
        assert!(!logs.json.line_with("lonely").contains("trace_id"));
    }

    #[test]
    fn a_log_that_shows_only_warnings_still_says_which_trace_they_belong_to() {
        let logs = recorded();
        let span = info_span!("work");
        let trace_id = crate::propagation::trace_id(&span).unwrap();
        span.in_scope(|| warn!("a quiet warning"));
        assert!(logs.quiet.line_with("a quiet warning").ends_with(&trace_id));
    }

    #[test]
    fn a_span_that_is_not_traced_passes_on_the_trace_around_it() {
        let logs = recorded();
        let span = info_span!("work");
        let trace_id = crate::propagation::trace_id(&span).unwrap();
        span.in_scope(|| debug_span!("detail").in_scope(|| info!("deep inside")));
        assert!(logs.text.line_with("deep inside").ends_with(&trace_id));
    }

    #[test]
    fn an_event_with_a_parent_of_its_own_belongs_to_that_trace() {
        let logs = recorded();
        let (around, parent) = (info_span!("around"), info_span!("parent"));
        let trace_id = crate::propagation::trace_id(&parent).unwrap();
        around.in_scope(|| info!(parent: &parent, "adopted"));
        assert!(logs.text.line_with("adopted").ends_with(&trace_id));
    }

    #[test]
    fn a_name_with_a_line_break_stays_on_its_line() {
        let logs = recorded();
        info!(container = "evil\n2026-01-01 ERROR forged", "named by a stranger");
        let line = logs.text.line_with("named by a stranger");
        assert!(line.contains("container=evil\\n2026-01-01 ERROR forged"), "{line}");
    }

    #[test]
    fn an_error_is_logged_with_its_causes() {
        let logs = recorded();
        let error = crate::Error::Filter(EnvFilter::try_new("weir=nonsense").unwrap_err());
        warn!(error = &error as &dyn std::error::Error, "cannot go on");
        let line = logs.text.line_with("cannot go on");
        assert!(line.contains("error=--log is not a valid filter: "), "{line}");
    }
}
