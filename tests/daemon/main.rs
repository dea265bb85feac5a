//! The running daemon: its life cycle, sockets, log and metrics.
//!
//! - **Parts**: `life`, `handover` and `process` test the process, `sender_filter` whose frames are
//!   accepted, `lookup` Postfix's requests, `control` and `watch` those of operators; `log` and `metrics`.
//! - **Needs**: root; Postfix, whose postmap builds the map; rsyslog, a C compiler, and promtool in
//!   target/tools.

#[path = "../support/mod.rs"]
mod support;

mod control;
mod handover;
mod life;
mod log;
mod login_rules;
mod lookup;
mod metrics;
mod process;
mod sender_filter;
mod watch;
