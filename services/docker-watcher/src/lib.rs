//! docker-watcher: which containers there are, what they use, and what happens to them.
//!
//! # The path of a record through docker-watcher
//!
//! ```text
//!  Docker, Podman ─┐             ┌─ events ──┐
//!  containerd ─────┤             │           ├─► lives ──┬─ statements, events ─► outbox ─► Publisher ─► weir.records.containers
//!  CRI ────────────┼─► runtime ──┼─ inspect ─┘           ├─ identities ────────────────────► key-value weir-identities
//!  cgroups ────────┘             │                       └─ targets
//!                                └─ stats ◄── sampler ◄──────┘
//!                                     └─────► usage ─► outbox
//! ```
//! All of it but the publisher and the bucket is there once per source, so a runtime that hangs delays no other.
//!
//! 1. [`watcher`] holds the connection: it follows the events, inspects the containers that they name, and compares its view with the
//!    engine's list after each connect and every few minutes. An engine that is away is tried again for ever.
//! 2. [`runtime`] is one model of all runtimes. `docker`, `containerd` and `cri` turn what theirs says into Weir's messages, and `cgroup` does
//!    without any: it reads the control groups of this host. Nothing behind it knows which one it is.
//! 3. [`lives`] is the state without I/O: one life per start of a container. Events say *what happened*, inspections say *what exactly*.
//!    It answers with effects: an event, a statement about a life, an identity that changed, a container to inspect.
//! 4. [`sampler`] asks for the counters of every running container once per interval, and [`usage`] computes rates from
//!    the sample before.
//! 5. [`outbox`] makes batches (at most a quarter of a second old, with events a fortieth), and the publisher keeps them on disk until NATS has them.
//! 6. [`identities`] brings the key-value bucket to what the lives are, in its own time: NATS that is away delays nobody.

pub mod cgroup;
pub mod containerd;
pub mod cri;
pub mod docker;
pub mod filter;
pub mod grpc;
pub mod identities;
pub mod interfaces;
pub mod lives;
pub mod outbox;
pub mod position;
pub mod runtime;
pub mod sampler;
pub mod text;
pub mod usage;
pub mod watcher;

mod config;
mod error;
mod metrics;
mod pipeline;
mod sources;

pub use config::Config;
pub use docker::DockerHost;
pub use error::Error;
pub use pipeline::run;
