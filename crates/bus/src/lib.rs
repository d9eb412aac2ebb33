//! NATS as Weir uses it: the only owner of `async-nats`.
//!
//! - [`names`]: streams, subjects, buckets
//! - [`Bus`]: the connection and the topology
//! - [`Publisher`]: batches with a spool on disk, for producers that must not wait
//! - [`RecordsReader`], [`JobsReader`]: work queues with the ack rule: *what is acked is done*
//! - [`Bucket`], [`Objects`]: key-value and objects
//! - [`Question`], [`Answer`]: a question whose answer comes in pieces, as fast as who asked takes them
//!
//! Every message goes out with the trace context of the current span and is received with [`Message::continue_trace`].

mod bucket;
mod codec;
mod connection;
mod error;
mod objects;
mod pieces;
mod publisher;
mod reader;
mod spool;
mod topology;

pub mod names;

pub use bucket::{Bucket, Change, Entry};
pub use codec::{DecodeError, MAX_DECODED_BYTES, PlainBatch, decode_batch, encode_batch};
pub use connection::{Bus, Options, purge};
pub use error::Error;
pub use objects::{ObjectChunks, ObjectReader, Objects, Stored};
pub use pieces::{Answer, AnswerError, Enough, PIECE_BYTES, Question, Questions, Wants};
pub use publisher::{Publisher, SpoolOptions};
pub use reader::{JobsReader, Message, RecordsReader};
