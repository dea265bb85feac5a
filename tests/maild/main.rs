//! Real mail daemons as Debian ships them, with honest clients and others: their own log lines,
//! through rsyslogd, authorise the true address of each login and nothing else.
//!
//! Needs    root; mount, process and network namespaces; rsyslog; the mail daemons in target/tools,
//!          which tests/all unpacks.

#[path = "../support/mod.rs"]
mod support;

mod dovecot_courier;
mod others;
