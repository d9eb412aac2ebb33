//! The domain without I/O: how bytes of a frame become records.
//!
//! # The path of a packet through this crate
//!
//! ```text
//! frame ── packet::link ── packet::ip ── fragments ── packet::transport ──┬── tracker ── app, rtp ────► Flow
//!             (VLAN, MPLS, PPPoE)  ▲                        │              ├── stream ──┬── http ─────► Http
//!                                  └── packet::tunnel ◄─────┘              │            ├── tls, quic ► Tls
//!                                                                          └────────────┴── dns ──────► Dns
//! ```
//!
//! [`Analyzer`] walks this path for each frame of a capture. Every stage is a pure function or a bounded table; the only clock is the
//! time of the packets. The same frames in the same order always give the same records in the same order, which is what makes an
//! analysis that is done twice countable once.
//!
//! What flows, exchanges and a few packets say together becomes [`findings`] at the end; figures over time are in [`statistics`].
//!
//! A packet inside another IP packet is counted in two flows: the outer one, and the inner one, whose `tunnel` is not empty. What was on
//! the wire is therefore the sum over the flows with an empty `tunnel`.

pub mod analyzer;
pub mod app;
mod bytes;
mod community;
pub mod dns;
pub mod findings;
pub mod fragments;
pub mod http;
pub mod key;
pub mod packet;
pub mod quic;
mod rows;
pub mod rtp;
pub mod statistics;
pub mod stream;
mod table;
pub mod tcp;
pub mod tls;

pub mod tracker;

pub use analyzer::{Analyzer, Config, Frame, Record};
pub use community::community_id;
pub use key::{Direction, Endpoint, Key};
