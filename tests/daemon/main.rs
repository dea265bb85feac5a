//! The running daemon: its life, its sockets, its log, its numbers.
//!
//! Layers   `life`, `handover` and `conduct` the process; `sender_filter` whose frames count; `lookup` who
//!          asks; `operators` who commands; `log` and `metrics` what it tells.
//! Needs    root; Postfix, whose postmap builds the map; rsyslog, a C compiler, and in target/tools
//!          promtool.

#[path = "../support/mod.rs"]
mod support;

mod conduct;
mod handover;
mod life;
mod log;
mod lookup;
mod metrics;
mod operators;
mod sender_filter;
