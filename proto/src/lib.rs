//! The messages that Weir's services exchange, generated from `proto/weir/v1/*.proto`.
//!
//! The generated code is checked in, so that a build needs no protobuf compiler; `tests/generated.rs` fails when it no longer follows
//! from the `.proto` files and says how to renew it.

#[expect(
    clippy::all,
    clippy::pedantic,
    missing_docs,
    reason = "generated code is not ours to style"
)]
#[rustfmt::skip]
mod generated;

mod address;
pub mod batch;
mod names;
mod reset;

pub use address::Ip;
pub use generated::*;

/// Version of the batch schema, in the `Weir-Version` header of each message. A reader refuses what is newer than it knows.
pub const VERSION: u32 = 1;
