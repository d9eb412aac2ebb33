//! The programs in a real kernel, between network namespaces: what is reported equals what interfaces and sockets count.
//!
//! Needs root and Linux 6.6 or later; elsewhere each test says that it was skipped and why.

mod alone;
mod coexist;
mod contained;
mod demand;
mod exact;
mod frames;
mod interfaces;
mod killed;
mod ledger;
mod names;
mod nat;
mod pace;
mod pin;
mod publishing;
mod resize;
mod rights;
mod select;
mod story;
mod support;
mod who;
