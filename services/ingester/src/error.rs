//! What ends the ingester, or one session of it.

/// Why reading and writing cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// NATS is away or its answer was lost: a new session goes on where the tables are.
    #[error("NATS does not answer")]
    Bus(#[from] weir_bus::Error),
    /// Another ingester has written a cut.
    #[error("another ingester has taken over the stream: only one can run")]
    TakenOver,
    /// What is stored as the cut cannot be understood, so it is not known what the tables have.
    #[error("the stored cut is damaged: {0}")]
    DamagedCut(&'static str),
    /// Told to stop before it was done; what is not acked comes again.
    #[error("stopped")]
    Stopped,
}
