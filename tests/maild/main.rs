//! Real mail daemons as Debian ships them, with honest clients and others: their own log lines,
//! through rsyslogd, authorise the true address of each login and nothing else.
//!
//! - **Layers**: `dovecot`, `courier` and `servers` those to whom clients connect; `proxies` those
//!   that stand before them. Here what they share.
//! - **Needs**: root; mount, process and network namespaces; rsyslog; the mail daemons in
//!   target/tools, which tests/all unpacks.

#[path = "../support/mod.rs"]
mod support;

mod courier;
mod dovecot;
mod proxies;
mod servers;

use support::attack;
use support::client::{IMAP, POP3, Session};
use support::maild::{MailHost, PASSWORD};

/// Sessions at a time: Dovecot and Courier make those wait who fail.
const CROWD: usize = 280;

/// Logs joe in from some addresses, plays the attacks in so many sessions at a time, and logs him in
/// again: exactly these clients count.
fn logins_count_and_nothing_else(
    daemon: &str,
    host: &MailHost,
    clients: &[(&str, u16)],
    at_a_time: usize,
) {
    let (before, after) = clients.split_at(clients.len() / 2);
    let log_in = |(client, port): &(&str, u16)| {
        assert!(
            Session::open(client, *port).log_in("joe", PASSWORD),
            "{client} {port}\n{}",
            host.said()
        );
    };
    before.iter().for_each(log_in);
    let mut ports: Vec<_> = clients.iter().map(|(_, port)| *port).collect();
    ports.sort_unstable();
    ports.dedup();
    attack::try_all(&ports, at_a_time);
    // Strangers who do nothing are connected meanwhile: their addresses are in the log, too.
    let strangers: Vec<_> = attack::strangers().take(3).collect();
    let idle: Vec<_> = strangers.iter().map(|it| Session::open(it, ports[0])).collect();
    after.iter().for_each(log_in);
    drop(idle);
    let logins: Vec<_> = clients.iter().map(|(client, _)| (*client, "joe")).collect();
    host.counts_exactly(daemon, &logins);
}

/// Joe's; one address has a name.
const POP3_CLIENTS: &[(&str, u16)] = &[
    ("198.51.100.7", POP3),
    ("198.51.100.20", POP3),
    ("198.51.100.8", POP3),
    ("198.51.100.9", POP3),
];

const IPV4_CLIENTS: &[(&str, u16)] = &[
    ("198.51.100.7", POP3),
    ("198.51.100.20", IMAP),
    ("198.51.100.8", IMAP),
    ("198.51.100.9", POP3),
];

const CLIENTS: &[(&str, u16)] = &[
    ("198.51.100.7", POP3),
    ("2001:db8::7", IMAP),
    ("198.51.100.20", IMAP),
    ("2001:db8::8", POP3),
    ("198.51.100.8", IMAP),
    ("198.51.100.9", POP3),
];
