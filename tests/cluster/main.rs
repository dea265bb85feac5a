//! Several hosts with one set of clients: real daemons, each with a real Postfix, and a real Redis.
//!
//! - **Parts**: `faults` breaks the store, `hosts` the hosts and their network, `mail` is a login on a
//!   third machine that lets a client relay through two.
//! - **Needs**: the feature `cluster`; root; Postfix, rsyslog; a C compiler; Redis and Dovecot in
//!   target/tools; network namespaces.

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod hosts;
mod mail;
mod site;
