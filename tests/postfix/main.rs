//! The daemon and a real Postfix: the replies to RCPT.
//!
//! - **Layers**: `rig` tests the other programs without the daemon; `postmap` the map and what can
//!   go wrong with it; `relay` the whole path from a login to the reply; `live` direct queries by
//!   Postfix; `owners` senders that belong to logins; `limits` how
//!   much is relayed; `snippets` the files of deploy/postfix.
//! - **Needs**: root; Postfix with lmdb and cdb, rsyslog and syslog-ng; mounts.

#[path = "../support/mod.rs"]
mod support;

mod limits;
mod live;
mod owners;
mod postmap;
mod relay;
mod rig;
mod snippets;
