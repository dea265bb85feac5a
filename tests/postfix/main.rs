//! The daemon and a real Postfix: what a client gets at RCPT.
//!
//! Layers   `rig` what the other programs do without the daemon; `postmap` the map and what can go
//!          wrong with it; `relay` the whole road from a login to the answer; `live` Postfix asks
//!          directly; `owners` senders that belong to logins; `snippets` the files of deploy/postfix.
//! Needs    root; Postfix with lmdb and cdb, rsyslog and syslog-ng; mounts.

#[path = "../support/mod.rs"]
mod support;

mod live;
mod owners;
mod postmap;
mod relay;
mod rig;
mod snippets;
