//! What the service counts, beside what its libraries count.

use std::time::Duration;

/// A request that was answered (the head of the answer; a streamed body may follow).
pub(crate) fn request(method: &str, route: &str, status: u16, took: Duration) {
    let labels = [("method", method.to_owned()), ("route", route.to_owned()), ("status", status.to_string())];
    metrics::counter!("weir_http_requests_total", &labels).increment(1);
    metrics::histogram!("weir_http_request_seconds", &labels[..2]).record(took);
}

/// SQL that was refused before it ran; the label is the end of the problem's type.
pub(crate) fn refused(kind: &'static str) {
    metrics::counter!("weir_sql_refused_total", "reason" => kind).increment(1);
}

/// A streamed answer that ended in its middle.
pub(crate) fn broken(reason: &'static str) {
    metrics::counter!("weir_http_streams_broken_total", "reason" => reason).increment(1);
}

/// Uploads whose service was killed in their middle, removed.
pub(crate) fn swept(uploads: u64) {
    metrics::counter!("weir_uploads_swept_total").increment(uploads);
}

/// An upload and what became of it: `new`, `known`, `refused`, `broken`, `failed`.
pub(crate) fn upload(outcome: &'static str, bytes: u64) {
    metrics::counter!("weir_uploads_total", "outcome" => outcome).increment(1);
    metrics::counter!("weir_upload_bytes_total", "outcome" => outcome).increment(bytes);
}

/// A recording that was asked for and what became of it: `off`, `refused`, `recorded`, `cancelled`, `deleted`, `failed`.
pub(crate) fn recording(outcome: &'static str, bytes: u64) {
    metrics::counter!("weir_live_captures_total", "outcome" => outcome).increment(1);
    metrics::counter!("weir_live_capture_bytes_total", "outcome" => outcome).increment(bytes);
}

/// An event for a webhook and what became of it: `delivered`, `dead_letter`.
pub(crate) fn webhook(outcome: &'static str) {
    metrics::counter!("weir_webhook_events_total", "outcome" => outcome).increment(1);
}
