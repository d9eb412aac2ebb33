//! Crashes on demand, for the tests: at these points a crash must change no count.

/// After which step of a block to crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Failpoint {
    /// The cut is written
    Cut,
    /// The first table has its rows
    Insert,
    /// All tables have their rows
    Inserts,
    /// The rows of deleted captures are gone
    Deletes,
    /// The first message is acked
    Ack,
    /// All messages are acked
    Acks,
}

/// Crashes if this is the point.
pub(crate) fn reached(wanted: Option<Failpoint>, point: Failpoint) {
    if wanted == Some(point) {
        tracing::error!(?point, "crashing as asked");
        // As SIGKILL: no destructor runs, nothing is flushed.
        std::process::abort();
    }
}
