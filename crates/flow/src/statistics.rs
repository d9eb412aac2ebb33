//! Figures over time in fixed memory, whatever the length of a capture.

mod bursts;
mod histogram;
mod series;

pub use bursts::{Burst, Bursts};
pub use histogram::Histogram;
pub use series::{Bucket, Series};
